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


def test_the_protocol_is_not_empty():
    assert not isinstance(object(), Loss)
    asked = {name for name in vars(Loss) if not name.startswith("_")}
    assert {"value", "dual", "dual_value", "best_dual_scale", "curvature", "shifted"} <= asked
    assert "prox" in vars(ProximalLoss)
