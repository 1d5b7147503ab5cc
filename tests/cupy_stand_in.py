"""A stand-in for CuPy on machines without a device: its modules and its array, over NumPy, refusing what CuPy refuses.

    NumPy's own conversion        np.asarray(a), np.array([a]): TypeError, as CuPy says it; `a.get()` is the way
    NumPy's functions             np.exp(a), np.sum(a): TypeError (CuPy answers some; code must not rest on that)
    arrays of the host            a + host, a[host], a[i] = host, cupy.where(a, host, 0): TypeError
    float, int, bool, a.item()    allowed, as on CuPy, where each waits for the device: counted in `traffic["sync"]`
    factorisations                what does not exist is garbage, and an error in `cupyx.errstate(linalg="raise")`
    names                         those that CuPy has, of `data/cupy_names.json`, which the environment's test writes

Copies and waits are counted in `traffic`, the shapes of copies listed in `copies`. `installed()` puts it all in place:
`import cupy`, array-api-compat and the backend of this package then find it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import operator
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import scipy.linalg

NAMES = json.loads((Path(__file__).parent / "data" / "cupy_names.json").read_text(encoding="utf-8"))
traffic: Counter[str] = Counter()
copies: list[tuple[str, tuple[int, ...]]] = []  # direction and shape of each
on_raise = [False]  # the state of `cupyx.errstate(linalg=...)`


def count(what: str, shape: tuple[int, ...] | None = None) -> None:
    traffic[what] += 1
    if shape is not None:
        copies.append((what, shape))


class ndarray:
    """A device array: `_held` is its content, which only `get` hands out."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, held: Any) -> None:
        self._held = np.asarray(held)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_function__(self, fn: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{fn.__name__} is given an array of the device")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # A NumPy scalar on the left of an operator comes this way, and CuPy answers it.
        if method != "__call__" or options or not isinstance(inputs[0], np.generic):
            raise TypeError(f"numpy.{ufunc.__name__} is given an array of the device")
        return on_device(ufunc)(*inputs)

    shape = property(lambda self: self._held.shape)
    dtype = property(lambda self: self._held.dtype)
    ndim = property(lambda self: self._held.ndim)
    size = property(lambda self: self._held.size)
    itemsize = property(lambda self: self._held.itemsize)
    nbytes = property(lambda self: self._held.nbytes)
    flags = property(lambda self: self._held.flags)
    T = property(lambda self: ndarray(self._held.T))
    device = property(lambda self: Device(0))

    def get(self) -> np.ndarray:
        count("to host", self.shape)
        return self._held.copy()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self._held[as_index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._held[as_index(key)] = held(value)

    def __repr__(self) -> str:
        return f"<stand-in for a device array {self.shape} {self.dtype}>"

    def item(self) -> Any:
        count("sync")
        return self._held.item()

    def tolist(self) -> Any:
        count("to host", self.shape)
        return self._held.tolist()

    def __float__(self) -> float:
        count("sync")
        return float(self._held)

    def __int__(self) -> int:
        count("sync")
        return int(self._held)

    def __index__(self) -> int:
        count("sync")
        return operator.index(self._held)

    def __bool__(self) -> bool:
        count("sync")
        return bool(self._held)


def held(value: Any) -> Any:
    """What NumPy computes with: content of device arrays, Python's and NumPy's numbers; TypeError for host arrays."""
    if isinstance(value, ndarray):
        return value._held
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: an array of the host {value.shape} beside one of the device")
    if isinstance(value, (list, tuple)):
        return type(value)(held(item) for item in value)
    return value


def as_index(key: Any) -> Any:
    if isinstance(key, list):
        raise TypeError("an index of the device is given as a list")
    if isinstance(key, tuple):
        return tuple(as_index(item) for item in key)
    return held(key)


def wrapped(found: Any) -> Any:
    """Arrays and NumPy's numbers as arrays of the device; what holds several of them item by item."""
    if isinstance(found, (np.ndarray, np.generic)):
        return ndarray(found)
    if isinstance(found, tuple):
        items = [wrapped(item) for item in found]
        return type(found)(*items) if hasattr(found, "_fields") else tuple(items)
    return [wrapped(item) for item in found] if isinstance(found, list) else found


def on_device(fn: Any) -> Any:
    """NumPy's function as one of the device."""

    def run(*given: Any, **options: Any) -> Any:
        with np.errstate(all="ignore"):  # a device does not tell
            return wrapped(fn(*map(held, given), **{name: held(value) for name, value in options.items()}))

    run.__name__ = getattr(fn, "__name__", "run")
    return run


def factorisation(fn: Any) -> Any:
    """As `on_device`; what cannot be factorised is garbage, or an error where errors are asked for."""
    run = on_device(fn)

    def careful(*given: Any, **options: Any) -> Any:
        try:
            return run(*given, **options)
        except np.linalg.LinAlgError:
            if on_raise[0]:
                raise
        shapes = {"eigh": 2, "svd": 3, "qr": 2}.get(fn.__name__, 1)
        garbage = tuple(ndarray(0.5 * held(given[0])) for _ in range(shapes))
        return garbage if shapes > 1 else garbage[0]

    careful.__name__ = fn.__name__
    return careful


def from_anywhere(fn: Any) -> Any:
    """`asarray` and its like, which take arrays of the host: the one way to the device."""

    def run(a: Any, *more: Any, blocking: bool = False, **options: Any) -> ndarray:
        if isinstance(a, np.ndarray):
            count("to device", a.shape)
            a = a.copy()
        elif isinstance(a, (list, tuple)):
            a = held(a)
        return ndarray(fn(held(a) if isinstance(a, ndarray) else a, *more, **options))

    return run


UNARY = ("neg", "pos", "abs", "invert")
BINARY = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
)  # fmt: skip
COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")


def install_operators() -> None:
    def binary(name: str, swapped: bool = False, in_place: bool = False) -> Any:
        plain = getattr(operator, f"i{name}" if in_place else f"{name}_" if name in ("and", "or") else name)

        def run(self: ndarray, other: Any) -> Any:
            if not isinstance(other, (ndarray, np.ndarray, np.generic, int, float, complex)):
                return NotImplemented
            with np.errstate(all="ignore"):
                one, two = (held(other), self._held) if swapped else (self._held, held(other))
                found = plain(one, two)
            return ndarray(found)

        return run

    for name in BINARY:
        setattr(ndarray, f"__{name}__", binary(name))
        setattr(ndarray, f"__r{name}__", binary(name, swapped=True))
    for name in COMPARED:
        setattr(ndarray, f"__{name}__", binary(name))
    for name in UNARY:
        plain = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda self, plain=plain: ndarray(plain(self._held)))
    present = set(NAMES["ndarray"]) - set(dir(ndarray))
    for name in present:
        if callable(method := getattr(np.ndarray, name, None)):
            setattr(ndarray, name, on_device(method))


