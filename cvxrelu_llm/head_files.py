"""A head on disk: a folder with its network, its settings, and a model card.

    network.safetensors        the network of raw features (`ReLUNetwork.load` reads it)
    standardised.safetensors   the same on standardised features, to solve on from
    standard.safetensors       center, scale and components that lead from the first to the second
    head.json                  options, feature settings, choice, certificate, calibration, hash of the data, metrics
    README.md                  the model card, made from head.json

The training pairs themselves are not kept: `attach` gives them back, and knows them by their hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from cvxrelu import ReLUNetwork
from cvxrelu_llm.calibration import Calibration
from cvxrelu_llm.errors import InputError
from cvxrelu_llm.files import new_folder, write_whole
from cvxrelu_llm.head_rule import Point
from cvxrelu_llm.head_selection import Choice
from cvxrelu_llm.reward import ConvexRewardHead
from cvxrelu_llm.standard import Standard

__all__ = ["model_card", "read_head", "write_head"]

FORMAT = "cvxrelu-reward-head"


def write_head(head: ConvexRewardHead, folder: Path, metrics: Mapping[str, Any]) -> Path:
    """Write `folder` as a whole; one that is there already is refused unless it is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; expected the name of a new folder, or an empty one")
    record = describe(head, metrics)
    arrays = {"center": head.standard.center, "scale": head.standard.scale}
    if head.standard.basis is not None:
        arrays["basis"] = np.ascontiguousarray(head.standard.basis)
    with new_folder(folder) as work:
        head.network.save(work / "network.safetensors")
        head.standardised.save(work / "standardised.safetensors")
        write_whole(work / "standard.safetensors", save(arrays, {"format": FORMAT}))
        write_whole(work / "head.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        write_whole(work / "README.md", model_card(record).encode())
    return folder


def describe(head: ConvexRewardHead, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`head.json`."""
    choice = head.choice
    return plain(
        {
            "format": FORMAT,
            "format_version": 1,
            "options": head.options,
            "features": head.feature_settings,
            "n_features": head.network.n_features,
            "n_neurons": head.n_neurons,
            "lipschitz": head.lipschitz,
            "certificate": head.certificate,
            "choice": {
                "skip_l2": choice.skip_l2,
                "beta": choice.beta,
                "points": [point._asdict() for point in choice.points],
                "groups": choice.n_groups,
            },
            "calibration": None if head.calibration is None else head.calibration._asdict(),
            "data": {"sha256": head.data_hash, "pairs": head.n_pairs, "groups": head.n_groups},
            "metrics": dict(metrics),
        }
    )


def plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, infinity and NaN as words."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("inf", "nan", "-inf") else value


def read_head(folder: Path) -> ConvexRewardHead:
    """The head in a folder that `write_head` filled; InputError names what is wrong with another one."""
    try:
        record = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        if record.get("format") != FORMAT:
            raise InputError(f"{folder}: not a folder of a reward head")
        options = {name: _number(value) for name, value in record["options"].items()}
        head = ConvexRewardHead(**options)
        arrays = load_file(folder / "standard.safetensors")
        head.network = ReLUNetwork.load(folder / "network.safetensors")
        head.standardised = ReLUNetwork.load(folder / "standardised.safetensors")
        head.standard = Standard(arrays["center"], arrays["scale"], arrays.get("basis"))
        head.feature_settings = record["features"]
        head.certificate = record["certificate"]
        head.classifier_gap = _number(head.certificate.get("classifier_gap"))
        points = [Point(**{k: _number(v) for k, v in point.items()}) for point in record["choice"]["points"]]
        chosen = record["choice"]
        head.choice = Choice(chosen["skip_l2"], chosen["beta"], points, None, chosen["groups"])
        head.calibration = None if record["calibration"] is None else Calibration(**record["calibration"])
        head.data_hash = record["data"]["sha256"]
        head.n_pairs, head.n_groups = record["data"]["pairs"], record["data"]["groups"]
        head.metrics = record["metrics"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        raise InputError(f"{folder}: not a folder of a reward head, or a damaged one ({error})") from error
    return head


def model_card(record: Mapping[str, Any]) -> str:
    """README.md, with the metadata that model hubs read at its top."""
    features, certificate, calibration = record["features"], record["certificate"], record["calibration"]
    bound = "rigorous" if certificate["rigorous"] else "an estimate, by ascents that may have missed something"
    beta = "above beta_max: no neurons" if record["choice"]["beta"] is None else f"{record['choice']['beta']:.6g}"
    rows = [
        ("program", certificate["program"]),
        ("neurons", record["n_neurons"]),
        ("skip_l2, or ridge of the last layer", f"{record['choice']['skip_l2']:.6g}"),
        ("beta", beta),
        ("status", ": ".join(filter(None, (certificate["status"], certificate.get("message"))))),
        ("objective", f"{certificate['objective']:.8g}"),
        ("lower bound", f"{certificate['lower_bound']:.8g} ({certificate['kind']}; {bound})"),
        ("relative gap", f"{certificate['gap']:.2e}"),
        ("Lipschitz constant, at most", f"{record['lipschitz']:.6g} in raw features"),
    ]
    lines = [
        "---", "library_name: cvxrelu", "tags:", "- reward-model", "- preference", "---", "",
        "# Reward head", "",
        "A two-layer ReLU network on features of a language model, fitted to preferences by a convex program.",
        "Rewards of two answers to one prompt can be compared; their zero means nothing.", "",
        "## Certificate", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "",
        "## Features", "",
    ]  # fmt: skip
    names = ("model", "revision", "fingerprint", "dtype", "layer", "pooling", "template", "max_length",
             "max_response_length")  # fmt: skip
    shown = [(name, features[name]) for name in names if features.get(name) not in (None, "")]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in shown)] if shown else ["Not recorded."]
    lines += [
        "", "## Data", "",
        f"{record['data']['pairs']} pairs in {record['data']['groups']} groups, "
        f"SHA-256 of features and pairs `{record['data']['sha256']}`.", "",
    ]  # fmt: skip
    if calibration is not None:
        lines += [
            "## Calibration", "",
            f"Probability that the first is preferred: sigma(margin / {calibration['temperature']:.4g}), fitted on "
            f"{calibration['n_pairs']} out-of-fold margins; there the log-loss is {calibration['log_loss']:.4f}, the "
            f"expected calibration error {calibration['ece']:.4f}, the Brier score {calibration['brier']:.4f}.", "",
        ]  # fmt: skip
    if record["metrics"]:
        lines += ["## Metrics", "", "| | |", "|---|---|"]
        for name, value in record["metrics"].items():
            text = f"{value:.4f}" if isinstance(value, float) else json.dumps(value)
            lines.append(f"| {name} | {text} |")
        lines.append("")
    return "\n".join(lines)
