"""Every loss offers what `Loss` asks for, and nothing that the algorithms use is missing from it."""

from __future__ import annotations

import numpy as np
import pytest

from cvxrelu.program.loss import Loss, ProximalLoss
from cvxrelu.program.losses import Logistic, Squared
from cvxrelu.program.multinomial import Multinomial

ONES = np.ones((4, 1))
LOSSES = {
    "squared": Squared(np.zeros((4, 2)), ONES),
    "logistic": Logistic(ONES, ONES, 0.0 * ONES),
    "multinomial": Multinomial(np.eye(4), ONES, np.zeros((4, 4))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_what_the_protocol_asks_for(name):
    loss = LOSSES[name]
    assert isinstance(loss, Loss)
    assert loss.is_quadratic or hasattr(loss, "prox")


@pytest.mark.parametrize("name", LOSSES)
def test_predictions_have_the_dual_variable_asked_for(name):
    """`prediction` inverts `dual`, up to what every output may be shifted by, with weights, zero ones too."""
    rng = np.random.default_rng(0)
    loss = LOSSES[name]._replace(weight=np.array([[0.0], [1.0], [2.0], [0.5]]))
    t = loss.dual(rng.standard_normal(loss.y.shape))
    np.testing.assert_allclose(loss.dual(loss.prediction(t)), t, rtol=1e-12, atol=1e-14)
    # The gradient of -loss*(-t) along a change that stays in its domain.
    change = loss.hessian_product(loss.prediction(0.5 * t), rng.standard_normal(t.shape))
    step = 1e-5 / np.abs(change).max()
    values = [float(loss.dual_value(0.5 * t + s * step * change)[0]) for s in (1.0, -1.0)]
    slope = float(np.sum(loss.prediction(0.5 * t) * change))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_the_protocol_is_not_empty():
    assert not isinstance(object(), Loss)
    asked = {name for name in vars(Loss) if not name.startswith("_")}
    assert {"value", "dual", "prediction", "dual_value", "best_dual_scale", "curvature", "shifted"} <= asked
    assert "prox" in vars(ProximalLoss)
