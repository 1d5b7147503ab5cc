"""Files that version 0.1 wrote are read: networks, models, heads, features, caches and checkpoints.

`tests/data/written_by_0.1` holds files of commit d6d76dc, made by its own code; `expected.json` says what came of them
there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import checkpoint_child
import numpy as np
import pytest

import cvxrelu
from cvxrelu.command_line.main import main
from cvxrelu_llm import ConvexRewardHead, PairFeatures
from cvxrelu_llm.features.cache import FeatureCache

FOLDER = Path(__file__).parents[1] / "data" / "written_by_0.1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
RNG = np.random.default_rng(5)
X = RNG.standard_normal((40, 3)).round(3)


@pytest.mark.parametrize("name", ["network", "two_outputs"])
def test_networks(name: str) -> None:
    network = cvxrelu.ReLUNetwork.load(FOLDER / f"{name}.safetensors")
    np.testing.assert_allclose(network.predict(X[:5]), EXPECTED[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("folder", "data", "result"), [("model", "table", "predictions"), ("classifier", "labels", "classes")]
)
def test_model_folders(folder: str, data: str, result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert main(["predict", str(FOLDER / folder), str(FOLDER / f"{data}.csv"), "--out", str(out)]) == 0
    now, before = (path.read_text().splitlines() for path in (out, FOLDER / f"{result}.csv"))
    assert now[0] == before[0] and len(now) == len(before)
    for a, b in zip(now[1:], before[1:], strict=True):
        assert a == b or float(a) == pytest.approx(float(b), rel=1e-6)


@pytest.mark.parametrize("mode", ["pairwise", "two_phase"])
def test_heads(mode: str) -> None:
    head = ConvexRewardHead.load(FOLDER / f"head_{mode}")
    data = PairFeatures.load(FOLDER / "pairs.safetensors")
    np.testing.assert_allclose(head.score(data.X[:5]), EXPECTED[f"head_{mode}"], rtol=1e-5, atol=1e-7)
    head.attach(data)


def test_features_and_caches(tmp_path: Path) -> None:
    data = PairFeatures.load(FOLDER / "pairs.safetensors")
    assert data.X.shape == (60, 4) and len(data.pairs) == 30
    shutil.copytree(FOLDER / "cache", tmp_path / "cache")
    cache = FeatureCache(tmp_path / "cache", {"model": "tiny", "layer": 2}, 3)
    np.testing.assert_array_equal(cache.get(b"k" * 32), np.array([1, 2, 3], dtype=np.float32))
    assert cache.n_damaged == 0


@pytest.mark.parametrize("case", ["admm", "logistic", "newton", "refinement", "outputs"])
def test_checkpoints_go_on(case: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "checkpoints" / case, tmp_path / case)
    found, before = checkpoint_child.run(case, tmp_path / case), EXPECTED[case]
    assert found.status.value == before["status"]
    tol = checkpoint_child.CASES[case]["tol"]
    assert found.objective == pytest.approx(before["objective"], rel=2 * tol)
    assert len(found.history) > 2  # it went on from the checks that the checkpoint has
