"""Whether a call is needed now or sent ahead on a guess, handed down the layers beside the request itself.

`submit` takes a request and nothing else, because urgency does not shape the answer. It travels in a context variable:
`with urged(Urgency(speculative=True)): llm.submit(request)`. Coroutines that a layer starts for the call inherit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Urgency:
    """How much one call matters; `speculative` is cleared when a demand joins a call that was sent ahead."""

    __slots__ = ("speculative",)

    def __init__(self, *, speculative: bool = False) -> None:
        self.speculative = speculative


_current: ContextVar[Urgency | None] = ContextVar("agent_bt_urgency", default=None)


def current_urgency() -> Urgency:
    """The urgency of the call being submitted here; a demand unless someone said otherwise."""
    return _current.get() or Urgency()


@contextmanager
def urged(urgency: Urgency) -> Iterator[None]:
    """Submit with this urgency inside the block."""
    token = _current.set(urgency)
    try:
        yield
    finally:
        _current.reset(token)
