"""Writing files and folders as a whole, or not at all, and never over what was not to be replaced.

Everything is first written beside its place, under a hidden name, and then put into place by one rename or link. Where
nothing may be replaced, that step itself fails if there is something, whenever it came: a test before hours of work
says nothing about the time after it. Symbolic links are not followed: the name is what is replaced, or refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from cvxrelu.support.interrupts import shielded, unshielded

__all__ = ["atomic_write", "new_files", "new_folder"]

UNLINKABLE = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def atomic_write(path: str | os.PathLike[str], content: str | bytes, *, overwrite: bool = True) -> Path:
    """Write `content` (text as UTF-8) to a temporary neighbour of `path`, then move it there as a whole.

    overwrite : True replaces a file that is there; where writing fails it stays as it was. False keeps it.

    Returns the path.

    Raises
    ------
    FileExistsError : there is something, even a dangling link, and `overwrite` is False.
    OSError : another one, with the name of `path`: no such folder, no permission, a full disk, a folder at `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    data = content.encode("utf-8") if isinstance(content, str) else content
    with shielded(), _named(path):
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _put(temporary, path, overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def new_files(*paths: str | os.PathLike[str], overwrite: bool = False) -> Iterator[list[Path]]:
    """Hidden places to write files to, with the names of `paths`; moved to these when all went well, else deleted.

    A place that nothing was written to is passed over. Without `overwrite` either all appear or none does.

    Raises
    ------
    FileExistsError : there is something at one of `paths`, and `overwrite` is False.
    OSError : another one, as in `atomic_write`.
    """
    targets = [Path(os.path.abspath(path)) for path in paths]
    work: list[Path] = []
    placed: list[Path] = []
    with shielded():
        try:
            for path in targets:
                with _named(path):
                    work.append(Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)))
            with unshielded():
                yield [folder / path.name for folder, path in zip(work, targets, strict=True)]
            for folder, path in zip(work, targets, strict=True):
                if (folder / path.name).exists():
                    with _named(path):
                        _put(folder / path.name, path, overwrite)
                    placed.append(path)
        except BaseException:
            for path in () if overwrite else placed:
                path.unlink(missing_ok=True)
            raise
        finally:
            for folder in work:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], replace: Collection[str] | None = None) -> Iterator[Path]:
    """A hidden neighbour of `path` to write into: it takes that name when all went well, else it is deleted.

    replace : names of the files that a folder at `path` may hold, which then go with it; None for none, so that an
        empty folder at most may be there. What is there is looked at at the end, and kept where it is refused.

    Raises
    ------
    FileExistsError : at `path` there is something else.
    OSError : another one, as in `atomic_write`.
    """
    path = Path(os.path.abspath(path))
    with shielded():
        with _named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            (work / "new").mkdir()  # mkdtemp's own folder is closed to others
            with unshielded():
                yield work / "new"
            with _named(path):
                _put_folder(work, path, replace)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _put(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a finished file its name; `temporary` may stay, for the caller to delete."""
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # fails where there is something, in one step
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        _claim(path)  # a file system without hard links
        os.replace(temporary, path)


def _claim(path: Path) -> None:
    """Take a name by an empty file."""
    try:
        with open(path, "xb"):
            pass
    except FileExistsError:
        raise _taken(path) from None


def _put_folder(work: Path, path: Path, replace: Collection[str] | None) -> None:
    """Rename work/new to `path`, what is there going to work/old, if it may, and back where the renaming fails."""
    old = work / "old"
    if replace is not None:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
    try:
        if os.path.lexists(old):
            foreign = old.is_symlink() or not old.is_dir() or sorted(set(os.listdir(old)).difference(replace or ()))
            if foreign:
                raise _taken(path, "" if foreign is True else f", with {foreign[0]!r} in it")
        if os.name == "nt":
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)
        os.rename(work / "new", path)  # onto nothing or an empty folder; anything else is an error
    except BaseException as error:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(path) from None
        raise


def _taken(path: Path, more: str = "") -> FileExistsError:
    return FileExistsError(f"{path}: exists{more}; it is kept as it is, and nothing was written")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of the system names the file that was asked for, not the hidden one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
