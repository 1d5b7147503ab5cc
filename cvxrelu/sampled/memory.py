"""How much memory a solve takes, before it takes any: estimates in bytes, and what to do where they are too large.

Of ADMM on (S), with `slack = 2 n P c` numbers in the working precision:

    NumPy   X twice (as given, and in its singular basis), a byte per entry of the patterns, three slacks (a step reads
            one and writes one, in blocks of rows), the matrix of a direct u-step five times while it is inverted
    JAX     the same, with seven and a half slacks where XLA keeps the temporaries of a compiled chunk (measured by
            `compiled.memory_analysis()` on CPU), and X and patterns once more on the device
    CuPy    three slacks, as on NumPy, and the temporaries of blocks of rows that are large (measured on a stand-in)

What a direct u-step does not leave room for is done by conjugate gradients. Where the slack itself does not fit, NumPy
and JAX keep it, the patterns and the rotated X in scratch files, and work through them in blocks of rows. Only then is
a solve refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvxrelu.program.targets import LARGEST_LABEL
from cvxrelu.support.blocks import LAUNCHED, PASSED, in_words

__all__ = [
    "Estimate", "Grid", "Plan", "Sizes", "as_limit", "available_memory", "estimate_memory", "machine_memory", "plan",
    "refuse_what_is_not_free", "sizes_of",
]  # fmt: skip

SLACKS = {"numpy": 3.0, "jax": 7.5, "cupy": 3.0}  # arrays of the slack's size in an iteration
EAGER = 8.5  # on CuPy arrays of a block's size beside them
INVERSE = 5.0  # matrices of the u-step's size while it is inverted
LANDMARKS, CG_COLUMNS = 128, 4.0  # of the Nystrom preconditioner, and how many arrays (m, landmarks) it is made from
FEWEST = 8  # landmarks where rows are streamed and little room is left
BLOCKS, ROWS = 14.0, 30.0  # arrays (d, 2, c, P), and (m, c), beside the large ones
WORKSPACE = 80e6  # blocks of rows and columns under way, of any problem
NEURONS, ASCENTS = 300, 2000  # of a refinement; how many it takes is known afterwards
STREAMED = 64e6  # blocks of rows where the large arrays lie in files
LARGE = 2.0**28  # bytes from which on an estimate is printed
OVER = 1.5  # what estimates may be above the truth by: without a limit only what cannot be is refused

Grid = tuple[int, int]  # devices along rows and patterns, each with memory of its own; (0, 0) for the machine's


class Sizes(NamedTuple):
    """n rows, d columns (the constant one included), P patterns, c outputs, m rows of the loss; bytes of a number."""

    n: int
    d: int
    P: int
    c: int
    m: int
    itemsize: int

    @property
    def slack(self) -> float:
        """Bytes of one array of the slack's size."""
        return 2.0 * self.n * self.P * self.c * self.itemsize


class Estimate(NamedTuple):
    """Bytes in all, and by what they are for."""

    bytes: float
    parts: Mapping[str, float]

    def __str__(self) -> str:
        large = sorted(((size, name) for name, size in self.parts.items() if size >= 0.02 * self.bytes), reverse=True)
        return f"{in_words(self.bytes)} ({', '.join(f'{name} {in_words(size)}' for size, name in large)})"


def estimate_memory(
    n: int, d: int, P: int, c: int = 1, m: int | None = None, *, dtype: Any = "float64", method: str = "cg",
    backend: str = "numpy",
) -> Estimate:  # fmt: skip
    """Memory of a solve at its largest moment, beside what the user's own arrays and the libraries take.

    Parameters
    ----------
    n, d, P, c : rows, columns, patterns, outputs. m : rows of the loss, None for n.
    dtype : of the iterations, "float32" or "float64".
    method : "gram" or "primal", a direct u-step; "cg"; "newton"; "streamed", conjugate gradients with the large arrays
        in files; "refinement", for 300 neurons.
    backend : "numpy", "jax" or "cupy".

    Examples
    --------
    >>> estimate = estimate_memory(100_000, 50, 200)
    >>> round(estimate.bytes / 2**30, 2), round(estimate.parts["slack"] / 2**30, 2)
    (1.22, 0.89)
    """
    sizes = Sizes(n, d, P, c, n if m is None else m, np.dtype(dtype).itemsize)
    return _estimate(sizes, method, backend)


