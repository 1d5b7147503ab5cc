"""The run-time type checker of the tests: beartype, with an int allowed where a float is, as type checkers have it.

A check costs more than what many an inner function does, and a loop on NumPy calls these thousands of times with arrays
of the same kind. So the first calls of a function are all checked, in every process, and of later ones a few.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

ALWAYS = 50  # calls of a function, of every closure of the same code together
SOMETIMES = 50  # of the later ones, one in that many

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
thorough = jaxtyping.jaxtyped


def sparing(function: Any = None, *, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped`, but for calls after the first few."""
    if function is None:
        return functools.partial(sparing, typechecker=typechecker)
    if not inspect.isfunction(function):
        return thorough(function, typechecker=typechecker)
    code = function.__code__
    if calls[code] > ALWAYS and calls[code] % SOMETIMES:  # a closure that is made again and again
        calls[code] += 1
        return function
    checked: Callable[..., Any] = thorough(function, typechecker=typechecker)

    @functools.wraps(function)
    def some(*args: Any, **kwargs: Any) -> Any:
        calls[code] += 1
        if calls[code] > ALWAYS and calls[code] % SOMETIMES:
            return function(*args, **kwargs)
        return checked(*args, **kwargs)

    return some


calls: Counter[Any] = Counter()
