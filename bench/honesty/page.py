"""The tables of `bench.honesty`: tallies by rule, by distance from the origin, statuses, warnings, worst cases."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

from bench.common.report import markdown_table

__all__ = ["summary", "tables"]

RULES = ("rigorous", "priced", "objective", "sampled", "beta_max", "certificate", "error", "status", "warning")
OFFSETS = ((0.0, 1.0), (1.0, 10.0), (10.0, 1e3), (1e3, 1e7))  # column means in deviations
WORST = 12
TEXTS = 12


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of the records: counts and worst cases, never all of them."""
    from bench.honesty.rules import violations

    records = sorted(records, key=lambda record: record["k"])
    broken = [(record, row) for record in records for row in violations(record)]
    count = collections.Counter(row["rule"] for _, row in broken)
    bounds: collections.Counter[str] = collections.Counter()
    believed: collections.Counter[str] = collections.Counter()
    statuses: dict[str, collections.Counter[str]] = {}
    texts: collections.Counter[str] = collections.Counter()
    for record in records:
        texts.update(record["warnings"])
        for name, status in record["statuses"].items():
            statuses.setdefault(name, collections.Counter())[status] += 1
        for bound in record["bounds"]:
            bounds[bound["kind"]] += 1
            believed[bound["kind"]] += bound["believed"]
    worst = sorted(broken, key=lambda pair: (RULES.index(pair[1]["rule"]), -_size(pair[1]["by"])))
    seconds = [record["total_seconds"] for record in records]
    return {
        "problems": len(records),
        "jax": sum(record["backend"] == "jax" for record in records),
        "float32": sum(record["dtype"] == "float32" for record in records),
        "violations": {rule: count.get(rule, 0) for rule in RULES},
        "bounds": dict(bounds),
        "believed": dict(believed),
        "statuses": {name: dict(counter) for name, counter in statuses.items()},
        "offsets": [_of_offsets(records, broken, *limits) for limits in OFFSETS],
        "excess": _excess(records),
        "warnings": dict(texts.most_common(TEXTS)),
        "worst": [_case(*pair) for pair in _by_rule(worst)],
        "cpu_seconds": {"median": float(np.median(seconds)), "total": float(np.sum(seconds))} if seconds else {},
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown of a summary."""
    total = result["problems"]
    parts = [
        f"{total} problems, {result['jax']} of them on JAX, {result['float32']} in float32; "
        f"{result['cpu_seconds'].get('median', 0.0):.1f} CPU seconds a problem (median), "
        f"{result['cpu_seconds'].get('total', 0.0) / 3600:.1f} hours in all."
    ]
    what = {
        "rigorous": "rigorous bounds above a network",
        "priced": "priced bounds of status `optimal` above the best network",
        "objective": "objectives other than those of the saved network",
        "sampled": "bounds of (S) above a point of (S)",
        "beta_max": "`beta_max` below a direction found, or above the exact value",
        "certificate": "bounds that differ from their certificate's, or are not finite",
        "error": "exceptions",
        "status": "status `optimal`, though the gap reported is above tol",
        "warning": "problems with a warning of invalid arithmetic",
    }
    solves = sum(sum(counter.values()) for counter in result["statuses"].values())
    kinds = {"rigorous": ("relaxed", "branch", "exact"), "priced": ("priced",)}
    whole = {rule: sum(result["believed"].get(kind, 0) for kind in names) for rule, names in kinds.items()}
    whole |= {"status": solves, "warning": total}
    rows = [[text, result["violations"][rule], whole.get(rule, "")] for rule, text in what.items()]
    parts.append(markdown_table(["rule", "broken", "of"], rows))
    excess = result["excess"]
    if excess:
        names = ["kind of bound", "median of (best - bound) / best", "largest (bound - best) / best"]
        parts.append(
            markdown_table(names, [[kind, f"{e['median']:.1e}", f"{e['largest']:.1e}"] for kind, e in excess.items()])
        )
    header = ["column means, deviations", "problems", "cannot tell", "priced bounds false", "rigorous bounds false"]
    parts.append(
        markdown_table(
            header,
            [[_limits(o), o["problems"], _share(o["cannot_tell"], o["problems"]), o["priced"], o["rigorous"]]
             for o in result["offsets"]],
        )
    )  # fmt: skip
    names = sorted({status for counter in result["statuses"].values() for status in counter})
    rows = []
    for name, counter in result["statuses"].items():
        whole = sum(counter.values())
        counts = [counter.get(status, 0) for status in names]
        rows.append([name, *counts, _share(whole - counter.get("optimal", 0), whole)])
    parts.append(markdown_table(["solve", *(f"`{name}`" for name in names), "cannot tell"], rows))
    if result["worst"]:
        rows = [[w["k"], w["rule"], w["of"], _shown(w["by"]), w["what"]] for w in result["worst"]]
        parts.append(markdown_table(["problem", "rule", "of", "by", "what it is"], rows))
    if result["warnings"]:
        parts.append(markdown_table(["warning", "times"], [[f"`{t}`", n] for t, n in result["warnings"].items()]))
    return "\n\n".join(parts)


def _of_offsets(records: list[dict[str, Any]], broken: list[Any], low: float, high: float) -> dict[str, Any]:
    inside = [record for record in records if low <= record["offset"] < high]
    rules = collections.Counter(row["rule"] for record, row in broken if low <= record["offset"] < high)
    unsure = sum(record["statuses"].get("solve", "error") != "optimal" for record in inside)
    return {"low": low, "high": high, "problems": len(inside), "cannot_tell": unsure} | {
        rule: rules.get(rule, 0) for rule in RULES
    }


def _excess(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By kind of bound: how far below the best network, and how far above at most; networks of some size only."""
    distances: dict[str, list[float]] = {}
    for record in records:
        if record["best"] > 1e-9 * record["zero"]:
            for bound in record["bounds"]:
                if bound["believed"]:
                    distances.setdefault(bound["kind"], []).append(1.0 - bound["bound"] / record["best"])
    return {
        kind: {"median": float(np.median(values)), "largest": float(-np.min(values))}
        for kind, values in distances.items()
    }


def _by_rule(worst: list[Any]) -> list[Any]:
    """The first few of every rule."""
    taken: collections.Counter[str] = collections.Counter()
    kept = []
    for record, row in worst:
        taken[row["rule"]] += 1
        if taken[row["rule"]] <= WORST:
            kept.append((record, row))
    return kept


def _case(record: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    options = [
        key
        for key in ("intercept", "skip", "skip_l2", "pairs", "sample_weight", "margin", "equality")
        if record.get(key)
    ]
    what = (
        f"{record['loss']}, n {record['n']}, d {record['d']}, c {record['c']}, {record['kind']}, means "
        f"{record['offset']:.0e}, {record['dtype']}, {record['backend']}: {', '.join(map(str, options))}. {row['text']}"
    )
    return {"k": record["k"], "rule": row["rule"], "of": row["of"], "by": row["by"], "what": what.replace("|", "/")}


def _size(by: float | None) -> float:
    return np.inf if by is None else float(by)


def _shown(by: float | None) -> str:
    return "" if by is None else f"{by:.1e}"


def _limits(of: dict[str, Any]) -> str:
    return "none" if of["low"] == 0 else f"{of['low']:.0e} to {of['high']:.0e}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
