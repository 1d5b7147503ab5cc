"""`cvxrelu export`: files that other libraries read, and refusals before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvxrelu import ReLUNetwork
from cvxrelu.command_line.main import main

RNG = np.random.default_rng(0)
NETWORK = ReLUNetwork(RNG.standard_normal((4, 3)), RNG.standard_normal((3, 2)), skip=RNG.standard_normal((4, 2)))
X = RNG.standard_normal((9, 4)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    NETWORK.save(tmp_path / "network.safetensors")
    return str(tmp_path / "network.safetensors")


def test_torch(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "weights.safetensors"
    assert main(["export", saved, "--to", "torch", "--out", str(out)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    space: dict[str, object] = {}
    exec("\n".join(lines), space)  # the lines that are printed load it
    torch = space["torch"]
    found = space["model"](torch.tensor(X)).detach().numpy()  # type: ignore[attr-defined,operator]
    np.testing.assert_allclose(found, NETWORK.predict(X), rtol=1e-4, atol=1e-5)


def test_onnx(saved: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    out = tmp_path / "network.onnx"
    assert main(["export", saved, "--to", "onnx", "--out", str(out)]) == 0
    [found] = ReferenceEvaluator(str(out)).run(None, {"X": X})
    np.testing.assert_allclose(found, NETWORK.predict(X), rtol=1e-4, atol=1e-5)


def test_refusals(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.safetensors"
    there.write_text("mine")
    for out, words in (("network.pt", "weights.safetensors"), ("network.onnx", "writes a .safetensors"),
                       ("there.safetensors", "--overwrite")):  # fmt: skip
        words = "network.safetensors instead" if out == "network.pt" else words
        assert main(["export", saved, "--to", "torch", "--out", str(tmp_path / out)]) == 2
        assert words in capsys.readouterr().err
    assert there.read_text() == "mine" and not (tmp_path / "network.pt").exists()
    assert main(["export", str(tmp_path / "none"), "--to", "torch", "--out", str(tmp_path / "a.safetensors")]) == 2
    assert "not a folder that `cvxrelu fit` wrote" in capsys.readouterr().err
