"""Checkpoints: a solve that is killed at any moment goes on from the last one and ends where it would have ended.

A folder holds `run.json`, which says of which problem and options the run is, and for every stage one file with all
that its next step depends on: `sampled.npz` (ADMM, or the proximal points of semismooth Newton) and `refinement.npz`
(the neurons, and the state of the random generator). They are written between two steps, to a temporary neighbour that
is then renamed, so that a reader sees the last one or the one before, never half of one; not more often than every few
seconds, and not so often that writing takes more than a twentieth of the time.

The format is NumPy's npz without pickle: arrays as they lie in memory, one JSON member for everything else, and one
SHA-256 of all of them, so that a file that was altered anywhere is refused and never half believed; files of version
0.1 have none. Floats are written as their shortest exact decimals. So on NumPy a resumed run takes the same steps, bit
by bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvxrelu.network.file import package_version
from cvxrelu.support.files import atomic_write
from cvxrelu.support.interrupts import shielded
from cvxrelu.support.stored import damage, read_arrays, read_json, short

__all__ = ["Checkpoint", "as_bytes", "as_folder", "digest", "from_bytes"]

INTERVAL = 5.0  # seconds between two writes, at least
SHARE = 0.05  # of the time that writing may take
FORMAT, VERSION = "cvxrelu.checkpoint", 1
MANY = 8  # arrays of a list from which on they are stored as one
HASHED = 1 << 24  # entries that are hashed at a time: memory maps never are in memory as a whole

State = dict[str, Any]  # nested dicts, lists and tuples of arrays, numbers, strings and None


class Checkpoint:
    """The folder of one run.

    Parameters
    ----------
    folder : made where it is missing, its parents too.
    problem, options : what the run is about; values that JSON knows. A folder whose run had others is refused.

    Raises
    ------
    ValueError : the folder holds another run (naming what differs), or what it holds is damaged.
    """

    def __init__(self, folder: Path, problem: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint must be a folder, and {folder} is a file")
        if folder.is_symlink() and not folder.exists():
            raise ValueError(f"checkpoint must be a folder, and {folder} is a link to nothing")
        folder.mkdir(parents=True, exist_ok=True)
        now = {"problem": dict(problem), "options": dict(options)}
        now = json.loads(json.dumps(now))  # tuples as the lists that a file gives back
        path = folder / "run.json"
        if os.path.lexists(path):
            self._compare(self._read_run(path), now)
        elif found := sorted(folder.glob("*.npz")):
            raise self._damaged(found[0], "its run.json is missing")
        self.run = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
        if not os.path.lexists(path):
            header = {"format": FORMAT, "format_version": VERSION, "cvxrelu_version": package_version()}
            atomic_write(path, json.dumps({**header, **now}, indent=1) + "\n")
        self.due_at = dict.fromkeys(("sampled", "refinement", "branch"), 0.0)  # of `time.perf_counter`: at once

    def load(self, stage: str) -> State | None:
        """The state that was last saved of a stage, or None."""
        path = self.folder / f"{stage}.npz"
        if not os.path.lexists(path):
            return None
        try:
            with damage(path):
                members = read_arrays(path)
                text = members.pop("state").tobytes()
                seal = members.pop("sha256", None)  # version 0.1 wrote none
                if seal is not None and seal.tobytes() != _seal(text, members):
                    raise ValueError("its content does not fit its hash")
                tree = json.loads(text)
                state, run = _unpack(tree["state"], members), tree["run"]
        except (ValueError, OSError) as error:
            raise self._damaged(path, str(error).removeprefix(f"{path}: ")) from error
        if run != self.run:
            raise self._damaged(path, "it is of another run than run.json says")
        return state

    def offer(self, stage: str, state: Callable[[], State]) -> None:
        """Save the state if the last one is old enough."""
        if self.due(stage):
            self.save(stage, state())

    def due(self, stage: str) -> bool:
        """Whether the last state that was saved is old enough."""
        return time.perf_counter() >= self.due_at[stage]

    def save(self, stage: str, state: State) -> None:
        """Write the state of a stage; the one before is there until this one is complete."""
        started = time.perf_counter()
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps({"run": self.run, "state": _pack(state, arrays)}).encode()
        seal = _seal(text, arrays)
        arrays |= {"state": np.frombuffer(text, dtype=np.uint8), "sha256": np.frombuffer(seal, dtype=np.uint8)}
        path = self.folder / f"{stage}.npz"
        temporary = path.with_name(f".{path.name}.tmp")  # always the same: what a kill leaves is overwritten
        temporary.unlink(missing_ok=True)  # a link would be followed
        with shielded():
            with open(temporary, "xb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type] # array by array, without a copy of all
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        now = time.perf_counter()
        self.due_at[stage] = now + max(INTERVAL, (now - started) / SHARE)

    def _read_run(self, path: Path) -> dict[str, Any]:
        try:
            run = read_json(path)
        except (ValueError, OSError) as error:
            raise self._damaged(path, str(error).removeprefix(f"{path}: ")) from error
        if run.get("format") != FORMAT or not all(isinstance(run.get(name), dict) for name in ("problem", "options")):
            raise self._damaged(path, f"its format is {short(run.get('format'))}, or problem and options are missing")
        if type(version := run.get("format_version")) is not int:
            raise self._damaged(path, f"its format version is {short(version)}")
        if version != VERSION:
            raise ValueError(
                f"checkpoint {self.folder} has format version {short(version)}, of cvxrelu "
                f"{short(run.get('cvxrelu_version'))}; "
                f"this cvxrelu reads version {VERSION}"
            )
        return run

    def _compare(self, saved: dict[str, Any], now: dict[str, Any]) -> None:
        differing = []
        for part in ("problem", "options"):
            for name in sorted({*saved[part], *now[part]}):
                before, after = saved[part].get(name), now[part].get(name)
                if before != after:
                    hashed = part == "problem" and isinstance(before, str) and len(before) == 64
                    differing.append(f"another {name}" if hashed else f"{name}={_shown(before)}, now {_shown(after)}")
        if differing:
            raise ValueError(
                f"checkpoint {self.folder} is of a run with {'; '.join(differing)}: "
                "pass what it was made with, or another folder"
            )

    def _damaged(self, path: Path, reason: str) -> ValueError:
        return ValueError(f"checkpoint {path} is damaged ({reason}); delete the folder to start again")


def as_folder(checkpoint: Any) -> Path | None:
    """The `checkpoint` option as a path."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, (str, os.PathLike)) or not os.fspath(checkpoint):
        raise TypeError(f"checkpoint must be None or the path of a folder, got {checkpoint!r}")
    return Path(os.fsdecode(os.fspath(checkpoint)))


