"""The folder that `cvxrelu fit` writes and `predict` reads: network.safetensors, solution.json, perhaps report.html."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.columns import Column, Plan
from cvxrelu.command_line.tables import Table
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.runs.solution import Solution
from cvxrelu.support.files import atomic_write
from cvxrelu.support.stored import damage, read_json, short

__all__ = ["FILES", "Model", "check_folder", "describe", "read_model", "write_model"]

_FORMAT, _FORMAT_VERSION = "cvxrelu-model", 2  # version 1 had no columns, only numbers
_NETWORK, _RECORD = "network.safetensors", "solution.json"
FILES = (_NETWORK, _RECORD, "report.html")


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network and what it was trained on; `feature_names` and `target` None where there was no header."""

    network: ReLUNetwork
    feature_names: list[str] | None
    target: str | None
    classes: list[Any] | None
    plan: Plan | None = None
    layout: tuple[int, list[int]] | None = None  # of a training table without header: its columns, and the features

    @property
    def wanted(self) -> list[str]:
        """Names of the columns that a table must have, none where the training table had no header."""
        if self.plan is not None:
            return [column.name for column in self.plan.columns] if self.feature_names is not None else []
        return self.feature_names or []

    def features(self, table: Table) -> tuple[np.ndarray, list[str]]:
        """(what the network takes of a table, notes): columns by name where both have names, else by position."""
        names = self.wanted or None
        d = self.network.n_features if self.plan is None else len(self.plan.columns)
        positions, notes = self._positions(table, names, d)
        if self.plan is None:
            return table.numbers(positions), notes
        values, more = self.plan.encode(table, positions)
        return values, notes + more

    def _positions(self, table: Table, names: list[str] | None, d: int) -> tuple[list[int], list[str]]:
        if names is None or table.names is None:
            if self.layout is not None and table.n_columns == self.layout[0]:
                return self.layout[1], []  # the columns that were left out in training are there too
            if table.n_columns != d:
                raise UserError(
                    f"{table.path}: {table.n_columns} columns; the model takes {d} features, without the target"
                )
            return list(range(d)), []
        absent = [name for name in names if name not in table.names]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise UserError(f"{table.path}: the model's feature {absent[0]!r}{more} is not among the columns")
        unknown = [name for name in table.names if name not in names and name != self.target]
        notes = [f"columns that are no features of the model are left out: {', '.join(map(repr, unknown[:5]))}"]
        return [table.names.index(name) for name in names], notes if unknown else []


def read_model(folder: Path) -> Model:
    """The model in a folder that `write_model` filled."""
    try:
        record = read_json(folder / _RECORD)
        network = ReLUNetwork.load(folder / _NETWORK)
        with damage(folder / _RECORD):
            return _model(network, record)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: not a folder that `cvxrelu fit` wrote ({error})") from error


def _model(network: ReLUNetwork, record: Mapping[str, Any]) -> Model:
    """A network and what its record says of it; ValueError where the two do not fit, or the record is another's."""
    if record.get("format") != _FORMAT:
        raise ValueError(f"its format is {short(record.get('format'))}; expected {_FORMAT!r}")
    if type(version := record.get("format_version")) is not int or not 1 <= version <= _FORMAT_VERSION:
        raise ValueError(
            f"its format version is {short(version)}; this cvxrelu reads 1 to {_FORMAT_VERSION}: update it"
        )
    names, target, classes = (record[name] for name in ("feature_names", "target", "classes"))
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and not (texts and len(set(names)) == len(names) == network.n_features):
        raise ValueError(f"feature_names must be null or {network.n_features} different texts")
    if target is not None and not isinstance(target, str):
        raise ValueError(f"target must be null or a text, got {short(target)}")
    count = 2 if network.n_outputs == 1 else network.n_outputs
    plain = isinstance(classes, list) and all(isinstance(item, (str, int, float)) for item in classes)
    if classes and not (plain and len(set(classes)) == len(classes) == count):
        raise ValueError(f"classes must be null or {count} different texts or numbers, as the network has outputs")
    if not classes and (network.n_outputs != 1 or classes not in (None, [])):
        raise ValueError(f"classes must be a list, as the network has {network.n_outputs} outputs")
    plan = None if record.get("columns") is None else _plan(record["columns"])
    if plan is not None and len(plan.features) != network.n_features:
        raise ValueError(f"columns make {len(plan.features)} features; expected {network.n_features}")
    layout = None if plan is None or record.get("layout") is None else _layout(record["layout"], len(plan.columns))
    return Model(network, names, target, classes, plan, layout)


def _layout(found: Any, count: int) -> tuple[int, list[int]]:
    """(columns of a table, positions of the features among them)."""
    width, places = (found.get("columns"), found.get("features")) if isinstance(found, Mapping) else (None, None)
    if (
        type(width) is not int or not isinstance(places, list) or len(places) != count
        or not all(type(k) is int and 0 <= k < width for k in places) or len(set(places)) < count
    ):  # fmt: skip
        raise ValueError(f"layout must be null, or a number of columns and {count} different positions among them")
    return width, places


def _plan(columns: Any) -> Plan:
    if not isinstance(columns, list) or not columns:
        raise ValueError("columns must be null or a list")
    found = [Column.of(column) for column in columns]
    if len({column.name for column in found}) < len(found):
        raise ValueError("two columns have the same name")
    return Plan(found, [])


def write_model(folder: Path, network: ReLUNetwork, record: Mapping[str, Any]) -> None:
    """Write the network and `record` into a folder. `read_model` needs feature_names, target and classes in it."""
    network.save(folder / _NETWORK)
    record = {"format": _FORMAT, "format_version": _FORMAT_VERSION, **record}
    atomic_write(folder / _RECORD, json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")


def describe(solution: Solution) -> dict[str, Any]:
    """What `solution.json` says of the solve; names as in `cvxrelu.Solution`."""
    sampled, certificate = solution.sampled, solution.certificate
    names = ("status", "message", "objective", "lower_bound", "gap", "n_rounds", "n_iter")
    result = {name: getattr(solution, name) for name in names}
    result["certificate"] = {name: getattr(certificate, name) for name in ("kind", "rigorous", "starts")}
    result["sampled"] = None
    if sampled is not None:
        result["sampled"] = {name: getattr(sampled, name) for name in ("status", "objective", "lower_bound", "gap")}
        result["sampled"]["patterns"] = sampled.patterns.shape[1]
    result["n_neurons"] = solution.network.n_neurons
    result |= {name: getattr(solution, name) for name in ("timings", "backend", "dtype", "device")}
    return result


def _plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse to write over anything but, with --overwrite, a folder that holds a model and nothing else."""
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        what = "symbolic link" if out.is_symlink() else "file"
        raise UserError(f"--out {out}: a {what} is in the way; expected the name of a new folder")
    inside = sorted(file.name for file in out.iterdir())
    if inside and not overwrite:
        raise UserError(f"--out {out}: the folder is not empty; choose another, or pass --overwrite to replace a model")
    foreign = [name for name in inside if name not in FILES]
    if foreign:
        raise UserError(f"--out {out}: holds {foreign[0]!r}, which is no part of a model; --overwrite would delete it")
