"""A random audit of every bound the library issues: python -m bench.honesty [--problems N] [--report] [--write-docs]

Problem k is drawn from its number alone (`bench.honesty.problems`), solved in several ways, and each answer compared
with the best network that any run found, those of `bench.honesty.judge` included, which has no code of the library.
With `best` the least objective by a plain formula in extended precision, and `zero` that of no network at all:

    rigorous   a certificate with `rigorous`:  bound <= best + 1e-9 |best| + 1e-12 zero
    priced     an estimate, where the status is `optimal` (or that has none, from `certify`):
               bound <= best + (3 gap + 1e-6) |best| + 1e-12 zero,    gap the one reported
    objective  of the network, saved and loaded again, by the plain formula: |difference| <= rounding of float64
    sampled    the bound of (S): at most its own objective, and at most Clarabel's, where the data are well scaled
    beta_max   at least 0.999 times the largest |p^T (X u)_+| found, and at rank at most 3 no more than the exact value
    status     `optimal` only where the gap reported is at most tol
    error, warning    no exception, no RuntimeWarning

What breaks a rule is a violation, with the factor by which: a row each in the report. One line of JSON for each problem
goes to bench/.cache/honesty.jsonl (honesty-quick.jsonl with --quick); a run that was stopped goes on where it was. A
limit of 60 s is on every solve.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import cvxrelu
from bench.common.report import ROOT, put_between_markers, save_json
from bench.honesty.judge import Found, search
from bench.honesty.price import price_of_zero
from bench.honesty.problems import Case, draw
from bench.honesty.programs import clear_rank, network_parts, plain, program_of
from bench.honesty.rules import described, violations
from cvxrelu.certificates.exact_pricing import exact_price

__all__ = ["audit"]

RESULTS = ROOT / "bench" / ".cache" / "honesty.jsonl"
QUICK_RESULTS = ROOT / "bench" / ".cache" / "honesty-quick.jsonl"
BRANCH_LIMIT = 2.0  # seconds of a proof that would take all it is given
LIMIT = 60.0  # seconds for a solve
FULL = {"rounds": 6, "count": 150}
QUICK = {"rounds": 2, "count": 60}
# What is said, before any work, of float32 data that it cannot hold, and by certificate="exact" of data whose rank or
# cells are a matter of rounding.
REFUSALS = (
    "for float32: rescale it",
    "needs X of rank at most 3",
    "must have rank at most 3",
    "float64 cannot tell the cells apart",
)
CERTIFY = ("loss", "pairs", "sample_weight", "margin", "skip_l2")  # options of `certify`
BETA_MAX = ("loss", "pairs", "sample_weight", "margin", "intercept", "skip", "skip_l2", "equality")


class Audit:
    """One problem: solves it in several ways, and keeps bounds, networks, statuses, warnings and errors."""

    def __init__(self, case: Case, quick: bool) -> None:
        self.case, self.quick = case, quick
        unit = program_of(case, 1.0)
        price, self.zero_dual = price_of_zero(unit, case.k, 60 if quick else 200)
        self.price = price
        slopes = unit.weight * (np.abs(unit.y) if unit.loss == "squared" else np.ones_like(unit.y))
        self.size = float(np.linalg.norm(unit.X) * np.linalg.norm(slopes))  # no price is larger by more than a factor
        self.beta = case.fraction * price if price > 1e-9 * self.size else 1e-3 * self.size or 1.0
        self.program = unit._replace(beta=self.beta)
        self.networks: list[tuple[str, Any]] = []
        self.bounds: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []  # of violations that need no best network
        self.statuses: dict[str, str] = {}
        self.overstated: list[str] = []  # `optimal`, though the gap reported is above tol
        self.warnings: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, float] = {}

    def call(self, name: str, function: Any, *arguments: Any, **options: Any) -> Any:
        """Its result, or None and a violation where it raised; its warnings counted, its seconds kept."""
        started = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                return function(*arguments, **options)
            except Exception as error:
                if isinstance(error, ValueError) and any(words in str(error) for words in REFUSALS):
                    self.statuses[name] = "refused"
                    return None
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
                self.rows.append({"rule": "error", "of": name, "by": None, "text": text[:300]})
                return None
            finally:
                self.warnings.update(map(described, caught))
                self.seconds[name] = time.process_time() - started

    def solve(self, name: str, *, tol: float = 1e-3, **options: Any) -> Any:
        case = self.case
        sol = self.call(
            name, cvxrelu.solve, case.X, case.y, beta=self.beta, **case.options, backend=case.backend,
            time_limit=LIMIT, tol=tol, **options,
        )  # fmt: skip
        if sol is None:
            return None
        self.statuses[name] = sol.status.value
        certificate = sol.certificate
        gap = sol.gap if options.get("refine", True) else sol.sampled.gap  # of the program that the status speaks of
        self.overstated += [name] * (sol.status.value == "optimal" and gap > tol)
        believed = certificate.rigorous or sol.status.value == "optimal"
        self.bounds.append(
            {"of": name, "kind": certificate.kind, "rigorous": certificate.rigorous, "bound": sol.lower_bound,
             "gap": sol.gap, "believed": believed}
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            sol.network.save(Path(folder) / "network.safetensors")
            network = cvxrelu.ReLUNetwork.load(Path(folder) / "network.safetensors")
        parts = network_parts(self.program, network)
        value, rounding = self.program.objective(parts)
        self.networks.append((name, Found(value, parts)))
        if not abs(value - sol.objective) <= rounding:
            by = abs(value - sol.objective) / max(abs(value), 1e-300)
            self.rows.append({"rule": "objective", "of": name, "by": by, "text": f"{sol.objective!r} for {value!r}"})
        if certificate.lower_bound != sol.lower_bound or (believed and not np.isfinite(sol.lower_bound)):
            self.rows.append({"rule": "certificate", "of": name, "by": None, "text": f"{sol.lower_bound!r}"})
        return sol

    def certify(self, name: str, network: Any, kind: str) -> None:
        case = self.case
        options = {key: value for key, value in case.options.items() if key in CERTIFY}
        certificate = self.call(
            name, cvxrelu.certify, network, case.X, case.y, beta=self.beta, kind=kind, backend=case.backend,
            time_limit=BRANCH_LIMIT if kind == "branch" else LIMIT, **options,
        )  # fmt: skip
        if certificate is not None:
            self.bounds.append(
                {"of": name, "kind": kind, "rigorous": certificate.rigorous, "bound": certificate.lower_bound,
                 "gap": certificate.gap, "believed": True}
            )  # fmt: skip

    def sampled(self, sol: Any, clarabel: bool) -> None:
        """The bound of (S) against feasible points of it."""
        part = sol.sampled
        scale = max(abs(part.objective), 1e-300)
        if part.lower_bound > part.objective + 1e-9 * scale:
            by = part.lower_bound / scale - 1
            self.rows.append({"rule": "sampled", "of": "its own objective", "by": by, "text": ""})
        if not clarabel:
            return
        from tests.sampled_optimum import sampled_optimum

        p = self.program
        equality = self.case.options.get("equality")
        if equality is not None:
            e = np.broadcast_to(np.reshape(equality[1], (1, 1)), (1, p.y.shape[1]))
            equality = (np.hstack([equality[0], np.zeros((1, p.columns.shape[1] - equality[0].shape[1]))]), e)
        value = self.call(
            "clarabel", sampled_optimum, p.X, part.patterns, p.y, p.beta, loss=p.loss, weight=p.weight[:, 0],
            margin=p.margin[:, 0], pairs=p.pairs, columns=p.columns if p.columns.shape[1] else None, skip_l2=p.l2,
            equality=equality,
        )  # fmt: skip
        if value is None:  # Clarabel's failure, not the library's
            self.rows = [row for row in self.rows if row["of"] != "clarabel"]
        elif part.lower_bound > value + 1e-5 * abs(value):
            self.rows.append({"rule": "sampled", "of": "Clarabel", "by": part.lower_bound / value - 1, "text": ""})

    def beta_max(self, exact: bool) -> None:
        options = {key: value for key, value in self.case.options.items() if key in BETA_MAX}
        value = self.call("beta_max", cvxrelu.beta_max, self.case.X, self.case.y, **options)
        if value is None:
            return
        if clear_rank(self.program) and value < 0.999 * self.price - 1e-9 * self.size:
            by = self.price / max(value, 1e-300) - 1
            self.rows.append({"rule": "beta_max", "of": "a direction found", "by": by, "text": f"{value!r}"})
        if exact:
            price = self.call("exact price", exact_price, self.program.X, self.zero_dual[:, 0], above=np.inf)
            if price is not None and value > price.value * (1 + 1e-6) + 1e-9 * self.size:
                by = value / max(price.value, 1e-300) - 1
                self.rows.append({"rule": "beta_max", "of": "the exact value", "by": by, "text": f"{value!r}"})


def audit(k: int, *, small: bool = False, quick: bool = False) -> dict[str, Any]:
    """The record of problem k. quick : one solve of a kind in turn, and a shorter search for networks."""
    started = time.process_time()
    case = draw(k, small=small)
    at = Audit(case, quick)
    program = at.program
    one = program.y.shape[1] == 1
    cheap = one and int(np.linalg.matrix_rank(program.X)) <= 3
    if not quick or k % 3 == 0:
        at.beta_max(cheap)
    sol = at.solve("solve", seed=k)
    if not quick:
        at.solve("another seed", seed=k + 1, tol=1e-5 if k % 4 == 0 else 1e-3)
    turn = k % 6
    if turn == 0 or not quick:
        sampled = at.solve("sampled", refine=False, patterns=12, certificate="relaxed", seed=k)
        if sampled is not None:
            at.sampled(sampled, not quick and k % 5 == 0 and plain(program))
    if "equality" not in case.options and sol is not None and (turn == 1 or not quick):
        at.certify("certify relaxed", sol.network, "relaxed")
        at.certify("certify branch", sol.network, "branch")
    elif turn == 1:
        at.solve("relaxed", certificate="relaxed", seed=k)
    if cheap and (turn == 2 or not quick):
        at.solve("exact", certificate="exact", tol=1e-6, seed=k)
    networks = sorted((found for _, found in at.networks), key=lambda found: found.objective)
    if quick:  # from the best of them, or from nothing
        networks = networks[: k % 2]
    known = [found.network for found in networks]
    begun = time.process_time()
    own = search(program, k, **(QUICK if quick else FULL), known=known, runs=1 - len(known) if quick else 2)
    at.seconds["search"] = time.process_time() - begun
    if turn == 3 and "equality" not in case.options:
        at.certify("certify priced", _as_network(case, own), "priced")
    best = min([own.objective, *(found.objective for _, found in at.networks)])
    zero = float(program.weight[:, 0] @ program.losses(0.0 * program.y))
    tags = {key: case.options[key] for key in ("loss", "intercept", "skip", "skip_l2") if key in case.options}
    tags |= {key: True for key in ("pairs", "sample_weight", "margin", "equality") if key in case.options}
    return {
        "k": k, "n": len(case.X), "d": case.X.shape[1], "c": program.y.shape[1], "kind": case.kind,
        "offset": case.offset, "dtype": str(case.X.dtype), "backend": case.backend, **tags, "beta": at.beta,
        "fraction": case.fraction, "best": best, "zero": zero, "bounds": at.bounds, "statuses": at.statuses,
        "networks": {name: found.objective for name, found in at.networks} | {"search": own.objective},
        "rows": at.rows, "overstated": at.overstated, "warnings": dict(at.warnings), "seconds": at.seconds,
        "total_seconds": time.process_time() - started,
    }  # fmt: skip


def _as_network(case: Case, found: Found) -> Any:
    """The network that `search` found, as `certify` takes it."""
    W, A, theta = found.network
    d, one = case.X.shape[1], program_of(case, 1.0).y.shape[1] == 1 and (case.y is None or np.ndim(case.y) == 1)
    outputs = (lambda a: a[:, 0]) if one and case.options["loss"] != "multinomial" else (lambda a: a)
    skip, bias = None, None
    if case.options.get("skip") == "linear":
        skip = outputs(theta[:d])
        bias = outputs(theta[d:])[0] if len(theta) > d else None
    elif case.options.get("skip") == "bias":
        bias = outputs(theta)[0] if len(theta) else np.zeros(A.shape[1:])[()] if not one else np.float64(0.0)
    hidden = W[d] if case.options.get("intercept") else None
    return cvxrelu.ReLUNetwork(W[:d], outputs(A), hidden, skip, bias)


def read(path: Path) -> dict[int, dict[str, Any]]:
    """Records by k; a last line that was cut off by a kill is left out."""
    records: dict[int, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
                records[record["k"]] = record
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return records


def run(numbers: Iterable[int], path: Path, workers: int, quick: bool = False) -> None:
    """Appends a line for each problem that has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, task = read(path), functools.partial(audit, quick=quick)
    missing = [k for k in numbers if k not in done]
    text = path.read_bytes() if path.exists() else b""
    with open(path, "a", encoding="utf-8") as file:
        if text and not text.endswith(b"\n"):
            file.write("\n")
        pool = ProcessPoolExecutor(workers) if workers > 1 else None
        results = map(task, missing) if pool is None else pool.map(task, missing, chunksize=4)
        for count, record in enumerate(results, 1):
            file.write(json.dumps(record, default=float) + "\n")
            file.flush()
            os.fsync(file.fileno())
            for row in violations(record):
                print(f"k {record['k']}: {row['rule']}, {row['of']}, by {row['by']}: {row['text']}", flush=True)
            if count % 50 == 0:
                print(f"{count} of {len(missing)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=0, metavar="N", help="how many to have records of")
    parser.add_argument("--first", type=int, default=0, metavar="K")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines; default bench/.cache/honesty.jsonl")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one way of solving in turn, a shorter search")
    parser.add_argument("--report", action="store_true", help="print tables, and write bench/results/honesty.json")
    parser.add_argument("--write-docs", action="store_true", help="and put them into docs/honesty.md")
    options = parser.parse_args()
    results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    if options.problems:
        run(range(options.first, options.first + options.problems), results, options.workers, options.quick)
    if options.quick and options.write_docs:
        parser.error("--write-docs needs the whole run, without --quick")
    if options.report or options.write_docs:
        from bench.honesty.page import summary, tables

        result = summary(list(read(results).values()))
        if not options.quick:
            save_json("honesty", result)
        text = tables(result)
        print(text)
        if options.write_docs:
            put_between_markers("docs/honesty.md", "honesty", text)


if __name__ == "__main__":
    main()
