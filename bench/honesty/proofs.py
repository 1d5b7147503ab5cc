"""Branch and bound against exact enumeration: python -m bench.honesty.proofs [--problems N] [--first K] [--write-docs]

Of the problems that `bench.honesty` draws, those of one output, rank at most 3 and no equality, whatever the loss, the
skip and the weights. For each something is proved by some cones, from the dual variable of no network (even numbers)
or of one with random hidden units (odd ones); where the loss is a sum over rows, also at better dual variables, and for
one problem in five by some boxes, for two in five by coupled rows, which `certify` takes from rank 6 and 8 on. One in
five of all has the relaxed bound, without the cones that it takes up to rank 5. The enumeration of cells that `certify`
has for such ranks is what judges them. Two things are asked of every proof; with both, no network has a smaller
objective:

    feasible   the largest |p^T (X u)_+| of its dual variable over the unit ball, by enumeration of all cells and then
               in extended precision, is at most beta (1 + 1e-12) and the rounding that the problem allows for; and a
               free skip finds nothing in it beyond rounding
    value      the bound is at most what the dual variable proves by the plain formula, in extended precision
"""

from __future__ import annotations

import argparse
import collections
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from bench.common.report import put_between_markers, save_json
from bench.honesty.price import price_of_zero
from bench.honesty.problems import Case, draw
from bench.honesty.programs import Program, program_of
from cvxrelu.certificates.branching.box_search import BoxLine
from cvxrelu.certificates.branching.cone_search import ConeLine
from cvxrelu.certificates.branching.coupled_line import PER_ROUND, CoupledLine
from cvxrelu.certificates.branching.line import Line
from cvxrelu.certificates.exact_pricing import exact_price
from cvxrelu.certificates.relaxation import relaxed_lower_bound
from cvxrelu.program.problem import Problem, build_problem
from cvxrelu.program.readout import read
from cvxrelu.runs.proving import Branching, Ledger, Proof

__all__ = ["tried"]

CONES, BOXES, EVERY = 60, 600, 5  # of a proof, a box counted as a hundred cones; one in so many problems by boxes
ROUNDS = 3  # of L-BFGS, with rows coupled
RELAXED = 3  # of five: the problems that have the relaxed bound too
PART = 500  # problems drawn at a time
REFUSED = (
    "for float32: rescale it",
    "float64 cannot tell the cells apart",
    "rows so nearly parallel",
    "must have rank at most 3",
)


def eligible(case: Case) -> bool:
    program = program_of(case, 1.0)
    if "equality" in case.options or program.y.shape[1] > 1:
        return False
    return int(np.linalg.matrix_rank(program.X)) <= 3


