"""What answers have in common: pickled without the training data, copied with them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

from cvxrelu.runs.status import Status

__all__ = ["Answer"]

Self = TypeVar("Self", bound="Answer")


class Answer:
    """Base of the frozen dataclasses that a solve returns; `data` names the field with the training data."""

    _data: ClassVar[str]
    status: Status

    def __init_subclass__(cls, data: str, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._data = data

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, by joblib and within a fitted estimator too: everything but the training data."""
        return {**self.__dict__, self._data: None}

    def __copy__(self: Self) -> Self:
        return replace(self)  # type: ignore[type-var] # a copy, unlike a pickle, keeps the data

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        copies = {f.name: deepcopy(getattr(self, f.name), memo) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **copies)  # type: ignore[type-var]

    @property
    def success(self) -> bool:
        """True for the statuses "optimal" and "optimal_inaccurate"."""
        return self.status.success
