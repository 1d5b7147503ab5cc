"""Converted networks of other libraries predict the same, balanced arrays too; whatever else is given is refused."""

import copy
import functools
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline

import cvxrelu
from cvxrelu.network.balanced import to_arrays
from cvxrelu.network.relu_network import ReLUNetwork

X = np.random.default_rng(0).standard_normal((20, 3))
W, HIDDEN = np.random.default_rng(1).standard_normal((2, 3, 5))
HIDDEN = HIDDEN[0]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


# -- PyTorch ----------------------------------------------------------------------------------------------------------
def sequential(torch, *, c=1, biases=(True, True), dtype="float64", seed=0):
    torch.manual_seed(seed)
    nn = torch.nn
    layers = nn.Linear(3, 7, bias=biases[0]), nn.ReLU(), nn.Linear(7, c, bias=biases[1])
    return nn.Sequential(*layers).to(getattr(torch, dtype))


def forward(torch, model, rows=X):
    """In float64 and evaluation mode, whatever the model's own: its weights are then what they are, exactly."""
    with torch.no_grad():
        return copy.deepcopy(model).double().eval()(torch.asarray(rows)).numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("c", [1, 4])
@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
def test_a_sequential_predicts_the_same(torch, dtype, c, biases):
    model = sequential(torch, c=c, biases=biases, dtype=dtype)
    network = ReLUNetwork.from_(model)
    assert (network.hidden_bias is not None, network.bias is not None) == biases and network.skip is None
    assert network.first_layer.dtype == (np.float32 if dtype == "float32" else np.float64)
    expected = forward(torch, model)
    assert network.predict(X).shape == ((20,) if c == 1 else (20, c))
    np.testing.assert_allclose(network.predict(X).reshape(20, c), expected, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        own = model(torch.asarray(X, dtype=getattr(torch, dtype))).double().numpy()
    rough = 8 * torch.finfo(getattr(torch, dtype)).eps
    np.testing.assert_allclose(network.predict(X).reshape(20, c), own, rtol=rough, atol=rough * np.abs(own).max())


@pytest.mark.parametrize("training", [True, False])
def test_modules_that_do_nothing_at_inference_are_skipped(torch, training):
    nn, core = torch.nn, sequential(torch, c=2)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Identity(), core[0], nn.ReLU(inplace=True), nn.Dropout(0.9)),
        nn.AlphaDropout(),
        nn.Flatten(1, 1),
        core[2],
        nn.Flatten(-1),
    ).train(training)
    np.testing.assert_allclose(ReLUNetwork.from_(model).predict(X), forward(torch, model), rtol=1e-12, atol=1e-13)
    assert model.training == training


def test_images_are_rows_once_flattened(torch):
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    images = np.random.default_rng(0).standard_normal((6, 3, 2, 2))
    expected = forward(torch, model, images)
    np.testing.assert_allclose(ReLUNetwork.from_(model).predict(images.reshape(6, 12)), expected, rtol=1e-12)


def test_a_derived_sequential_is_taken_while_it_computes_the_same(torch):
    class Own(torch.nn.Sequential):
        def __init__(self):
            super().__init__(*sequential(torch))

    class Doubled(Own):
        def forward(self, rows):
            return 2 * super().forward(rows)

    model = Own()
    np.testing.assert_allclose(ReLUNetwork.from_(model).predict(X), forward(torch, model)[:, 0], rtol=1e-12, atol=1e-13)
    with pytest.raises(TypeError, match=r"^model must be a ReLUNetwork, .*; got a .*Doubled$"):
        ReLUNetwork.from_(Doubled())


def test_a_network_is_a_copy_of_the_weights(torch):
    model = sequential(torch)
    network = ReLUNetwork.from_(model)
    before = network.predict(X)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    np.testing.assert_array_equal(network.predict(X), before)


@pytest.mark.gpu
def test_a_sequential_on_a_gpu(torch):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    for dtype in ("float32", "bfloat16"):
        model = sequential(torch, dtype=dtype)
        assert ReLUNetwork.from_(copy.deepcopy(model).cuda()).allclose(ReLUNetwork.from_(model))


