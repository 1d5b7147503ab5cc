"""What a computation costs: operations, memory, time and energy, each measured while it runs."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["Cost", "measured", "multiplication_rate"]

Cost = dict[str, Any]


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS gives bytes, Linux KiB


@contextmanager
def measured(cost: Cost) -> Iterator[Cost]:
    """Fills `cost` with what happens inside.

    flop : operations of matrix products and attention, forward, backward and recomputed, by torch's counter; an
        addition and a multiplication are two. What NumPy computes is not among them.
    peak_bytes : on a GPU the most that the allocator held; else the most memory the process ever held.
    bytes_before : of the process, when it began. seconds, cpu_seconds. joule : on a GPU that reports it.
    """
    import torch

    gpu = torch.cuda.is_available()
    cost["bytes_before"] = peak_bytes()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    before, begun, cpu = energy(), time.perf_counter(), time.process_time()
    with counting() as counter:
        yield cost
    cost["seconds"], cost["cpu_seconds"] = time.perf_counter() - begun, time.process_time() - cpu
    after = energy()
    cost["joule"] = None if before is None or after is None else after - before
    cost["flop"] = cost.get("flop", 0) + counter.operations
    cost["peak_bytes"] = torch.cuda.max_memory_allocated() if gpu else peak_bytes()
    cost["device"] = torch.cuda.get_device_name() if gpu else "cpu"


def counting() -> Any:
    """A context that adds up `operations`, by the formulas of torch's own counter.

    That counter, `FlopCounterMode`, keeps every step's graph to know which module it belongs to: a training run grows
    by half a GiB a step in it, and what its memory is could not be known.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten

    def attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q.shape, k.shape, v.shape))

    def attention_backward(g: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(g.shape, q.shape, k.shape, v.shape))

    formulas = flop_registry | {  # of the CPU, which torch leaves out
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }

    class Counting(TorchDispatchMode):  # type: ignore[misc]
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func is not torch.ops.prim.device.default:
                with self:  # an operation made of others is counted by its parts
                    if (parts := func.decompose(*args, **kwargs)) is not NotImplemented:
                        return parts
            out = func(*args, **kwargs)
            if func._overloadpacket in formulas:
                self.operations += formulas[func._overloadpacket](*args, **kwargs, out_val=out)
            return out

    return Counting()


def energy() -> float | None:
    """Joules that the first GPU has used since its driver was loaded; None where nothing reports them."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000
    except Exception:  # no library, no driver, no such counter: each has an error of its own
        return None


def multiplication_rate(repeats: int = 5) -> float:
    """Operations a second of float32 matrix products here: no computation of as many threads does more in its time.

    Times this, the seconds of a solver that NumPy runs are an upper bound on its operations.
    """
    a = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        a @ a
        times.append(time.process_time() - begun)
    return 2 * len(a) ** 3 / min(times)
