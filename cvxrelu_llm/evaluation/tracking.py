"""A hook to experiment trackers: numbers by name go to Weights & Biases, TensorBoard, trackio, or a callable."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["TRACKERS", "log_metrics"]

TRACKERS = ("wandb", "tensorboard", "trackio")


def log_metrics(
    metrics: Mapping[str, float], to: str | Callable[[dict[str, float], int], Any], *, step: int = 0, **options: Any
) -> None:
    """Send metrics, such as `Evaluation.values("eval/")`, to a tracker.

    Parameters
    ----------
    metrics : numbers by name.
    to : "wandb", "trackio" (the run that is open, or a new one made with `options`), "tensorboard" (`options` are those
        of `SummaryWriter`, `log_dir` for one), or a callable `to(metrics, step)`.
    step : of the training that the numbers belong to.

    Raises
    ------
    ImportError where the tracker is not installed, ValueError for an unknown name.
    """
    numbers = {name: float(value) for name, value in metrics.items()}
    if callable(to):
        to(numbers, step)
        return
    if to not in TRACKERS:
        raise ValueError(f"to must be one of {', '.join(TRACKERS)}, or callable, got {to!r}")
    try:
        tracker = importlib.import_module("torch.utils.tensorboard" if to == "tensorboard" else to)
    except ImportError as error:
        raise ImportError(f"logging to {to} needs: pip install {to} ({error})") from error
    if to == "tensorboard":
        with tracker.SummaryWriter(**options) as writer:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)
        return
    running = tracker.run if to == "wandb" else tracker.context_vars.current_run.get()
    if options or running is None:
        tracker.init(**({"project": "cvxrelu"} | options if to == "trackio" else options))  # which has no default
    tracker.log(numbers, step=step)
