"""The kinds of `bench.fuzz` that this project writes itself: networks, models, heads, features, caches, checkpoints
and surveys. See `bench.fuzz.inputs`."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuzz import mutations
from bench.fuzz.cases import Case, Generator, json_lines, words, written
from bench.fuzz.mutations import pick
from cvxrelu import ReLUNetwork
from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.tables import Table
from cvxrelu.runs.checkpoint import Checkpoint
from cvxrelu.support.errors import InputError

__all__ = ["caches", "checkpoints", "feature_files", "heads", "models", "networks", "surveys"]

# -- stored files -----------------------------------------------------------------------------------------------------
TREE = {"z": np.arange(6.0).reshape(2, 3), "best": {"objective": 1.5, "names": ["a", "b"]}, "rounds": 3,
        "dual": np.eye(2), "near": [np.full((2, 2), float(k)) for k in range(9)], "nothing": None}  # fmt: skip


def _network(rng: Generator) -> ReLUNetwork:
    d, m = int(rng.integers(1, 5)), int(rng.integers(0, 4))
    skip, bias = (rng.standard_normal(d), np.array(0.5)) if rng.random() < 0.5 else (None, None)
    dtype = pick(rng, [np.float32, np.float64])
    first, second = rng.standard_normal((d, m)).astype(dtype), rng.standard_normal(m).astype(dtype)
    return ReLUNetwork(first, second, None, skip, bias, metadata={"beta": 0.1, "é": [1, None]})


def _prediction(network: ReLUNetwork) -> np.ndarray:
    """For two rows; a network without neurons may be said to take any number of features, which costs it nothing."""
    return network.predict(np.ones((2, network.n_features))) if network.n_features < 10_000 else np.zeros(2)


def networks(rng: Generator, folder: Path, outside: Path) -> Case:
    """Files of `ReLUNetwork.save`."""
    network, path, valid = _network(rng), folder / "network.safetensors", rng.random() < 0.1
    network.save(path)
    data, name = path.read_bytes(), "as it is"
    if not valid:
        name, data = mutations.mutate_tensors(rng, data)

    def right(found: ReLUNetwork) -> str | None:
        if valid:
            return None if found.allclose(network) and found.metadata == network.metadata else "another network"
        header, body = mutations.split_tensors(data)
        for field in ("first_layer", "second_layer", "hidden_bias", "skip", "bias"):
            value, entry = getattr(found, field), header.get(field)
            if (value is None) is not (entry is None):
                return f"{field} is there, or is not"
            if entry is not None:
                a, b = entry["data_offsets"]
                stored = np.frombuffer(body[a:b], {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]).reshape(entry["shape"])
                if not np.array_equal(stored, value) or stored.dtype != value.dtype:
                    return f"another {field}"
        weights = [getattr(found, field) for field in ("first_layer", "second_layer", "hidden_bias", "skip", "bias")]
        if max((np.abs(w).max(initial=0.0) for w in weights if w is not None), default=0.0) > 1e15:
            return None  # finite, and products may overflow
        return None if np.isfinite(_prediction(found)).all() else "no finite prediction"

    errors = (FileNotFoundError, ValueError)
    return written(rng, path, outside, name, data, valid, lambda: ReLUNetwork.load(path), right, errors)


@functools.lru_cache(maxsize=1)
def _templates() -> dict[str, dict[str, bytes]]:
    """The files of valid folders by kind, made once."""
    from cvxrelu.command_line.columns import Column
    from cvxrelu.command_line.model_folder import write_model
    from cvxrelu_llm.heads.head import ConvexRewardHead, as_pair_features
    from cvxrelu_llm.survey.page import build_survey

    rng = np.random.default_rng(0)
    X, rows = rng.standard_normal((40, 3)), np.arange(40).reshape(-1, 2)
    features = as_pair_features(X, np.where((X[rows[:, 0], :1] > X[rows[:, 1], :1]), rows, rows[:, ::-1]))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        ConvexRewardHead(beta=np.inf).fit(features).save(place / "head", metrics={"accuracy": 0.75})
        ConvexRewardHead(mode="two_phase", patterns=4, components=2, l2=0.1).fit(features).save(place / "second")
        features.save(place / "features.safetensors")
        (place / "model").mkdir()
        network = ReLUNetwork(rng.standard_normal((2, 3)), rng.standard_normal((3, 3)))
        record = {"feature_names": ["a", "b"], "target": "kind", "classes": ["x", "y", "z"], "gap": 0.1}
        write_model(place / "model", network, record)
        (place / "table model").mkdir()
        columns = [Column("a", "number", ".", 1.5), Column("b", "category", levels=("x",), base="w")]
        record |= {"feature_names": ["a", "b = x"], "columns": [column.record() for column in columns]}
        write_model(place / "table model", network, record)
        Checkpoint(place / "run", {"X": "a" * 64, "beta": 0.5}, {"tol": 1e-3, "seed": 0}).save("sampled", TREE)
        items = [{"prompt": f"p{i}", "answers": {"m1": "a", "m2": "b"}} for i in range(3)]
        build_survey(items, place / "page.html", place / "key.json", seed=1)
        found: dict[str, dict[str, bytes]] = {
            kind: {file.name: file.read_bytes() for file in (place / kind).iterdir()}
            for kind in ("head", "second", "model", "table model", "run")
        }
        found["features"] = {"features.safetensors": (place / "features.safetensors").read_bytes()}
        found["survey"] = {"key.json": (place / "key.json").read_bytes()}
    return found


def _folder(
    rng: Generator, folder: Path, outside: Path, files: dict[str, bytes], targets: list[str], valid: bool
) -> tuple[str, str]:
    """Write files, one of `targets` changed; (which, how)."""
    for file, content in files.items():
        (folder / file).write_bytes(content)
    which = pick(rng, targets)
    if valid:
        return "", "as it is"
    path, content = folder / which, files[which]
    if rng.random() < 0.08:
        return which, mutations.mutate_file(rng, path, outside)
    if which.endswith(".json"):
        name, content = mutations.mutate_json(rng, json.loads(content))
    elif which.endswith(".npz"):
        with np.load(io.BytesIO(content)) as members:
            name, content = mutations.mutate_npz(rng, dict(members), content)
    else:
        name, content = mutations.mutate_tensors(rng, content)
    path.write_bytes(content)
    return which, f"{which}: {name}"


def heads(rng: Generator, folder: Path, outside: Path) -> Case:
    """Folders of `ConvexRewardHead.save`."""
    from cvxrelu_llm.heads.head import ConvexRewardHead

    files = _templates()[pick(rng, ["head", "second"])]
    place, valid = folder / "head", rng.random() < 0.1
    place.mkdir()
    targets = ["head.json", "head.json", "network.safetensors", "standardised.safetensors", "standard.safetensors"]
    which, name = _folder(rng, place, outside, files, targets, valid)

    def right(head: Any) -> str | None:
        head.summary(), head.check_features(head.feature_settings)
        scores = head.score(np.ones((2, head.network.n_features)))
        return None if scores.shape == (2,) and not np.isnan(scores).any() else "no scores"

    return Case(name, lambda: ConvexRewardHead.load(place), (InputError,), (which or "head",), valid, right)


def models(rng: Generator, folder: Path, outside: Path) -> Case:
    """Folders of `cvxrelu fit`."""
    from cvxrelu.command_line.model_folder import read_model
    from cvxrelu.command_line.training import labels

    place, valid = folder / "model", rng.random() < 0.1
    place.mkdir()
    targets = ["solution.json", "network.safetensors"]
    files = _templates()[pick(rng, ["model", "table model"])]
    which, name = _folder(rng, place, outside, files, targets, valid)

    def right(model: Any) -> str | None:
        if model.plan is not None:
            names = [column.name for column in model.plan.columns]
            cells = [[text] * len(names) for text in ("1", "x", "")]
            with contextlib.suppress(UserError):  # of a cell that is no date, say
                features, _ = model.features(Table(Path("t.csv"), names, cells, [2, 3, 4]))
                if features.shape != (3, model.network.n_features) or not np.isfinite(features).all():
                    return "other features"
        output = _prediction(model.network)
        return (
            None
            if not model.classes
            or output.ndim != model.network.second_layer.ndim
            or len(labels(model.classes, output, model.network)) == 2
            else "no labels"
        )

    return Case(name, lambda: read_model(place), (UserError,), (which or "model",), valid, right)


def feature_files(rng: Generator, folder: Path, outside: Path) -> Case:
    """Files of `PairFeatures.save`."""
    from cvxrelu_llm.features.pair_features import PairFeatures

    path, valid = folder / "features.safetensors", rng.random() < 0.1
    data, name = _templates()["features"]["features.safetensors"], "as it is"
    if not valid:
        name, data = mutations.mutate_tensors(rng, data)

    def right(found: Any) -> str | None:
        found.differences, found.counts.get("triples")
        m = len(found.pairs)
        fits = all(getattr(found, field).shape == (m,) for field in ("weight", "margin", "group", "kept"))
        return None if fits and np.isfinite(found.X).all() and (found.weight >= 0).all() else "arrays that do not fit"

    return written(rng, path, outside, name, data, valid, lambda: PairFeatures.load(path), right)


def caches(rng: Generator, folder: Path, outside: Path) -> Case:
    """Folders of `FeatureCache`: a damaged file is dropped, every row that is given back is as it was put."""
    from cvxrelu_llm.features.cache import FeatureCache

    place, valid = folder / "cache", rng.random() < 0.1
    cache = FeatureCache(place, {"model": "m"}, 3)
    keys, values = [bytes([k]) * 8 for k in range(4)], rng.standard_normal((4, 3)).astype(np.float32)
    for k in range(0, 4, 2):
        cache.put(keys[k : k + 2], values[k : k + 2])
    name = "as it is"
    if not valid:
        path = pick(rng, sorted(cache.folder.iterdir()))
        op = pick(rng, ["bytes", "bytes", "tensors", "file", "renamed", "foreign", "no folder"])
        name = f"{op} {path.suffix}"
        if op == "file":
            name = f"{name} {mutations.mutate_file(rng, path, outside)}"
        elif op == "renamed":
            path.rename(path.with_name(pick(rng, ["x.safetensors", ".safetensors", "a.tmp", ".x.tmp"])))
        elif op == "foreign":
            foreign = path.with_name(pick(rng, ["y.safetensors", ".y.tmp", "z.txt"]))
            foreign.mkdir() if rng.random() < 0.5 else foreign.write_bytes(rng.bytes(30))
        elif op == "no folder":
            place.rename(outside / "cache")
            place.write_text("x") if rng.random() < 0.5 else place.symlink_to(outside / "nothing-here")
        else:
            tensors = op == "tensors" and path.suffix == ".safetensors"
            change = mutations.mutate_tensors if tensors else mutations.mutate_bytes
            name, content = change(rng, path.read_bytes())
            path.write_bytes(content)

    def right(found: Any) -> str | None:
        rows = [found.get(key) for key in keys]
        if any(row is not None and not np.array_equal(row, value) for row, value in zip(rows, values, strict=True)):
            return "another row"
        return "rows are missing" if valid and any(row is None for row in rows) else None

    return Case(name, lambda: FeatureCache(place, {"model": "m"}, 3), (InputError,), ("cache",), valid, right, None,
                (".safetensors", "settings.json"))  # fmt: skip


def checkpoints(rng: Generator, folder: Path, outside: Path) -> Case:
    """Folders of `solve(checkpoint=...)`."""
    place, valid = folder / "run", rng.random() < 0.1
    place.mkdir()
    which, name = _folder(rng, place, outside, _templates()["run"], ["run.json", "sampled.npz", "sampled.npz"], valid)

    def read() -> Any:
        return Checkpoint(place, {"X": "a" * 64, "beta": 0.5}, {"tol": 1e-3, "seed": 0}).load("sampled")

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        return np.array_equal(a, b) if isinstance(a, np.ndarray) else type(a) is type(b) and a == b

    def right(found: Any) -> str | None:
        gone = found is None and not (place / "sampled.npz").exists()
        return None if gone or same(TREE, found) else "another state"

    return Case(name, read, (ValueError,), (which or "run", str(place)), valid, right, None, ())


def surveys(rng: Generator, folder: Path, outside: Path) -> Case:
    """Answers, keys and exported votes of blind surveys."""
    from cvxrelu_llm.survey.page import read_answers
    from cvxrelu_llm.survey.votes import score_survey

    key, valid = json.loads(_templates()["survey"]["key.json"]), rng.random() < 0.1
    ballot = {
        "survey": key["survey"],
        "digest": key["digest"],
        "rater": "r",
        "saved": "1",
        "votes": {"q1": 0, "q2": "tie"},
    }
    if rng.random() < 0.4:
        rows: list[Any] = [{"prompt": f"{i} {words(rng)}", "model": m, "text": f"{words(rng)}\u2028."} for i in range(2)
                           for m in ("a", "b")]  # fmt: skip
        path = folder / "answers.jsonl"
        name, data, line = json_lines(rng, rows, valid)

        def right(items: Any) -> str | None:
            if not all(isinstance(item["answers"], dict) for item in items):
                return "answers that are none"
            texts = [text for item in items for text in item["answers"].values()]
            return "other answers" if valid and texts != [row["text"] for row in rows] else None

        case = written(rng, path, outside, name, data, valid, lambda: read_answers(path), right, (ValueError, OSError))
        case.line = line if case.line is None else None
        return case
    (folder / "key.json").write_text(json.dumps(key))
    (folder / "votes.json").write_text(json.dumps(ballot))
    path = folder / pick(rng, ["key.json", "votes.json"])
    tree = key if path.name == "key.json" else ballot
    name, data = ("as it is", json.dumps(tree).encode()) if valid else mutations.mutate_json(rng, tree)

    def read() -> Any:
        return score_survey(folder / "key.json", [folder / "votes.json"], draws=20)

    def counted(found: Any) -> str | None:
        return "other votes" if valid and (found.n_votes, found.n_ties) != (2, 1) else None

    case = written(rng, path, outside, name, data, valid, read, counted, (ValueError, OSError))
    case.names = ("key", "votes", "digest")
    return case
