"""Bad input gets one clear sentence that names the argument, before any work and without a word on the terminal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import cvxrelu

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 3)), RNG.standard_normal(12)
GOOD = {"X": X, "y": Y, "beta": 1.0, "patterns": 5}
NAN, INF = float("nan"), float("inf")


def at(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[4] = value
    return changed


def refused(
    kind: type[Exception] | tuple[type[Exception], ...], capfd: Any, function: Any = cvxrelu.solve, **options: Any
):
    """The one line with which the call is refused."""
    given = {**GOOD, **options}
    with pytest.raises(kind) as caught:
        function(given.pop("X"), given.pop("y"), **given)
    assert capfd.readouterr() == ("", "")
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


BAD_ARRAYS = [
    ("X", at(X, NAN), ValueError, r"finite, got nan at index \(1, 1\) \(1 such"),
    ("X", at(X, -INF), ValueError, r"finite, got -inf at index \(1, 1\)"),
    ("X", X[0], ValueError, r"2 dimension.* got shape \(3,\)"),
    ("X", X[None], ValueError, r"2 dimension.* got shape \(1, 12, 3\)"),
    ("X", 1.0, ValueError, r"got shape \(\)"),
    ("X", X[:0], ValueError, r"at least one row and one column, got shape \(0, 3\)"),
    ("X", X[:, :0], ValueError, r"at least one row and one column, got shape \(12, 0\)"),
    ("X", None, TypeError, "real numbers, got dtype object"),
    ("X", X * 1j, TypeError, "complex128"),
    ("X", X.astype(object), TypeError, "object"),
    ("X", X.astype(str), TypeError, "real numbers, got dtype <U"),
    ("X", X.astype("datetime64[s]"), TypeError, "datetime64"),
    ("X", [[1.0, 2.0], [3.0]], ValueError, "rectangular"),
    ("X", scipy.sparse.csr_array(X), TypeError, r"sparse matrix; pass a dense array \(X.toarray\(\)\)"),
    ("X", 1e120 * X, ValueError, "rescale"),
    ("y", at(Y, NAN), ValueError, r"finite, got nan at index \(4,\)"),
    ("y", at(Y, INF), ValueError, r"finite, got inf at index \(4,\)"),
    ("y", Y[:-1], ValueError, r"\(12,\) or \(12, c\).* got \(11,\)"),
    ("y", Y[None], ValueError, r"got \(1, 12\)"),
    ("y", Y[:, None][:, :0], ValueError, r"c >= 1 .*got \(12, 0\)"),
    ("y", Y[:, None, None], ValueError, r"got shape \(12, 1, 1\)"),
    ("y", 1.0, ValueError, r"got shape \(\)"),
    ("y", None, ValueError, "required"),
    ("y", Y * 1j, TypeError, "complex128"),
    ("y", Y.astype(str), TypeError, "real numbers"),
    ("y", Y.astype(object), TypeError, "object"),
    ("y", scipy.sparse.csr_array(Y[:, None]), TypeError, "sparse"),
    ("y", -1e120 * Y, ValueError, "rescale"),
    ("sample_weight", at(np.ones(12), NAN), ValueError, "finite"),
    ("sample_weight", at(np.ones(12), INF), ValueError, "finite"),
    ("sample_weight", at(np.ones(12), -1.0), ValueError, r"nonnegative .* in \[-1.0, 1.0\]"),
    ("sample_weight", np.zeros(12), ValueError, "positive entry"),
    ("sample_weight", np.ones(11), ValueError, r"\(12,\), got \(11,\)"),
    ("sample_weight", np.ones((12, 1)), ValueError, r"got shape \(12, 1\)"),
    ("sample_weight", 2.0, ValueError, r"got shape \(\)"),
    ("sample_weight", "balanced", TypeError, "real numbers"),
    ("patterns", np.ones((11, 4), bool), ValueError, r"bool array of shape \(11, 4\)"),
    ("patterns", np.ones(12, bool), ValueError, r"shape \(12,\)"),
    ("patterns", np.ones((12, 0), bool), ValueError, r"shape \(12, 0\)"),
    ("patterns", np.ones((12, 4), int), TypeError, "int64"),
    ("patterns", np.ones((12, 4)), ValueError, r"float64 and shape \(12, 4\)"),
    ("patterns", np.full((3, 4), NAN), ValueError, "NaN"),
    ("patterns", (np.ones((12, 4), bool), np.ones((3, 5))), ValueError, "4 patterns but 5 gates"),
    ("patterns", (np.ones((12, 4), bool), np.ones((3, 4))), ValueError, "differs from"),
    ("patterns", (1, 2, 3), ValueError, "tuple of 3"),
    ("patterns", 0, ValueError, "patterns is 0; expected an integer P >= 1"),
    ("patterns", -3, ValueError, "patterns is -3"),
    ("patterns", 2.5, (TypeError, ValueError), "expected an integer P >= 1"),
    ("patterns", True, TypeError, "patterns is True"),
    ("patterns", None, TypeError, "patterns is None"),
    ("patterns", "all", TypeError, "str"),
]


@pytest.mark.parametrize(("name", "value", "kind", "says"), BAD_ARRAYS)
def test_arrays(capfd, name, value, kind, says):
    message = refused(kind, capfd, **{name: value})
    assert message.startswith(name)
    assert re.search(says, message), message


BAD_OPTIONS = [
    *((name, bad, ValueError) for name in ("beta", "rho", "tol", "time_limit") for bad in (0, -1.0, NAN, INF)),
    *((name, bad, TypeError) for name in ("beta", "rho", "tol", "time_limit") for bad in ("1", True, 1j, [1, 2])),
    ("beta", None, TypeError),
    pytest.param("beta", 10**400, (TypeError, ValueError), id="beta-more than a float holds"),
    ("tol", None, TypeError),
    *(("max_iter", bad, ValueError) for bad in (0, -1, 10.0, True, "5", NAN)),
    *(("seed", bad, ValueError) for bad in (-1, 1.5, None, True, "0")),
    *(("dtype", bad, ValueError) for bad in ("float16", "int64", int, complex, "double precision", 64, object())),
    *(("backend", bad, ValueError) for bad in ("torch", "JAX", None, 1, ["numpy"])),
    *(("linear_solver", bad, ValueError) for bad in ("lu", "", None, True, np.array(["cg", "direct"]))),
    *(("callback", bad, TypeError) for bad in (1, "print", [])),
    *(
        (name, bad, TypeError)
        for name in ("intercept", "check_patterns", "refine", "verbose")
        for bad in (1, None, "yes")
    ),
    *(("skip", bad, ValueError) for bad in (True, "affine", 1, "Linear")),
    *(("certificate", bad, ValueError) for bad in ("Exact", 3)),
    *(("loss", bad, (TypeError, ValueError)) for bad in ("hinge", None, 2, np.array(["squared", "logistic"]))),
    *(("certificate", bad, (TypeError, ValueError)) for bad in ("best", None, True)),
]


@pytest.mark.parametrize(("name", "value", "kind"), BAD_OPTIONS)
def test_options(capfd, name, value, kind):
    assert refused(kind, capfd, **{name: value}).startswith(name)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("refine", True),
        ("refine", np.False_),
        ("certificate", "priced"),
        ("warm_start", None),
        ("margin", 0),
        ("skip_l2", 0),
        ("skip", False),
        ("loss", "squared"),
    ],
)
def test_the_defaults_of_later_keywords_may_be_written_out(name, default):
    assert cvxrelu.solve(X, Y, beta=1.0, patterns=5, **{name: default}).success


@pytest.mark.parametrize("bad", [(X, Y), "zero", 3, np.ones((3, 3)), (X, X), (np.full((3, 2), NAN), np.ones(2))])
def test_networks_to_start_from(capfd, bad):
    refused((TypeError, ValueError), capfd, warm_start=bad)


SIGNS = np.where(Y > 0, 1.0, -1.0)
PAIRS = np.array([[0, 1], [2, 1], [11, 4]])
LABELS = np.arange(12) % 3
LOGISTIC = {"loss": "logistic", "y": SIGNS}
PAIRED = {"loss": "logistic", "y": None, "pairs": PAIRS}
LINEAR = {"skip": "linear", "skip_l2": 1.0}


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({**LOGISTIC, "y": None}, ValueError, r"y is required \(only pairs= with loss='logistic'"),
        ({**LOGISTIC, "y": (SIGNS > 0).astype(int)}, ValueError, r"y must hold -1 and \+1 only .* got 0.0; for 0"),
        ({**LOGISTIC, "y": 2 * SIGNS}, ValueError, r"y must hold -1 and \+1 only .* got -?2.0"),
        ({**LOGISTIC, "y": SIGNS[:5]}, ValueError, r"y must have shape \(12,\) or \(12, c\).* got \(5,\)"),
        ({**LOGISTIC, "margin": np.ones(5)}, ValueError, r"margin must be a number or have shape \(12,\), got \(5,\)"),
        ({**LOGISTIC, "margin": at(np.ones(12), NAN)}, ValueError, "margin must be finite, got nan"),
        ({**LOGISTIC, "margin": INF}, ValueError, "margin must be finite, got inf"),
        ({**LOGISTIC, "margin": "big"}, TypeError, "margin must hold real numbers"),
        ({**LOGISTIC, "margin": None}, TypeError, "margin must hold real numbers"),
        ({**LOGISTIC, "margin": 1e60}, ValueError, "margin has largest entry 1.0e\\+60, outside"),
        ({**LOGISTIC, "skip": "bias"}, ValueError, "skip_l2 must be positive with skip='bias' and loss='logistic'"),
        ({"margin": 1.0}, ValueError, "margin needs loss='logistic', got 1.0 with loss='squared'"),
        ({"loss": "multinomial", "margin": 1.0, "y": LABELS}, ValueError, "margin needs loss='logistic', got 1.0"),
        ({"loss": "multinomial", "y": None}, ValueError, "y is required"),
        ({"loss": "multinomial", "y": LABELS + 0.5}, ValueError, "y must hold class labels 0, 1, .* got 0.5"),
        ({"loss": "multinomial", "y": LABELS - 1}, ValueError, r"y must hold class labels .* got values in \[-1, 1\]"),
        ({"loss": "multinomial", "y": LABELS * 10**6}, ValueError, r"y must hold class labels .* \[0, 2000000\]"),
        ({"loss": "multinomial", "y": 1e30 * LABELS}, ValueError, "y must hold class labels"),
        ({"loss": "multinomial", "y": LABELS[:4]}, ValueError, r"y must have 12 rows to match X, got shape \(4,\)"),
        ({"loss": "multinomial", "y": np.ones((12, 2))}, ValueError, r"y of shape \(12, 2\) must be indicators"),
        ({"loss": "multinomial", "y": np.ones((12, 1))}, ValueError, r"y of shape \(12, 1\) must be indicators"),
        ({"loss": "multinomial", "y": LABELS, "pairs": PAIRS}, ValueError, "pairs needs loss='logistic' or 'squared'"),
        ({**PAIRED, "pairs": [[0, 0], [1, 2]]}, ValueError, "pairs must compare different rows, got row 0 .* pair 0"),
        ({**PAIRED, "pairs": [[0, 1], [1, 12]]}, ValueError, r"pairs must hold rows of X, from 0 to 11, got \[1, 12\]"),
        ({**PAIRED, "pairs": [[0, 1], [-1, 2]]}, ValueError, r"pairs must hold rows of X, .* got \[-1, 2\] at pair 1"),
        ({**PAIRED, "pairs": [[2**63, 1]]}, ValueError, "pairs must"),
        ({**PAIRED, "pairs": 1.0 * PAIRS}, ValueError, "pairs must be integers of shape .* got float64"),
        ({**PAIRED, "pairs": PAIRS > 0}, ValueError, "pairs must be integers of shape .* got bool"),
        ({**PAIRED, "pairs": PAIRS[:0]}, ValueError, r"pairs must be integers of shape \(m, 2\) with m >= 1"),
        ({**PAIRED, "pairs": PAIRS.T[:, :2].repeat(2, 1)[:, :3]}, ValueError, r"pairs .* of shape \(2, 3\)"),
        ({**PAIRED, "pairs": PAIRS[0]}, ValueError, r"pairs must have 2 dimension\(s\), got shape \(2,\)"),
        ({**PAIRED, "pairs": "all"}, (TypeError, ValueError), "pairs must"),
        ({**PAIRED, "y": SIGNS}, ValueError, r"y must have shape \(3,\), one for each pair, got \(12,\)"),
        ({**PAIRED, "y": SIGNS[:3, None]}, ValueError, "y must have 1 dimension"),
        ({**PAIRED, "sample_weight": np.ones(12)}, ValueError, r"sample_weight must have shape \(3,\), got \(12,\)"),
        ({**PAIRED, "margin": np.ones(12)}, ValueError, r"margin must be a number or have shape \(3,\), got \(12,\)"),
        ({**PAIRED, "loss": "squared"}, ValueError, "y is required"),
        ({"skip_l2": 1.0}, ValueError, "skip_l2=1.0 needs skip='bias' or 'linear'"),
        ({"skip": "linear", "skip_l2": -1.0}, ValueError, "skip_l2 must be a nonnegative finite number, got -1.0"),
        ({"skip": "linear", "skip_l2": NAN}, ValueError, "skip_l2 must be a nonnegative"),
        ({"skip": "linear", "skip_l2": None}, TypeError, "skip_l2 must be a nonnegative"),
        ({"skip": "linear", "skip_l2": 1e-200}, ValueError, "skip_l2 must be zero or lie between"),
        ({"skip": "linear", "skip_l2": 1e200}, ValueError, "skip_l2 must be zero or lie between"),
        ({"equality": (np.ones(3), 1.0)}, ValueError, "equality needs skip='linear', got skip=False"),
        ({**LINEAR, "skip": "bias", "equality": (np.ones(3), 1.0)}, ValueError, "equality needs skip='linear'"),
        ({**LINEAR, "equality": np.ones(3)}, ValueError, r"equality must be a pair \(C, e\)"),
        ({**LINEAR, "equality": 3}, ValueError, r"equality must be a pair \(C, e\) .* got int"),
        ({**LINEAR, "equality": (np.ones(4), 1.0)}, ValueError, r"equality must have C of shape \(q, 3\) .* \(1, 4\)"),
        ({**LINEAR, "equality": (np.ones((2, 3)), np.ones(3))}, ValueError, r"equality must have e of shape \(2,\)"),
        ({**LINEAR, "equality": (np.ones((2, 3)), [1.0, 2.0])}, ValueError, "equality has no solution: .* contradict"),
        ({**LINEAR, "equality": (np.zeros(3), 1.0)}, ValueError, "equality has no solution: a row of C is zero"),
        ({**LINEAR, "equality": (at(np.ones((2, 3)), NAN), np.ones(2))}, ValueError, "equality, C, must be finite"),
        ({**LINEAR, "equality": (np.ones(3), INF)}, ValueError, "equality, e, must be finite"),
        ({**LINEAR, "equality": (1e120 * np.ones(3), 1.0)}, ValueError, "equality, C, has largest entry"),
    ],
)  # fmt: skip
def test_losses_pairs_and_skips(capfd, options, kind, says):
    message = refused(kind, capfd, **options)
    assert re.match(says, message), message


@pytest.mark.parametrize(
    "options",
    [
        {**LOGISTIC, "y": SIGNS.astype(int)},
        {**LOGISTIC, "y": SIGNS.astype(np.float32)},
        {**LOGISTIC, "margin": 1},
        {**PAIRED, "pairs": PAIRS.tolist()},
        {**PAIRED, "pairs": PAIRS.astype(np.uint8)},
        {**PAIRED, "skip": "bias", "skip_l2": 1.0},
        {"loss": "multinomial", "y": LABELS},
        {"loss": "multinomial", "y": LABELS.astype(float)},
        {"loss": "multinomial", "y": LABELS.astype(np.uint8)},
        {"loss": "multinomial", "y": np.eye(3, dtype=bool)[LABELS]},
        {"loss": "multinomial", "y": 0 * LABELS},
        {**LINEAR, "equality": ([1, 1, 1], 0)},
        {**LINEAR, "equality": (np.ones((2, 3)), [[1.0], [1.0]])},
    ],
    ids=str,
)
def test_what_is_meant_is_accepted_for_other_losses(capfd, options):
    given = {**GOOD, "beta": 0.3, **options}
    assert cvxrelu.solve(given.pop("X"), given.pop("y"), **given).success
    assert capfd.readouterr() == ("", "")


def test_keywords_only():
    with pytest.raises(TypeError, match="betta"):
        cvxrelu.solve(X, Y, beta=1.0, betta=2.0)
    with pytest.raises(TypeError, match="beta"):
        cvxrelu.solve(X, Y)
    with pytest.raises(TypeError, match="positional"):
        cvxrelu.solve(X, Y, 1.0)


def test_unrealisable_patterns(capfd):
    line = np.array([[1.0], [2.0], [-1.0]])
    both = np.array([[True, True], [True, False], [False, False]])
    options = {"X": line, "y": np.ones(3), "patterns": both}
    message = refused(ValueError, capfd, check_patterns=True, **options)
    assert message == "patterns has 1 of 2 columns that no gate realises on X, the first is 1"
    assert cvxrelu.solve(line, np.ones(3), beta=0.1, patterns=both[:, :1], check_patterns=True).success
    assert cvxrelu.solve(line, np.ones(3), beta=0.1, patterns=both).success  # harmless: such a cone only holds zeros


def test_gates_match_the_intercept(capfd):
    gates = np.ones((3, 4))
    assert refused(ValueError, capfd, patterns=gates, intercept=True).startswith("patterns")
    assert cvxrelu.solve(X, Y, beta=1.0, patterns=np.ones((4, 4)), intercept=True).success


def test_float32_range(capfd):
    assert refused(ValueError, capfd, X=1e20 * X, dtype="float32").startswith("X has largest entry")
    assert refused(ValueError, capfd, y=1e20 * Y, dtype="float32").startswith("y has largest entry")


@pytest.mark.parametrize(
    "options",
    [
        {"beta": np.float32(1.0)},
        {"beta": np.array(1.0)},
        {"beta": 1},
        {"max_iter": np.int64(100)},
        {"seed": np.uint8(3)},
        {"dtype": float},
        {"dtype": np.float32},
        {"dtype": np.dtype("float32")},
        {"X": X.tolist(), "y": tuple(Y)},
        {"X": X.astype(np.float16)},
        {"X": X.astype(np.longdouble)},
        {"X": X > 0, "y": Y > 0},
        {"X": np.asfortranarray(X)[::-1], "y": Y[::-1]},
        {"sample_weight": np.arange(12)},
        {"intercept": np.True_},
        {"patterns": np.int32(4)},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_is_meant_is_accepted(capfd, options):
    given = {**GOOD, **options}
    assert cvxrelu.solve(given.pop("X"), given.pop("y"), **given).success
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"X": at(X, NAN)}, ValueError, "X"),
        ({"y": Y[:3]}, ValueError, "y"),
        ({"sample_weight": -np.ones(12)}, ValueError, "sample_weight"),
        ({"patterns": np.ones((3, 2), bool)}, ValueError, "patterns"),
        ({"patterns": 0}, ValueError, "patterns"),
        ({"seed": -1}, ValueError, "seed"),
        ({"intercept": None}, TypeError, "intercept"),
        ({"skip": True}, ValueError, "skip"),
        ({"skip_l2": 1.0}, ValueError, "skip_l2"),
        ({"loss": "logistic"}, ValueError, "y must hold -1 and"),
        ({"pairs": np.zeros((40, 2), int)}, ValueError, "pairs must compare"),
        ({"margin": 1.0}, ValueError, "margin needs"),
        ({"equality": (np.ones(3), 0.0)}, ValueError, "equality needs skip='linear'"),
    ],
)
def test_beta_max_refuses_in_the_same_way(capfd, options, kind, name):
    def call(X, y, beta, **rest):
        return cvxrelu.beta_max(X, y, **rest)

    assert refused(kind, capfd, call, **options).startswith(name)
