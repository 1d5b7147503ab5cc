"""Reading files that may be cut, foreign, damaged or hostile: the right content, or one error that names the file.

All readers of stored networks, models, heads, features, checkpoints and settings go through here. A missing file is a
FileNotFoundError, anything else that is wrong a ValueError "PATH: ...", "PATH, line N: ..." for text; no size, shape or
depth that a file declares is believed before it was compared with the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["damage", "parse_json", "read_arrays", "read_bytes", "read_json", "read_tensors", "read_text", "short"]


def short(value: Any, limit: int = 60) -> str:
    """What a message shows of a value: text and numbers, cut to `limit`; of anything else its type alone."""
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value) if not isinstance(value, int) or -1e18 < value < 1e18 else "a huge number"
        text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
        return text if len(text) <= limit else text[: limit - 3] + "..."
    return f"a value of type {type(value).__name__}"


@contextlib.contextmanager
def damage(path: str | os.PathLike[str]) -> Iterator[None]:
    """What reading a damaged file raises, as a ValueError that names the file; FileNotFoundError stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except MemoryError as error:
        raise ValueError(f"{path}: larger than the memory") from error
    except Exception as error:  # decoders of damaged content raise whatever they happen to stumble over
        words = f"no {error}" if type(error) is KeyError else str(error) or type(error).__name__
        raise ValueError(words if words.startswith(str(path)) else f"{path}: {words}") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file; nothing else is opened, as a pipe would be waited for."""
    path = Path(path)
    check_file(path)
    with damage(path):
        return path.read_bytes()


def check_file(path: Path) -> None:
    """FileNotFoundError or ValueError unless `path` is a regular file with content."""
    with damage(path):
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: no such file")
        if path.is_dir():
            raise ValueError("is a folder, not a file")
        if not path.is_file():
            raise ValueError("not a file")
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file in UTF-8; a byte-order mark is skipped."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not a text file in UTF-8 (byte {error.start})") from None


def read_json(path: str | os.PathLike[str], *, finite: bool = True) -> dict[str, Any]:
    """The object in a JSON file; see `parse_json`."""
    return parse_json(read_text(path), str(path), finite=finite)


def parse_json(text: str, place: str, line: int | None = None, *, kind: type = dict, finite: bool = True) -> Any:
    """One JSON value of a kind, strictly: no name twice in an object, no half surrogate pairs.

    place : what messages begin with. line : number of the line that the text is; None counts lines in the text.
    finite : refuse NaN and infinity, which are not JSON.
    """
    where = place if line is None else f"{place}, line {line}"
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant if finite else None)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        number = f"line {error.lineno}, " if line is None else ""
        raise ValueError(f"{where}: not JSON ({error.msg} at {number}column {error.colno})") from None
    except UnicodeEncodeError:
        raise ValueError(f"{where}: holds half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise ValueError(f"{where}: not JSON that can be read (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else f"a {kind.__name__}"
        raise ValueError(f"{where}: expected {wanted}, got {type(value).__name__}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {short(next(n for n in names if names.count(n) > 1))} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_tensors(
    path: str | os.PathLike[str],
    fmt: str,
    required: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors, metadata) of a safetensors file.

    fmt : what its metadata must give as "format". required, optional : dtypes that each tensor may have, by the names
        of safetensors ("F32", ...); another tensor, or another dtype, is an error.
    """
    from safetensors import SafetensorError, safe_open

    path, allowed = Path(path), {**required, **(optional or {})}
    check_file(path)
    with damage(path):
        try:
            with safe_open(path, framework="np") as file:
                about, names = file.metadata() or {}, set(file.keys())
                dtypes = {name: file.get_slice(name).get_dtype() for name in sorted(names)}
                _check_header(fmt, about, dtypes, required, allowed)
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"truncated, or not a safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ValueError(f"{path}: the tensor {name} contains NaN or infinity; expected finite numbers")
    return tensors, about


def _check_header(
    fmt: str,
    about: Mapping[str, str],
    dtypes: Mapping[str, str],
    required: Iterable[str],
    allowed: Mapping[str, Sequence[str]],
) -> None:
    """ValueError unless format, names and dtypes are those of the kind of file."""
    if about.get("format") != fmt:
        raise ValueError(f"a safetensors file, but not a {fmt}: its format is {short(about.get('format'))}")
    if missing := [name for name in required if name not in dtypes]:
        raise ValueError(f"the tensor {missing[0]} is missing")
    if unexpected := [name for name in dtypes if name not in allowed]:
        raise ValueError(f"unexpected tensor {short(unexpected[0])}")
    for name, dtype in dtypes.items():
        if dtype not in allowed[name]:
            raise ValueError(f"the tensor {name} has dtype {dtype}; expected {' or '.join(allowed[name])}")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npz file, without pickle; each must be as large as its member of the archive says."""
    path = Path(path)
    check_file(path)
    with damage(path), open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
        found: dict[str, np.ndarray] = {}
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > os.fstat(raw.fileno()).st_size:
                raise ValueError(f"the array {short(member.filename)} is packed, or larger than the file")
            name = member.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"the array {short(name)} is there twice")
            with archive.open(member) as opened:
                file: Any = opened
                version = np.lib.format.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"the array {short(name)} has format version {version}")
                read_header = (np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0)
                shape, fortran, dtype = read_header[version[0] - 1](file)
                size = dtype.itemsize
                for length in shape:
                    size *= int(length)
                if dtype.hasobject or any(length < 0 for length in shape):
                    raise ValueError(f"the array {short(name)} holds Python objects, or has a negative shape")
                if size != (has := member.file_size - file.tell()):
                    raise ValueError(f"the array {short(name)} is said to have {size} bytes, and has {has}")
                data = bytearray(size)  # no larger than the file is
                view = memoryview(data)
                while view and (k := file.readinto(view)):
                    view = view[k:]
                file.read(1)  # to the end, where the check sum is compared
                flat = np.frombuffer(data, dtype=dtype)
                found[name] = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return found
