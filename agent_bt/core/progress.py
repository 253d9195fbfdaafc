"""The interface by which long work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A display of the progress of counted work; it is called from one thread."""

    def start(self, total: int, label: str) -> None:
        """Begin.

        Args:
            total: number of decisions, 0 if unknown.
            label: name of the work.
        """
        ...

    def update(
        self, done: int, *, invalid: int = 0, calls: int = 0, tokens: int = 0, cost_usd: float | None = None
    ) -> None:
        """Report the progress so far.

        Args:
            done: decisions made.
            invalid: those of them that failed.
            calls: requests sent to a model that is paid for, each attempt counted.
            tokens: tokens spent.
            cost_usd: US dollars spent; None if the price is not known.
        """
        ...

    def note(self, text: str) -> None:
        """Show a message on a line of its own."""
        ...

    def stop(self) -> None:
        """End, whether the work succeeded or not; may be called again."""
        ...


class SilentProgress(Progress):
    """Progress that is not shown."""

    def start(self, total: int, label: str) -> None:
        """Do nothing; `total` and `label` are ignored."""

    def update(
        self, done: int, *, invalid: int = 0, calls: int = 0, tokens: int = 0, cost_usd: float | None = None
    ) -> None:
        """Do nothing; `done`, `invalid`, `calls`, `tokens` and `cost_usd` are ignored."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""
