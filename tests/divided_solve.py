"""What tests of several devices compare: the sampled program and a pricing, on the backend given.

Run as a script it is one of several processes on loopback, and prints what it found on all devices of all processes:

    python divided_solve.py NUMBER_OF_PROCESSES INDEX ADDRESS ROWSxPATTERNS [FOLDER]

ROWSxPATTERNS is the grid of all devices. FOLDER is for a checkpoint of the first process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
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
        **refined(backend, X, Y),
        "split": split(backend, X, Y[:, 0] > 0.0),
        "device": sol.device,
        "blocks": sol.sampled.blocks.tolist(),
        "dual": sol.sampled.dual.tolist(),
        "sampled": [sol.sampled.objective, sol.sampled.lower_bound],
        "network": [sol.objective, sol.lower_bound],
        "price": [priced.price],
    }


def split(backend: Any, X: Any, positive: Any) -> list[float]:
    """Objective, bound and some blocks of a loss with a split of its own, a skip and conjugate gradients."""
    from cvxrelu.program.problem import build_problem
    from cvxrelu.runs.settings import Settings
    from cvxrelu.sampled.stage import SampledStage

    problem = build_problem(
        X, np.where(positive, 1.0, -1.0), beta=0.5, loss="logistic", skip="linear", skip_l2=0.1, patterns=P
    )
    settings = Settings.read(rho=None, tol=1e-9, max_iter=40, time_limit=None, linear_solver="cg")
    with backend.scope():
        found = SampledStage(problem, backend, settings).run().sampled
    return [found.objective, found.lower_bound, *found.blocks.ravel()]


def refined(backend: Any, X: Any, Y: Any) -> dict[str, Any]:
    """A descent and magnitudes of twenty given neurons, and whole refinements with exact pricing."""
    from cvxrelu.program.problem import build_problem
    from cvxrelu.refinement.neurons import Neurons
    from cvxrelu.refinement.search import Refinement

    found: dict[str, Any] = {}
    problem = build_problem(X, Y, beta=0.5, patterns=1, sampled=False)
    rng = np.random.default_rng(3)
    u, a = rng.standard_normal((6, 20)), rng.standard_normal((2, 20))
    given = Neurons(u / np.linalg.norm(u, axis=0), a / np.linalg.norm(a, axis=0), np.full(20, 0.05))
    with backend.scope():
        search = Refinement(problem, backend, dtype="float64", tol=1e-6, seed=0)
        moved, _ = search.program.descend(given, search.z, np.inf)
        found["descent"] = np.concatenate([moved.u * moved.s, moved.a]).tolist()
        found["weighed"] = search.program.weigh(given, search.z)[0].s.tolist()
        flat = build_problem(X[:, :3], Y[:, 0], beta=0.5, patterns=1, sampled=False)
        search = Refinement(flat, backend, dtype="float64", tol=1e-7, seed=0, exact=True)
        end = search.run(lambda *given: False, np.inf)
    found["refined"] = [end.objective, end.lower_bound]
    return found


def traffic(backend: Any) -> dict[str, Any]:
    """What is divided, and what goes over the wire in one iteration."""
    from bench.scaling import collectives, moved, stepper
    from cvxrelu.numerics import lbfgs
    from cvxrelu.program.losses import Squared
    from cvxrelu.refinement import neurons

    rng = np.random.default_rng(0)
    with backend.scope():
        terms = (rng.standard_normal((60, 6)), Squared(rng.standard_normal((60, 1)), np.ones((60, 1))), np.asarray(0.5))
        data, x = neurons.Terms(*backend.put(terms, rows=0)), backend.put(rng.standard_normal(7 * 16))
        objective = neurons.Balanced(backend)
        state = backend.compile(lbfgs.start, ("objective",))(backend, data, x, objective=objective)
        step = backend.compile(lbfgs.run, ("objective",)).lower(backend, data, state, 1, objective=objective)
        u, a, s, z = (backend.put(np.ones(shape)) for shape in ((6, 16), (1, 16), (16,), (0, 1)))
        weights = backend.compile(neurons.moments).lower(backend, data, u, a, s, z)
        refinement = {"descent": moved(step.compile().as_text()), "weigh": moved(weights.compile().as_text())}
    backend, inputs = stepper(backend, (60, 6, 16))
    with backend.scope():
        (system_data, _, _, state), loss = inputs, inputs[0].loss
        put = [((3, 16), 1), ((3, 16), None), ((3, 14), 1), ((8, 16), 0)]
        kept = {"x": state.x, "t": state.t, "X": system_data.X, "patterns": system_data.patterns, "y": loss.y}
        return {
            "placed": [
                list(backend.put(np.zeros(shape), split=axis).sharding.shard_shape(shape)) for shape, axis in put
            ],
            "rows": list(backend.put(np.zeros((6, 12)), rows=0, split=-1).sharding.shard_shape((6, 12))),
            "both": list(backend.put(np.zeros((12, 5)), rows=0, split=0).sharding.shard_shape((12, 5))),
            "shares": {name: list(array.sharding.shard_shape(array.shape)) for name, array in kept.items()},
            "collectives": collectives(backend, inputs),
            "refinement": refinement,
        }


def refused(devices: Any) -> str:
    """What is said of 59 rows."""
    import cvxrelu

    try:
        cvxrelu.solve(np.ones((59, 2)), np.ones(59), beta=0.5, max_iter=1, patterns=1, refine=False, devices=devices)
    except ValueError as error:
        return str(error)
    return ""


def resumed(folder: Path, index: int, devices: Any) -> dict[str, Any]:
    """Solves that are stopped and taken up again, from a folder that only the first process can reach."""
    import cvxrelu
    from cvxrelu.runs import checkpoint

    checkpoint.INTERVAL, checkpoint.SHARE = 0.0, 1.0 if index == 0 else 1e-9  # clocks that disagree
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0)
    found: dict[str, Any] = {"resumed": []}
    for options, stop in (
        ({"patterns": 14, "refine": False, "max_iter": 60, "tol": 1e-9}, 3),
        ({"certificate": "exact", "tol": 1e-7, "dtype": "float64"}, 2),
    ):
        place = folder / f"{index}-{stop}"
        keep: Any = {"beta": 0.5, "devices": devices, **options}
        whole = cvxrelu.solve(X, y, **keep)
        seen: list[Any] = []
        cvxrelu.solve(
            X, y, **keep, checkpoint=place, callback=lambda row, seen=seen, n=stop: seen.append(row) or len(seen) == n
        )
        again = cvxrelu.solve(X, y, **keep, checkpoint=place)
        found["resumed"].append([whole.objective, again.objective, len(whole.history), len(again.history), len(seen)])
        try:
            cvxrelu.solve(X, y, **{**keep, "beta": 0.25}, checkpoint=place)
        except ValueError as error:
            found["refused"] = [*found.get("refused", []), str(error)]
    found["written"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return found


if __name__ == "__main__":
    import jax

    count, index, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, count, index)
    from cvxrelu.backends.choose import select_devices

    grid = np.array(jax.devices()).reshape(tuple(map(int, sys.argv[4].split("x"))))
    chosen = select_devices("jax", grid)
    found = solved(chosen)
    if count == 1:
        found |= {**traffic(chosen), "refused": refused(grid)}
    else:
        found["refused"] = []
        others = [device for device in jax.devices() if device.process_index != index]
        for devices, limit in ((grid, 10.0), (others, None)):
            try:
                select_devices("jax", devices, limit)
            except ValueError as error:
                found["refused"].append(str(error))
        more = resumed(Path(sys.argv[5]), index, grid)
        found |= {**more, "refused": found["refused"] + more["refused"]}
    print("RESULT" + json.dumps(found), flush=True)
    if count > 1:
        jax.distributed.shutdown()
