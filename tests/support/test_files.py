"""Files and folders are written as a whole or not at all, and what came to be at their place meanwhile is kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cvxrelu.support.files import atomic_write, new_files, new_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def occupy(path: Path, how: str) -> None:
    """Put something at `path`, as another program might."""
    if how == "file":
        path.write_text("mine")
    elif how == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    elif how == "dangling":
        path.symlink_to(path.parent / "gone")
    else:
        (path.parent / "elsewhere").mkdir()
        path.symlink_to(path.parent / "elsewhere")


def state(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_text()
        for path in sorted(folder.rglob("*"))
    }


HOW = ["file", "folder", "dangling", "link"]


@pytest.mark.parametrize("how", HOW)
def test_without_overwrite_what_is_there_is_kept(how: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    occupy(path, how)
    before = state(tmp_path)
    with pytest.raises(FileExistsError, match=r"out\.csv: exists"):
        atomic_write(path, "new", overwrite=False)
    assert state(tmp_path) == before


@pytest.mark.parametrize("linking", ["as it is", "not supported"])
def test_files_without_hard_links(linking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if linking == "not supported":
        monkeypatch.setattr("cvxrelu.support.files.os.link", refuse)
    path = atomic_write(tmp_path / "out.csv", "first", overwrite=False)
    with pytest.raises(FileExistsError):
        atomic_write(path, "second", overwrite=False)
    assert path.read_text() == "first" and names(tmp_path) == ["out.csv"]
    atomic_write(path, "third")
    assert path.read_text() == "third" and names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("how", ["file", "dangling", "link"])
def test_overwriting_replaces_the_name_and_not_what_it_points_to(how: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    occupy(path, how)
    others = {name: value for name, value in state(tmp_path).items() if name != "out.csv"}
    atomic_write(path, "new")
    assert state(tmp_path) == {**others, "out.csv": "new"}


def test_a_link_to_a_file_is_replaced_and_the_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("real")
    (tmp_path / "out.csv").symlink_to(tmp_path / "real.csv")
    atomic_write(tmp_path / "out.csv", "new")
    assert state(tmp_path) == {"real.csv": "real", "out.csv": "new"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("broken", ["fsync", "replace", "link"])
def test_a_full_disk_leaves_what_was_there(
    broken: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == ("link" if overwrite else "replace"):
        pytest.skip("another step of the way")
    path = tmp_path / "out.csv"
    if overwrite:
        path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = state(tmp_path)
    monkeypatch.setattr(f"cvxrelu.support.files.os.{broken}", full)
    with pytest.raises(OSError, match="No space") as caught:
        atomic_write(path, "new", overwrite=overwrite)
    assert caught.value.filename == str(path) and state(tmp_path) == before


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent/out\.csv'"):
        atomic_write(tmp_path / "absent" / "out.csv", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder'"):
        atomic_write(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the system lets this user write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"out\.csv"):
            atomic_write(tmp_path / "out.csv", "new")
        with pytest.raises(PermissionError), new_folder(tmp_path / "out"):
            pass
    finally:
        tmp_path.chmod(0o700)
    assert names(tmp_path) == []


def test_several_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    targets = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(FileExistsError, match="b: exists"), new_files(*targets) as files:
        for file in files:
            file.write_text("new")
        (tmp_path / "b").write_text("mine")
    assert state(tmp_path) == {"b": "mine"}
    with pytest.raises(KeyError), new_files(*targets, overwrite=True) as files:
        files[1].write_text("new")
        raise KeyError
    assert state(tmp_path) == {"b": "mine"}
    with new_files(*targets, overwrite=True) as files:
        files[1].write_text("new")
    assert state(tmp_path) == {"b": "new"}


@pytest.mark.parametrize("replace", [None, ["network"]])
@pytest.mark.parametrize("how", HOW)
def test_what_came_to_be_at_the_place_of_a_folder_is_kept(how: str, replace: list[str] | None, tmp_path: Path) -> None:
    before: dict[str, object] = {}
    with pytest.raises(FileExistsError, match="out: exists"), new_folder(tmp_path / "out", replace) as work:
        (work / "network").write_text("new")
        occupy(tmp_path / "out", how)
        before = {name: value for name, value in state(tmp_path).items() if not name.startswith(".")}
    assert before and state(tmp_path) == before


def test_a_folder_is_replaced_with_what_may_go_and_put_back_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as work:  # empty: nothing is lost
        (work / "network").write_text("old")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("cvxrelu.support.files.os.rename", fail)
        with new_folder(tmp_path / "out", ["network"]) as work:
            (work / "network").write_text("new")
    assert state(tmp_path) == {"out": False, "out/network": "old"}
    with new_folder(tmp_path / "out", ["network"]) as work:
        (work / "network").write_text("new")
    assert state(tmp_path) == {"out": False, "out/network": "new"}
