"""The options of a reward head: what each may be, and which have no effect beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cvxrelu.support.checks import as_whole
from cvxrelu_llm.heads.rule import RULES

__all__ = ["checked_options", "without_effect"]

UNUSED = {"pairwise": ("scale", "l2", "patterns", "refine"), "two_phase": ("skip", "skip_l2", "betas", "select")}


def checked_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a head, as JSON can hold them; ValueError for what cannot be, or would have no effect."""
    for name, names in (("mode", tuple(UNUSED)), ("select", RULES)):
        if given[name] not in names:
            raise ValueError(f"{name} must be {' or '.join(map(repr, names))}, got {given[name]!r}")
    for name in ("skip_l2", "beta", "l2"):
        value = given[name]
        if value != "auto" and not (isinstance(value, (int, float)) and value > 0):
            raise ValueError(f"{name} must be 'auto' or a positive number, got {value!r}")
    for name in ("scale", "tol", "path_tol"):
        if not (isinstance(given[name], (int, float)) and 0 < given[name] < np.inf):
            raise ValueError(f"{name} must be a positive number, got {given[name]!r}")
    for name, least in (("folds", 2), ("patterns", 1), ("seed", 0), ("components", 1)):
        if name != "components" or given[name] not in (None, "auto"):
            as_whole(name, given[name], least)
    betas = [float(share) for share in given["betas"]]
    if not betas or not all(0 < share < 1 for share in betas):
        raise ValueError(f"betas must be shares of beta_max strictly between 0 and 1, got {betas}")
    if given["beta"] == np.inf and (not given["skip"] or given["mode"] != "pairwise"):
        raise ValueError("beta=inf asks for the linear model, which is mode='pairwise' with skip=True")
    options = {**given, "betas": betas}
    for name, cause in without_effect(options, defaults):
        raise ValueError(
            f"{name} must be left at its default with {cause}={options[cause]!r}, where it has no effect, "
            f"got {options[name]!r}"
        )
    return options


def without_effect(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, the one that leaves it without effect) for every option that is not at its default in vain."""
    given = {name: options.get(name, default) for name, default in defaults.items()}
    given["betas"] = tuple(given["betas"])
    causes = [(name, "mode") for name in UNUSED[given["mode"]]]
    if given["mode"] == "pairwise" and given["beta"] != "auto":  # no path is walked
        causes += [("betas", "beta"), ("select", "beta")]
    if given["mode"] == "pairwise" and not given["skip"]:  # there is no linear model
        causes += [("skip_l2", "skip"), ("select", "skip")]
    return [(name, cause) for name, cause in causes if given[name] != defaults[name]]
