"""Mutations of files: of JSON trees and their text, of bytes, of safetensors and npz containers, of the file itself.

Each takes a generator and returns its name beside the content, so that a failure can be told by kind, number and name.
"""

from __future__ import annotations

import copy
import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["encode", "harmless_text", "mutate_bytes", "mutate_file", "mutate_json", "mutate_npz", "mutate_tensors"]

RAW = {"@@NAN": "NaN", "@@INF": "-Infinity", "@@HUGE": "9" * 5000, "@@BIG": "1e999", "@@DEEP": "[" * 3000 + "]" * 3000,
       "@@DEEPER": '{"a":' * 100_000 + "1" + "}" * 100_000, "@@HALF": '"\\ud800"', "@@OPEN": "[" * 20_000}  # fmt: skip
ODD = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, "", " ", "x", "0", "nan", "inf", "../x",
    "/etc/passwd", "\0", "a\nb", "\u2028", "é" * 3, "\U0001f600", "x" * 5000, [], {}, [[]], [None], {"a": 1},
    [1, "2", {}],
    *RAW,
)  # fmt: skip


def pick(rng: np.random.Generator, items: Any) -> Any:
    items = list(items)
    return items[int(rng.integers(len(items)))]


def paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree of dicts and lists."""
    found = [here]
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        found += paths(child, (*here, name))
    return found


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def mutate_tree(rng: np.random.Generator, tree: Any) -> tuple[str, Any]:
    """A tree with one place changed: another value, a name or an item less, more, renamed or twice."""
    tree = copy.deepcopy(tree)
    path = pick(rng, paths(tree))
    node = _at(tree, path)
    ops = ["replace", "replace", "replace"]
    if path:
        ops += ["delete", "delete"]
    if isinstance(node, (dict, list)) and node:
        ops += ["add", "twice", "shuffle"]
    op = pick(rng, ops)
    if op == "replace":
        new = copy.deepcopy(pick(rng, ODD))
        if not path:
            return f"replace everything by {str(new)[:12]!r}", new
        _at(tree, path[:-1])[path[-1]] = new
        return f"replace {path[-1]!r} by {str(new)[:12]!r}", tree
    if op == "delete":
        del _at(tree, path[:-1])[path[-1]]
    elif isinstance(node, dict):
        if op == "add":
            node[pick(rng, ["extra", "", "\0", "é", "x" * 300])] = pick(rng, ODD)
        elif op == "twice":
            node[f"@@TWICE{next(iter(node))}"] = pick(rng, ODD)
        else:
            names = list(node)
            values = [node[name] for name in names]
            node.update(zip(names, values[1:] + values[:1], strict=True))
    elif op == "add":
        node.insert(int(rng.integers(len(node) + 1)), pick(rng, ODD))
    elif op == "twice":
        node.append(copy.deepcopy(node[0]))
    else:
        node[:] = [node[i] for i in rng.permutation(len(node))]
    return f"{op} at {'/'.join(map(str, path))}", tree


def encode(tree: Any, **settings: Any) -> str:
    """JSON of a mutated tree: the marks of `RAW` as what they stand for."""
    text = json.dumps(tree, **settings).replace("@@TWICE", "")
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text


def mutate_json(rng: np.random.Generator, tree: Any, *, line: bool = False) -> tuple[str, bytes]:
    """The bytes of a JSON file that is wrong, or odd, in its values, its text or its encoding."""
    settings = {} if line else {"indent": pick(rng, [None, 1])}
    if rng.random() < 0.6:
        name, tree = mutate_tree(rng, tree)
        if rng.random() < 0.15:
            more, tree = mutate_tree(rng, tree)
            name = f"{name}, {more}"
        return name, encode(tree, **settings).encode("utf-8", "surrogatepass")
    text = encode(tree, **settings)
    if rng.random() < 0.5:
        name, data = mutate_bytes(rng, text.encode())
        return name, data.replace(b"\n", b" ") if line else data
    at = int(rng.integers(len(text)))
    changes = {
        "cut": text[:at], "without a character": text[:at] + text[at + 1 :], "more behind": f"{text} {text}",
        "quote": f'{text[:at]}"{text[at:]}', "comment": f"// {text}", "single quotes": text.replace('"', "'"),
        "trailing comma": text.replace("}", ",}", 1), "control": f"{text[:at]}\x01{text[at:]}",
    }  # fmt: skip
    name = pick(rng, changes)
    return name, changes[name].encode()


def harmless_text(rng: np.random.Generator, text: str) -> tuple[str, bytes]:
    """The same JSON content in other bytes."""
    changes = {"as it is": text.encode(), "mark": b"\xef\xbb\xbf" + text.encode(), "blank": f"{text}\n \n".encode(),
               "windows": text.replace("\n", "\r\n").encode()}  # fmt: skip
    name = pick(rng, changes)
    return name, changes[name]


def mutate_bytes(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """Cut, flipped, overwritten, inserted, doubled, encoded otherwise, or something else altogether."""
    n = max(1, len(data))
    at, size = int(rng.integers(n)), int(rng.integers(1, min(n, 64) + 1))

    def flipped() -> bytes:
        found = bytearray(data or b"\0")
        for _ in range(int(rng.integers(1, 9))):
            found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
        return bytes(found)

    changes: dict[str, Any] = {
        "cut": lambda: data[:at], "flipped": flipped, "zeros": lambda: data[:at] + bytes(size) + data[at + size :],
        "inserted": lambda: data[:at] + rng.bytes(size) + data[at:], "removed": lambda: data[:at] + data[at + size :],
        "doubled": lambda: data + data, "empty": lambda: b"", "noise": lambda: rng.bytes(int(rng.integers(1, 300))),
        "nul": lambda: bytes(n), "blank": lambda: b" \n\n", "before": lambda: rng.bytes(8) + data,
        "utf-16": lambda: data.decode("latin-1").encode("utf-16"),
        "latin-1": lambda: data[:at] + b"\xe9" + data[at:], "text": lambda: b"hello, world\n",
    }  # fmt: skip
    name = pick(rng, [*changes, "flipped", "cut", "flipped"])
    return name, changes[name]()


def split_tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, body) of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_tensors(header: str, body: bytes, length: int | None = None) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def mutate_tensors(rng: np.random.Generator, data: bytes) -> tuple[str, bytes]:
    """A safetensors file whose header, metadata, length, offsets or bytes are wrong."""
    header, body = split_tensors(data)
    op = pick(rng, ["bytes", "tree", "length", "entry", "entry", "metadata", "metadata", "body", "values"])
    if op == "bytes":
        return mutate_bytes(rng, data)
    if op == "tree":
        name, tree = mutate_tree(rng, header)
        return f"header: {name}", join_tensors(encode(tree), body)
    if op == "length":
        wrong = pick(rng, [0, 1, 2**63, 2**64 - 1, len(data), 10**8, len(data) - 8])
        return f"length {wrong}", join_tensors(json.dumps(header), body, wrong)
    if op == "body":
        name, changed = mutate_bytes(rng, body)
        return f"body: {name}", join_tensors(json.dumps(header), changed)
    if op == "values":
        view = bytearray(body)
        for _ in range(3):
            at = int(rng.integers(max(1, len(view) - 8)))
            view[at : at + 8] = struct.pack("<d", pick(rng, [np.nan, np.inf, -1e300, 0.0, 5e-324]))
        return "values", join_tensors(json.dumps(header), bytes(view[: len(body)]))
    if op == "metadata":
        about = header.setdefault("__metadata__", {})
        key = pick(rng, about) if about else "format"
        if about.get(key, "").startswith("{") and rng.random() < 0.7:
            name, changed = mutate_json(rng, json.loads(about[key]))
            about[key] = changed.decode("utf-8", "replace")
            return f"metadata {key}: {name}", join_tensors(json.dumps(header), body)
        about[key] = pick(rng, ["", "x", "0", "-1", "2", "99999999999999999999", "{}", "[]", "null", "\u0663"])
        if rng.random() < 0.3:
            del about[key]
        return f"metadata {key}", join_tensors(json.dumps(header), body)
    name = pick(rng, [name for name in header if name != "__metadata__"])
    entry = header[name]
    what = pick(rng, ["dtype", "shape", "data_offsets", "rename", "same place"])
    if what == "dtype":
        entry["dtype"] = pick(rng, ["F16", "BF16", "F32", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X", "f64"])
    elif what == "shape":
        shape = entry["shape"]
        entry["shape"] = pick(rng, [[], [0], [*shape, 1], [1, *shape], shape[::-1], [2**62, 4], [2**40], [-1], [1.5],
                                    [0, 2**63], [int(np.prod(shape))]])  # fmt: skip
    elif what == "data_offsets":
        a, b = entry["data_offsets"]
        entry["data_offsets"] = pick(rng, [[b, a], [a, b + 8], [0, 2**60], [a + 8, b + 8], [a], [a, a], [-8, b]])
    elif what == "rename":
        header[pick(rng, ["../x", "extra", "", "first_layer", "X", "\0"])] = header.pop(name)
    else:
        other = pick(rng, [other for other in header if other != "__metadata__"])
        entry["data_offsets"] = header[other]["data_offsets"]
    return f"{what} of {name}", join_tensors(json.dumps(header), body)


def mutate_npz(rng: np.random.Generator, arrays: dict[str, np.ndarray], whole: bytes) -> tuple[str, bytes]:
    """A npz archive with bytes or members changed."""
    op = pick(rng, ["bytes", "bytes", "missing", "objects", "packed", "dtype", "shape", "extra", "value", "header"])
    if op == "bytes":
        return mutate_bytes(rng, whole)
    arrays, name = dict(arrays), pick(rng, arrays)
    if op == "missing":
        del arrays[name]
    elif op == "objects":
        arrays[name] = np.array([{"a": 1}, None], dtype=object)
    elif op == "dtype":
        arrays[name] = np.asarray(arrays[name]).astype(
            pick(rng, ["S3", "U3", "f2", "c16", "i1", "?"]), casting="unsafe"
        )
    elif op == "shape":
        arrays[name] = np.asarray(arrays[name]).ravel()[: int(rng.integers(4))]
    elif op == "extra":
        arrays[pick(rng, ["../x", "extra", "a999", ""])] = np.zeros(3)
    elif op == "value" and np.asarray(arrays[name]).size:
        changed = np.array(arrays[name])
        changed.reshape(-1)[int(rng.integers(changed.size))] = pick(rng, [0, 1, 65])
        arrays[name] = changed
    buffer = io.BytesIO()
    (np.savez_compressed if op == "packed" else np.savez)(buffer, **arrays)
    data = buffer.getvalue()
    if op == "header":
        data = data.replace(b"'shape': (", b"'shape': " + pick(rng, [b"[", b"9", b"{", b"-"]), 1)
    return f"{op} {name}", data


def mutate_file(rng: np.random.Generator, path: Path, outside: Path) -> str:
    """Something else in place of a file: a folder, a pipe, nothing, a link to nothing, to a folder or to the file."""
    name = pick(rng, ["folder", "pipe", "missing", "dangling", "link to folder", "link to itself"])
    path.unlink()
    if name == "folder":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "dangling":
        path.symlink_to(outside / "nothing-here")
    elif name == "link to folder":
        path.symlink_to(outside)
    elif name == "link to itself":
        path.symlink_to(path.name)
    return name
