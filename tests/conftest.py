"""What every test may use. This file is read before any test imports `cvxrelu`, and must not import it itself."""

from __future__ import annotations

import functools
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# JAX reads this when it is first imported: mixing dtypes then raises instead of silently widening, so that float32
# stays float32. Set the variable to "standard" to see whether a failure is due to it.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# Nor is an axis that one array lacks made up for: a vector that happens to have the length of rows is not meant by it.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

# Shapes and types in annotations are checked under pytest, and only there. Not in the modules that users call: these
# take whatever they are given and answer bad input with messages of their own, which the tests want to see. Where
# beartype is missing (a bare GPU machine, say) the tests run unchecked.
BOUNDARY = {
    "cvxrelu.api.beta_max",
    "cvxrelu.api.certify",
    "cvxrelu.network.foreign",
    "cvxrelu.api.estimators",
    "cvxrelu.api.beta_search",
    "cvxrelu.model_selection.estimators",
    "cvxrelu.api.guards",  # counts the frames between a warning and the user's call
    "cvxrelu.network.relu_network",
    "cvxrelu.runs.settings",
    "cvxrelu.model_selection.path",
    "cvxrelu.program.patterns",
    "cvxrelu.program.problem",
    "cvxrelu.api.prepared",
    "cvxrelu.api.solve",
    "cvxrelu.api.standardised",
}
if importlib.util.find_spec("beartype") and importlib.util.find_spec("jaxtyping"):
    if early := [name for name in sys.modules if name.partition(".")[0] == "cvxrelu"]:
        raise RuntimeError(f"imported before the checking hook was in place, so unchecked: {', '.join(early)}")
    sys.path.insert(0, str(ROOT / "tests"))
    import jaxtyping
    import type_checks

    jaxtyping.jaxtyped = type_checks.sparing  # what the hook puts before every function

    # Modules, not packages: a hook on a package would reach all that is below it.
    modules = pkgutil.walk_packages([str(ROOT / "cvxrelu")], "cvxrelu.", onerror=lambda name: None)
    inner = {module.name for module in modules if not module.ispkg} - BOUNDARY
    jaxtyping.install_import_hook([*sorted(inner), "cvxrelu_llm"], "type_checks.check")

if importlib.util.find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    # No deadline: the first call of a compiled function takes a thousand times as long as the second.
    quiet = [HealthCheck.too_slow]
    # The ordinary run draws the same examples each time, so that it says the same of the same code; `make test-random`
    # draws anew, and what it finds belongs into an @example.
    settings.register_profile("random", deadline=None, suppress_health_check=quiet, max_examples=50, print_blob=True)
    settings.register_profile("ordinary", settings.get_profile("random"), derandomize=True, database=None)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data(root: Path) -> Path:
    """The folder of real data sets, `shared/data` beside the checkout, which a clone alone does not have."""
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data beside the checkout is absent")
    return folder


@pytest.fixture
def around_solves(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """`around_solves(f)`: every run on prepared data becomes `f(prepared, run, beta, settings, **more)`."""
    from cvxrelu.api.prepared import Prepared

    plain = Prepared.solve

    def put(wrapper: Callable[..., Any]) -> None:
        def solve(self: Any, *given: Any, **more: Any) -> Any:
            return wrapper(self, functools.partial(plain, self), *given, **more)

        monkeypatch.setattr(Prepared, "solve", solve)

    return put


@pytest.fixture(params=["numpy", "jax", "strict"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """Every backend that runs on any machine; "strict" is array-api-strict, which has nothing beyond the standard."""
    if request.param == "strict":
        pytest.importorskip("array_api_strict")
    return request.param
