"""What the package takes from CuPy, read out of its source; and, run as a program within an environment that has CuPy,
whether that CuPy has it.

    python tests/cupy_names.py uses.json      where uses.json holds what `uses` returns; prints JSON of what is amiss

Names are those of the namespace `xp` (array-api-compat's over CuPy), of `cupy` and of `cupyx`; of every call the number
of positional arguments and the keywords are bound to the real signature. No device is needed: where a module does not
import without CUDA's libraries, the signature is read out of its source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BY_NAME = ("float32", "float64")  # getattr(xp, dtype.name)
UFUNC = {"out", "where", "casting", "order", "dtype", "subok", "axis"}  # keywords that every ufunc of CuPy takes


def uses(folder: Path) -> list[dict[str, Any]]:
    """One record for every distinct use: name, and of calls positional arguments and keywords (None for a mention)."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, call in _uses(tree, direct=path.name == "cupy.py"):
            record = {"name": name, "given": None, "keywords": None}
            if call is not None:
                starred = any(isinstance(a, ast.Starred) for a in call.args)
                record |= {"given": None if starred else len(call.args)}
                record |= {"keywords": sorted(k.arg for k in call.keywords if k.arg)}
            key = (name, record["given"], tuple(record["keywords"] or ()), call is not None)
            found.setdefault(key, record).setdefault("places", []).append(f"{path.name}:{getattr(call, 'lineno', 0)}")
    for name in BY_NAME:
        found[name, None, (), False] = {"name": f"xp.{name}", "given": None, "keywords": None, "places": ["by name"]}
    return list(found.values())


def _uses(tree: ast.AST, direct: bool) -> Iterator[tuple[str, ast.Call | None]]:
    """(full name, call) of chains that begin with a namespace; in the driver, `direct`, also with CuPy's modules."""
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("cupy", "cupyx"):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in imported and isinstance(node.ctx, ast.Load):
            yield imported[node.id], called.get(id(node))
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            name = _chain(node)
            if name is not None and (direct or name.startswith("xp.")):
                yield name, called.get(id(node))


def _chain(node: ast.AST) -> str | None:
    """`xp.linalg.eigh` of `xp.linalg.eigh`, `backend.xp.linalg.eigh` and `array_namespace(a).linalg.eigh`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr == "xp" and parts:
            return ".".join(["xp", *parts])
        if node.attr in ("_cupy", "_cupyx") and parts:
            return ".".join([node.attr[1:], *parts])
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in ("xp", "cupy", "cupyx"):
        return ".".join([node.id, *parts])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "array_namespace":
        return ".".join(["xp", *parts])
    return None


# -- within the environment -------------------------------------------------------------------------------------------
def check(records: list[dict[str, Any]]) -> dict[str, Any]:
    """{"version", "names", "calls": bound to a signature, "unsigned": calls of what tells none, "amiss"}."""
    import cupy

    amiss, names, bound, unsigned = [], set(), 0, set()
    for record in records:
        names.add(record["name"])
        where = f"{record['name']} ({', '.join(sorted(set(record['places']))[:3])})"
        try:
            target = _resolve(record["name"])
        except (AttributeError, LookupError, ImportError) as error:
            amiss.append(f"{where}: {type(error).__name__}: {error}")
            continue
        if record["keywords"] is None:
            continue
        try:
            wrong = _wrong(target, record)
        except ValueError:
            unsigned.add(record["name"])
            continue
        bound += 1
        if wrong:
            amiss.append(f"{where}: {wrong}")
    return {
        "version": cupy.__version__, "names": len(names), "calls": bound, "unsigned": sorted(unsigned), "amiss": amiss,
    }  # fmt: skip


def _resolve(name: str) -> Any:
    """The object of that name; an `ast.arguments` where its module needs CUDA's libraries to be imported."""
    root, *parts = name.split(".")
    if root == "xp":
        found: Any = importlib.import_module("array_api_compat.cupy")
        for part in parts:
            found = getattr(found, part)
        return found
    found = importlib.import_module(root)
    for k, part in enumerate(parts):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join([root, *parts[: k + 1]]))
            except ImportError:
                return _from_source(root, parts)
        except ImportError:
            return _from_source(root, parts)
    return found


def _from_source(root: str, parts: list[str]) -> ast.arguments:
    """The arguments of a function of a package, found in the files of its folder."""
    folder = Path(importlib.import_module(root).__file__ or "").parent.joinpath(*parts[:-1])
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == parts[-1]:
                return node.args
    raise LookupError(f"no function {parts[-1]} in {folder}")


def _wrong(target: Any, record: dict[str, Any]) -> str:
    """Why this call does not fit, "" where it does; ValueError where the target tells no signature."""
    given, keywords = record["given"], record["keywords"]
    if isinstance(target, ast.arguments):
        names = [a.arg for a in (*target.posonlyargs, *target.args)]
        unknown = set(keywords) - {*names, *(a.arg for a in target.kwonlyargs)}
        if unknown or (given or 0) > len(names) or set(names[: given or 0]) & set(keywords):
            return f"{given} arguments and {keywords} do not fit {ast.unparse(target)}"
        return ""
    if type(target).__name__ == "ufunc":
        too_many = given is not None and not target.nin <= given <= target.nargs
        return f"{given} arguments and {keywords} of a ufunc" if too_many or set(keywords) - UFUNC else ""
    try:
        signature = inspect.signature(target)
    except TypeError as error:
        raise ValueError from error
    named = {p.name for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    generic = {p.kind for p in signature.parameters.values()} <= {
        inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    }  # fmt: skip
    if generic:
        raise ValueError
    if unknown := set(keywords) - named:  # a wrapper's **kwargs would take anything
        return f"no {sorted(unknown)} in {signature}"
    try:
        if given is not None:
            signature.bind(*[None] * given, **dict.fromkeys(keywords))
    except TypeError as error:
        return f"{given} arguments and {keywords} do not fit {signature}: {error}"
    return ""


def offered() -> dict[str, list[str]]:
    """The public names of CuPy, its linear algebra and its arrays."""
    import cupy

    groups = {"cupy": cupy, "cupy.linalg": cupy.linalg, "ndarray": cupy.ndarray}
    return {group: sorted(n for n in dir(of) if not n.startswith("_")) for group, of in groups.items()}


if __name__ == "__main__":
    answer = check(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    import cupyx

    with cupyx.errstate(linalg="raise"):  # tells no signature: it is tried
        answer["offered"] = offered()
    json.dump(answer, sys.stdout)
