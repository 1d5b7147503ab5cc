"""docs/comparison.md: what stands between its markers, and its figure, out of the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.common.report import FIGURES, RESULTS, markdown_table, put_between_markers
from bench.comparison import paper

__all__ = ["write_page"]

PAGE = "docs/comparison.md"
REFERENCE = "DPO"  # TRL's default run, that costs are shares of
Rows = list[dict[str, Any]]


def write_page() -> None:
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("comparison-*.json"))]
    put_between_markers(PAGE, "setup", "\n".join(setup(result) for result in results))
    put_between_markers(PAGE, "behind", behind(results))
    put_between_markers(PAGE, "preference", "\n\n".join(preference(result) for result in results))
    put_between_markers(PAGE, "generation", "\n\n".join(generation(r) for r in results if r["generation"]))
    put_between_markers(PAGE, "curves", "\n\n".join(curves(result) for result in results))
    put_between_markers(PAGE, "options", "\n\n".join(filter(None, map(options, results))) or "Not run yet.")
    put_between_markers(PAGE, "training", "\n\n".join(along_training(result) for result in results))
    put_between_markers(PAGE, "paper", on_paper())
    draw([result for result in results if result["generation"]])


def named(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((row for row in result["rows"] if row["model"] == name), None)


def value(found: dict[str, float], digits: int = 3, sign: str = "") -> str:
    return f"{found['value']:{sign}.{digits}f} ({found['low']:{sign}.{digits}f} to {found['high']:{sign}.{digits}f})"


def share(cost: dict[str, Any], of: dict[str, Any] | None, what: str) -> str:
    if of is None or not cost.get(what) or not of["cost"].get(what):
        return ""
    return f"{100 * cost[what] / of['cost'][what]:.1f} %"


def seconds(cost: dict[str, Any]) -> float:
    """Of the processor, for which other work on the machine counts little; of the clock where a GPU computed."""
    key = "cpu_seconds" if cost.get("device", "cpu") == "cpu" else "seconds"
    found: float = cost.get(key, cost["seconds"])
    return found


def about(row: dict[str, Any]) -> str:
    names = {"learning_rate": "rate", "num_train_epochs": "epochs", "neurons": "neurons", "width": "width"}
    return ", ".join(f"{names[k]} {v:g}" for k, v in row["about"].items() if k in names)


def setup(result: dict[str, Any]) -> str:
    """Where, when and with what the cells were measured; cells of another day or machine by name."""
    groups: dict[str, list[str]] = {}
    for cell, where in result["cells"].items():
        known = [name for name in ("trl", "transformers", "torch") if name in where["versions"]]
        versions = "".join(f", {name} {where['versions'][name]}" for name in known)
        place = f"{where['processor']}, {where['date']}, Python {where['python']}{versions}"
        groups.setdefault(place, []).append(cell)
    most, *others = sorted(groups, key=lambda place: -len(groups[place]))
    arithmetic = sorted({row["cost"]["arithmetic"] for row in result["rows"] if "arithmetic" in row["cost"]})
    trained = f"; trained in {' and '.join(arithmetic)}" if arithmetic else ""
    lines = [f"- {result['task']}: {most}{trained}."]
    lines += [f"- {result['task']}, {', '.join(groups[place])}: {place}." for place in others]
    return "\n".join(lines)


def preference(result: dict[str, Any]) -> str:
    """What each model says of held-out pairs, and what it cost."""
    whole, rows = named(result, REFERENCE), []
    for row in result["rows"]:
        cost = row["cost"]
        peak = "" if "peak_bytes" not in cost else f"{cost['peak_bytes'] / 2**20:.0f}"
        rows.append([
            row["model"], about(row), value(row["accuracy"]),
            f"{row['length-controlled']['value']:.3f}" if "length-controlled" in row else "",
            f"{row['log_loss']['value']:.3f}", f"{row['calibrated']['value']:.3f}",
            value(row["calibrated minus ours"], sign="+") if "calibrated minus ours" in row else "",
            f"{cost['flop'] / 1e12:.1f}" if "flop" in cost else "", share(cost, whole, "flop"), peak,
            f"{seconds(cost):.0f}",
        ])  # fmt: skip
    head = [
        "trained",
        "with",
        "accuracy",
        "length-controlled",
        "log-loss",
        "calibrated",
        "minus ours",
        "TFLOP",
        "of DPO's",
        "MiB",
        "s",
    ]
    ours = named(result, "ours")
    lines = [
        f"**{result['task']}**: {result['model']}, {result['pairs']} pairs to train on, {result['held out']} held out."
        + (f" Not run: {', '.join(result['missing'])}." if result["missing"] else ""),
        markdown_table(head, rows),
    ]
    if ours is not None:
        cost, guidance = ours["cost"], result["cost of guidance"]
        said = (
            f"Ours: {cost['features']}, {cost['neurons']} neurons; {cost['flop_extraction'] / 1e12:.2f} TFLOP of "
            f"states by the counter, at most {cost['flop_solver_at_most'] / 1e12:.2f} of the solver "
            f"({cost['seconds_solver']:.1f} s)."
        )
        if guidance:
            part = share(guidance, whole, "flop")  # empty where the default run of DPO is missing
            said += (
                f" The head that guides, fitted to beginnings of answers too: {guidance['flop'] / 1e12:.2f} TFLOP, "
                f"{f'{part} of DPO, ' if part else ''}{seconds(guidance):.0f} s."
            )
        lines.append(said)
    return "\n\n".join(lines)


def generation(result: dict[str, Any]) -> str:
    """The judge's word on texts."""
    found, rows = result["generation"], []
    for row in found["rows"]:
        plain = row["way"] == "base model"
        digits = 1 if row["nats"] >= 0.95 else 2
        nats = f"{'at most ' if row.get('nats_at_most') else ''}{row['nats']:.{digits}f}"
        nats += f" ± {row['nats_error']:.{digits}f}" if row["nats_error"] else ""
        rows.append([
            row["way"], f"{row['good']:.2f}", "" if plain else f"{row['gain']:+.2f} ± {row['gain_error']:.2f}",
            "0" if plain else nats, f"{row['distinct']:.2f}", f"{row['length']:.0f}", f"{row['read']:.0f}",
        ])  # fmt: skip
    head = ["texts of", "judged good", "over base", "nats", "distinct 2-grams", "tokens written", "tokens read"]
    words = (
        f"**{result['task']}**: {result['prompts']} prompts, at most {result['tokens']} tokens; the judge is right on "
        f"{found['judge accuracy']:.0%} of texts that it has not seen."
    )
    return f"{words}\n\n{markdown_table(head, rows)}"


