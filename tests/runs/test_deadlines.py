"""Time limits hold for all that follows a search. No test measures time: deadlines have passed, or a clock is made."""

import time

import numpy as np
import pytest

import cvxrelu
from cvxrelu.api import prepared
from cvxrelu.backends.choose import get_backend
from cvxrelu.certificates import exact_pricing, pricing
from cvxrelu.certificates import network as proofs
from cvxrelu.certificates.cells import arrange
from cvxrelu.certificates.closed_form import closed_form_price
from cvxrelu.certificates.exact_pricing import price_on
from cvxrelu.certificates.pricing import Pricing
from cvxrelu.certificates.relaxation import relaxed_price
from cvxrelu.certificates.search_space import ground_of
from cvxrelu.numerics.lasso import nonnegative_quadratic
from cvxrelu.program.arrangement import enumerate_by
from cvxrelu.program.problem import build_problem
from cvxrelu.refinement import neurons
from cvxrelu.refinement.program import NetworkProgram
from cvxrelu.support.errors import OutOfTime

PAST = -np.inf
RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
Y = np.maximum(X @ RNG.standard_normal((3, 3)), 0).sum(axis=1) + 0.1 * RNG.standard_normal(40)


class Clock:
    """A `perf_counter` that moves by `step` whenever it is looked at, and by `work` when told that work was done."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def refuse(*_args, **_options):
    raise AssertionError("work began after the deadline")


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact"])
def test_no_proof_begins_after_the_deadline(kind, monkeypatch):
    """The bound is then the relaxed one in closed form, rigorous, and named so."""
    for place, name in ((Pricing, "price"), (proofs, "exact_price")):
        monkeypatch.setattr(place, name, refuse)
    problem = build_problem(X, Y, beta=1.0, sampled=False, dtype=np.float64)
    dual = problem.loss.dual(np.zeros((40, 1)))
    found = proofs.network_certificate(kind, problem, dual, 50.0, get_backend("numpy"), seed=0, deadline=PAST)
    assert found.kind == "relaxed" and found.rigorous
    price = closed_form_price(X, dual)
    expected, _, _ = problem.dual_bound(dual, problem.beta / price)
    assert found.lower_bound == pytest.approx(expected, rel=1e-9)


def a_pricing():
    backend = get_backend("numpy")
    return Pricing(backend, ground_of(backend, X, X), np.random.default_rng(0))


def test_pricing_ends_between_parts(monkeypatch):
    monkeypatch.setattr(pricing, "PART_FLOPS", 1.0)
    monkeypatch.setattr(pricing, "LEAST_PART", 1)
    calls = []
    climb = Pricing._climb
    monkeypatch.setattr(Pricing, "_climb", lambda self, *args: calls.append(1) or climb(self, *args))
    monkeypatch.setattr(Pricing, "_polish", lambda self, p, u: refuse() if u.shape[1] else (u, np.zeros(0)))
    found = a_pricing().price(Y[:, None], np.eye(3), 16, waves=3, deadline=PAST)
    assert len(calls) == 1 and not found.complete
    assert 0 < found.starts < 16 and found.price > 0


def test_parts_hold_every_start_once(monkeypatch):
    monkeypatch.setattr(pricing, "PART_FLOPS", 1e4)
    monkeypatch.setattr(pricing, "LEAST_PART", 1)
    own = a_pricing()
    u = RNG.standard_normal((3, 50))
    parts = own._parts(u, 30)
    assert len(parts) > 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts, axis=1), axis=1), np.sort(u, axis=1))
    found = own.price(Y[:, None], np.eye(3), 16)
    whole = a_pricing().price(Y[:, None], np.eye(3), 16)
    assert found.complete and found.price == pytest.approx(whole.price, rel=1e-6)


def test_parts_are_wide_while_that_is_not_too_dear(monkeypatch):
    own = a_pricing()
    u = RNG.standard_normal((3, 400))
    monkeypatch.setattr(pricing, "PART_FLOPS", 1.0)
    assert [part.shape[1] for part in own._parts(u, 30)] == [134, 133, 133]
    monkeypatch.setattr(pricing, "MOST_FLOPS", 1.0)
    assert len(own._parts(u, 30)) == 400


def test_dear_ascents_are_halved_and_find_the_price(monkeypatch):
    whole = a_pricing().price(Y[:, None], np.eye(3), 64)
    monkeypatch.setattr(pricing, "DEAR_FLOPS", 1.0)
    monkeypatch.setattr(pricing, "DEAR_WAVE", 1.0)
    halved = a_pricing().price(Y[:, None], np.eye(3), 64, waves=2, enough=lambda price: False)
    assert halved.price == pytest.approx(whole.price, rel=1e-3)
    values = np.abs(Y @ np.maximum(X @ halved.directions, 0.0))
    np.testing.assert_allclose(values, halved.values, rtol=1e-9)


def test_exact_price_without_time_is_a_bound(monkeypatch):
    cells = arrange(X)
    truth = price_on(cells, Y).value
    monkeypatch.setattr(exact_pricing, "_project", refuse)
    assert price_on(cells, Y, deadline=PAST).value >= truth
    with pytest.raises(OutOfTime):
        enumerate_by(X, 10_000, PAST)


def test_relaxed_price_without_time_is_the_closed_form():
    wide = RNG.standard_normal((40, 8))
    assert relaxed_price(wide, Y, deadline=PAST) == closed_form_price(wide, Y[:, None])


def test_lasso_without_time_is_its_start():
    A = RNG.standard_normal((20, 8))
    start = np.arange(8.0)
    np.testing.assert_allclose(nonnegative_quadratic(A.T @ A, A.T @ np.ones(20), start, PAST), start, rtol=1e-14)


def test_a_large_reduction_is_left_out(monkeypatch):
    many = neurons.Neurons(RNG.standard_normal((3, 60)), np.ones((1, 60)), np.ones(60))
    assert neurons.reduce_count(many, X[:10], PAST).width == 11  # quick enough to do all the same
    monkeypatch.setattr(neurons, "QUICK", 0.0)
    assert neurons.reduce_count(many, X[:10], PAST) is many


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact"])
def test_the_certificate_of_a_sampled_solve_has_the_deadline(kind, monkeypatch):
    given = []
    whole = prepared.network_certificate

    def watched(*args, deadline, **options):
        given.append(deadline)
        return whole(*args, deadline=deadline, **options)

    monkeypatch.setattr(prepared, "network_certificate", watched)
    begun = time.perf_counter()
    sol = cvxrelu.solve(X, Y, beta=1.0, refine=False, patterns=8, certificate=kind, time_limit=300.0)
    assert sol.status is cvxrelu.Status.OPTIMAL
    assert len(given) == 1 and begun + 300.0 <= given[0] <= time.perf_counter() + 300.0


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_sampled_solve_that_ran_out_of_time_keeps_its_own_bound(kind, loss, monkeypatch):
    monkeypatch.setattr(prepared, "network_certificate", refuse)
    monkeypatch.setattr(time, "perf_counter", Clock(1.0))
    y = Y if loss == "squared" else np.where(np.median(Y) < Y, 1.0, -1.0)
    sol = cvxrelu.solve(X, y, beta=0.1, loss=loss, refine=False, certificate=kind, time_limit=3.0, backend="numpy")
    assert sol.status is cvxrelu.Status.TIME_LIMIT
    assert sol.certificate.kind == "relaxed" and "relaxed bound" in sol.message


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact"])
def test_a_refinement_out_of_time_ends_in_its_round(kind, monkeypatch):
    """One pricing, no descent, and the cheap bound; nothing is called optimal that was not priced to the end."""
    monkeypatch.setattr(NetworkProgram, "descend", refuse)
    monkeypatch.setattr(time, "perf_counter", Clock(1.0))
    sol = cvxrelu.solve(X, Y, beta=0.1, certificate=kind, time_limit=2.0, backend="numpy")
    assert sol.status is cvxrelu.Status.TIME_LIMIT
    assert sol.n_rounds <= 1
    assert sol.certificate.kind == ("priced" if kind == "priced" else "relaxed")
    assert f"by the {sol.certificate.kind} bound" in sol.message


def test_a_gap_that_was_not_priced_to_the_end_is_not_optimal(monkeypatch):
    """The time is over in the middle of the pricing that would have confirmed it."""
    clock, gaps = Clock(0.0), []
    climb = Pricing._climb

    def dear(self, p, u, coarse, steps):
        clock.now += 0.0 if coarse else 100.0  # as only the thorough pricings are not
        return climb(self, p, u, coarse, steps)

    monkeypatch.setattr(Pricing, "_climb", dear)
    monkeypatch.setattr(pricing, "PART_FLOPS", 1e5)
    monkeypatch.setattr(pricing, "LEAST_PART", 1)
    monkeypatch.setattr(time, "perf_counter", clock)
    sol = cvxrelu.solve(X, Y, beta=1.0, time_limit=50.0, tol=0.05, backend="numpy", callback=lambda r: gaps.append(r))
    assert clock.now > 50.0
    assert sol.status is cvxrelu.Status.TIME_LIMIT


@pytest.mark.parametrize("kind", ["priced", "relaxed", "exact"])
def test_certify_has_one_limit_for_search_and_proofs(kind, monkeypatch):
    network = cvxrelu.solve(X, Y, beta=1.0, backend="numpy").network
    monkeypatch.setattr(time, "perf_counter", Clock(1.0))
    monkeypatch.setattr(proofs, "exact_price", refuse)
    monkeypatch.setattr(NetworkProgram, "descend", refuse)
    found = cvxrelu.certify(network, X, Y, beta=1.0, kind=kind, time_limit=2.0, backend="numpy")
    assert found.kind == "relaxed" and found.lower_bound <= found.objective
