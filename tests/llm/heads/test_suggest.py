"""What to label next: the formulas against dense algebra, and that a batch does not ask one question twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from cvxrelu.support.errors import InputError
from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
from cvxrelu_llm.heads.suggest import suggest


def some(m: int, d: int, seed: int = 0, **settings: Any) -> Any:
    rng = np.random.default_rng(seed)
    X, pairs = rng.standard_normal((2 * m, d)), np.arange(2 * m).reshape(-1, 2)
    better = X[:, 0] + 0.3 * np.abs(X[:, 1]) + rng.standard_normal(2 * m)
    pairs = np.where((better[pairs[:, 0]] > better[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    return as_pair_features(X, pairs, settings=settings or None)


def dense(head: ConvexRewardHead, fresh: Any, n: int) -> tuple[list[int], list[float]]:
    """Greedy choice with the Hessian formed and inverted, J by hand."""

    def jacobian(data: Any) -> np.ndarray:
        Z, network = head.standard.apply(data.X), head.standardised
        parts = []
        if network.n_neurons:
            bias = 0.0 if network.hidden_bias is None else network.hidden_bias
            parts.append(np.maximum(Z @ network.first_layer + bias, 0))
        parts.append(Z)
        both = np.concatenate(parts, axis=1)
        return both[data.pairs[:, 0]] - both[data.pairs[:, 1]]

    known, J = jacobian(head.data), jacobian(fresh)
    f = head.margins(head.data.X, head.data.pairs) - head.margin
    curvature = head.data.weight * expit(f) * expit(-f)
    ridge = np.full(known.shape[1], head.choice.skip_l2)
    ridge[: head.n_neurons] = 1e-8 * curvature @ np.sum(known**2, axis=1) / known.shape[1]
    H = known.T @ (curvature[:, None] * known) + np.diag(ridge)
    g = head.margins(fresh.X, fresh.pairs)
    c, order, told = expit(g) * expit(-g), [], []
    for _ in range(n):
        S = np.sum(J * np.linalg.solve(H, J.T).T, axis=1)
        gain = 0.5 * np.log1p(c * S)
        gain[order] = -np.inf
        order.append(int(np.argmax(gain)))
        told.append(float(gain[order[-1]]))
        H += c[order[-1]] * np.outer(J[order[-1]], J[order[-1]])
    return order, told


@pytest.mark.parametrize(("m", "d", "options"), [
    (40, 4, {"beta": np.inf, "skip_l2": 2.0}),
    (12, 60, {"beta": np.inf, "skip_l2": 0.5}),  # more features than pairs
    (60, 3, {"beta": 1.0, "skip_l2": 1.0}),  # neurons
])  # fmt: skip
def test_against_dense_algebra(m: int, d: int, options: dict[str, Any]) -> None:
    head, fresh = ConvexRewardHead(**options).fit(some(m, d)), some(25, d, seed=1)
    assert (head.n_neurons > 0) == (options["beta"] == 1.0)
    found = suggest(head, fresh, 8)
    order, told = dense(head, fresh, 8)
    assert [s.pair for s in found] == order
    np.testing.assert_allclose([s.information for s in found], told, rtol=1e-5)
    assert len(suggest(head, fresh, 100)) == 25


def test_a_question_is_asked_once_and_order_does_not_matter() -> None:
    head = ConvexRewardHead(beta=np.inf, skip_l2=0.01).fit(some(4, 6))
    fresh = some(10, 6, seed=2)
    twice = as_pair_features(fresh.X, np.concatenate([fresh.pairs, fresh.pairs[:, ::-1]]))
    first = suggest(head, twice, 10)
    pairs = {s.pair % 10 for s in first[:5]}
    assert len(pairs) == 5  # its mirror image tells less than another pair
    turned = suggest(head, as_pair_features(fresh.X, fresh.pairs[:, ::-1]), 5)
    plain = suggest(head, fresh, 5)
    assert [s.pair for s in turned] == [s.pair for s in plain]
    np.testing.assert_allclose([s.probability + t.probability for s, t in zip(plain, turned, strict=True)], 1.0)


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    data = some(20, 3, layer=1)
    head = ConvexRewardHead(beta=np.inf, skip_l2=1.0).fit(data)
    head.save(tmp_path / "head")
    with pytest.raises(InputError, match="without its training pairs"):
        suggest(ConvexRewardHead.load(tmp_path / "head"), data)
    assert len(suggest(ConvexRewardHead.load(tmp_path / "head").attach(data), data, 3)) == 3
    with pytest.raises(InputError, match="layer is 2"):
        suggest(head, some(5, 3, layer=2))
    with pytest.raises(InputError, match="4 columns, expected 3"):
        suggest(head, some(5, 4, layer=1))
    with pytest.raises(ValueError, match="n must be"):
        suggest(head, data, 0)
    same = as_pair_features(data.X, [[0, 1], [3, 3]], settings={"layer": 1})
    with pytest.raises(InputError, match="pair 1 holds the same row twice"):
        suggest(head, same)
