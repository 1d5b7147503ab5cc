"""A loop of array code that every library can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import is_jax_namespace


def while_loop(xp: Any, condition: Callable[[Any], Any], body: Callable[[Any], Any], state: Any) -> Any:
    """Apply `body` while `condition` holds. Under JAX a loop of its own: Python's cannot see values there."""
    if is_jax_namespace(xp):
        from jax import lax

        return lax.while_loop(condition, body, state)
    while condition(state):
        state = body(state)
    return state
