"""Files written as a whole or not at all, and text files read whether packed or not."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvxrelu.interrupts import shielded, unshielded
from cvxrelu_llm.errors import InputError

__all__ = ["new_folder", "open_text", "pack_text", "readable", "write_whole"]


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to a temporary neighbour of `path`, then rename it; a file there is replaced."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with shielded():
        try:
            with open(temporary, "xb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden neighbour of `path` to write into: it takes that name when all went well, else it is deleted.

    At `path` there may be an empty folder at most, and it is replaced.
    """
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with shielded():
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            (work / "new").mkdir()  # mkdtemp's own folder is closed to others
            with unshielded():
                yield work / "new"
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
            os.replace(work / "new", path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def pack_text(path: str | os.PathLike[str], text: str) -> bytes:
    """The bytes of a text file: UTF-8, packed where the name ends in .gz (without a time, so always the same)."""
    data = text.encode("utf-8")
    return gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data


def open_text(path: str | os.PathLike[str]) -> io.TextIOWrapper:
    """Open a text file, .gz or not, for reading as UTF-8 (a byte-order mark is skipped)."""
    if str(path).lower().endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[Any]:
    """Turn what can go wrong with a file into an `InputError` that names it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file")
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
