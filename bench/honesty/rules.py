"""What counts as a false answer."""

from __future__ import annotations

from typing import Any

__all__ = ["violations"]

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