def digest(array: np.ndarray | None) -> str | None:
    """SHA-256 of shape, dtype and values; None for None. Memory maps are read in pieces."""
    if array is None:
        return None
    found = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    rows = max(1, HASHED // max(1, array[:1].size)) if array.ndim else 1
    for start in range(0, len(array) if array.ndim else 1, rows):
        part = array[start : start + rows] if array.ndim else array
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def _shown(value: Any) -> str:
    """An option in a message; a hand-made one may be as large or as deep as it likes."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "something nested deeply"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _seal(text: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of the tree and of the hashes of all arrays: what is taken up again is what was saved, or nothing is."""
    found = hashlib.sha256(text)
    for name in sorted(arrays):
        found.update(f"{name} {digest(arrays[name])}".encode())
    return found.digest()


def as_bytes(state: State | None) -> bytes:
    """A state as another process can read it."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_pack(state, arrays)).encode()
    file = io.BytesIO()
    np.savez(file, state=np.frombuffer(text, dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(data: bytes) -> State | None:
    """The inverse of `as_bytes`."""
    with np.load(io.BytesIO(data)) as members:
        arrays = dict(members)
    found: State | None = _unpack(json.loads(arrays.pop("state").tobytes()), arrays)
    return found


# -- trees as JSON and arrays -----------------------------------------------------------------------------------------
def _pack(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON in which arrays are {"array": name}; their values are added to `arrays`."""
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, dict):
        return {"dict": {name: _pack(value, arrays) for name, value in tree.items()}}
    if isinstance(tree, (list, tuple)):
        return _pack_list(list(tree), arrays)
    if not isinstance(tree, np.ndarray) or tree.dtype.hasobject:
        raise TypeError(f"a checkpoint cannot hold a {type(tree).__name__}")
    name = f"a{len(arrays)}"
    arrays[name] = tree
    return {"array": name}


def _pack_list(items: list[Any], arrays: dict[str, np.ndarray]) -> Any:
    if len(items) >= MANY and all(isinstance(item, tuple) and hasattr(item, "_fields") for item in items):
        return {"rows": [_pack(list(column), arrays) for column in zip(*items, strict=True)]}
    alike = len(items) >= MANY and all(isinstance(item, np.ndarray) and item.dtype == items[0].dtype for item in items)
    if not alike:
        return {"list": [_pack(item, arrays) for item in items]}
    fortran = [item.flags.f_contiguous and not item.flags.c_contiguous for item in items]
    flat = np.concatenate([item.ravel("F" if f else "C") for item, f in zip(items, fortran, strict=True)])
    return {"many": _pack(flat, arrays), "shapes": [item.shape for item in items], "fortran": fortran}


def _unpack(tree: Any, members: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return members[tree["array"]]
    if "dict" in tree:
        return {name: _unpack(value, members) for name, value in tree["dict"].items()}
    if "list" in tree:
        return [_unpack(item, members) for item in tree["list"]]
    if "rows" in tree:
        return list(zip(*(_unpack(column, members) for column in tree["rows"]), strict=True))
    flat, start, items = _unpack(tree["many"], members), 0, []
    for shape, fortran in zip(tree["shapes"], tree["fortran"], strict=True):
        size = int(np.prod(shape, dtype=np.int64))
        items.append(flat[start : start + size].reshape(shape, order="F" if fortran else "C").copy("K"))
        start += size
    return items