SEQUENTIALS = {
    "other activation": (lambda nn: [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)], "of Linear, Tanh, Linear; expected"),
    "ReLU in name": (lambda nn: [nn.Linear(3, 5), nn.ReLU6(), nn.Linear(5, 1)], "of Linear, ReLU6, Linear; expected"),
    "no activation": (lambda nn: [nn.Linear(3, 5), nn.Linear(5, 1)], "of Linear, Linear; expected"),
    "one layer": (lambda nn: [nn.Linear(3, 1)], "of Linear; expected"),
    "empty": (lambda nn: [], "of nothing; expected"),
    "two hidden layers": (
        lambda nn: [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)],
        "of Linear, ReLU, Linear, ReLU, Linear; expected Linear, ReLU, Linear, and beside them only",
    ),
    "output activation": (
        lambda nn: [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid()],
        "of Linear, ReLU, Linear, Sigmoid; expected",
    ),
    "normalisation": (
        lambda nn: [nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)],
        "of Linear, BatchNorm1d, ReLU, Linear; expected",
    ),
    "all rows as one": (
        lambda nn: [nn.Flatten(0), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)],
        "of Flatten, Linear, ReLU, Linear; expected",
    ),
    "weights computed anew": (
        lambda nn: [nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), nn.ReLU(), nn.Linear(5, 1)],
        "of ParametrizedLinear, ReLU, Linear; expected",
    ),
    "layers that do not fit": (
        lambda nn: [nn.Linear(3, 5), nn.ReLU(), nn.Linear(4, 1)],
        r"second_layer has shape \(4,\); expected \(5,\)",
    ),
}


@pytest.mark.parametrize("case", SEQUENTIALS)
def test_other_sequentials_are_refused(torch, case):
    modules, message = SEQUENTIALS[case]
    with pytest.raises(ValueError, match=message):
        ReLUNetwork.from_(torch.nn.Sequential(*modules(torch.nn)))


def test_hooks_are_refused_until_they_are_gone(torch):
    model = sequential(torch)
    for module, name in ((model, "Sequential"), (model[1], "ReLU")):
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            handle = register(lambda *_: None)
            with pytest.raises(ValueError, match=f"^model has a forward hook on its {name}, .*remove the hook"):
                ReLUNetwork.from_(model)
            handle.remove()
    model[1].forward = torch.abs
    with pytest.raises(ValueError, match=r"^model has a forward hook on its ReLU"):
        ReLUNetwork.from_(model)
    del model[1].forward
    prune = pytest.importorskip("torch.nn.utils.prune")
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(ValueError, match="forward hook on its Linear"):
        ReLUNetwork.from_(model)
    prune.remove(model[0], "weight")
    np.testing.assert_allclose(ReLUNetwork.from_(model).predict(X), forward(torch, model)[:, 0], rtol=1e-12, atol=1e-13)


def test_other_modules_and_values_are_refused(torch):
    nn = torch.nn
    with pytest.raises(TypeError, match=r"; got a torch\.nn\.modules\.linear\.Linear$"):
        ReLUNetwork.from_(nn.Linear(3, 1))
    holder = nn.Module()
    holder.network = sequential(torch)
    with pytest.raises(TypeError, match=r"; got a torch\.nn\.modules\.module\.Module$"):
        ReLUNetwork.from_(holder)
    with pytest.raises(TypeError, match=r"^first_layer is a Tensor that NumPy cannot read .*meta"):
        ReLUNetwork.from_(sequential(torch).to("meta"))
    with pytest.raises(TypeError, match=r"^first_layer has dtype complex128"):
        ReLUNetwork.from_(nn.Sequential(nn.Linear(3, 5, dtype=torch.complex128), nn.ReLU(), nn.Linear(5, 1)))
    broken = sequential(torch)
    with torch.no_grad():
        broken[2].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^bias contains NaN"):
        ReLUNetwork.from_(broken)


