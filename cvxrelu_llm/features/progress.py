"""A bar that counts tokens: tqdm's, or none."""

from __future__ import annotations

from types import TracebackType
from typing import Any

__all__ = ["TokenProgress"]


class TokenProgress:
    """Tokens per second and time to go, on standard error; silent unless `show`, and where tqdm is missing."""

    def __init__(self, total: int, show: bool) -> None:
        self.bar: Any = None
        if show and total:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=total, unit="tok", unit_scale=True, desc="features", smoothing=0.1)

    def __enter__(self) -> TokenProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, n_tokens: int) -> None:
        """So many more tokens are done."""
        if self.bar is not None:
            self.bar.update(n_tokens)
