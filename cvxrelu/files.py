"""Writing a file as a whole, or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cvxrelu.interrupts import shielded

__all__ = ["atomic_write"]


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to a temporary neighbour of `path`, then rename it: no reader sees half a file.

    Returns the path. A file already there is replaced; where writing fails it stays as it was.
    """
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