# -- scikit-learn -----------------------------------------------------------------------------------------------------
def fitted(estimator, targets, rows=X):
    with pytest.warns(ConvergenceWarning):
        return estimator.set_params(max_iter=8, random_state=0).fit(rows, targets)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("c", [None, 3])
def test_a_regressor_predicts_the_same(dtype, c):
    rows = X.astype(dtype)
    targets = np.abs(rows[:, 0]) if c is None else np.abs(rows[:, :c])
    model = fitted(MLPRegressor(hidden_layer_sizes=6), targets, rows)
    network = ReLUNetwork.from_(model)
    assert network.first_layer.dtype == dtype and network.second_layer.shape == ((6, 3) if c == 3 else (6,))
    rough = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(network.predict(rows), model.predict(rows), rtol=rough, atol=rough)


def test_a_classifier_gives_the_logits():
    binary = fitted(MLPClassifier(hidden_layer_sizes=(6,)), np.where(X[:, 0] > 0, "yes", "no"))
    logits = ReLUNetwork.from_(binary).predict(X)
    assert logits.shape == (20,) and np.ptp(logits) > 0
    np.testing.assert_allclose(expit(logits), binary.predict_proba(X)[:, 1], rtol=1e-12)
    several = fitted(MLPClassifier(hidden_layer_sizes=[6]), X.argmax(axis=1))
    np.testing.assert_allclose(softmax(ReLUNetwork.from_(several).predict(X), axis=1), several.predict_proba(X))
    rows, labels = make_multilabel_classification(30, 5, n_classes=3, random_state=0)
    labelled = fitted(MLPClassifier(hidden_layer_sizes=6), labels, rows)
    np.testing.assert_allclose(expit(ReLUNetwork.from_(labelled).predict(rows)), labelled.predict_proba(rows))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MLPRegressor(hidden_layer_sizes=5), "^model is a MLPRegressor that is not fitted; call its fit first"),
        (
            lambda: fitted(MLPRegressor(hidden_layer_sizes=(5, 4)), X[:, 0]),
            "^model is a MLPRegressor with 2 hidden layers; expected one",
        ),
        (
            lambda: fitted(MLPRegressor(hidden_layer_sizes=()), X[:, 0]),
            "^model is a MLPRegressor with 0 hidden layers; expected one",
        ),
        (
            lambda: fitted(MLPClassifier(hidden_layer_sizes=5, activation="tanh"), X[:, 0] > 0),
            "^model is a MLPClassifier with activation='tanh'; expected 'relu'",
        ),
    ],
)
def test_other_perceptrons_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        ReLUNetwork.from_(model())


def test_a_poisson_regressor_is_refused():
    if "loss" not in MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no loss='poisson'")
    with pytest.raises(ValueError, match=r"predicts the exponential of its network; expected loss='squared_error'"):
        ReLUNetwork.from_(fitted(MLPRegressor(hidden_layer_sizes=5, loss="poisson"), np.abs(X[:, 0])))


# -- arrays, networks, solutions --------------------------------------------------------------------------------------
def library(name):
    torch = functools.partial(pytest.importorskip, "torch", reason="PyTorch is not installed")
    return {
        "numpy": np.asarray,
        "float32": lambda a: np.asarray(a, dtype=np.float32),
        "lists": lambda a: np.asarray(a).tolist(),
        "jax": lambda a: jnp.asarray(a, dtype=jnp.float32),
        "jax bfloat16": lambda a: jnp.asarray(a, dtype=jnp.bfloat16),
        "torch": lambda a: torch().asarray(a).requires_grad_(),
        "torch bfloat16": lambda a: torch().asarray(a, dtype=torch().bfloat16),
    }[name]


