"""Every bound of 300 random problems against independent networks, and the audit itself: does it see a false one?"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from bench.honesty import audit as honesty
from bench.honesty.judge import coordinates, search
from bench.honesty.page import summary, tables
from bench.honesty.price import price_of_zero
from bench.honesty.problems import draw
from bench.honesty.programs import network_parts, program_of

CHUNK = 20
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # odd data are the point here


@pytest.mark.parametrize("chunk", range(300 // CHUNK))
def test_no_answer_is_false(chunk):
    broken = []
    for k in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        record = honesty.audit(k, small=True, quick=True)
        assert record["bounds"] or record["rows"]
        broken += [(k, row["rule"], row["of"], row["by"], row["text"]) for row in honesty.violations(record)]
    assert not broken


@pytest.mark.parametrize("k", [357, 643, 895, 998, 2484, 2550, 3492, 7149, 8305, 9016, 9306, 9420])
def test_what_thousands_of_problems_found(k):
    """What each was is in CHANGELOG.md: a pricing that found nothing by chance, squares that vanish, columns that
    cancel, Hessians that rounding made indefinite, and others."""
    assert honesty.violations(honesty.audit(k, quick=True)) == []


def made_up(**changes):
    """A record in which everything holds, at the edge of its rules."""
    bounds = [
        {"of": "exact", "kind": "exact", "rigorous": True, "bound": 2.0, "gap": 0.0, "believed": True},
        {"of": "solve", "kind": "priced", "rigorous": False, "bound": 2.0 * 1.003, "gap": 1e-3, "believed": True},
    ]
    return {
        "k": 5, "n": 9, "d": 2, "c": 1, "kind": "times", "offset": 0.0, "dtype": "float64", "backend": "numpy",
        "loss": "squared", "best": 2.0, "zero": 7.0, "bounds": bounds, "statuses": {"solve": "optimal"},
        "networks": {"search": 2.0}, "rows": [], "overstated": [], "warnings": {}, "seconds": {}, "total_seconds": 1.0,
        **changes,
    }  # fmt: skip


def test_rules_of_bounds():
    assert honesty.violations(made_up()) == []
    record = made_up(best=1.99)
    assert [row["rule"] for row in honesty.violations(record)] == ["rigorous", "priced"]
    assert honesty.violations(record)[0]["by"] == pytest.approx(2.0 / 1.99 - 1)
    record["bounds"][1]["believed"] = False  # the status says that it cannot tell
    assert [row["rule"] for row in honesty.violations(record)] == ["rigorous"]
    record["overstated"] = ["solve"]
    assert [row["rule"] for row in honesty.violations(record)] == ["rigorous", "status"]
    record["overstated"] = []
    record["bounds"][0]["bound"] = np.nan
    assert [row["rule"] for row in honesty.violations(record)] == ["rigorous"]


def test_a_false_bound_of_a_solve_is_seen(monkeypatch):
    """A solve that claims more than it found, less than it has, or raises, breaks the rule of each."""
    from dataclasses import replace

    solve = honesty.cvxrelu.solve

    def wrong(*arguments, **options):
        if options.get("refine", True) is False:
            raise ZeroDivisionError("by nothing")
        sol = solve(*arguments, **options)
        certificate = replace(sol.certificate, lower_bound=sol.objective * 1.5)
        return replace(sol, certificate=certificate, objective=sol.objective * 1.01)

    monkeypatch.setattr(honesty.cvxrelu, "solve", wrong)
    record = honesty.audit(0, small=True, quick=True)
    assert {"priced", "objective", "error"} <= {row["rule"] for row in honesty.violations(record)}


def test_runs_go_on_where_they_were(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(honesty, "audit", lambda k, quick: done.append(k) or made_up(k=k))
    path = tmp_path / "records.jsonl"
    honesty.run(range(3), path, 1)
    with open(path, "a") as file:
        file.write('{"k": 3, "cut')  # as a kill in the middle of a line leaves it
    honesty.run(range(5), path, 1)
    assert done == [0, 1, 2, 3, 4]
    records = honesty.read(path)
    assert sorted(records) == [0, 1, 2, 3, 4]
    assert json.loads(path.read_text().splitlines()[-1])["k"] == 4


def test_tables_tell_what_was_broken():
    warnings = {"UserWarning: #": 3, "RuntimeWarning: invalid value": 1}
    good, bad = made_up(k=1), made_up(k=2, best=1.5, statuses={"solve": "max_iter"}, warnings=warnings)
    bad["overstated"] = ["solve"]
    bad["rows"] = [{"rule": "error", "of": "solve", "by": None, "text": "ValueError | of a kind"}]
    result = summary([bad, good])
    assert result["violations"]["rigorous"] == result["violations"]["priced"] == result["violations"]["error"] == 1
    assert result["violations"]["status"] == result["violations"]["warning"] == 1
    assert [case["k"] for case in result["worst"]] == [2] * 5
    assert result["offsets"][0]["cannot_tell"] == 1
    text = tables(result)
    assert "50.0 %" in text and "UserWarning: #" in text and "ValueError / of a kind" in text


def test_draws_depend_on_the_number_alone():
    for k in (0, 7, 36):
        one, other = draw(k), draw(k)
        np.testing.assert_array_equal(one.X, other.X)
        assert one.fraction == other.fraction and repr(one.options) == repr(other.options)
    assert draw(36).backend == "jax" and draw(35).backend == "numpy"
    cases = [draw(k) for k in range(300)]
    assert {case.options["loss"] for case in cases} == {"squared", "logistic", "multinomial"}
    for name in ("pairs", "sample_weight", "margin", "intercept", "skip", "skip_l2", "equality"):
        assert sum(name in case.options for case in cases) >= 5, name
    assert max(case.offset for case in cases) > 1e5 and sum(case.X.dtype == np.float32 for case in cases) > 20


# -- the judge -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_search_reaches_the_optimum_far_from_the_origin(seed):
    """Sorted times of 2000 with a free line, where kinks decide: the optimum by exact enumeration."""
    import cvxrelu

    rng = np.random.default_rng(seed)
    x = 2000 + np.sort(rng.uniform(0, 30, 40))
    y = np.sin((x - 2000) / 4) + 0.05 * (x - 2000) + 0.1 * rng.standard_normal(40)
    options = {"loss": "squared", "intercept": True, "skip": "linear"}
    case = draw(0)._replace(X=x[:, None], y=y, options=options)
    sol = cvxrelu.solve(x[:, None], y, beta=5e-4, certificate="exact", tol=1e-6, intercept=True, skip="linear")
    found = search(program_of(case, 5e-4), 0)
    assert sol.lower_bound * (1 - 1e-9) <= found.objective <= sol.objective * 1.02


def test_price_of_zero_is_the_closed_form():
    """In one dimension with a free line the best unit neuron has its kink at a data point."""
    rng = np.random.default_rng(1)
    x = 2000 + np.sort(rng.uniform(0, 30, 40))
    y = np.sin((x - 2000) / 4) + 0.05 * (x - 2000) + 0.1 * rng.standard_normal(40)
    case = draw(0)._replace(X=x[:, None], y=y, options={"loss": "squared", "intercept": True, "skip": "linear"})
    price, _ = price_of_zero(program_of(case, 1.0), 0)
    assert price == pytest.approx(0.0236925, rel=2e-4)


@pytest.mark.parametrize("k", range(12))
def test_program_is_the_library_s(k):
    """The formula of the judge, at networks of the solver, is the objective that the solver reports."""
    import cvxrelu

    case = draw(k, small=True)
    program = program_of(case, 0.1)
    sol = cvxrelu.solve(case.X, case.y, beta=0.1, **case.options, tol=0.1, backend="numpy")
    value, rounding = program.objective(network_parts(program, sol.network))
    assert abs(value - sol.objective) <= rounding


def test_coordinates_are_those_of_the_row_space():
    rng = np.random.default_rng(0)
    X = np.hstack([1e6 + rng.standard_normal((20, 1)), 1e-5 * rng.standard_normal((20, 1)), np.ones((20, 1))])
    X = np.hstack([X, X[:, :1] - 2 * X[:, 2:], np.zeros((20, 1))])
    at = coordinates(X)
    assert at.rows.shape[1] == 3
    np.testing.assert_allclose(at.rows.T @ at.rows, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(X @ at.back, at.rows, atol=1e-3)  # rounding times 1e11, the ratio of columns


def test_arithmetic_that_goes_wrong_is_said_with_its_place():
    at = honesty.Audit(draw(3, small=True), quick=True)
    at.call("solve", lambda: np.array([1.0]) / 0.0)
    at.call("solve", lambda: warnings.warn("of 3 columns", UserWarning, stacklevel=1))
    arithmetic, user = at.warnings
    assert arithmetic.startswith("RuntimeWarning: divide by zero") and "(test_honesty.py:" in arithmetic
    assert user == "UserWarning: of # columns"
