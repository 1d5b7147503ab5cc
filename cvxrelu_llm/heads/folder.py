"""A head on disk: a folder with its network, its settings, and a model card.

    network.safetensors        the network of raw features (`ReLUNetwork.load` reads it)
    standardised.safetensors   the same on standardised features, to solve on from
    standard.safetensors       center, scale and components that lead from the first to the second
    head.json                  options, feature settings, choice, certificate, calibration, hash of the data, metrics
    README.md                  the model card, made from head.json

The training pairs themselves are not kept: `attach` gives them back, and knows them by their hash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save

from cvxrelu import ReLUNetwork
from cvxrelu.support.entries import Fields, checked_shapes, stored
from cvxrelu.support.errors import InputError
from cvxrelu.support.files import atomic_write, new_folder
from cvxrelu.support.stored import damage, read_json, read_tensors, short
from cvxrelu_llm.heads.calibration import Calibration
from cvxrelu_llm.heads.rule import Point
from cvxrelu_llm.heads.selection import Choice
from cvxrelu_llm.heads.standardise import Standard
from cvxrelu_llm.models.feature_map import ENCODERS

__all__ = ["model_card", "read_head", "write_head"]

FORMAT, VERSION = "cvxrelu-reward-head", 1
Head = TypeVar("Head")


def write_head(head: Any, folder: Path, metrics: Mapping[str, Any]) -> Path:
    """Write `folder` as a whole; one that is there already is refused unless it is empty."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; expected the name of a new folder, or an empty one")
    record = describe(head, metrics)
    arrays = {"center": head.standard.center, "scale": head.standard.scale}
    if head.standard.basis is not None:
        arrays["basis"] = np.ascontiguousarray(head.standard.basis)
    with new_folder(folder) as work:
        head.network.save(work / "network.safetensors")
        head.standardised.save(work / "standardised.safetensors")
        atomic_write(work / "standard.safetensors", save(arrays, {"format": FORMAT}))
        atomic_write(work / "head.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        atomic_write(work / "README.md", model_card(record).encode())
    return folder


def describe(head: Any, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`head.json`."""
    choice = head.choice
    return plain(
        {
            "format": FORMAT,
            "format_version": VERSION,
            "options": head.options,
            "features": head.feature_settings,
            "n_features": head.network.n_features,
            "n_neurons": head.n_neurons,
            "lipschitz": head.lipschitz,
            "certificate": head.certificate,
            "choice": {
                "skip_l2": choice.skip_l2,
                "beta": choice.beta,
                "points": [point._asdict() for point in choice.points],
                "groups": choice.n_groups,
            },
            "calibration": None if head.calibration is None else head.calibration._asdict(),
            "data": {"sha256": head.data_hash, "pairs": head.n_pairs, "groups": head.n_groups},
            "metrics": dict(metrics),
        }
    )


def plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, infinity and NaN as words."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def read_head(folder: Path, make: type[Head]) -> Head:
    """The head in a folder that `write_head` filled, `make` being the class of heads.

    Raises
    ------
    InputError : a file is missing, cut, foreign or damaged, an entry of head.json is missing or of another type, or the
        files do not fit each other; the message names folder, file and entry.
    """
    with stored(folder, "a folder of a reward head"):
        record = read_json(folder / "head.json")
        arrays, _ = read_tensors(
            folder / "standard.safetensors", FORMAT, {"center": ("F64",), "scale": ("F64",)}, {"basis": ("F64",)}
        )
        network, standardised = (_network(folder / f"{name}.safetensors") for name in ("network", "standardised"))
        with damage(folder / "standard.safetensors"):
            _check_sizes(arrays, network, standardised)
        with damage(folder / "head.json"):
            return _head(make, record, arrays, network, standardised)


def _network(path: Path) -> ReLUNetwork:
    network = ReLUNetwork.load(path)
    with damage(path):
        if network.second_layer.ndim != 1:
            raise ValueError(f"the tensor second_layer has shape {network.second_layer.shape}; expected one output")
    return network


def _check_sizes(arrays: Mapping[str, np.ndarray], network: ReLUNetwork, standardised: ReLUNetwork) -> None:
    shapes = {"center": (network.n_features,), "scale": (network.n_features,), "basis": (network.n_features, "r")}
    r = checked_shapes(arrays, shapes).get("r", network.n_features)
    if not (arrays["scale"] > 0).all():
        raise ValueError("the tensor scale must be positive")
    if standardised.n_features != r:
        raise ValueError(f"standardised.safetensors takes {standardised.n_features} features; expected {r}")


def _head(
    make: type[Head], record: Mapping[str, Any], arrays: Mapping[str, np.ndarray], network: ReLUNetwork,
    standardised: ReLUNetwork,
) -> Head:  # fmt: skip
    """The head of its files; ValueError names the entry of the record that is wrong."""
    given = Fields(record, "the record")
    if given.text("format") != FORMAT or given.whole("format_version") != VERSION:
        raise ValueError(f"format {short(record['format'])}, version {record.get('format_version')}; expected "
                         f"{FORMAT!r}, version {VERSION}")  # fmt: skip
    if (d := given.whole("n_features")) != network.n_features or given.whole("n_neurons") != network.n_neurons:
        raise ValueError(f"{d} features and {record['n_neurons']} neurons, but the network has {network.n_features} "
                         f"and {network.n_neurons}")  # fmt: skip
    head: Any = make(**_options(given.fields("options").value, make.defaults()))  # type: ignore[attr-defined]
    head.network, head.standardised = network, standardised
    head.standard = Standard(arrays["center"], arrays["scale"], arrays.get("basis"))
    head.feature_settings = _feature_settings(given.fields("features"))
    certificate = given.fields("certificate")
    head.certificate = {
        **certificate.value,
        **{name: certificate.text(name) for name in ("program", "status", "kind")},
        **{name: certificate.number(name, infinite=True) for name in ("objective", "lower_bound", "gap")},
        "rigorous": certificate.flag("rigorous"),
    }
    gap = "classifier_gap" in certificate.value
    head.classifier_gap = certificate.number("classifier_gap", infinite=True, optional=True) if gap else None
    choice = given.fields("choice")
    places = [Fields(point, f"point {i} of 'choice'") for i, point in enumerate(choice.items("points"))]
    others = Point._fields[1:]
    points = [Point(f.text("kind"), *(f.number(name, infinite=True, optional=True) for name in others)) for f in places]
    beta = choice.number("beta", least=0.0, optional=True)
    head.choice = Choice(choice.number("skip_l2", least=0.0), beta, points, None, choice.whole("groups"))
    head.calibration = None
    if record["calibration"] is not None:
        k = given.fields("calibration")
        temperature = k.number("temperature", least=5e-324)
        log_loss, ece, brier = (k.number(name, infinite=True) for name in ("log_loss", "ece", "brier"))
        head.calibration = Calibration(temperature, log_loss, ece, brier, k.whole("n_pairs"))
    data = given.fields("data")
    head.data_hash, head.n_pairs, head.n_groups = data.text("sha256"), data.whole("pairs"), data.whole("groups")
    head.metrics = dict(given.fields("metrics").value)
    return head


def _options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the constructor takes them, which checks their values; all must be there, and no other."""
    if wrong := sorted(set(given) ^ set(defaults)):
        raise ValueError(f"'options' must hold {', '.join(defaults)}; missing or unknown: {short(wrong[0])}")
    fields = Fields(given, "'options'")
    options: dict[str, Any] = {}
    for name, default in defaults.items():
        value = given[name]
        if isinstance(default, bool):
            options[name] = fields.flag(name)
        elif name in ("mode", "select"):
            options[name] = fields.text(name)
        elif name == "betas":
            options[name] = [float(share) for share in fields.items(name) if Fields({"": share}, name).number("") > 0]
        elif value is None or value == "auto":
            options[name] = value
        elif isinstance(default, int) or name == "components":
            options[name] = fields.whole(name)
        else:
            options[name] = fields.number(name, infinite=True)
    if (options["time_limit"] is not None and not options["time_limit"] > 0) or not np.isfinite(options["gamma"]):
        raise ValueError("'options': gamma must be finite, and time_limit null or positive")
    return options


def _feature_settings(given: Fields) -> dict[str, Any]:
    """What the features depend on; {} for features of no model. The entries that are used must be of their type."""
    several = {name for name in ("layer", "pooling") if isinstance(given.value.get(name), list)}
    for name in several:
        entries = [Fields({name: value}, "'features'") for value in given.items(name)]
        for entry in entries:
            entry.whole(name) if name == "layer" else entry.text(name)
        if not entries:
            raise ValueError(f"'features': {name} must name at least one")
    for name in ("model", "revision", "fingerprint", "dtype", "pooling", "prompt", "template", "template_fingerprint"):
        if given.value.get(name) is not None and name not in several:
            given.text(name)
    for name in ("layer", "max_length", "max_response_length"):
        if given.value.get(name) is not None and name not in several:
            given.whole(name)
    return dict(given.value)


def _usage(features: Mapping[str, Any]) -> list[str]:
    """The lines of Python that score, and with a causal model guide, in a model card."""
    load = 'head = ConvexRewardHead.load("this-folder")'
    if not features.get("model"):
        code = ["from cvxrelu_llm import ConvexRewardHead", "", load, "head.score(X)  # rewards of features (n, D)"]
        return ["## Use", "", "```python", *code, "```", ""]
    model = f"{str(features['model'])!r}, dtype={features.get('dtype', 'float32')!r}"
    code = [
        "from cvxrelu_llm import ConvexRewardHead, load_model", "", load, f"model = load_model({model})",
        'answers = ["Air scatters blue light.", "No."]',
        'head.score_texts(model, [("Why is the sky blue?", answer) for answer in answers])',
    ]  # fmt: skip
    if features.get("prompt", "read") not in ENCODERS and features.get("template") == "chat":
        code += [
            "", "# texts that it guides", "from cvxrelu_llm.models.causal import load_lm", "",
            f"lm, tokenizer = load_lm({model})",
            'head.guide(lm, tokenizer, "Why is the sky blue?", scale=4.0, normalise=False).text',
        ]  # fmt: skip
    words = "Rewards are of the model and the features above; others are refused."
    return ["## Use", "", words, "", "```python", *code, "```", ""]


def model_card(record: Mapping[str, Any]) -> str:
    """README.md, with the metadata that model hubs read at its top."""
    features, certificate, calibration = record["features"], record["certificate"], record["calibration"]
    bound = "rigorous" if certificate["rigorous"] else "an estimate, by ascents that may have missed something"
    beta = "above beta_max: no neurons" if record["choice"]["beta"] is None else f"{record['choice']['beta']:.6g}"
    rows = [
        ("program", certificate["program"]),
        ("neurons", record["n_neurons"]),
        ("skip_l2, or ridge of the last layer", f"{record['choice']['skip_l2']:.6g}"),
        ("beta", beta),
        ("status", ": ".join(filter(None, (certificate["status"], certificate.get("message"))))),
        ("objective", f"{certificate['objective']:.8g}"),
        ("lower bound", f"{certificate['lower_bound']:.8g} ({certificate['kind']}; {bound})"),
        ("relative gap", f"{certificate['gap']:.2e}"),
        ("Lipschitz constant, at most", f"{record['lipschitz']:.6g} in raw features"),
    ]
    lines = [
        "---", "library_name: cvxrelu", "tags:", "- reward-model", "- preference", "---", "",
        "# Reward head", "",
        "A two-layer ReLU network on features of a language model, fitted to preferences by a convex program.",
        "Rewards of two answers to one prompt can be compared; their zero means nothing.", "",
        "## Certificate", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "",
        "## Features", "",
    ]  # fmt: skip
    names = ("model", "revision", "fingerprint", "dtype", "layer", "pooling", "prompt", "template", "max_length",
             "max_response_length")  # fmt: skip
    shown = [(name, features[name]) for name in names if features.get(name) not in (None, "")]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in shown)] if shown else ["Not recorded."]
    lines += [
        "", "## Data", "",
        f"{record['data']['pairs']} pairs in {record['data']['groups']} groups, "
        f"SHA-256 of features and pairs `{record['data']['sha256']}`.", "",
    ]  # fmt: skip
    if calibration is not None:
        lines += [
            "## Calibration", "",
            f"Probability that the first is preferred: sigma(margin / {calibration['temperature']:.4g}), fitted on "
            f"{calibration['n_pairs']} out-of-fold margins; there the log-loss is {calibration['log_loss']:.4f}, the "
            f"expected calibration error {calibration['ece']:.4f}, the Brier score {calibration['brier']:.4f}.", "",
        ]  # fmt: skip
    lines += _usage(features)
    if record["metrics"]:
        lines += ["## Metrics", "", "| | |", "|---|---|"]
        for name, value in record["metrics"].items():
            text = f"{value:.4f}" if isinstance(value, float) else json.dumps(value)
            lines.append(f"| {name} | {text} |")
        lines.append("")
    return "\n".join(lines)