@pytest.mark.parametrize("c", [None, 1, 2])
@pytest.mark.parametrize("name", ["numpy", "float32", "lists", "jax", "jax bfloat16", "torch", "torch bfloat16"])
def test_arrays_of_any_library_make_a_network(name, c):
    tail, put = () if c is None else (c,), library(name)
    # Multiples of 1/8 below 16: all of these types hold them exactly.
    shapes = {"first_layer": (3, 5), "second_layer": (5, *tail), "hidden_bias": (5,), "skip": (3, *tail), "bias": tail}
    rng = np.random.default_rng(0)
    values = {field: rng.integers(-100, 100, shape) / 8 for field, shape in shapes.items()}
    given = {field: put(value) for field, value in values.items()}
    expected = ReLUNetwork(**values)
    for model in (tuple(given.values()), list(given.values()), given):
        assert ReLUNetwork.from_(model).allclose(expected)
    dtype = np.float32 if name in ("float32", "jax") else np.float64
    assert ReLUNetwork.from_(given).first_layer.dtype == dtype
    pair = ReLUNetwork.from_((given["first_layer"], given["second_layer"]))
    hidden = np.maximum(X @ values["first_layer"], 0)
    np.testing.assert_allclose(pair.predict(X), hidden @ values["second_layer"], rtol=1e-12, atol=1e-12)
    assert pair.hidden_bias is None and pair.skip is None and pair.bias is None
    biased = ReLUNetwork.from_((given["first_layer"], given["second_layer"], None, None, given["bias"]))
    assert biased.hidden_bias is None and np.array_equal(biased.bias, values["bias"])


def test_a_mapping_may_carry_metadata():
    network = ReLUNetwork.from_({"first_layer": W, "second_layer": HIDDEN, "metadata": {"epoch": 3}})
    assert network.metadata == {"epoch": 3}


def test_a_network_is_itself_and_a_solution_its_network():
    network = ReLUNetwork(W, HIDDEN, HIDDEN)
    assert ReLUNetwork.from_(network) is network
    assert ReLUNetwork.from_(SimpleNamespace(network=network)) is network
    solution = cvxrelu.solve(X, X[:, 0], beta=1.0, patterns=5, backend="numpy")
    assert ReLUNetwork.from_(solution) is solution.network


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (W, TypeError, "^model must be a ReLUNetwork, a Solution, .* got a numpy.ndarray$"),
        (None, TypeError, "got a NoneType$"),
        ("network.safetensors", TypeError, "got a str$"),
        (SimpleNamespace(network=None), TypeError, "got a types.SimpleNamespace$"),
        (make_pipeline(MLPRegressor()), TypeError, "got a sklearn.pipeline.Pipeline$"),
        (
            (W,),
            ValueError,
            "^model has 1 arrays; expected first_layer, second_layer and perhaps hidden_bias, skip, bias",
        ),
        ((W, HIDDEN, None, None, None, None), ValueError, "^model has 6 arrays; expected"),
        ((W.T, HIDDEN), ValueError, r"^second_layer has shape \(5,\); expected \(3,\)"),
        ((W, None), TypeError, "^second_layer has dtype object"),
        (([[1.0], [1.0, 2.0]], HIDDEN), TypeError, "^first_layer is a list that NumPy cannot read"),
        ((W * np.inf, HIDDEN), ValueError, "^first_layer contains NaN or infinity"),
        ({}, ValueError, "^model has no 'first_layer'; its keys are none"),
        ({"first_layer": W, "a": 1}, ValueError, "^model has no 'second_layer'; its keys are 'first_layer', 'a'"),
        (
            {"first_layer": W, "second_layer": HIDDEN, "hidden": HIDDEN},
            ValueError,
            "^model has the unexpected key 'hidden'; expected some of first_layer, second_layer, hidden_bias",
        ),
    ],
)
def test_other_models_are_refused(model, error, message):
    with pytest.raises(error, match=message):
        ReLUNetwork.from_(model)


def test_a_hidden_bias_needs_the_intercept(torch):
    refusal = "^the network has a hidden bias, which is the weight of a penalised constant column: pass intercept=True"
    for model in (ReLUNetwork(W, HIDDEN, HIDDEN), (W, HIDDEN, HIDDEN), sequential(torch)):
        with pytest.raises(ValueError, match=refusal):
            ReLUNetwork.from_(model, intercept=False)
        with pytest.raises(ValueError, match=refusal):
            to_arrays(ReLUNetwork.from_(model), False)
    for model in ((W, HIDDEN), (W, HIDDEN, 0 * HIDDEN), sequential(torch, biases=(False, True))):
        assert to_arrays(ReLUNetwork.from_(model, intercept=False), False).W.shape[0] == 3
    with pytest.raises(TypeError, match=r"^intercept must be True or False, got 1"):
        ReLUNetwork.from_((W, HIDDEN), intercept=1)


