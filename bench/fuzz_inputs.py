"""The kinds of input of `bench.fuzz`: a valid file of each, what is done to it, who reads it, and what is right.

A `Case` has been written to a folder; `read` reads it. `right` looks at what was read: it returns words where that is
not what the file says, and None where it is. `valid` cases must be read. A reader may raise `errors` alone, naming one
of `names`, and with `line` that line.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import fuzz_mutations as mutations
from bench.fuzz_mutations import pick
from cvxrelu import ReLUNetwork
from cvxrelu.checkpoint import Checkpoint
from cvxrelu.tables import UserError, load_data, read_table
from cvxrelu_llm.conversations import alternate
from cvxrelu_llm.errors import InputError
from cvxrelu_llm.triples import load_triples

__all__ = ["KINDS", "Case"]

Generator = np.random.Generator


@dataclasses.dataclass
class Case:
    """One input on the disk. `may_write` are endings of names of files that the reader may make or delete."""

    name: str
    read: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    names: tuple[str, ...]
    valid: bool = False
    right: Callable[[Any], str | None] = lambda found: None
    line: int | None = None
    may_write: tuple[str, ...] = ()


def _words(rng: Generator) -> str:
    pieces = ["blue", "green,", "2 + 2", "é", "“so”", "\U0001f600", 'a "b"', "line\nbreak", "x;y", "tab\there", "ok"]
    return " ".join(pick(rng, pieces) for _ in range(int(rng.integers(1, 5))))


# -- tables -----------------------------------------------------------------------------------------------------------
def tables(rng: Generator, folder: Path, outside: Path) -> Case:
    """csv, csv.gz, npz and npy with a target."""
    X = np.round(rng.standard_normal((int(rng.integers(2, 8)), int(rng.integers(2, 5)))), 3)
    names = [f"c{j}" for j in range(X.shape[1] - 1)] + ["y"]
    suffix = pick(rng, [".csv", ".csv", ".csv", ".csv.gz", ".tsv", ".npz", ".npy"])
    path = folder / f"table{suffix}"
    valid, name, line = rng.random() < 0.15, "valid", None
    if suffix in (".npz", ".npy"):
        arrays = {"X": X[:, :-1], "y": X[:, -1]}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays) if suffix == ".npz" else np.save(buffer, X)
        data = buffer.getvalue()
        if not valid:
            change = mutations.mutate_npz(rng, arrays, data) if suffix == ".npz" else mutations.mutate_bytes(rng, data)
            name, data = change
    else:
        rows = [names, *([repr(float(v)) for v in row] for row in X)]
        delimiter = "\t" if suffix == ".tsv" else pick(rng, ",;")
        if not valid and rng.random() < 0.6:
            i, j = int(rng.integers(1, len(rows))), int(rng.integers(len(names)))
            name = pick(rng, ["cell", "cell", "ragged", "long row", "quote", "nul", "giant", "wrong header"])
            odd = {"cell": pick(rng, ["", "abc", "nan", "inf", "1e999", "0x1f", "--1", "1,5", "NA", "1_0", "٣"]),
                   "quote": '"open', "nul": "1\0", "giant": "9" * 200_000}  # fmt: skip
            if name in odd:
                rows[i][j], line = odd[name], i + 1 if name in ("giant", "cell") else None
            elif name == "wrong header":
                rows[0] = pick(rng, [["y"] * len(names), [""] * len(names), [*names[:-1], "z"]])
            else:
                rows[i], line = (rows[i][:-1] if name == "ragged" else [*rows[i], "1"]), i + 1
            data = "\n".join(delimiter.join(row) for row in rows).encode()
        else:
            data = ("\n".join(delimiter.join(row) for row in rows) + "\n").encode()
            if valid:
                name, data = mutations.harmless_text(rng, data.decode())
            else:
                name, data = mutations.mutate_bytes(rng, data)
        data = gzip.compress(data, mtime=0) if suffix == ".csv.gz" else data
    path.write_bytes(data)
    if not valid and rng.random() < 0.08:
        name = mutations.mutate_file(rng, path, outside)
    target = None if suffix == ".npz" else "y" if suffix != ".npy" else "-1"

    def read() -> Any:
        data = load_data(str(path), target)
        read_table(path, wanted=["y"])
        return data.X, data.target.numbers([data.target_index])[:, 0]

    def right(found: Any) -> str | None:
        if not (np.isfinite(found[0]).all() and np.isfinite(found[1]).all()):
            return "numbers that are not finite"
        same = found[0].shape == X[:, :-1].shape and np.array_equal(found[0], X[:, :-1])
        return "other numbers" if valid and not (same and np.array_equal(found[1], X[:, -1])) else None

    return Case(f"{suffix} {name}", read, (UserError,), (path.name, "--target"), valid, right, None)


# -- preferences and conversations ------------------------------------------------------------------------------------
def _preferences(rng: Generator) -> list[dict[str, Any]]:
    """Records with all fields as text, or as messages."""
    rows = []
    for i in range(int(rng.integers(1, 5))):
        prompt, chosen, rejected = f"{i} {_words(rng)}", f"yes {_words(rng)}", f"no {_words(rng)}"
        row: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        if rng.random() < 0.4:
            row["prompt"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
            row |= {name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
        if rng.random() < 0.5:
            row |= {"weight": 2.5, "margin": 0.25, "group": f"g{i}"}
        rows.append(row)
    return rows


def _as_triples(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found = []
    for row in rows:
        prompt = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
        texts = [row[name] if isinstance(row[name], str) else row[name][0]["content"] for name in ("chosen", "rejected")]
        turns = tuple((message["role"], message["content"]) for message in prompt)
        found.append((turns, *texts, row.get("weight", 1.0), row.get("margin", 0.0)))
    return found


def _triples_right(rows: list[dict[str, Any]], valid: bool) -> Callable[[Any], str | None]:
    def right(found: Any) -> str | None:
        for triple in found:
            texts = [triple.chosen, triple.rejected, triple.group, *(m.content for m in triple.prompt)]
            if not all(isinstance(text, str) for text in texts):
                return "a text that is none"
            try:
                "".join(texts).encode()
            except UnicodeEncodeError:
                return "half of a surrogate pair, which no tokenizer takes"
        read = [(tuple(map(tuple, t.prompt)), t.chosen, t.rejected, t.weight, t.margin) for t in found]
        return "other triples" if valid and read != _as_triples(rows) else None

    return right


def _lines(rng: Generator, rows: list[Any], valid: bool) -> tuple[str, bytes, int | None]:
    """JSON lines, of which one is changed, or the file as a whole."""
    texts = [json.dumps(row, ensure_ascii=bool(rng.random() < 0.5)).encode() for row in rows]
    if valid:
        return (*mutations.harmless_text(rng, b"\n".join(texts).decode()), None)
    if rng.random() < 0.8:
        at = int(rng.integers(len(rows)))
        name, texts[at] = mutations.mutate_json(rng, rows[at], line=True)
        alone = b"\r" not in texts[at] and texts[at].strip() != b""
        return name, b"\n".join(texts), at + 1 if alone else None
    return (*mutations.mutate_bytes(rng, b"\n".join(texts)), None)


def preferences_json(rng: Generator, folder: Path, outside: Path) -> Case:
    """A list of records in one JSON file."""
    rows, path, valid = _preferences(rng), folder / "pairs.json", rng.random() < 0.15
    if valid:
        name, data = mutations.harmless_text(rng, json.dumps(rows, indent=pick(rng, [None, 1])))
    else:
        name, data = mutations.mutate_json(rng, rows)
    return _written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


def preferences_jsonl(rng: Generator, folder: Path, outside: Path) -> Case:
    """One record a line, packed or not."""
    rows, valid = _preferences(rng), rng.random() < 0.15
    path = folder / pick(rng, ["pairs.jsonl", "pairs.jsonl", "pairs.jsonl.gz"])
    name, data, line = _lines(rng, rows, valid)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
        if not valid and rng.random() < 0.3:
            name, data, line = (*mutations.mutate_bytes(rng, data), None)
    case = _written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))
    case.line = line if case.line is None else None
    return case


def preferences_csv(rng: Generator, folder: Path, outside: Path) -> Case:
    """Texts in cells."""
    rows = [{"prompt": f"{i} {_words(rng)}", "chosen": f"yes {_words(rng)}", "rejected": f"no {_words(rng)}"}
            for i in range(int(rng.integers(1, 5)))]  # fmt: skip
    path, valid, buffer = folder / "pairs.csv", rng.random() < 0.15, io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    text = buffer.getvalue()
    if valid:
        name, data = pick(rng, [("as it is", text.encode()), ("mark", b"\xef\xbb\xbf" + text.encode())])
    else:
        at = int(rng.integers(len(text)))
        changes = {
            "open quote": f'{text}"open,a,b\n', "short row": f"{text}a,b\n", "long row": f"{text}a,b,c,d\n",
            "giant": f"{text}{'x' * 200_000},b,c\n", "nul": f"{text}a\0,b,c\n", "no header": text.partition("\n")[2],
            "semicolons": text.replace(",", ";"), "other header": text.replace("chosen", "better", 1), "half": text[:at],
            "same header": text.replace("chosen", "rejected", 1), "list": f'{text}"[{{""role"": 1}}]",b,c\n',
            "deep": f"{text}{'[' * 30_000},b,c\n", "half pair": f'{text}"[{{""role"":""user"",""content"":""\\ud800""}}]",b,c\n',
        }  # fmt: skip
        name = pick(rng, [*changes, "bytes", "bytes"])
        data = changes[name].encode() if name in changes else b""
        if name == "bytes":
            name, data = mutations.mutate_bytes(rng, text.encode())
    return _written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


def preferences_parquet(rng: Generator, folder: Path, outside: Path) -> Case:
    """Columns of text, lists of messages, or of something else."""
    import pyarrow
    from pyarrow import parquet

    rows = [row for row in _preferences(rng) if isinstance(row["prompt"], str)]
    rows = rows or [{"prompt": "a b", "chosen": "yes", "rejected": "no"}]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("prompt", "chosen", "rejected")}
    rows = [{name: row[name] for name in columns} for row in rows]
    path, valid, name = folder / "pairs.parquet", rng.random() < 0.15, "as it is"
    if not valid and rng.random() < 0.4:
        which, k = pick(rng, columns), len(rows)
        odd = {"numbers": list(range(k)), "floats": [float("nan")] * k, "null": [None] * k, "bytes": [b"\xff\0"] * k,
               "lists": [["a"]] * k, "structs": [[{"role": "user", "content": None}]] * k, "booleans": [True] * k}  # fmt: skip
        name = pick(rng, [*odd, "missing"])
        columns.pop(which)
        if name != "missing":
            columns[which] = odd[name]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    data = buffer.getvalue()
    if not valid and name == "as it is":
        name, data = mutations.mutate_bytes(rng, data)
    return _written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


def conversations(rng: Generator, folder: Path, outside: Path) -> Case:
    """Messages in turn, to triples of a turn, the next reply and the one after it."""
    rows = []
    for i in range(int(rng.integers(1, 4))):
        roles = ["student", "tutor"] * int(rng.integers(2, 4))
        rows.append({"id": f"talk {i}", "messages": [{"role": r, "content": f"{r} {k} {_words(rng)}"} for k, r in enumerate(roles)]})  # fmt: skip
    path, valid = folder / "talks.jsonl", rng.random() < 0.15
    name, data, line = _lines(rng, rows, valid)
    expected = [
        {"prompt": [{"role": {"student": "user", "tutor": "assistant"}[m["role"]], "content": m["content"]}
                    for m in row["messages"][: k + 1]],
         "chosen": row["messages"][k + 1]["content"], "rejected": row["messages"][k + 3]["content"]}
        for row in rows for k in range(0, len(row["messages"]) - 3, 2)
    ]  # fmt: skip
    case = _written(rng, path, outside, name, data, valid, lambda: alternate(path), _triples_right(expected, valid))
    case.line = line if case.line is None else None
    return case


def _written(
    rng: Generator, path: Path, outside: Path, name: str, data: bytes, valid: bool, read: Callable[[], Any],
    right: Callable[[Any], str | None], errors: tuple[type[Exception], ...] = (InputError,),
) -> Case:  # fmt: skip
    """The case of one file; now and then something else is in its place, or a link to it."""
    path.write_bytes(data)
    line = None
    if not valid and rng.random() < 0.06:
        name, line = mutations.mutate_file(rng, path, outside), 0
    elif rng.random() < 0.05:
        path.rename(outside / path.name)
        path.symlink_to(outside / path.name)
        name = f"linked, {name}"
    return Case(name, read, errors, (path.name,), valid, right, line)


# -- stored files -----------------------------------------------------------------------------------------------------
TREE = {"z": np.arange(6.0).reshape(2, 3), "best": {"objective": 1.5, "names": ["a", "b"]}, "rounds": 3, "dual": np.eye(2),
        "near": [np.full((2, 2), float(k)) for k in range(9)], "nothing": None}  # fmt: skip


def _network(rng: Generator) -> ReLUNetwork:
    d, m = int(rng.integers(1, 5)), int(rng.integers(0, 4))
    skip, bias = (rng.standard_normal(d), np.array(0.5)) if rng.random() < 0.5 else (None, None)
    dtype = pick(rng, [np.float32, np.float64])
    first, second = rng.standard_normal((d, m)).astype(dtype), rng.standard_normal(m).astype(dtype)
    return ReLUNetwork(first, second, None, skip, bias, metadata={"beta": 0.1, "é": [1, None]})


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
        return None if np.isfinite(found.predict(np.zeros((1, found.n_features)))).all() else "no finite prediction"

    errors = (FileNotFoundError, ValueError)
    return _written(rng, path, outside, name, data, valid, lambda: ReLUNetwork.load(path), right, errors)


@functools.lru_cache(maxsize=1)
def _templates() -> dict[str, dict[str, bytes]]:
    """The files of valid folders by kind, made once."""
    import tempfile

    from cvxrelu.model_folder import write_model
    from cvxrelu_llm.reward import ConvexRewardHead, as_pair_features
    from cvxrelu_llm.survey import build_survey

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
        Checkpoint(place / "run", {"X": "a" * 64, "beta": 0.5}, {"tol": 1e-3, "seed": 0}).save("sampled", TREE)
        items = [{"prompt": f"p{i}", "answers": {"m1": "a", "m2": "b"}} for i in range(3)]
        build_survey(items, place / "page.html", place / "key.json", seed=1)
        found: dict[str, dict[str, bytes]] = {
            kind: {file.name: file.read_bytes() for file in (place / kind).iterdir()}
            for kind in ("head", "second", "model", "run")
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
    from cvxrelu_llm.reward import ConvexRewardHead

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
    from cvxrelu.model_folder import read_model
    from cvxrelu.training import labels

    place, valid = folder / "model", rng.random() < 0.1
    place.mkdir()
    targets = ["solution.json", "network.safetensors"]
    which, name = _folder(rng, place, outside, _templates()["model"], targets, valid)

    def right(model: Any) -> str | None:
        output = model.network.predict(np.ones((2, model.network.n_features)))
        return None if not model.classes or len(labels(model.classes, output, model.network)) == 2 else "no labels"

    return Case(name, lambda: read_model(place), (UserError,), (which or "model",), valid, right)


def feature_files(rng: Generator, folder: Path, outside: Path) -> Case:
    """Files of `PairFeatures.save`."""
    from cvxrelu_llm.pair_features import PairFeatures

    path, valid = folder / "features.safetensors", rng.random() < 0.1
    data, name = _templates()["features"]["features.safetensors"], "as it is"
    if not valid:
        name, data = mutations.mutate_tensors(rng, data)

    def right(found: Any) -> str | None:
        found.differences, found.counts.get("triples")
        m = len(found.pairs)
        fits = all(getattr(found, field).shape == (m,) for field in ("weight", "margin", "group", "kept"))
        return None if fits and np.isfinite(found.X).all() and (found.weight >= 0).all() else "arrays that do not fit"

    return _written(rng, path, outside, name, data, valid, lambda: PairFeatures.load(path), right)


def caches(rng: Generator, folder: Path, outside: Path) -> Case:
    """Folders of `FeatureCache`: a damaged file is dropped, every row that is given back is as it was put."""
    from cvxrelu_llm.cache import FeatureCache

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


def configurations(rng: Generator, folder: Path, outside: Path) -> Case:
    """JSON and YAML of `cvxrelu-llm ... --config`."""
    import yaml

    from cvxrelu_llm.cli import COMMANDS, build_parser
    from cvxrelu_llm.command import config_arguments, read_config

    tree: Any = {"features": "f.safetensors", "out": "head", "betas": [0.5, 0.25], "skip": False, "beta": "auto", "seed": 3}
    tree = {"fit": tree, "extract": {"layer": 2}} if rng.random() < 0.4 else tree
    path, valid = folder / pick(rng, ["run.json", "run.yaml"]), rng.random() < 0.1
    if path.suffix == ".json":
        name, data = ("as it is", json.dumps(tree).encode()) if valid else mutations.mutate_json(rng, tree)
    else:
        text = yaml.safe_dump(tree)
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30))
        merge = "a0: &a0 {x: 1}\n" + "".join(
            f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}\n" for k in range(1, 30)
        )
        changes = {
            "bomb": bomb, "merge bomb": merge, "python": f"{text}tol: !!python/object/apply:os.system ['touch x']\n",
            "name": f"{text}tol: !!python/name:os.system\n", "recursive": f"{text}betas: &a [*a]\n", "tab": f"{text}\tx: 1\n",
            "twice": f"{text}seed: 1\nseed: 2\n", "date": f"{text}tol: 2001-99-99\n", "deep": f"tol: {'[' * 5000}",
            "binary": f"{text}tol: !!binary '###'\n", "list": "- a\n- b\n", "number key": f"{text}1: 2\n",
            "sexagesimal": f"{text}tol: 1:{'9' * 30}:1\n", "int": f"{text}seed: !!int abc\n", "two": f"{text}---\n{text}",
            "complex key": f"{text}? [a, b]\n: c\n", "huge": f"{text}seed: {'9' * 6000}\n", "nan": f"{text}tol: .nan\n",
            "set": f"{text}betas: !!set {{a, b}}\n", "omap": f"{text}betas: !!omap [a: 1]\n", "hex": f"{text}seed: 0x\n",
        }  # fmt: skip
        name, data = "as it is", text.encode()
        if not valid:
            name = pick(rng, [*changes, "bytes", "bytes", "bytes", "tree", "tree", "tree"])
            if name == "bytes":
                name, data = mutations.mutate_bytes(rng, data)
            elif name == "tree":
                name, changed = mutations.mutate_tree(rng, tree)
                with contextlib.suppress(RecursionError):
                    data = yaml.safe_dump(changed).encode("utf-8", "surrogatepass")
            else:
                data = changes[name].encode()

    def read() -> Any:
        values = read_config(str(path), "fit", COMMANDS)
        return values, config_arguments(_parsers(build_parser)["fit"], values, str(path))

    def right(found: Any) -> str | None:
        if not all(isinstance(argument, str) for argument in found[1]):
            return "arguments that are no text"
        return "other options" if valid and found[0] != tree.get("fit", tree) else None

    return _written(rng, path, outside, name, data, valid, read, right)


@functools.lru_cache(maxsize=1)
def _parsers(build: Any) -> dict[str, Any]:
    return build()[1]


def surveys(rng: Generator, folder: Path, outside: Path) -> Case:
    """Answers, keys and exported votes of blind surveys."""
    from cvxrelu_llm.survey import build_survey, read_answers
    from cvxrelu_llm.survey_votes import score_survey

    key, valid = json.loads(_templates()["survey"]["key.json"]), rng.random() < 0.1
    ballot = {"survey": key["survey"], "digest": key["digest"], "rater": "r", "saved": "1", "votes": {"q1": 0, "q2": "tie"}}
    if rng.random() < 0.4:
        rows: list[Any] = [{"prompt": f"{i} {_words(rng)}", "model": m, "text": f"{_words(rng)}\u2028."} for i in range(2)
                           for m in ("a", "b")]  # fmt: skip
        path = folder / "answers.jsonl"
        name, data, line = _lines(rng, rows, valid)

        def right(items: Any) -> str | None:
            if not all(isinstance(item["answers"], dict) for item in items):
                return "answers that are none"
            texts = [text for item in items for text in item["answers"].values()]
            return "other answers" if valid and texts != [row["text"] for row in rows] else None

        case = _written(rng, path, outside, name, data, valid, lambda: read_answers(path), right, (ValueError, OSError))
        case.line = line if case.line is None else None
        return case
    del build_survey
    (folder / "key.json").write_text(json.dumps(key))
    (folder / "votes.json").write_text(json.dumps(ballot))
    path = folder / pick(rng, ["key.json", "votes.json"])
    tree = key if path.name == "key.json" else ballot
    name, data = ("as it is", json.dumps(tree).encode()) if valid else mutations.mutate_json(rng, tree)

    def read() -> Any:
        return score_survey(folder / "key.json", [folder / "votes.json"], draws=20)

    def counted(found: Any) -> str | None:
        return "other votes" if valid and (found.n_votes, found.n_ties) != (2, 1) else None

    case = _written(rng, path, outside, name, data, valid, read, counted, (ValueError, OSError))
    case.names = ("key", "votes", "digest")
    return case


KINDS: dict[str, Callable[[Generator, Path, Path], Case]] = {
    "tables": tables, "preferences (JSON)": preferences_json, "preferences (JSONL)": preferences_jsonl,
    "preferences (CSV)": preferences_csv, "preferences (Parquet)": preferences_parquet, "conversations": conversations,
    "networks": networks, "models": models, "heads": heads, "feature files": feature_files, "caches": caches,
    "checkpoints": checkpoints, "configurations": configurations, "surveys": surveys,
}  # fmt: skip
