"""The audit of branch and bound against exact enumeration: it passes what is true, and finds what is not."""

import numpy as np
import pytest

from bench.honesty.programs import Program
from bench.honesty.proofs import dual_value, tried
from cvxrelu.certificates import relaxation
from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.relaxation import relaxed_price
from cvxrelu.program.losses import Logistic, Squared

LINES = {"cones", "cones, t improved", "boxes", "coupled rows"}


def test_the_proofs_of_the_first_problems():
    records = [record for record in map(tried, [*range(13), 140]) if record is not None]
    assert len(records) >= 5
    assert {way for record in records for way in record["values"]} == LINES | {"relaxed"}
    assert [row for record in records for row in record["broken"]] == []


@pytest.mark.parametrize(
    ("factor", "numbers", "ways"), [(0.99, (3, 5, 140), LINES - {"coupled rows"}), (0.9, (127, 371), {"coupled rows"})]
)
def test_a_price_that_is_too_small_is_found(factor, numbers, ways, monkeypatch):
    price = Line.price
    monkeypatch.setattr(Line, "price", lambda *given: factor * price(*given))
    rows = [row for k in numbers if (record := tried(k)) for row in record["broken"]]
    assert ways <= {way for way, rule, _ in rows if rule == "feasible"}


def test_a_relaxed_price_that_is_too_small_is_found(monkeypatch):
    monkeypatch.setattr(relaxation, "relaxed_price", lambda *given, **options: 0.9 * relaxed_price(*given, **options))
    rows = [row for k in (3, 8, 13, 18, 23) if (record := tried(k)) for row in record["broken"]]
    assert {way for way, rule, _ in rows if rule == "feasible"} == {"relaxed"}


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_plain_dual_value(loss):
    rng = np.random.default_rng(0)
    y = rng.choice([-1.0, 1.0], size=(6, 1))
    weight, margin = rng.choice([0.0, 0.5, 2.0], size=(6, 1)), rng.standard_normal((6, 1)) * (loss == "logistic")
    none = np.zeros((6, 0))
    program = Program(none, y, loss, 1.0, weight, margin, None, none, 0.0, none[:0], none[:0])
    own = Squared(y, weight) if loss == "squared" else Logistic(y, weight, margin)
    t = own.dual(rng.standard_normal((6, 1)))
    assert dual_value(program, t)[0] == pytest.approx(float(own.dual_value(t)[0]), rel=1e-12)
