"""Archives of arrays: what a header says of a size is compared with the file before any memory is taken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.support.stored import read_arrays


def archive(path: Path, shape: str) -> Path:
    """Three numbers whose header claims another shape."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3.0))
    content = buffer.getvalue()
    before = content[10 : content.index(b"\n")]
    claimed = before.replace(b"(3,)", shape.encode()).strip().ljust(len(before))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", content[:10] + claimed + content[10 + len(before) :])
    return path


def test_a_true_header_is_read(tmp_path: Path) -> None:
    assert read_arrays(archive(tmp_path / "a.npz", "(3,)"))["x"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("shape", ["(2,)", "(4,)", "(1, 4)", f"({2**40},)"])
def test_a_header_that_lies_is_refused_by_its_size(tmp_path: Path, shape: str) -> None:
    with pytest.raises(ValueError, match=r"a\.npz: the array 'x' is said to have \d+ bytes, and has 24"):
        read_arrays(archive(tmp_path / "a.npz", shape))