install_operators()
ndarray.__module__ = "cupy"


class Device:
    """`cupy.cuda.Device`: the one there is."""

    def __init__(self, number: Any = None) -> None:
        self.id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = None  # type: ignore[assignment]
    free, total = 60 * 2**30, 64 * 2**30

    @property
    def mem_info(self) -> tuple[int, int]:
        return Device.free, Device.total

    def synchronize(self) -> None:
        pass


class errstate(contextlib.ContextDecorator):
    """`cupyx.errstate`, of which `linalg` alone is heeded."""

    def __init__(self, *, linalg: str | None = None, **_: Any) -> None:
        assert linalg in (None, "ignore", "raise")
        self.linalg = linalg

    def __enter__(self) -> None:
        self.before = on_raise[0]
        if self.linalg is not None:
            on_raise[0] = self.linalg == "raise"

    def __exit__(self, *_: object) -> None:
        on_raise[0] = self.before


class CUDARuntimeError(RuntimeError):
    """`cupy.cuda.runtime.CUDARuntimeError`."""


HOST_TO_DEVICE = {"asarray", "array", "asanyarray", "ascontiguousarray"}
PLAIN = (type, types.ModuleType)  # dtypes and the like


def make_modules() -> dict[str, types.ModuleType]:
    """`cupy`, `cupyx` and what is below them."""
    made = {name: types.ModuleType(name) for name in (
        "cupy", "cupy.linalg", "cupy.fft", "cupy.cuda", "cupy.cuda.device", "cupyx", "cupyx.scipy",
        "cupyx.scipy.linalg",
    )}  # fmt: skip
    cupy, linalg = made["cupy"], made["cupy.linalg"]
    for name in NAMES["cupy"]:
        known = getattr(np, name, None)
        if name in HOST_TO_DEVICE:
            setattr(cupy, name, from_anywhere(known))
        elif isinstance(known, PLAIN) or not callable(known):
            if known is not None or name == "newaxis":
                setattr(cupy, name, known)
        else:
            setattr(cupy, name, on_device(known))
    cupy.ndarray, cupy.asnumpy = ndarray, lambda a, *_, **__: a.get() if isinstance(a, ndarray) else np.asarray(a)
    cupy.get_array_module = lambda *arrays: cupy if any(isinstance(a, ndarray) for a in arrays) else np
    cupy.__version__ = "stand-in"
    for name in NAMES["cupy.linalg"]:
        known = getattr(np.linalg, name, None)
        if known is not None:
            setattr(linalg, name, known if isinstance(known, PLAIN) else factorisation(known))
    for name in ("fft", "ifft"):
        setattr(made["cupy.fft"], name, on_device(getattr(np.fft, name)))

    def solve_triangular(a: Any, b: Any, trans: Any = 0, lower: bool = False, **options: Any) -> ndarray:
        return on_device(lambda one, two: scipy.linalg.solve_triangular(one, two, trans, lower))(a, b)

    made["cupyx.scipy.linalg"].solve_triangular = solve_triangular
    made["cupyx"].errstate = errstate
    cuda, runtime = made["cupy.cuda"], types.SimpleNamespace()
    runtime.getDeviceCount, runtime.CUDARuntimeError = lambda: 1, CUDARuntimeError
    runtime.getDeviceProperties = lambda number: {"name": b"stand-in"}
    runtime.memGetInfo = lambda: (Device.free, Device.total)
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
    cuda.runtime, cuda.Device, made["cupy.cuda.device"].Device = runtime, Device, Device
    cuda.get_current_stream = lambda: types.SimpleNamespace(synchronize=lambda: None)
    for name, module in made.items():
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, module)
        if "__all__" not in vars(module):
            module.__all__ = [entry for entry in vars(module) if not entry.startswith("_")]
        module.__path__ = []
    return made


MODULES = make_modules()


@contextlib.contextmanager
def installed() -> Iterator[types.ModuleType]:
    """While this is entered `import cupy` is the stand-in, and counts begin at zero."""
    from cvxrelu.backends.choose import get_backend

    before = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    get_backend.cache_clear()
    traffic.clear()
    copies.clear()
    try:
        compat = importlib.import_module("array_api_compat.cupy")
        MODULES.update({name: sys.modules[name] for name in list(sys.modules) if name.startswith(compat.__name__)})
        sys.modules.update(MODULES)
        array_api_compat.cupy = compat
        yield MODULES["cupy"]
    finally:
        for name in MODULES:
            if before.get(name) is None:
                sys.modules.pop(name, None)
        get_backend.cache_clear()
