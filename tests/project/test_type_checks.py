"""The tests' own type checks: wrong shapes are seen, in the first calls always and later now and then."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("beartype")
import type_checks
from jaxtyping import Float, TypeCheckError

from cvxrelu.certificates.coordinates import features


def test_the_hook_reaches_the_package():
    with pytest.raises(TypeCheckError):
        for _ in range(type_checks.SOMETIMES):  # it may have been called often before
            features(np.zeros(3), None)


def test_later_calls_are_checked_now_and_then():
    def first(x: Float[np.ndarray, "n d"]) -> float:
        return 0.0

    wrapped = type_checks.sparing(first, typechecker=type_checks.check)
    failed = []
    for k in range(1, type_checks.ALWAYS + 2 * type_checks.SOMETIMES + 1):
        try:
            wrapped(np.zeros(3))
        except TypeCheckError:
            failed.append(k)
    assert (
        failed[: type_checks.ALWAYS] == list(range(1, type_checks.ALWAYS + 1)) and len(failed) == type_checks.ALWAYS + 2
    )
    assert wrapped(np.zeros((2, 2))) == 0.0