def tried(k: int) -> dict[str, Any] | None:
    """What the proofs of problem k break; None where it is not asked for, or refused before any work."""
    started, case = time.process_time(), draw(k)
    if not eligible(case):
        return None
    unit = program_of(case, 1.0)
    price = price_of_zero(unit, k, 30)[0]
    beta = case.fraction * price if price > 0 else 1.0
    options = {key: value for key, value in case.options.items() if key != "intercept"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that are badly scaled
        try:
            X = unit.X.astype(case.X.dtype)
            problem = build_problem(X, case.y, beta=beta, sampled=False, **options)
            t = start_of(problem, k)
            attained(problem, t)
        except ValueError as error:
            if any(words in str(error) for words in REFUSED):
                return None
            raise
        broken, values = [], {}
        for way, proof in proofs(k, problem, t):
            at, slack = attained(problem, proof.dual), problem.pull_back(proof.dual)[1]
            if not at <= beta * (1 + 1e-12) + slack:
                broken.append([way, "feasible", at / beta - 1])
            value, size = dual_value(unit, proof.dual)
            if not proof.bound <= value + 1e-12 * size:
                broken.append([way, "value", (proof.bound - value) / size])
            values[way] = proof.bound
    kind = {"loss": case.options["loss"], "rank": int(np.linalg.matrix_rank(unit.X)), "kind": case.kind}
    return {"k": k, **kind, "broken": broken, "values": values, "seconds": time.process_time() - started}


def start_of(problem: Problem, k: int) -> np.ndarray:
    """t of no network, or of one whose outputs are fitted to the targets."""
    f = 0.0 * problem.loss.y
    if k % 2:
        rng = np.random.default_rng(k)
        hidden = np.maximum(problem.X @ rng.standard_normal((problem.X.shape[1], 8)), 0)
        features = read(problem.readout, hidden)
        f = features @ np.linalg.lstsq(features, problem.loss.y, rcond=1e-3)[0]
    return problem.loss.dual(f)


def dual_value(program: Program, t: np.ndarray) -> tuple[float, float]:
    """(what a feasible t proves, sum of the magnitudes it is computed from).

    sum_i min_a loss_i(a) + t_i a - |K^T p|^2 / (2 skip_l2), K the skip's columns and p the sums of t by rows of X.
    """
    t, w = t[:, 0].astype(np.longdouble), program.weight[:, 0].astype(np.longdouble)
    y, some = program.y[:, 0].astype(np.longdouble), program.weight[:, 0] > 0
    t, y, w, margin = t[some], y[some], w[some], program.margin[some, 0].astype(np.longdouble)
    if program.loss == "squared":
        parts = [t * y, -t * t / (2 * w)]
    else:
        s = np.clip(t * y / w, 0, 1)
        entropy = -s * np.log(np.maximum(s, np.finfo(float).tiny))
        entropy -= (1 - s) * np.log1p(-np.minimum(s, 1 - np.finfo(np.longdouble).eps))
        parts = [w * entropy, w * s * margin]
    value, size = (float(sum(np.sum(f(part)) for part in parts)) for f in (lambda v: v, np.abs))
    if program.columns.shape[1]:
        p = np.zeros(len(program.weight), dtype=np.longdouble)
        p[some] = t
        columns = program.columns.astype(np.longdouble)
        read = program.read(columns)
        of_skip, scale = read.T @ p, np.linalg.norm(read.astype(float), axis=0) * np.linalg.norm(p.astype(float))
        if program.l2 > 0:
            value -= float(np.sum(of_skip**2)) / (2 * program.l2)
            size += float(np.sum(of_skip**2)) / (2 * program.l2)
        elif np.any(np.abs(of_skip) > 1e-9 * scale):
            value = -np.inf
    return value, max(size, 1e-300)


class Cones(ConeLine):
    """Without the enumeration of cells that takes the place of cones at rank 3."""

    def by_cells(self) -> None:
        pass


def proofs(k: int, problem: Problem, t: np.ndarray) -> list[tuple[str, Proof]]:
    """By all ways that there are for the problem."""
    ways: dict[str, Callable[[Ledger], Line]] = {"cones": lambda ledger: Cones(problem, t, ledger, weighs=False)}
    if problem.skip is None and problem.readout is None:
        ways["cones, t improved"] = lambda ledger: Cones(problem, t, ledger, weighs=True)
        if k % EVERY == 0:
            ways["boxes"] = lambda ledger: BoxLine(problem, t, ledger)
        elif k % EVERY <= 2:
            ways["coupled rows"] = lambda ledger: CoupledLine(problem, t, ledger)
    found = []
    for way, make in ways.items():
        ledger = Ledger(Proof(0.0, 0.0, 0.0 * t), Branching(), dict)
        line, most = make(ledger), {"boxes": BOXES, "coupled rows": ROUNDS * PER_ROUND}.get(way, CONES)
        line.go(np.inf, most)
        line.finish(np.inf, most)
        found.append((way, ledger.best))
    if k % EVERY == RELAXED:
        found.append(("relaxed", Proof(*relaxed_lower_bound(problem, t, improve=k % 2 == 0, cones=0))))
    return found


def attained(problem: Problem, dual: np.ndarray) -> float:
    """The largest |p^T (X u)_+|: over the maximiser and all local maxima of the enumeration, in extended precision."""
    p = np.ascontiguousarray(problem.pull_back(dual)[0][:, 0])
    found = exact_price(problem.X, p, above=np.inf)
    u = np.column_stack([found.direction, found.directions]).astype(np.longdouble)
    u /= np.maximum(np.sqrt(np.sum(u * u, axis=0)), 1e-300)
    return float(np.abs(p.astype(np.longdouble) @ np.maximum(problem.X.astype(np.longdouble) @ u, 0)).max())


def records(first: int, workers: int) -> Iterator[dict[str, Any]]:
    """Of all problems from `first` on that are asked for, in their order."""
    with ProcessPoolExecutor(workers) as pool:
        for begin in itertools.count(first, PART):
            yield from filter(None, pool.map(tried, range(begin, begin + PART), chunksize=5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=10_000, metavar="N", help="how many to have proofs of")
    parser.add_argument("--first", type=int, default=0, metavar="K")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write-docs", action="store_true", help="put the count into docs/honesty.md")
    options = parser.parse_args()
    of: collections.Counter[str] = collections.Counter()
    count, seconds, broken, made = 0, 0.0, [], collections.Counter[str]()
    found = records(options.first, options.workers)
    try:
        for record in itertools.islice(found, options.problems):
            count, seconds = count + 1, seconds + record["seconds"]
            of.update({record["loss"]: 1, f"rank {record['rank']}": 1})
            made.update(record["values"].keys())
            for row in record["broken"]:
                broken.append([record["k"], *row])
                print(f"k {record['k']}: {row}", flush=True)
            if count % 250 == 0:
                print(f"{count} of {options.problems}, k {record['k']}, {seconds:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what there is so far")
    result = {
        "problems": count, "last": record["k"], "of": dict(of), "proofs": dict(made), "broken": broken,
        "cpu_seconds": seconds,
    }  # fmt: skip
    print(result, flush=True)
    if options.write_docs:
        save_json("honesty-proofs", result)
        put_between_markers("docs/honesty.md", "proofs", words(result))
    found.close()


def words(result: dict[str, Any]) -> str:
    ways = ", ".join(f"{n} by {way}" for way, n in result["proofs"].items())
    kinds = ", ".join(f"{n} of {kind}" for kind, n in sorted(result["of"].items()))
    return (
        f"{result['problems']} problems ({kinds}); proofs: {ways}; {len(result['broken'])} that break a rule; "
        f"{result['cpu_seconds'] / 60:.0f} CPU minutes."
    )


if __name__ == "__main__":
    main()
