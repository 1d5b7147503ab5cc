"""JAX on several devices, of one process or of all processes of a cluster: one program, arrays divided over a grid.

Everything is copied to all devices but what is put or constrained with axes to divide: patterns and blocks along the
patterns, start directions of pricing along the directions, by the second axis of the grid; X and all else that has its
rows along these, by the first. The compiled functions are those of one device; where their arrays are divided, so is
the work, and XLA inserts the sums over devices (GSPMD: Xu et al., "GSPMD: general and scalable parallelization for ML
computation graphs", 2021). In ADMM that is one sum of m c numbers per u-step over the patterns, because the blocks
enter the (m, m) system through their joint prediction alone, and sums of the blocks' size over the rows.

With several processes every process runs the same host program on the same data, so that all decisions agree; what is
divided among processes is gathered when it is read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cvxrelu.backends.base import _cast
from cvxrelu.backends.jax import JaxBackend, _jit, _told

__all__ = ["MeshBackend", "as_devices"]


Grid = tuple[tuple[Any, ...], ...]  # devices, the rows of the grid one after another


class MeshBackend(JaxBackend):
    """The driver of `JaxBackend` on a mesh of two axes."""

    on_mesh = True

    def __init__(self, devices: Grid) -> None:
        super().__init__()
        self.mesh = self._jax.sharding.Mesh(np.array(devices), ("rows", "patterns"))

    def put(self, tree: Any, dtype: Any = None, split: int | None = None, rows: int | None = None) -> Any:
        def place(array: Any) -> Any:
            host = _cast(array, dtype)
            sharding = self._sharding(host.shape, split, rows)
            return self._jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return self._jax.tree.map(place, tree)

    def get(self, tree: Any) -> Any:
        def whole(array: Any) -> Any:
            if not isinstance(array, self._jax.Array) or array.is_fully_addressable:
                return array
            return self._gathered(array).addressable_data(0)

        return super().get(self._jax.tree.map(whole, tree))

    def compile(
        self, fn: Callable[..., Any], static: Sequence[str] = (), donate: Sequence[str] = ()
    ) -> Callable[..., Any]:
        # Numbers stay those of the host, which every process has: on one device they would be of one process.
        return _jit(fn, tuple(static), tuple(donate))

    def split(self, array: Any, axis: int | None, rows: int | None = None) -> Any:
        return self._jax.lax.with_sharding_constraint(array, self._sharding(array.shape, axis, rows))

    def padded(self, size: int) -> int:
        padded = super().padded(size)
        return padded + -padded % self.grid[1]

    @functools.cached_property
    def _gathered(self) -> Any:
        return self._jax.jit(lambda array: array, out_shardings=self._sharding((), None, None))

    def _sharding(self, shape: tuple[int, ...], axis: int | None, rows: int | None) -> Any:
        """Divided along these axes, those that there are and that the devices divide evenly; else copies."""
        places: list[tuple[str, ...]] = [()] * len(shape)
        for name, where in (("rows", rows), ("patterns", axis)):
            if where is not None and shape:
                along = (*places[where], name)
                if shape[where] % math.prod(self.mesh.shape[part] for part in along) == 0:
                    places[where] = along
        return self._jax.sharding.NamedSharding(
            self.mesh, self._jax.sharding.PartitionSpec(*(along or None for along in places))
        )

    @property
    def grid(self) -> tuple[int, int]:
        return self.mesh.devices.shape

    @property
    def own_memory(self) -> tuple[float, float] | None:
        here = self._jax.process_index()
        return _told([device for device in self.mesh.devices.flat if device.process_index == here])

    @property
    def device(self) -> str:
        first, (rows, patterns) = self.mesh.devices[0, 0], self.grid
        shape = f"{rows} x {patterns}" if rows > 1 else f"{patterns}"
        return f"{shape} x {'cpu' if first.platform == 'cpu' else first.device_kind}"

    @property
    def is_accelerator(self) -> bool:
        return self.mesh.devices[0, 0].platform != "cpu"

    @property
    def n_processes(self) -> int:
        return len({device.process_index for device in self.mesh.devices.flat})

    @property
    def leads(self) -> bool:
        return self.n_processes == 1 or self._jax.process_index() == 0

    def share(self, data: bytes) -> bytes:
        if self.n_processes == 1:
            return data
        from jax.experimental.multihost_utils import broadcast_one_to_all

        # Lengths first: all processes have to bring arrays of the same shape.
        size = int(broadcast_one_to_all(np.asarray(len(data), dtype=np.int32)))
        given = np.frombuffer(data, dtype=np.uint8) if self.leads else np.zeros(size, dtype=np.uint8)
        return np.asarray(broadcast_one_to_all(given)).tobytes()


def as_devices(devices: Any) -> Grid:
    """The devices that `solve(devices=...)` names: "all", the first k, or these; one row of them but for an array.

    With several processes, devices of other processes only together with some of every process: all of them have to run
    the program.
    """
    import jax

    there = jax.devices()
    if isinstance(devices, str) and devices == "all":
        named = np.array(there)
    elif isinstance(devices, (int, np.integer)) and not isinstance(devices, bool):
        if not 1 <= devices <= len(there):
            raise ValueError(f"devices is {devices}; expected 1 to {len(there)}, the JAX devices there are: {there}")
        named = np.array(there[: int(devices)])
    elif isinstance(devices, (Sequence, np.ndarray)) and not isinstance(devices, str):
        named = np.array(devices, dtype=object)
        for device in named.flat:
            if not isinstance(device, jax.Device):
                raise TypeError(f"devices holds {device!r}, which is no JAX device; see jax.devices()")
        if named.ndim not in (1, 2):
            raise ValueError(f"devices must be a sequence or an array (rows, patterns), got {named.ndim} dimensions")
        if named.size == 0 or len(set(named.flat)) < named.size:
            raise ValueError(f"devices must name at least one device and none twice, got {devices!r}")
    else:
        raise TypeError(
            "devices must be None, 'all', a number of devices, or a sequence or array (rows, patterns) of JAX devices, "
            f"got {devices!r}"
        )
    chosen = list(named.flat)
    if (kinds := {device.platform for device in chosen}) and len(kinds) > 1:
        raise ValueError(f"devices must be of one platform, got {', '.join(sorted(kinds))}")
    owners = {device.process_index for device in chosen}
    if owners != {jax.process_index()} and len(owners) < jax.process_count():
        raise ValueError(
            f"devices {chosen} belong to processes {sorted(owners)} of {jax.process_count()}; "
            "expected devices of this process alone, or of every process"
        )
    return tuple(map(tuple, np.atleast_2d(named)))