def losses(result: dict[str, Any]) -> Iterator[str]:
    """What of ours is behind a peer, beyond the interval or not."""
    for row in result["rows"]:
        other = row.get("accuracy minus ours")
        if other and other["value"] > 0:
            clear = " beyond the interval" if other["low"] > 0 else ""
            yield f"{row['model']}: accuracy {value(other, sign='+')} over ours{clear}"
        other = row.get("calibrated minus ours")
        if other and other["value"] < 0:
            clear = " beyond the interval" if other["high"] < 0 else ""
            yield f"{row['model']}: calibrated log-loss {value(other, sign='+')} below ours{clear}"
    ways: Rows = result["generation"]["rows"] if result["generation"] else []
    guided = [row for row in ways if row["way"].startswith("guided")]
    for row in ways:
        better = [g for g in guided if g["nats"] <= max(row["nats"], 0.0) and g["good"] >= row["good"]]
        if row["way"] != "base model" and row not in guided and row["gain"] > 0 and not better:
            which = " with the same head" if row["way"].startswith("best of") else ""
            yield (
                f"writing by {row['way']}{which}: judged good {row['good']:.2f} at {row['nats']:.2f} nats a text; "
                "guidance is not as good at as few"
            )


def behind(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"- {result['task']}, {found}." for result in results for found in losses(result)]
    return "\n".join(lines) if lines else "Nowhere, in what was run."


def curves(result: dict[str, Any]) -> str:
    """Accuracy against pairs, and against labels turned round."""
    parts = []
    for key, unit in (("by pairs", "pairs"), ("by noise", "noise")):
        points = list(dict.fromkeys(row[unit] for row in result[key]))
        models = list(dict.fromkeys(row["model"] for row in result[key]))
        cells = {(row["model"], row[unit]): row["accuracy"]["value"] for row in result[key]}
        rows = [[m, *(f"{cells[m, p]:.3f}" if (m, p) in cells else "" for p in points)] for m in models]
        if len(points) > 1:
            shown = [f"{p:.0%}" if unit == "noise" else f"{p}" for p in points]
            title = "training pairs" if unit == "pairs" else "training labels turned round"
            parts.append(f"**{result['task']}**, accuracy on held-out pairs against {title}:\n\n"
                         + markdown_table(["trained", *shown], rows))  # fmt: skip
    return "\n\n".join(parts) or f"**{result['task']}**: not run; of the second task only the table above is."


