"""Files written as a whole or not at all, and text files read whether packed or not."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvxrelu.support.errors import InputError

__all__ = ["open_text", "pack_text", "readable"]


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
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"{path}: not a file")
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: the file is truncated or damaged ({error})") from error
    except UnicodeDecodeError as error:
        place = f"{path}{_first_bad_line(path)}"
        raise InputError(f"{place}: not a text file in UTF-8 ({error.reason}); save it as UTF-8") from error
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _first_bad_line(path: Path) -> str:
    """ ", line N" of the first byte that is not UTF-8: what a decoder says counts from the start of its own piece."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f", line {data.count(bytes([10]), 0, error.start) + 1}"
    except (OSError, EOFError, zlib.error):  # damaged behind that place
        pass
    return ""
