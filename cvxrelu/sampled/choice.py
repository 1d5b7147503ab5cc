"""How the sampled program is going to be solved, told before any work."""

from __future__ import annotations

import numpy as np

from cvxrelu.backends import Backend
from cvxrelu.runs.settings import Settings
from cvxrelu.sampled import newton_stage
from cvxrelu.sampled.memory import Plan, Sizes
from cvxrelu.sampled.penalties import choose_method

__all__ = ["method_ahead"]


def method_ahead(sizes: Sizes, settings: Settings, backend: Backend, memory: Plan) -> str:
    """How the sampled program of these sizes is going to be solved, told before any work; a method of `memory`.

    It is what the stage chooses but where patterns coincide or X is of low rank, where less is needed.
    """
    if memory.streamed:
        return "streamed"
    if memory.fits(sizes, "newton", backend.name) and newton_stage.pays(sizes[:4], settings, backend):
        return "newton"
    shape = (sizes.m, min(sizes.n, sizes.d))
    dtype = np.dtype(f"f{sizes.itemsize}")
    return choose_method(settings.linear_solver, shape, sizes.P, dtype, memory.beside(sizes, backend.name))
