"""Roots of nondecreasing scalar functions, many at once, on any array library and inside compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from cvxrelu.backends.loops import while_loop

__all__ = ["increasing_root", "wright_omega"]

MAX_STEPS = 40  # near a good start three or four do


def increasing_root(slope: Callable[[Any], tuple[Any, Any]], lo: Any, hi: Any, start: Any) -> Any:
    """Root of a nondecreasing function in [lo, hi], entry by entry: Newton's steps, halving where they do not help.

    `slope` returns value and derivative. An entry is done where Newton's step has become so short that its square is
    below rounding. Where that does not happen, of all points tried the one with the smallest value is returned: near
    the root rounding decides the sign, and the last point need not be the best.
    """
    xp = array_namespace(lo)
    infinite, count = xp.full_like(lo, xp.inf), xp.zeros((), dtype=xp.int32)
    state = _Search(start, infinite, lo, hi, infinite, start, infinite, count)
    return while_loop(xp, _searching, lambda s: _search_step(slope, s), state).best


def wright_omega(x: Any) -> Any:
    """The w > 0 with `w + log w = x`, entry by entry, to a few units in the last place of max(1, |x|).

    Two steps of Fritsch, Shafer & Crowley's fourth-order iteration, which from these starts reach full precision
    (Lawrence, Corless & Jeffrey, "Algorithm 917: complex double-precision evaluation of the Wright omega function",
    2012).
    """
    xp = array_namespace(x)
    one = xp.ones_like(x)
    tiny, huge = x < -50.0, x > 1e10  # w = exp(x), w = x - log x, to the last digit
    y = xp.where(tiny | huge, one, x)
    large = xp.maximum(y, one)
    log = xp.log(large)
    small = xp.exp(xp.where(y < -2.0, y, (2.0 / 3.0) * (xp.minimum(y, one) - 1.0)))
    w = xp.where(y > 1.0, large - log + log / large, small)
    for _ in range(2):
        r = y - w - xp.log(w)
        u = 1.0 + w
        v = 2.0 * u * (u + (2.0 / 3.0) * r)
        w = w * (1.0 + (r / u) * (v - r) / (v - 2.0 * r))
    w = xp.where(huge, x - xp.log(xp.where(huge, x, one)), w)
    return xp.where(tiny, xp.exp(xp.minimum(x, one)), w)


class _Search(NamedTuple):
    x: Any
    moved: Any  # by the last step
    lo: Any
    hi: Any
    previous: Any  # magnitude of the value before
    best: Any
    smallest: Any  # magnitude of the value at `best`
    count: Any


def _searching(state: _Search) -> Any:
    xp = array_namespace(state.x)
    tolerance = 4.0 * float(xp.finfo(state.x.dtype).eps)
    return (state.count < MAX_STEPS) & xp.any(state.moved > tolerance * (1.0 + xp.abs(state.x)))


def _search_step(slope: Callable[[Any], tuple[Any, Any]], state: _Search) -> _Search:
    x, _, lo, hi, previous, best, smallest, count = state
    xp = array_namespace(x)
    value, derivative = slope(x)
    size, low = xp.abs(value), value < 0
    rising = derivative > float(xp.finfo(x.dtype).smallest_normal) * (size + 1.0)  # so that no quotient overflows
    better = size < smallest
    lo, hi = xp.where(low, x, lo), xp.where(low, hi, x)
    newton = x - value / xp.where(rising, derivative, size + 1.0)
    good = rising & (newton >= lo) & (newton <= hi) & (size <= 0.25 * previous)
    short = 0.1 * float(xp.finfo(x.dtype).eps) ** 0.5 * (1.0 + xp.abs(x))
    over = (smallest == 0) | (size == 0)
    last = good & (xp.abs(newton - x) <= short) & ~over
    new = xp.where(over, x, xp.where(good, newton, 0.5 * (lo + hi)))
    best, smallest = xp.where(better, x, best), xp.where(better, size, smallest)
    best, smallest = xp.where(last, new, best), xp.where(last, xp.zeros_like(size), smallest)
    return _Search(new, xp.where(last, xp.zeros_like(x), xp.abs(new - x)), lo, hi, size, best, smallest, count + 1)