def _estimate(sizes: Sizes, method: str, backend: str, grid: Grid = (0, 0)) -> Estimate:
    """grid : of devices, of the memory of one of which the estimate then is; they divide rows and patterns."""
    whole, (along, across) = sizes, grid
    if along:
        sizes = sizes._replace(n=-(-sizes.n // along), m=-(-sizes.m // along), P=-(-sizes.P // across))
    n, d, P, c, m, w = sizes
    copies = 1.0 if backend == "numpy" or along else 2.0  # host and device
    rank = min(n, d)
    small = BLOCKS * 8.0 * d * 2 * c * P + ROWS * 8.0 * m * c + 4.0 * 8.0 * d * d
    if method == "refinement":
        active = 8.0 * n * (4 * NEURONS + (0 if backend == "numpy" else 2 * ASCENTS))
        return _sum({"X": (8.0 * copies + w) * n * d, "neurons": active, "workspace": WORKSPACE + 8.0 * ROWS * m * c})
    if method == "streamed":
        landmarks = CG_COLUMNS * w * m * FEWEST
        passed = STREAMED + (0.0 if backend == "numpy" else EAGER * 8.0 * PASSED)
        return _sum({"blocks of rows": passed, "preconditioner": landmarks, "blocks": small, "rows": 2.0 * 8 * n})
    parts = {"X": 8.0 * copies * n * d + (8.0 + w) * n * rank, "patterns": copies * n * P, "blocks": small}
    if method == "newton":
        # masks, the slack of all candidates and of the check; normals and inverses of the faces
        parts |= {"slack": 8.0 * n * P + 4.0 * 8.0 * n * 2 * P * c, "faces": 4.0 * 8.0 * P * rank * rank}
    else:
        parts["slack"] = SLACKS.get(backend, max(SLACKS.values())) * sizes.slack
        if backend == "cupy":
            parts["temporaries"] = EAGER * min(sizes.slack, float(LAUNCHED) * w)
    parts["workspace"] = WORKSPACE
    # The u-step is prepared when there is one slack; then its inverse, or its preconditioner, is one array of many.
    size = {"gram": float(whole.m) ** 2, "primal": (float(rank) * P) ** 2, "cg": float(m) * min(m, LANDMARKS)}.get(
        method, 0.0
    )
    name, times = ("preconditioner", CG_COLUMNS) if method == "cg" else ("direct u-step", INVERSE)
    scaled = 2.0 * w * n * rank * P if method == "primal" else 0.0  # the columns of F1
    preparing = _sum({**parts, "slack": sizes.slack, name: times * w * size + scaled}) if size else _sum(parts)
    iterating = _sum({**parts, name: w * size} if size else parts)
    # Drawing patterns and proving bounds come before and after; their own copies of X and products with the gates.
    aside = _sum({"X": 6.0 * 8.0 * n * d, "gates' products": 9.0 * n * P, "workspace": WORKSPACE})
    return max(preparing, iterating, aside, key=lambda found: found.bytes)


def _sum(parts: dict[str, float]) -> Estimate:
    return Estimate(sum(parts.values()), parts)


class Plan(NamedTuple):
    """The estimate, whether rows are streamed, and the bytes that there are (infinite where that is not known).

    grid : of devices with memory of their own, of each of which the bytes then are.
    """

    estimate: Estimate
    streamed: bool
    room: float
    grid: Grid = (0, 0)

    def beside(self, sizes: Sizes, backend: str) -> float:
        """What iterations with conjugate gradients leave, for the matrix of a direct u-step."""
        return self.room - _estimate(sizes, "cg", backend, self.grid).bytes

    def landmarks(self, sizes: Sizes, backend: str) -> int:
        """Columns behind the preconditioner of conjugate gradients: what fits, where rows are streamed."""
        if not self.streamed:
            return LANDMARKS
        free = self.room - _estimate(sizes, "streamed", backend).bytes
        return min(LANDMARKS, FEWEST + int(free / (CG_COLUMNS * sizes.itemsize * sizes.m)))

    def fits(self, sizes: Sizes, method: str, backend: str) -> bool:
        return not self.streamed and _estimate(sizes, method, backend, self.grid).bytes <= self.room


def plan(
    sizes: Sizes, wanted: str, backend: str, refine: bool, sampled: bool, limit: float | None,
    own: tuple[Grid, float] | None = None,
) -> Plan:  # fmt: skip
    """What a solve of these sizes will do about memory, or an error before it has taken any.

    It depends on the sizes and the limit, without one on the memory that the machine has in all: what else runs on it
    at the moment has no say, so that the same solve takes the same steps.

    wanted : the `linear_solver` option. limit : bytes, or None for what there is. own : a grid of devices and the
        bytes that each has, or None where arrays lie in the machine's memory.

    Raises
    ------
    ValueError : nothing fits the limit. MemoryError : without a limit, nothing fits the machine, or its device.
    """
    grid, there = ((0, 0), machine_memory()) if own is None or limit is not None else own
    room = there * OVER if limit is None else limit
    refinement = _estimate(sizes, "refinement", backend, grid)
    if refine and refinement.bytes > room:
        raise _refusal(refinement, room, limit, backend, "refine=False on fewer patterns, or fewer rows", grid)
    if not sampled:
        return Plan(refinement, False, room, grid)
    in_memory = _estimate(sizes, "cg", backend, grid)
    if in_memory.bytes <= room:
        return Plan(in_memory, False, room, grid)
    streamed = _estimate(sizes, "streamed", backend)
    may = not refine and wanted != "direct" and backend != "cupy" and max(grid) <= 1  # several devices do not
    if may and sizes.n >= sizes.d and streamed.bytes <= room:
        return Plan(streamed, True, room)
    advice = []
    if fitting := _fitting_patterns(sizes, backend, room, grid):
        advice.append(f"patterns={fitting} would fit")
    if backend != "numpy":
        advice.append("backend='numpy' needs less")
    elif refine:
        advice.append("refine=False would keep the large arrays in files")
    raise _refusal(in_memory, room, limit, backend, "; ".join(advice) or "fewer rows or columns would fit", grid)


def _fitting_patterns(sizes: Sizes, backend: str, room: float, grid: Grid) -> int:
    """The largest P that fits in memory, 0 for none."""
    low, high = 0, sizes.P
    while high - low > 1:
        middle = (low + high) // 2
        fits = _estimate(sizes._replace(P=middle), "cg", backend, grid).bytes <= room
        low, high = (middle, high) if fits else (low, middle)
    return low


def _refusal(estimate: Estimate, room: float, limit: float | None, backend: str, advice: str, grid: Grid) -> Exception:
    need = f"a solve of this size on {backend} is estimated to need {estimate}"
    if limit is not None:
        return ValueError(f"memory_limit is {in_words(limit)}, and {need}; {advice}")
    return MemoryError(f"{need}, and {_who(grid)} has {in_words(room / OVER)}; {advice}")


def _who(grid: Grid) -> str:
    return {(0, 0): "the machine", (1, 1): "its device"}.get(grid, "each of its devices")


def refuse_what_is_not_free(
    sizes: Sizes, method: str, backend: str, limit: float | None, own: tuple[Grid, float] | None = None
) -> None:
    """MemoryError where the machine has far less free than the solve is going to take, before it has taken any.

    method : of `estimate_memory`, the one chosen. With a limit the caller has said what there is. own : as for `plan`,
    with the bytes that are free.
    """
    if limit is not None:
        return
    grid, free = ((0, 0), available_memory()) if own is None else own
    estimate = _estimate(sizes, method, backend, grid)
    if estimate.bytes > OVER * free:
        least = "refine=False on fewer patterns, or fewer rows, take less"
        if method in ("gram", "primal", "newton"):
            least = f"memory_limit={int(free)} asks for a method that takes less"
        elif method == "cg" and backend == "numpy":
            least = f"memory_limit={int(free)} streams rows through files where it can, and fewer patterns take less"
        raise MemoryError(
            f"a solve of this size on {backend} is estimated to need {estimate}, and {_who(grid)} has "
            f"{in_words(free)} free; {least}"
        )


def sizes_of(
    X: Any, y: Any, pairs: Any, patterns: Any, intercept: Any, dtype: Any, loss: Any = "squared"
) -> Sizes | None:
    """The sizes that these arguments ask for, or None where they are not what they should be: others say so."""
    try:
        n, d = map(int, X.shape if hasattr(X, "shape") else np.shape(X))
        P = int(patterns) if isinstance(patterns, (int, np.integer)) else 0
        if P == 0:
            first = patterns[0] if isinstance(patterns, tuple) else patterns
            P = int(np.shape(first)[1])
        m = n if pairs is None else int(np.shape(pairs)[0])
        shape = (m,) if y is None else tuple(y.shape if hasattr(y, "shape") else np.shape(y))
        c = int(shape[1]) if len(shape) == 2 else 1
        if loss == "multinomial" and len(shape) == 1:  # labels 0 to c - 1
            largest = float(y.max() if hasattr(y, "max") else np.max(y))
            if not 0 <= largest <= LARGEST_LABEL:
                return None
            c = max(2, int(largest) + 1)
        name = str(getattr(X, "dtype", "float64")) if dtype is None else str(getattr(dtype, "__name__", dtype))
        return Sizes(n, d + bool(intercept is True), P, c, m, 4 if "32" in name or "16" in name else 8)
    except (TypeError, ValueError, IndexError):
        return None


def as_limit(memory_limit: Any) -> float | None:
    """The `memory_limit` option in bytes."""
    if memory_limit is None:
        return None
    if isinstance(memory_limit, (bool, np.bool_)) or not isinstance(memory_limit, (int, float, np.number)):
        raise TypeError(f"memory_limit must be None or a number of bytes, got {memory_limit!r}")
    if not 0 < memory_limit < np.inf:
        raise ValueError(f"memory_limit must be None or a positive number of bytes, got {memory_limit!r}")
    return float(memory_limit)


def machine_memory() -> float:
    """Bytes that the machine has in all, a container's limit included; infinity where none is told."""
    found = [np.inf]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemTotal:")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        found.append(np.inf if limit == "max" else float(limit))
    if found == [np.inf]:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return max(0.0, min(found))


def available_memory() -> float:
    """Bytes that can be had: what the system calls available, and a container's limit; infinity where none is told."""
    found = [np.inf]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii") for name in ("max", "current"))
        found.append(np.inf if limit.strip() == "max" else float(limit) - float(used))
    if found == [np.inf]:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            found.append(float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return max(0.0, min(found))
