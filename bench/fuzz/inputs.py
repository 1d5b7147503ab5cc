"""The kinds of input of `bench.fuzz`: a valid file of each, what is done to it, who reads it, and what is right.

Here are those that users bring: tables, preferences, conversations and
configurations; `bench.fuzz.stored` has the others.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuzz import mutations, stored
from bench.fuzz.cases import Case, Generator, json_lines, words, written
from bench.fuzz.mutations import pick
from cvxrelu.command_line.cells import MISSING, UserError
from cvxrelu.command_line.data import load_data
from cvxrelu.command_line.tables import read_table
from cvxrelu_llm.preferences.conversations import alternate
from cvxrelu_llm.preferences.triples import load_triples

__all__ = ["KINDS", "Case"]


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
                # what is missing is filled, and says nothing of a line
                rows[i][j] = odd[name]
                line = i + 1 if name == "cell" and odd[name].lower() not in MISSING else None
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
        name, line = mutations.mutate_file(rng, path, outside), None
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

    return Case(f"{suffix} {name}", read, (UserError,), (path.name, "--target"), valid, right, line)


# -- preferences and conversations ------------------------------------------------------------------------------------
def _preferences(rng: Generator) -> list[dict[str, Any]]:
    """Records with all fields as text, or as messages."""
    rows = []
    for i in range(int(rng.integers(1, 5))):
        prompt, chosen, rejected = f"{i} {words(rng)}", f"yes {words(rng)}", f"no {words(rng)}"
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
        texts = [
            row[name] if isinstance(row[name], str) else row[name][0]["content"] for name in ("chosen", "rejected")
        ]
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


def preferences_json(rng: Generator, folder: Path, outside: Path) -> Case:
    """A list of records in one JSON file."""
    rows, path, valid = _preferences(rng), folder / "pairs.json", rng.random() < 0.15
    if valid:
        name, data = mutations.harmless_text(rng, json.dumps(rows, indent=pick(rng, [None, 1])))
    else:
        name, data = mutations.mutate_json(rng, rows)
    return written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


def preferences_jsonl(rng: Generator, folder: Path, outside: Path) -> Case:
    """One record a line, packed or not."""
    rows, valid = _preferences(rng), rng.random() < 0.15
    path = folder / pick(rng, ["pairs.jsonl", "pairs.jsonl", "pairs.jsonl.gz"])
    name, data, line = json_lines(rng, rows, valid)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
        if not valid and rng.random() < 0.3:
            name, data, line = (*mutations.mutate_bytes(rng, data), None)
    case = written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))
    case.line = line if case.line is None else None
    return case


def preferences_csv(rng: Generator, folder: Path, outside: Path) -> Case:
    """Texts in cells."""
    rows = [{"prompt": f"{i} {words(rng)}", "chosen": f"yes {words(rng)}", "rejected": f"no {words(rng)}"}
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
            "semicolons": text.replace(",", ";"), "other header": text.replace("chosen", "better", 1),
            "half": text[:at],
            "same header": text.replace("chosen", "rejected", 1), "list": f'{text}"[{{""role"": 1}}]",b,c\n',
            "deep": f"{text}{'[' * 30_000},b,c\n", 
            "half pair": f'{text}"[{{""role"":""user"",""content"":""\\ud800""}}]",b,c\n',
        }  # fmt: skip
        name = pick(rng, [*changes, "bytes", "bytes"])
        data = changes[name].encode() if name in changes else b""
        if name == "bytes":
            name, data = mutations.mutate_bytes(rng, text.encode())
    return written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


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
               "lists": [["a"]] * k, "structs": [[{"role": "user", "content": None}]] * k, 
               "booleans": [True] * k}  # fmt: skip
        name = pick(rng, [*odd, "missing"])
        columns.pop(which)
        if name != "missing":
            columns[which] = odd[name]
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    data = buffer.getvalue()
    if not valid and name == "as it is":
        name, data = mutations.mutate_bytes(rng, data)
    return written(rng, path, outside, name, data, valid, lambda: load_triples(path), _triples_right(rows, valid))


def conversations(rng: Generator, folder: Path, outside: Path) -> Case:
    """Messages in turn, to triples of a turn, the next reply and the one after it."""
    rows = []
    for i in range(int(rng.integers(1, 4))):
        roles = ["student", "tutor"] * int(rng.integers(2, 4))
        turns = [{"role": role, "content": f"{role} {k} {words(rng)}"} for k, role in enumerate(roles)]
        rows.append({"id": f"talk {i}", "messages": turns})
    path, valid = folder / "talks.jsonl", rng.random() < 0.15
    name, data, line = json_lines(rng, rows, valid)
    expected = [
        {"prompt": [{"role": {"student": "user", "tutor": "assistant"}[m["role"]], "content": m["content"]}
                    for m in row["messages"][: k + 1]],
         "chosen": row["messages"][k + 1]["content"], "rejected": row["messages"][k + 3]["content"]}
        for row in rows for k in range(0, len(row["messages"]) - 3, 2)
    ]  # fmt: skip
    case = written(rng, path, outside, name, data, valid, lambda: alternate(path), _triples_right(expected, valid))
    case.line = line if case.line is None else None
    return case


# -- configurations ---------------------------------------------------------------------------------------------------
def configurations(rng: Generator, folder: Path, outside: Path) -> Case:
    """JSON and YAML of `cvxrelu-llm ... --config`."""
    import yaml

    from cvxrelu_llm.command_line.config import config_arguments, read_config
    from cvxrelu_llm.command_line.main import COMMANDS, build_parser

    tree: Any = {
        "features": "f.safetensors",
        "out": "head",
        "betas": [0.5, 0.25],
        "skip": False,
        "beta": "auto",
        "seed": 3,
    }
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
            "name": f"{text}tol: !!python/name:os.system\n", "recursive": f"{text}betas: &a [*a]\n", 
            "tab": f"{text}\tx: 1\n",
            "twice": f"{text}seed: 1\nseed: 2\n", "date": f"{text}tol: 2001-99-99\n", "deep": f"tol: {'[' * 5000}",
            "binary": f"{text}tol: !!binary '###'\n", "list": "- a\n- b\n", "number key": f"{text}1: 2\n",
            "sexagesimal": f"{text}tol: 1:{'9' * 30}:1\n", "int": f"{text}seed: !!int abc\n", 
            "two": f"{text}---\n{text}",
            "complex key": f"{text}? [a, b]\n: c\n", "huge": f"{text}seed: {'9' * 6000}\n", "nan": f"{text}tol: .nan\n",
            "set": f"{text}betas: !!set {{a, b}}\n", "omap": f"{text}betas: !!omap [a: 1]\n", 
            "hex": f"{text}seed: 0x\n",
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

    return written(rng, path, outside, name, data, valid, read, right)


@functools.lru_cache(maxsize=1)
def _parsers(build: Any) -> dict[str, Any]:
    return build()[1]


KINDS: dict[str, Callable[[Generator, Path, Path], Case]] = {
    "tables": tables, "preferences (JSON)": preferences_json, "preferences (JSONL)": preferences_jsonl,
    "preferences (CSV)": preferences_csv, "preferences (Parquet)": preferences_parquet, "conversations": conversations,
    "networks": stored.networks, "models": stored.models, "heads": stored.heads,
    "feature files": stored.feature_files, "caches": stored.caches, "checkpoints": stored.checkpoints,
    "configurations": configurations, "surveys": stored.surveys,
}  # fmt: skip
