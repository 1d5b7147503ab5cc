"""The figure of the cost curves, from the table that `bench.speed --only curves` has made."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.common.report import FIGURES

__all__ = ["plot"]

SLOPES = {"n": (1, 2), "d": (1,), "P": (1,)}  # of the theory


def plot(rows: list[list[Any]]) -> None:
    """A panel per size: measured milliseconds, the fitted power law, and dotted lines of the theory's slopes."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = list(SLOPES)
    figure, axes = plt.subplots(1, len(names), figsize=(10, 3.4), sharey=True, constrained_layout=True)
    for axis, name in zip(axes, names, strict=True):
        along: np.ndarray = np.ones(1)
        for k, (_, lengths, precision, cells, _, _) in enumerate(row for row in rows if row[0] == name):
            along, times = (np.array(list(map(float, text.split(", ")))) for text in (lengths, cells))
            slope, offset = np.polyfit(np.log(along), np.log(times), 1)
            axis.loglog(along, times, "o", color=f"C{k}", label=f"{precision}, exponent {slope:.2f}")
            axis.loglog(along, np.exp(offset) * along**slope, "-", color=f"C{k}")
            if k == 0:
                for power in SLOPES[name]:
                    axis.loglog(along, times[0] * (along / along[0]) ** power, ":", color="0.4")
                    axis.annotate(f"slope {power}", (along[-1], times[0] * (along[-1] / along[0]) ** power),
                                  ha="right", va="bottom", color="0.4", fontsize=8)  # fmt: skip
        axis.set(xlabel=name, xticks=along, xticklabels=[f"{value:g}" for value in along])
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    axes[0].set_ylabel("ms per ADMM iteration")
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "cost-curves.png", dpi=110, metadata={"Software": None})
    plt.close(figure)
