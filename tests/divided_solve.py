"""What tests of several devices compare: the sampled program and a pricing, on the backend given.

Run as a script it is one of several processes on loopback, and prints what it found on all devices of all processes:

    python divided_solve.py NUMBER_OF_PROCESSES INDEX ADDRESS
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

P = 14  # no multiple of four: two empty patterns are added on four devices, and none may come back


def solved(backend: Any) -> dict[str, Any]:
    from cvxrelu.certificates.pricing import Pricing
    from cvxrelu.certificates.search_space import ground_of
    from cvxrelu.program.problem import build_problem
    from cvxrelu.runs.settings import Settings
    from cvxrelu.sampled.stage import SampledStage

    X = np.random.default_rng(0).standard_normal((60, 6))
    Y = np.maximum(X[:, :1], 0) - np.maximum(X[:, 1:3], 0)
    patterns = X @ np.random.default_rng(1).standard_normal((6, P)) >= 0
    problem = build_problem(
        X, Y, beta=0.5, loss="squared", pairs=None, sample_weight=None, margin=0.0, intercept=False, skip=False,
        skip_l2=0.0, equality=None, patterns=patterns, check_patterns=False, dtype=None, seed=0, sampled=True,
    )  # fmt: skip
    settings = Settings.read(rho=None, tol=1e-9, max_iter=60, time_limit=None, linear_solver="direct")
    with backend.scope():
        sol = SampledStage(problem, backend, settings).run()
        device_X = backend.put(X)
        pricing = Pricing(backend, ground_of(backend, device_X, device_X), np.random.default_rng(2))
        priced = pricing.price(Y, X[:3].T / np.linalg.norm(X[:3], axis=1), 16)
    return {
        "device": sol.device,
        "blocks": sol.sampled.blocks.tolist(),
        "dual": sol.sampled.dual.tolist(),
        "sampled": [sol.sampled.objective, sol.sampled.lower_bound],
        "network": [sol.objective, sol.lower_bound],
        "price": [priced.price],
    }


def traffic(backend: Any) -> dict[str, Any]:
    """What is divided, and what goes over the wire in one iteration."""
    from bench.scaling import collectives, stepper

    backend, inputs = stepper(backend, (60, 6, 16))
    with backend.scope():
        state = inputs[3]
        put = [((3, 16), 1), ((3, 16), None), ((3, 14), 1), ((8, 16), 0)]
        return {
            "placed": [
                list(backend.put(np.zeros(shape), split=axis).sharding.shard_shape(shape)) for shape, axis in put
            ],
            "divided": [str(getattr(state, name).sharding.spec) for name in ("x", "t")],
            "collectives": collectives(backend, inputs),
        }


if __name__ == "__main__":
    import jax

    count, index, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, count, index)
    from cvxrelu.backends.choose import select_devices

    chosen = select_devices("jax", "all")
    found = solved(chosen)
    if count == 1:
        found |= traffic(chosen)
    else:
        found["refused"] = []
        others = [device for device in jax.devices() if device.process_index != index]
        for devices, limit in (("all", 10.0), (others, None)):
            try:
                select_devices("jax", devices, limit)
            except ValueError as error:
                found["refused"].append(str(error))
    print("RESULT" + json.dumps(found), flush=True)
    if count > 1:
        jax.distributed.shutdown()
