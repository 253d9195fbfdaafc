"""How a long piece of work tells whoever is watching how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A watcher of counted work; `SilentProgress` for nobody. Called from one thread."""

    def start(self, total: int, label: str) -> None:
        """Work of `total` decisions (0: unknown) begins."""
        ...

    def update(self, done: int, *, invalid: int = 0, tokens: int = 0, cost_usd: float | None = None) -> None:
        """`done` decisions so far, `invalid` of them failed; tokens and US dollars spent so far (None: unpriced)."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...

    def stop(self) -> None:
        """The work ended, in whatever way; idempotent."""
        ...


class SilentProgress:
    """Tells nobody."""

    def start(self, total: int, label: str) -> None:
        """Nothing."""

    def update(self, done: int, *, invalid: int = 0, tokens: int = 0, cost_usd: float | None = None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""
