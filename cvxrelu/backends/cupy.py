"""CuPy: the eager driver on one CUDA device."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from cvxrelu.backends.base import Backend, BackendError

__all__ = ["CupyBackend"]


class CupyBackend(Backend):
    name = "cupy"

    def __init__(self) -> None:
        try:
            import array_api_compat.cupy as xp
            import cupy
            import cupyx
        except ImportError as error:
            raise BackendError(
                f"backend 'cupy' needs CuPy: pip install 'cvxrelu[cupy]' (CUDA 12) or 'cvxrelu[cupy13]' ({error})"
            ) from None
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise BackendError(f"backend 'cupy' needs a CUDA device, and there is none ({error})") from None
        if count == 0:
            raise BackendError("backend 'cupy' needs a CUDA device, and there is none")
        self.xp = xp
        self._cupy, self._cupyx = cupy, cupyx

    def _get_array(self, array: Any) -> np.ndarray:
        return self._cupy.asnumpy(array)

    def spd_inverse(self, matrix: Any) -> Any:
        from cupyx.scipy.linalg import solve_triangular

        try:
            with self._raising():
                factor = self._cupy.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return self._cupy.full_like(matrix, np.nan)
        half = solve_triangular(factor, self._cupy.eye(matrix.shape[0], dtype=matrix.dtype), lower=True)
        return half.T @ half

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self._raising()

    def _raising(self) -> contextlib.AbstractContextManager[Any]:
        """Within it what cannot be factorised is an error, as on NumPy: by itself CuPy does not look, and what it then
        returns are finite numbers that mean nothing.
        """
        return self._cupyx.errstate(linalg="raise")

    def block(self, tree: Any) -> Any:
        self._cupy.cuda.get_current_stream().synchronize()
        return tree

    @property
    def own_memory(self) -> tuple[float, float] | None:
        free, total = self._cupy.cuda.runtime.memGetInfo()
        return float(total), float(free + self._cupy.get_default_memory_pool().free_bytes())

    @property
    def device(self) -> str:
        properties = self._cupy.cuda.runtime.getDeviceProperties(self._cupy.cuda.Device().id)
        return properties["name"].decode()

    @property
    def is_accelerator(self) -> bool:
        return True
