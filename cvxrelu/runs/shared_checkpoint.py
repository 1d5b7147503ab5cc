"""The checkpoint of a run that several processes share: the first of them reads and writes, and tells the others.

All processes run the same program and call the same methods in the same order. Three things would otherwise depend on
the process, and leave the others waiting for ever: the clock that says when a state is due, since making one gathers
what is divided; what is read from a folder that another may be writing; and an error that only one of them meets. So
the first process decides, reads and writes, and the others need no access to the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvxrelu.backends.base import Backend
from cvxrelu.runs.checkpoint import Checkpoint, State, as_bytes, from_bytes

__all__ = ["SharedCheckpoint", "checkpoint_of"]

DONE, FAILED = b"+", b"-"


class SharedCheckpoint(Checkpoint):
    """`Checkpoint` with the same methods, for a backend of several processes.

    Raises
    ------
    ValueError, OSError : in every process, with the message of the first.
    """

    def __init__(self, backend: Backend, folder: Path, problem: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.backend = backend
        begin = super().__init__
        self._first(lambda: begin(folder, problem, options) or b"")

    def load(self, stage: str) -> State | None:
        """The state that was last saved of a stage, or None."""
        read = super().load
        return from_bytes(self._first(lambda: as_bytes(read(stage))))

    def due(self, stage: str) -> bool:
        """Whether the last state is old enough, by the clock of the first process."""
        late = super().due
        return self._first(lambda: DONE if late(stage) else FAILED) == DONE

    def save(self, stage: str, state: State) -> None:
        """Write the state of a stage, in the first process."""
        write = super().save
        self._first(lambda: write(stage, state) or b"")

    def _first(self, act: Callable[[], bytes]) -> bytes:
        """What `act` gives in the first process, or the error that it raises there."""
        said = b""
        if self.backend.leads:
            try:
                said = DONE + act()
            except ValueError as error:
                said = FAILED + str(error).encode()
            except OSError as error:
                said = FAILED + f"checkpoint: {error}".encode()
        said = self.backend.share(said)
        if said[:1] == FAILED:
            raise ValueError(said[1:].decode())
        return said[1:]


def checkpoint_of(backend: Backend, folder: Path, problem: Mapping[str, Any], options: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a run on this backend."""
    if backend.n_processes == 1:
        return Checkpoint(folder, problem, options)
    return SharedCheckpoint(backend, folder, problem, options)
