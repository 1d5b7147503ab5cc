"""CuPy's own signatures, of the oldest version that is supported and of the newest, without a device.

Each version is installed by itself under .bench-envs/, once; where that is impossible the test is skipped with pip's
reason. What is looked for is read out of the source of the package: see `cupy_names`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cupy_names
import cupy_stand_in
import pytest

# the wheels alone, 110 and 70 MB: NumPy and array-api-compat are those of this environment
VERSIONS = {"13.6": ["cupy-cuda12x==13.6.*", "fastrlock"], "14": ["cupy-cuda13x==14.*", "cuda-pathfinder"]}


def records(root: Path) -> list[dict]:
    return cupy_names.uses(root / "cvxrelu")


@pytest.fixture(scope="module")
def environment(request, root: Path) -> Path:
    folder = root / ".bench-envs" / f"cupy-{request.param}-py{sys.version_info.major}{sys.version_info.minor}"
    if folder.is_dir():
        return folder
    made = folder.with_name(f"{folder.name}.{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--only-binary", ":all:", "--target", str(made), *VERSIONS[request.param]]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, timeout=600, check=False)
        wrong = (done.stderr or done.stdout).strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        wrong = "pip took more than ten minutes"
    if wrong:
        shutil.rmtree(made, ignore_errors=True)
        pytest.skip(f"CuPy {request.param} cannot be installed: {wrong.splitlines()[-1][:200]}")
    made.rename(folder)
    return folder


def asked(environment: Path, found: list[dict], tmp_path: Path) -> dict:
    """What the CuPy of this environment says of these uses."""
    (tmp_path / "uses.json").write_text(json.dumps(found), encoding="utf-8")
    program = [sys.executable, cupy_names.__file__, str(tmp_path / "uses.json")]
    path = os.pathsep.join([str(environment), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("environment", VERSIONS, indirect=True)
def test_cupy_has_what_is_taken_from_it(environment, root, tmp_path):
    found = records(root)
    answer = asked(environment, found, tmp_path)
    print({name: answer[name] for name in ("version", "names", "calls", "unsigned")})
    assert answer["amiss"] == []
    assert answer["names"] == len({record["name"] for record in found})
    # The stand-in has no name that this version lacks.
    for group, names in cupy_stand_in.NAMES.items():
        assert set(names) <= set(answer["offered"][group])


@pytest.mark.slow
@pytest.mark.parametrize("environment", VERSIONS, indirect=True)
def test_a_wrong_keyword_is_seen(environment, tmp_path):
    """`cg` stops by `tol` in one version and by `rtol` in the other: hence one of our own. And what neither has."""
    old = "13" in environment.name
    wrong = [
        ("cupyx.scipy.sparse.linalg.cg", 2, ["rtol" if old else "tol"]),
        ("xp.sum", 1, ["axes"]),
        ("xp.maximum", 1, []),
        ("xp.argsort", 1, ["kind"]),
        ("xp.nowhere", 1, []),
        ("cupy.linalg.cholesky", 3, []),
        ("cupyx.scipy.linalg.solve_triangular", 2, ["left"]),
    ]
    right = [("cupyx.scipy.sparse.linalg.cg", 2, ["tol" if old else "rtol"]), ("xp.sum", 1, ["axis"])]
    uses = [
        {"name": name, "given": given, "keywords": keywords, "places": [f"{k}"]}
        for k, (name, given, keywords) in enumerate([*wrong, *right])
    ]
    amiss = asked(environment, uses, tmp_path)["amiss"]
    assert [message.partition(" ")[0] for message in amiss] == [name for name, *_ in wrong]


def test_uses_are_read_out_of_the_source(root, tmp_path):
    """Of aliases, attributes and calls; of the driver also what it takes from CuPy itself."""
    (tmp_path / "any.py").write_text("a = xp.sum(b, axis=0)\nc = self.xp.linalg.eigh(*d)\nxp.float32\ncupy.eye(3)\n")
    (tmp_path / "cupy.py").write_text("self._cupy.eye(3, dtype=d)\nfrom cupyx.a import f\nf(1)\n")
    got = {(u["name"], u["given"], tuple(u["keywords"] or ())) for u in cupy_names.uses(tmp_path)}
    assert got == {
        ("xp.sum", 1, ("axis",)),
        ("xp.linalg.eigh", None, ()),
        ("xp.float32", None, ()),
        ("xp.float64", None, ()),
        ("cupy.eye", 1, ("dtype",)),
        ("cupyx.a.f", 1, ()),
    }


def test_the_documentation_gives_their_number(root):
    """What docs/backends.md says was counted by this; a use more or less does not make it wrong."""
    found = records(root)
    counted = len({record["name"] for record in found}), sum(record["keywords"] is not None for record in found)
    said = re.search(r"(\d+) names and (\d+) kinds of calls", " ".join((root / "docs/backends.md").read_text().split()))
    assert said is not None
    assert [int(number) for number in said.groups()] == pytest.approx(counted, rel=0.2)


def test_no_conjugate_gradients_of_cupy(root):
    """Their keywords differ between versions, and what they count as a step between libraries."""
    assert not [record for record in records(root) if record["name"].endswith((".cg", ".gmres", ".minres"))]


def test_the_stand_in_has_no_more_than_cupy():
    """Its arrays have the attributes that both versions have, and no others."""
    own = {name for name in dir(cupy_stand_in.ndarray) if not name.startswith("_")}
    assert own <= set(cupy_stand_in.NAMES["ndarray"])
