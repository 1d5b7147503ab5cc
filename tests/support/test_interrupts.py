"""Ctrl-C on the command lines: exit code 130, no traceback, and no file but whole ones, at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.support import interrupts
from cvxrelu.support.files import atomic_write

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX has them")
WHOLE = (None, ["network.safetensors", "solution.json"])

# Signals itself when the module of that name is first looked for: a moment that does not depend on the machine.
AT_IMPORT = """
import os, runpy, signal, sys
module, moment, *arguments = sys.argv[1:]
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def begin(arguments, folder):
    """A child that takes SIGINT whatever this process was started with: who ignores a signal hands that on."""
    # Not by preexec_fn, which forks: JAX warns of forks where it runs, and it may run in this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def judge(child, folder, ended=False):
    """130, or a regular end where the signal may have come too late."""
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 130 or (ended and child.returncode in (0, 1)), errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert child.returncode != 130 or "interrupted" in errors or (folder / "model").exists()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    inside = sorted(path.name for path in (folder / "model").iterdir()) if (folder / "model").exists() else None
    assert inside in WHOLE
    return inside


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 8))
    y = np.maximum(X @ rng.standard_normal((8, 4)), 0).sum(axis=1) + 0.1 * rng.standard_normal(400)
    np.savetxt(tmp_path / "data.csv", np.c_[X, y], delimiter=",", header="a,b,c,d,e,f,g,h,y", comments="")
    return tmp_path


FIT = ["fit", "data.csv", "--target", "y", "--out", "model", "--beta", "1e-4", "--tol", "1e-9"]


@pytest.mark.parametrize("moment", ["numpy", "scipy.linalg", "jaxtyping", "cvxrelu.reports.page"])
def test_while_the_program_is_imported(moment, table):
    assert judge(begin(["-c", AT_IMPORT, "cvxrelu", moment, *FIT], table), table) is None


@pytest.mark.parametrize("module", ["cvxrelu", "cvxrelu_llm"])
def test_every_way_to_start_a_command_line(module, tmp_path):
    assert judge(begin(["-c", AT_IMPORT, module, "numpy", "demo", "--out", "model"], tmp_path), tmp_path) is None


# The entry point, with a sign that it has begun: what comes before is Python's own start.
SIGN = """
import sys
from cvxrelu import __main__
load = __main__._load
__main__._load = lambda: print("begun", flush=True) or load()
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("moment", np.random.default_rng(0).uniform(0.0, 5.0, 5).round(2))
def test_at_random_moments(moment, table):
    child = begin(["-c", SIGN, *FIT], table)
    assert child.stdout.readline() == "begun\n"
    time.sleep(moment)
    child.send_signal(signal.SIGINT)
    judge(child, table, ended=True)


def test_a_search_that_is_interrupted_keeps_its_network(table):
    child = begin(["-m", "cvxrelu", *FIT], table)
    for line in child.stdout:
        if line.split()[:1] == ["1"]:  # the second round of refinement has been printed
            break
    child.send_signal(signal.SIGINT)
    assert judge(child, table) is not None


WRITING = """
import os, signal, sys
from pathlib import Path
from cvxrelu.support import interrupts
from cvxrelu.support.files import atomic_write
{more}
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
def program():
{body}
    import time
    time.sleep(600)  # longer than the test waits
    return 0
sys.exit(interrupts.run("test", lambda: program))
"""


@pytest.mark.parametrize(
    ("more", "body", "left"),
    [
        # in the middle of a file: it is completed
        ("sync = os.fsync\nos.fsync = lambda f: (interrupt(), sync(f))", "    atomic_write('new', 'whole')", ["new"]),
        # in a finalizer, where Python prints the exception and goes on
        ("class Last:\n    def __del__(self): interrupt()", "    Last()", []),
        # within an import: its end is waited for
        (
            "Path('slow.py').write_text('import os, signal\\nos.kill(os.getpid(), signal.SIGINT)\\n"
            "for _ in range(1000): pass\\nopen(\"loaded\", \"w\").close()')\nsys.path.insert(0, '.')\n"
            "sys.dont_write_bytecode = True",
            "    import slow", ["loaded", "slow.py"],
        ),
        # what an interrupt becomes in the hands of another library
        ("", "    try:\n        interrupt()\n    except KeyboardInterrupt:\n        raise SystemError('no')", []),
    ],
)  # fmt: skip
def test_where_an_exception_would_do_harm(more, body, left, tmp_path):
    judge(begin(["-c", WRITING.format(more=more, body=body)], tmp_path), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_folder_that_is_being_filled_is_taken_away(tmp_path):
    more = "from cvxrelu.support.files import new_folder"
    body = "    with new_folder(Path('model')) as folder:\n        (folder / 'half').touch()\n        interrupt()"
    assert judge(begin(["-c", WRITING.format(more=more, body=body)], tmp_path), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_as_a_library_signals_are_left_alone(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    atomic_write(tmp_path / "file", "text")
    assert signal.getsignal(signal.SIGINT) is before and not interrupts.pending()


def test_shields_nest_and_end():
    with interrupts.shielded():
        with interrupts.unshielded():
            assert interrupts._depth == 0
            with interrupts.shielded():
                assert interrupts._depth == 1
        assert interrupts._depth == 1
    assert interrupts._depth == 0


def test_the_package_itself_is_light():
    """What is imported before the handler stands must not take the time in which someone presses Ctrl-C."""
    code = "import sys, cvxrelu.__main__, cvxrelu_llm.__main__; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert not {"numpy", "scipy", "jax", "torch", "cvxrelu.api.solve"} & set(found.stdout.split())
