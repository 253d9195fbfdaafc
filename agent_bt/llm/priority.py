"""The priority of a call, needed now or speculative, passed down the layers beside the request itself.

`submit` takes a request and nothing else, because the priority does not change the reply. It is kept in a context
variable: `with speculative_calls(): llm.submit(request)`. Coroutines that a layer starts for the call inherit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Priority:
    """The priority of one call.

    Args:
        speculative: whether the call is sent ahead on a guess.

    Attributes:
        speculative: as given; set to False when the call is needed, so that all layers see it.
    """

    __slots__ = ("speculative",)

    def __init__(self, *, speculative: bool = False) -> None:
        self.speculative = speculative


_current: ContextVar[Priority | None] = ContextVar("agent_bt_call_priority", default=None)


def current_priority() -> Priority:
    """Return the priority of the call that is being submitted; a needed one unless a context says otherwise."""
    return _current.get() or Priority()


@contextmanager
def use_priority(priority: Priority) -> Iterator[None]:
    """Submit all calls inside the block with this priority."""
    token = _current.set(priority)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def speculative_calls() -> Iterator[None]:
    """Submit all calls inside the block as speculative: they wait behind needed ones, and may be refused first."""
    with use_priority(Priority(speculative=True)):
        yield
