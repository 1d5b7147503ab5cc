"""One command for the day a card is at hand: known answers, tests, and figures, in at most eight minutes.

Run `python -m bench.gpu` on a machine with a GPU. It needs what JAX or CuPy need and SciPy, jaxtyping, safetensors and
threadpoolctl, nothing that is pinned, and no installed cvxrelu; `machine.packages` says what is missing. Every stage is
a process of its own with a time budget, which grows by what the stages before left over; rows are written as they are
measured, and the JSON after every stage, so that a failure keeps all that was there before it.

    answers      which devices there are; products of both precisions, the (n, n) inverse, and solves beside NumPy
    tests        tests/gpu, where pytest is there
    backends     an ADMM iteration on the card by each library, and on this machine's CPU
    shares       (20 000, 1024, 128) and (100 000, 4096, 64): shares of the card's own GEMM and copy rates
    engines      Newton with its products on the card, ADMM on the card, Newton on the host
    solves       the sampled program at the two sizes of `shares`
    refinement   the network program on rows shaped like embeddings

A backend that gives a wrong answer is left out of everything that follows. The JSON goes to `bench/results/gpu.json`
with date, card, driver and versions. `--small` takes the same way with tiny sizes, also on a CPU; what it finds says
so and is never written to `bench/results`; `--out FILE` keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common.report import ROOT, environment, markdown_table, write_json
from bench.gpu import machine

__all__ = ["BUDGETS", "main"]

BUDGETS = {
    "answers": 75.0, "tests": 75.0, "backends": 40.0, "shares": 100.0, "engines": 45.0, "solves": 75.0,
    "refinement": 60.0,
}  # fmt: skip
TOTAL = 480.0
KEPT = ROOT / "bench" / "results" / "gpu.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a CPU too; not kept in bench/results")
    parser.add_argument("--out", type=Path, help="where the JSON goes instead")
    parser.add_argument("--only", nargs="+", choices=BUDGETS, help="these stages, after `answers`")
    options = parser.parse_args(arguments)
    if missing := machine.missing_packages():
        sys.exit(f"missing: {', '.join(missing)}. {machine.ADVICE}")
    out = options.out or (None if options.small else KEPT)
    began, spare, found = time.monotonic(), 0.0, {"small": options.small, **machine.card(), "stages": {}}
    with tempfile.TemporaryDirectory() as folder:
        env = machine.child_environment(Path(folder))
        for name, budget in BUDGETS.items():
            if name != "answers" and options.only and name not in options.only:
                continue
            limit = min(budget + spare, TOTAL - (time.monotonic() - began))
            stage = run_stage(name, limit, options.small, found.get("names", []), env, Path(folder))
            spare = max(0.0, spare + budget - stage["seconds"])
            found["stages"][name] = stage
            show(name, stage)
            if name == "answers":
                found |= judge(stage["rows"], options.small)
            found["seconds"] = time.monotonic() - began
            if out is not None:
                write_json(out, {"environment": environment(), **found})
    print(f"\n{found['seconds']:.0f} s in all; {'no GPU: a run on the CPU; ' if not found['gpu'] else ''}", end="")
    print(f"written to {out}" if out is not None else "not written to bench/results")
    failed = [name for name, stage in found["stages"].items() if stage["ended"] == "failed"]
    if failed or found["refused"]:
        sys.exit(f"failed: {', '.join([*failed, *found['refused']])}")


def judge(rows: list[dict[str, Any]], small: bool) -> dict[str, Any]:
    """The backends to go on with, or an end where there are none: no figure without a card."""
    wrong = sorted({row["backend"] for row in rows if row.get("answer") not in ("ok", None)})
    cards = [row["backend"] for row in rows if row.get("accelerator")]
    names = [name for name in cards if name not in wrong]
    if cards and not names:
        sys.exit(f"every accelerator gives wrong answers: {', '.join(wrong)}")
    if not cards and not small:
        sys.exit("no accelerator: JAX has none, and CuPy finds none. `--small` runs the same on the CPU")
    return {"gpu": bool(cards), "names": names or ["jax"], "refused": wrong}


def run_stage(
    name: str, limit: float, small: bool, backends: list[str], env: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Rows, how it ended ("done", "out of time" or "failed"), seconds, and the end of what it wrote."""
    rows, log, started = folder / f"{name}.jsonl", folder / f"{name}.log", time.monotonic()
    command = [sys.executable, "-m", "bench.gpu.stages", name, "--rows", str(rows), "--limit", f"{limit:.0f}"]
    command += [*(["--small"] if small else []), "--backends", *backends]
    ended = "out of time"
    if limit > 5.0:
        with open(log, "w") as stream:
            child = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                ended = "done" if child.wait(limit) == 0 else "failed"
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    lines = rows.read_text().splitlines() if rows.exists() else []
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    found = {"ended": ended, "seconds": time.monotonic() - started, "limit": limit}
    return {**found, "rows": [json.loads(line) for line in lines], **({"said": said} if ended != "done" else {})}


def show(name: str, stage: dict[str, Any]) -> None:
    """A table of the rows of a stage, and how it ended."""
    print(f"\n{name}: {stage['ended']} after {stage['seconds']:.0f} s (of {stage['limit']:.0f})", flush=True)
    header = list(dict.fromkeys(key for row in stage["rows"] for key in row))
    if header:
        print(markdown_table(header, [[row.get(key, "") for key in header] for row in stage["rows"]]), flush=True)
    if "said" in stage:
        print(stage["said"], flush=True)


if __name__ == "__main__":
    main()
