"""JAX: compiled chunks on CPU, GPU or TPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cvxrelu.backends.base import Backend, BackendError, _cast

__all__ = ["JaxBackend"]


class JaxBackend(Backend):
    name = "jax"

    def __init__(self) -> None:
        try:
            import jax
        except ImportError as error:  # pragma: no cover - jax is a base dependency
            raise BackendError(f"backend 'jax' needs JAX: pip install jax ({error})") from None
        try:
            jax.devices()
        except RuntimeError as error:
            raise BackendError(f"backend 'jax' finds no device: {error}") from None
        self.xp = jax.numpy
        self._jax = jax

    def put(self, tree: Any, dtype: Any = None, split: int | None = None, rows: int | None = None) -> Any:
        return self._jax.tree.map(lambda a: self._jax.device_put(_cast(a, dtype)), tree)

    def get(self, tree: Any) -> Any:
        return self._jax.tree.map(np.asarray, self._jax.device_get(tree))

    def compile(
        self, fn: Callable[..., Any], static: Sequence[str] = (), donate: Sequence[str] = ()
    ) -> Callable[..., Any]:
        compiled = _jit(fn, tuple(static), tuple(donate))

        def put(value: Any) -> Any:  # counts of steps, so that nothing goes to the device implicitly
            return self._jax.device_put(value) if isinstance(value, (int, float)) else value

        def call(backend: Backend, *given: Any, **named: Any) -> Any:
            moved = {name: value if name in static else put(value) for name, value in named.items()}
            return compiled(backend, *map(put, given), **moved)

        return call

    def padded(self, size: int) -> int:
        steps = 2 ** max(4, (size - 1).bit_length() - 1) // 2  # 16, 24, 32, 48, 64, 96, ...
        return max(16, -(-size // steps) * steps)

    def repeat(self, n: Any, body: Callable[[Any], Any], state: Any) -> Any:
        return self._jax.lax.fori_loop(0, n, lambda _, s: body(s), state)

    def spd_inverse(self, matrix: Any) -> Any:
        factor = self.xp.linalg.cholesky(matrix)
        identity = self.xp.eye(matrix.shape[0], dtype=matrix.dtype)
        return self._jax.scipy.linalg.cho_solve((factor, True), identity)

    def block(self, tree: Any) -> Any:
        return self._jax.block_until_ready(tree)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        # "highest" turns TF32 and bfloat16 passes off: without it float32 products lose 13 bits on recent GPUs.
        with self._jax.enable_x64(True), self._jax.default_matmul_precision("highest"):
            yield

    @property
    def own_memory(self) -> tuple[float, float] | None:
        return _told(self._jax.local_devices()[:1])

    @property
    def device(self) -> str:
        device = self._jax.devices()[0]
        return "cpu" if device.platform == "cpu" else str(device.device_kind)

    @property
    def is_accelerator(self) -> bool:
        return self._jax.default_backend() != "cpu"


def _told(devices: Sequence[Any]) -> tuple[float, float] | None:
    """Bytes in all and free of the smallest of these devices; None of a CPU, and where a device does not tell."""
    told = [device.memory_stats() for device in devices if device.platform != "cpu"]
    if not told or not all(stats and "bytes_limit" in stats for stats in told):
        return None
    free = (stats["bytes_limit"] - stats.get("bytes_in_use", 0) for stats in told)
    return float(min(stats["bytes_limit"] for stats in told)), float(min(free))


@functools.cache
def _jit(fn: Callable[..., Any], static: tuple[str, ...], donate: tuple[str, ...]) -> Callable[..., Any]:
    """One jitted function for the life of the process: jitting a closure per call would recompile per call."""
    import jax

    return jax.jit(fn, static_argnums=0, static_argnames=static, donate_argnames=donate)
