"""From the cells that there are to one result file a task; and a blind survey of the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.common.report import save_json
from bench.comparison.archive import Archive
from bench.comparison.cells import CURVE, NOISE, Cell
from bench.comparison.tasks import WRITTEN, model_folder, task_of
from bench.comparison.trained import ABLATION, METHODS
from bench.comparison.writing import judged
from cvxrelu_llm.evaluation.metrics import evaluate_margins
from cvxrelu_llm.heads.calibration import calibrate, log_losses

__all__ = ["summarise", "survey"]


def preference(margins: Any, lengths: np.ndarray, ours: Any = None) -> dict[str, Any]:
    """Accuracy, also among pairs of equal length by regression, margins, and log-loss, as it is and calibrated.

    One number is fitted to margins, alike for all models: each half of the pairs is scored with the temperature of the
    other half. `minus ours` are paired differences.
    """
    margins = np.asarray(margins)
    groups = np.arange(len(margins))
    found = evaluate_margins(margins, groups, lengths=lengths, n_boot=2000).metrics
    row: dict[str, Any] = {
        "accuracy": vars(found["rewards/accuracies"]), "margin": vars(found["rewards/margins"]),
        "log_loss": vars(found["log_loss"]), "calibrated": vars(mean(calibrated(margins))),
    }  # fmt: skip
    if "length_controlled_accuracy" in found:  # not where answers are all of a length
        row["length-controlled"] = vars(found["length_controlled_accuracy"])
    if ours is not None:
        right = [0.5 * (1 + np.sign(np.asarray(m))) for m in (margins, ours)]
        row["accuracy minus ours"] = vars(mean(right[0] - right[1]))
        row["calibrated minus ours"] = vars(mean(calibrated(margins) - calibrated(np.asarray(ours))))
    return row


def mean(values: np.ndarray) -> Any:
    """With its interval over pairs."""
    return evaluate_margins(values, np.arange(len(values)), n_boot=2000).metrics["rewards/margins"]


def calibrated(margins: np.ndarray) -> np.ndarray:
    """Log-losses of the pairs."""
    half, losses = np.arange(len(margins)) % 2 == 0, np.empty(len(margins))
    for fit in (half, ~half):
        losses[~fit] = log_losses(margins[~fit] / calibrate(margins[fit]).temperature)
    return losses


def summarise(model: str, name: str, pairs: int, seed: int) -> None:
    """`bench/results/comparison-NAME.json` and its archive; what has not been run is named in "missing"."""
    task, archive = task_of(name, pairs), Archive(name)
    lengths = np.array([len(t.chosen) - len(t.rejected) for t in task.held_out], dtype=float)

    def record(method: str, pairs: int = pairs, noise: float = 0.0) -> dict[str, Any] | None:
        return archive.record(Cell(model, name, pairs, method, seed=seed, noise=noise))

    heads = record("heads")
    if heads is None:
        raise SystemExit(f"{name}: nothing to summarise before the cell of heads is run")
    ours = heads["models"]["ours"]["margins"]
    rows = []
    for head, of in heads["models"].items():
        clocks = ("seconds", "cpu_seconds")  # with the model's own fit in place of our solver
        cost = heads["cost"] if head == "ours" else {
            k: of.get(k, of["seconds"]) + heads["cost"][k] - heads["cost"]["seconds_solver"] for k in clocks
        }  # fmt: skip
        about = {k: v for k, v in of["about"].items() if k in ("neurons", "width")}
        rows.append({"model": head, "kind": "head", "cost": cost, "about": about,
                     **preference(of["margins"], lengths, None if head == "ours" else ours)})  # fmt: skip
    absent, texts = [], dict(heads["texts"])
    for method in METHODS:
        found = record(method)
        if found is None:
            absent.append(method)
            continue
        about = {k: v for k, v in found["options"].items() if k != "trainer"}
        rows.append({"model": method, "kind": "trained", "cost": found["cost"], "about": about, "log": found["log"],
                     **preference(found["margins"], lengths, ours)})  # fmt: skip
        if found["texts"]:
            texts[method] = found["texts"]
    result = {
        "task": name, "model": Path(model_folder(model)).name, "pairs": len(task.train), "held out": len(task.held_out),
        "prompts": len(task.prompts), "tokens": WRITTEN, "rows": rows, "missing": absent,
        "cost of guidance": heads.get("cost of guidance"), "generation": generation(task, texts),
        "by pairs": curve(record, [*CURVE, pairs], lengths), "by noise": noisy(record, lengths),
        "ablation": ablation(record, lengths), "sensitivity": (record("sensitivity") or {"rows": []})["rows"],
    }  # fmt: skip
    save_json(f"comparison-{name}", result | {"cells": archive.met})
    archive.save()


def generation(task: Any, texts: dict[str, Any]) -> dict[str, Any]:
    """What the judge says of every way of writing, beside the base model alone."""
    if not texts:
        return {}
    judge, accuracy = task.judge()
    good = {way: judge([text["text"] for text in some]) for way, some in texts.items()}
    rows = []
    for way, some in texts.items():
        row = {"way": way} | judged(some, good[way], good.get("base model"))
        if way.startswith("best of"):
            n = int(way.split()[-1])
            row |= {"nats": float(np.log(n) - (n - 1) / n), "nats_error": 0.0, "nats_at_most": True}
        rows.append(row)
    return {"judge accuracy": accuracy, "rows": rows}


def curve(record: Any, counts: list[int], lengths: np.ndarray) -> list[dict[str, Any]]:
    """Held-out accuracy and loss against the number of training pairs."""
    found = []
    for pairs in counts:
        of: dict[str, Any] = {}
        if (heads := record("heads", pairs)) is not None:
            of |= {name: found["margins"] for name, found in heads["models"].items()}
        for method in ("DPO, rate 3e-5", "DPO-Convex"):
            if (trained := record(method, pairs)) is not None:
                of[method] = trained["margins"]
        found += [{"pairs": pairs, "model": name, **preference(m, lengths)} for name, m in of.items()]
    return found


def noisy(record: Any, lengths: np.ndarray) -> list[dict[str, Any]]:
    """The same against the share of labels turned round."""
    found = []
    for noise in (0.0, *NOISE):
        heads = record("heads", noise=noise)
        for name, of in heads["models"].items() if heads else ():
            found.append({"noise": noise, "model": name, **preference(of["margins"], lengths)})
    return found


def ablation(record: Any, lengths: np.ndarray) -> list[dict[str, Any]]:
    """DPO with and without a convex head inside, at another temperature or batch, beside both as they are."""
    pairs, found = CURVE[-1], []
    for method in ("DPO, rate 3e-5", "DPO-Convex", *ABLATION):
        if (of := record(method, pairs)) is not None:
            said = method.removeprefix("DPO, rate 3e-5").removeprefix("DPO-Convex").removeprefix(", ")
            found.append({"model": "DPO-Convex" if "Convex" in method else "DPO, rate 3e-5", "pairs": pairs,
                          "change": said or "as above", **preference(of["margins"], lengths)})  # fmt: skip
    return found


def survey(page: Path, model: str, name: str, pairs: int, seed: int) -> None:
    """A blind page of the base model, guided, best of 5 and DPO; its key beside it."""
    from cvxrelu_llm.survey.page import build_survey

    task, archive = task_of(name, pairs), Archive(name)
    heads = archive.record(Cell(model, name, pairs, "heads", seed=seed))
    if heads is None or not heads["texts"]:
        raise SystemExit(f"{name}: no texts yet")
    shown = {way: heads["texts"][way] for way in ("base model", "guided, scale 4", "best of 5")}
    if (dpo := archive.record(Cell(model, name, pairs, "DPO, rate 3e-5", seed=seed))) is not None:
        shown["DPO"] = dpo["texts"]
    items = [{"prompt": prompt, "answers": {way: some[i]["text"] for way, some in shown.items()}}
             for i, prompt in enumerate(task.prompts)]  # fmt: skip
    build_survey(items, page, page.with_suffix(".key.json"), overwrite=False)
    print(f"{page}: {len(items)} questions of {len(shown)} answers each; the key is beside it")
