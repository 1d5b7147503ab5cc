"""A checkpoint of several processes: one reads and writes, all know the same. Processes are threads here."""

import threading
from pathlib import Path

import numpy as np
import pytest

from cvxrelu.backends.choose import get_backend
from cvxrelu.backends.numpy import NumpyBackend
from cvxrelu.runs.checkpoint import Checkpoint, as_bytes, from_bytes
from cvxrelu.runs.shared_checkpoint import SharedCheckpoint, checkpoint_of
from cvxrelu.sampled.cone_memory import _Face


class Process(NumpyBackend):
    """One of two; `share` waits for the other."""

    n_processes = 2

    def __init__(self, index, meeting, box):
        self.index, self.meeting, self.box = index, meeting, box

    @property
    def leads(self):
        return self.index == 0

    def share(self, data):
        if self.leads:
            self.box[0] = data
        self.meeting.wait(30)
        found = self.box[0]
        self.meeting.wait(30)
        return found


def together(act):
    """What `act(backend)` gives in either process; an error is what it gives, too."""
    meeting, box, found = threading.Barrier(2), [b""], [None, None]

    def run(index):
        try:
            found[index] = act(Process(index, meeting, box))
        except Exception as error:
            meeting.abort() if isinstance(error, threading.BrokenBarrierError) else None
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def folders(tmp_path, backend):
    return tmp_path / ("first" if backend.leads else "nowhere" + "/deep" * 3)


def test_the_first_writes_and_all_read(tmp_path):
    state = {"x": np.arange(6.0).reshape(2, 3), "gap": 0.5, "none": None, "steps": [1, 2]}

    def run(backend):
        kept = checkpoint_of(backend, folders(tmp_path, backend), {"n": 3}, {"tol": 1.0})
        assert isinstance(kept, SharedCheckpoint)
        assert kept.load("sampled") is None
        kept.save("sampled", state)
        return kept.load("sampled")

    for found in together(run):
        np.testing.assert_array_equal(found["x"], state["x"])
        assert (found["gap"], found["none"], found["steps"]) == (0.5, None, [1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first"]


def test_when_a_state_is_due_is_for_the_first_to_say(tmp_path):
    """To make a state is work of all: were it made in one process alone, that one would wait for the others."""
    made = []

    def run(backend):
        kept = checkpoint_of(backend, folders(tmp_path, backend), {}, {})
        kept.due_at = dict.fromkeys(("sampled", "refinement"), 0.0 if backend.leads else np.inf)
        kept.offer("sampled", lambda: made.append(backend.index) or {"a": 1})
        kept.offer("sampled", lambda: made.append(backend.index) or {"a": 2})  # the first has just written
        return kept.load("sampled")

    assert together(run) == [{"a": 1}, {"a": 1}]
    assert sorted(made) == [0, 1]


@pytest.mark.parametrize("what", ["another run", "damage", "no folder"])
def test_an_error_of_the_first_is_an_error_of_all(tmp_path, what):
    place = tmp_path / "first"
    Checkpoint(place, {"n": 3}, {}).save("sampled", {"a": 1})
    if what == "damage":
        (place / "sampled.npz").write_bytes(b"nothing")
    if what == "no folder":
        place = tmp_path / "first" / "run.json" / "below"

    def run(backend):
        n = 4 if what == "another run" else 3
        return checkpoint_of(backend, place if backend.leads else tmp_path / "x", {"n": n}, {}).load("sampled")

    says = {"another run": "n=3, now n?=?4|of a run with n=3, now 4", "damage": "damaged", "no folder": "checkpoint"}
    for found in together(run):
        assert isinstance(found, ValueError)
        with pytest.raises(ValueError, match=says[what]):
            raise found


def test_states_survive_the_way_as_bytes():
    faces = [_Face(np.arange(k), np.ones((3, k)), np.ones((k, 3)), np.eye(3)[:, k:]) for k in (0, 1, 2)] * 4
    state = {"faces": faces, "near": [None, np.arange(3)], "text": "é", "big": np.asfortranarray(np.eye(3))}
    found = from_bytes(as_bytes(state))
    assert found["text"] == "é" and found["near"][0] is None
    for before, after in zip(faces, found["faces"], strict=True):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    assert from_bytes(as_bytes(None)) is None


def test_one_process_has_a_plain_checkpoint(tmp_path):
    kept = checkpoint_of(get_backend("numpy"), tmp_path, {}, {})
    assert type(kept) is Checkpoint and Path(kept.folder) == tmp_path