def test_nothing_is_imported_to_recognise_a_model():
    code = """
import sys, cvxrelu
cvxrelu.ReLUNetwork.from_(([[1.0]], [1.0]))
try:
    cvxrelu.ReLUNetwork.from_(object())
except TypeError:
    print(sorted({"torch", "sklearn", "jax"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr


# -- balanced arrays --------------------------------------------------------------------------------------------------
@given(
    d=st.integers(1, 3),
    m=st.integers(0, 6),
    c=st.sampled_from([None, 1, 3]),
    fields=st.sets(st.sampled_from(["hidden_bias", "skip", "bias"])),
    spread=st.sampled_from([0, 3, 120]),
    seed=st.integers(0, 1000),
)
def test_balanced_arrays_are_the_same_function(d, m, c, fields, spread, seed):
    rng, tail = np.random.default_rng(seed), () if c is None else (c,)
    shapes = {"hidden_bias": (m,), "skip": (d, *tail), "bias": tail}
    # Norms up to 10^spread apart, their products near 1; a third of the neurons dead on either side.
    scale = 10.0 ** rng.uniform(-spread, spread, m)
    dead = rng.integers(0, 3, (2, m)) == 0
    given = {name: rng.standard_normal(shapes[name]) for name in sorted(fields)}
    if "hidden_bias" in given:
        given["hidden_bias"] = given["hidden_bias"] * scale * ~dead[0]
    first = rng.standard_normal((d, m)) * scale * ~dead[0]
    second = (rng.standard_normal((m, *tail)).T / scale * ~dead[1]).T
    network = ReLUNetwork(first, second, **given)
    for intercept in {True, "hidden_bias" in fields}:
        arrays = to_arrays(network, intercept)
        width, alive = c or 1, int(np.sum(~dead.any(axis=0)))
        assert arrays.W.shape == (d + intercept, alive) and arrays.A.shape == (alive, width)
        assert all(part is None or part.dtype == np.float64 for part in arrays)
        inner, outer = np.linalg.norm(arrays.W, axis=0), np.linalg.norm(arrays.A, axis=1)
        np.testing.assert_allclose(inner, outer, rtol=1e-12)
        np.testing.assert_allclose(inner @ inner, network.path_norm, rtol=1e-12)
        rows = rng.standard_normal((9, d))
        data = np.hstack([rows, np.ones((9, 1))]) if intercept else rows
        output = np.maximum(data @ arrays.W, 0) @ arrays.A
        assert (arrays.skip is None, arrays.bias is None) == ("skip" not in fields, "bias" not in fields)
        output += 0 if arrays.skip is None else rows @ arrays.skip
        output += 0 if arrays.bias is None else arrays.bias
        np.testing.assert_allclose(output, network.predict(rows).reshape(9, width), rtol=1e-9, atol=1e-11)


def test_a_constant_neuron_lives_by_its_bias():
    network = ReLUNetwork([[0.0, 1.0, 0.0]], [2.0, 1.0, 5.0], hidden_bias=[8.0, 0.0, 0.0])
    arrays = to_arrays(network, True)
    np.testing.assert_allclose(arrays.W, [[0.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(arrays.A, [[4.0], [1.0]])


def test_single_precision_is_widened_before_anything_is_computed():
    network = ReLUNetwork(W.astype(np.float32), HIDDEN.astype(np.float32), bias=np.float32(0.1))
    wide = ReLUNetwork(network.first_layer.astype(float), network.second_layer.astype(float), bias=float(network.bias))
    for part, expected in zip(to_arrays(network, True), to_arrays(wide, True), strict=True):
        np.testing.assert_array_equal(part, expected)
