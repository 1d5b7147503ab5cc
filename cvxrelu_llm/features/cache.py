"""A folder of feature rows that survives being killed, and notices damage.

Rows are kept by key, a hash of a text's tokens; one subfolder holds those of one model, layer, pooling and template (a
hash of all these is its name, settings.json inside says what they are). The model is known by its fingerprint: the same
weights in another folder, or under their name on the hub, find the rows there are. Every batch becomes one safetensors
file, written to a temporary name and then renamed, whose name is the SHA-256 of its content: a file that was cut off or
altered no longer fits its name, and is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write

__all__ = ["FeatureCache"]

HOUR = 3600.0
NAMES = ("model", "revision")  # settings that say where the weights were found, and not what they are


class FeatureCache:
    """Rows of `width` float32 numbers by key.

    folder : made if need be; several settings, and several processes, may share it.
    settings : what the rows depend on beside the key, and `NAMES`, which settings.json shows and nothing depends on.

    n_damaged : files that did not fit their name, and are gone. What is no regular file is left alone.

    Raises
    ------
    InputError : `folder` is no folder, or a file in it cannot be read; the message names it.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], width: int) -> None:
        text = json.dumps(dict(settings), sort_keys=True, indent=1)
        known = json.dumps({name: value for name, value in settings.items() if name not in NAMES}, sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(f"{known}\n{width}".encode()).hexdigest()[:24]
        before = Path(folder) / hashlib.sha256(f"{text}\n{width}".encode()).hexdigest()[:24]  # its former name
        if os.path.lexists(folder) and not Path(folder).is_dir():
            raise InputError(f"{folder}: expected a folder to keep features in, and it is none")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made a folder ({error.strerror})") from error
        self.width, self.n_damaged = width, 0
        if not os.path.lexists(self.folder / "settings.json"):
            atomic_write(self.folder / "settings.json", text.encode())
        self._rows: dict[bytes, np.ndarray] = {}
        for path in sorted(path for place in (before, self.folder) for path in place.glob("*.safetensors")):
            self._read(path)
        for path in self.folder.glob(".*.tmp"):  # of processes killed while writing; younger ones may be at work
            if path.is_file() and time.time() - path.lstat().st_mtime > HOUR:
                path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, path: Path) -> None:
        if not path.is_file():  # a folder, or a pipe, which would be waited for
            return
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            if hashlib.sha256(content).hexdigest() != path.stem:
                raise ValueError
            tensors = load(content)
            keys, rows = tensors["keys"], tensors["rows"]
            fits = keys.ndim == 2 and keys.dtype == np.uint8 and rows.shape == (len(keys), self.width)
            if not fits or rows.dtype != np.float32 or not np.isfinite(rows).all():
                raise ValueError
        except (SafetensorError, ValueError, TypeError, LookupError, AttributeError):
            self.n_damaged += 1
            path.unlink(missing_ok=True)
            return
        self._rows.update((key.tobytes(), row) for key, row in zip(keys, rows, strict=True))

    def get(self, key: bytes) -> np.ndarray | None:
        """The row (width,) of this key, or None."""
        return self._rows.get(key)

    def put(self, keys: Sequence[bytes], rows: Float[np.ndarray, "k width"]) -> None:
        """Keep rows, on the disk before this returns."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
        content = save({"keys": table, "rows": rows})
        atomic_write(self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors", content)
        self._rows.update(zip(keys, rows, strict=True))
