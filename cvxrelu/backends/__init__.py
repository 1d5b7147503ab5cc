"""Array backends: one driver each for NumPy, JAX and CuPy."""

from cvxrelu.backends.base import Backend, BackendError

__all__ = ["BACKENDS", "Backend", "BackendError"]

BACKENDS = ("numpy", "jax", "cupy")