def options(result: dict[str, Any]) -> str:
    """What the options of the papers do: to DPO with a convex head inside, and to the two-phase recipe."""
    parts = []
    if rows := result["ablation"]:
        changes = list(dict.fromkeys(row["change"] for row in rows))
        of = {
            (row["model"], row["change"]): f"{row['accuracy']['value']:.3f} / {row['calibrated']['value']:.3f}"
            for row in rows
        }
        table = [[m, *(of.get((m, c), "") for c in changes)] for m in dict.fromkeys(row["model"] for row in rows)]
        title = f"**{result['task']}**, {rows[0]['pairs']} pairs; accuracy / calibrated log-loss on held-out pairs:"
        parts.append(f"{title}\n\n{markdown_table(['trained', *changes], table)}")
    for option, title, head, cells in (
        ("rho", "start of rho, phase one alone", ["rho", "iterations", "gap", "accuracy", "s"],
         lambda r: ["by default" if r["value"] is None else f"{r['value']:g}", r["iterations"], f"{r['gap']:.1e}"]),
        ("patterns", "patterns, both phases", ["P", "neurons", "accuracy", "s"], lambda r: [r["value"], r["neurons"]]),
    ):  # fmt: skip
        table = [[*cells(row), f"{row['accuracy']:.3f}", f"{row['seconds']:.0f}"]
                 for row in result["sensitivity"] if row["option"] == option]  # fmt: skip
        if table:
            parts.append(f"**{result['task']}**, {title}:\n\n" + markdown_table(head, table))
    return "\n\n".join(parts)


def along_training(result: dict[str, Any]) -> str:
    """Means of TRL's training margins over thirds of the steps: whether they rise."""
    rows = []
    for row in result["rows"]:
        steps = [step.get("rewards/margins", step.get("margin")) for step in row.get("log", [])]
        steps = [step for step in steps if step is not None]
        if len(steps) >= 3:
            thirds = np.array_split(np.array(steps), 3)
            rows.append(
                [row["model"], *(f"{part.mean():.3g}" for part in thirds), f"{np.mean(np.diff(steps) > 0):.2f}"]
            )
    head = ["trained", "first third", "second", "last", "steps at which it rose"]
    return f"**{result['task']}**:\n\n" + markdown_table(head, rows)


def on_paper(pairs: int = 10_000, prompt: int = 150, answer: int = 250, card: float = 24e9) -> str:
    """Models by formula: a run of DPO on one card, and a head."""
    length = prompt + answer
    rows = []
    for name, shape in paper.MODELS.items():
        dpo = paper.dpo_flop(shape, 2 * pairs * length, length)
        head = paper.head_flop(shape, pairs * (prompt + 2 * answer), length)
        sizes = [paper.dpo_bytes(shape), paper.dpo_bytes(shape, lora=True), paper.head_bytes(shape)]
        rows.append([
            name, f"{dpo / 1e12:,.0f}", f"{head / 1e12:,.0f}", f"{head / dpo:.1%}",
            *(f"{size / 1e9:.1f}{'' if size < card else ' (no)'}" for size in sizes),
        ])  # fmt: skip
    head_row = ["model", "DPO, TFLOP", "head, TFLOP", "share", "DPO, GB", "LoRA, GB", "head, GB"]
    return (
        f"{pairs:,} pairs, prompts of {prompt} and answers of {answer} tokens, three epochs, gradients recomputed; "
        f"(no): more than a card of {card / 1e9:.0f} GB, before any activation.\n\n" + markdown_table(head_row, rows)
    )


def draw(results: Sequence[dict[str, Any]]) -> None:
    """The judge's word against the divergence from the base model."""
    if not results:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(5.2 * len(results), 3.8), squeeze=False, layout="constrained")
    kinds = (
        ("guided", "o-", "#0072b2", "guided by the convex head"), ("best of", "^:", "#00805c", "best of n, same head"),
        ("DPO", "s", "#d55e00", "DPO"), ("", "x", "#555555", "others trained"),
    )  # fmt: skip
    for place, result in zip(axes[0], results, strict=True):
        rows: Rows = result["generation"]["rows"]
        plain, left = next(row for row in rows if row["way"] == "base model"), rows
        left = [row for row in rows if row is not plain]
        for kind, style, colour, label in kinds:
            some = [row for row in left if row["way"].startswith(kind)]
            left = [row for row in left if row not in some]
            some = ([plain, *some] if "-" in style or ":" in style else some)  # fmt: skip
            some = sorted(some, key=lambda row: row["nats"])
            if some:
                place.errorbar([row["nats"] for row in some], [row["good"] for row in some],
                               [row["gain_error"] for row in some], fmt=style, color=colour, capsize=2,
                               label=label)  # fmt: skip
        place.set(title=result["task"], ylabel="share judged good", ylim=(0, 1.02), xscale="symlog")
        place.set(xlabel="divergence from the base model, nats a text", xlim=(-0.1, None))
        place.axhline(plain["good"], color="#999999", linewidth=0.8)
        place.spines[["top", "right"]].set_visible(False)
        place.legend(frameon=False, loc="lower right", fontsize=8)
    FIGURES.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "cvxrelu"
    figure.savefig(FIGURES / "comparison.svg", metadata={"Date": None})
