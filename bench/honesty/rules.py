"""What counts as a false answer."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

__all__ = ["described", "violations"]

NEGLIGIBLE = 1e-12  # of the objective of the zero network
PRICED = 3.0  # gaps that an estimate may be wrong by


def violations(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rule that this problem broke; `by` is the relative excess where there is one."""
    best, zero = record["best"], record["zero"]
    found = list(record["rows"])
    for bound in record["bounds"]:
        allowed = 1e-9 if bound["rigorous"] else PRICED * bound["gap"] + 1e-6
        if bound["believed"] and not bound["bound"] <= best + allowed * abs(best) + NEGLIGIBLE * zero:
            rule = "rigorous" if bound["rigorous"] else "priced"
            by = bound["bound"] / best - 1 if best > 0 else None
            of, text = f"{bound['of']} ({bound['kind']})", f"gap {bound['gap']:.1e}"
            found.append({"rule": rule, "of": of, "by": by, "text": text})
    for name in record["overstated"]:
        found.append({"rule": "status", "of": name, "by": None, "text": "optimal, with a gap above tol"})
    for text in record["warnings"]:
        if text.startswith("RuntimeWarning"):  # arithmetic that went wrong unseen; a `UserWarning` is for the user
            found.append({"rule": "warning", "of": "NumPy", "by": None, "text": text})
    return found


def described(warning: warnings.WarningMessage) -> str:
    """Kind and message; of arithmetic that went wrong also where, as it may not happen again."""
    where = f" ({Path(warning.filename).name}:{warning.lineno})" if warning.category is RuntimeWarning else ""
    return f"{warning.category.__name__}: {_numberless(str(warning.message))}{where}"


def _numberless(text: str) -> str:
    """A message with its numbers taken out, so that equal warnings count together."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", text)[:160]
