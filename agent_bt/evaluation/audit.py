"""Audit a strategy for look-ahead: nothing that happens after a decision may change it, to the last bit.

1. The run is repeated on the same bars: what differs already is not a function of the view           `repetition`
2. After some decisions the bars end                                                                  `truncation`
3. After the same decisions all bars are replaced by a random market                                  `future`
4. The targets that a vectorised strategy computes for all bars at once are compared in the same way  `_audit_all`

Up to and including that decision, every step must be equal: what was seen, requested, decided, ordered, filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl

from agent_bt.core.canonical import content_hash
from agent_bt.core.clock import iso
from agent_bt.core.errors import StrategyError
from agent_bt.core.protocols import Strategy, VectorisedStrategy
from agent_bt.core.step import Journal, Step
from agent_bt.engine.market import Market
from agent_bt.engine.simulate import simulate
from agent_bt.execution.setup import ExecutionSetup

Kind = Literal["repetition", "truncation", "future"]
_SEEN_FIRST = ("time", "bar", "window", "summary", "prices", "account", "positions", "messages", "action")
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is audited.

    Attributes:
        strategy: builds the strategy, once for every simulation.
        prepare: bars (`BAR_SCHEMA`) -> the market it would see, and the rows of its decision bars, int64 (D,).
        setup: how orders fill and what limits them.
        content: a step as plain data (`records.decision_record.build_content`).
    """

    strategy: Callable[[], Strategy]
    prepare: Callable[[pl.DataFrame, Strategy], tuple[Market, np.ndarray]]
    setup: ExecutionSetup
    content: Callable[[Step], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """The first value that changed although only the future was changed.

    Attributes:
        kind: how the bars were changed.
        cut: instant of the decision after which they were changed, UTC us.
        index: of the decision that is different.
        time: of that decision, UTC us.
        field: of its record that is different.
        original: value before the change.
        changed: value after the change.
    """

    kind: Kind
    cut: int
    index: int
    time: int
    field: str
    original: Any
    changed: Any

    def __str__(self) -> str:
        done = {
            "repetition": "with no bar changed",
            "truncation": f"when the bars end at {iso(self.cut)}",
            "future": f"when the bars after {iso(self.cut)} are others",
        }[self.kind]
        one, other = _around_difference(self.original, self.changed)
        return f"decision {self.index} at {iso(self.time)}, {done}: {self.field} is {other} instead of {one}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        one, other = _around_difference(self.original, self.changed)
        return {
            "kind": self.kind,
            "cut": iso(self.cut),
            "index": self.index,
            "time": iso(self.time),
            "field": self.field,
            "original": one,
            "changed": other,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The outcome of an audit.

    Attributes:
        strategy: name of the strategy.
        decisions: number of decisions of its run.
        cuts: instants of the decisions after which the future was changed, UTC us.
        compared: number of steps that were compared with their originals.
        leak: the first difference; None if every step stayed the same.
    """

    strategy: str
    decisions: int
    cuts: tuple[int, ...]
    compared: int
    leak: Leak | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "strategy": self.strategy,
            "clean": self.leak is None,
            "decisions": self.decisions,
            "cuts": [iso(cut) for cut in self.cuts],
            "compared": self.compared,
            "leak": None if self.leak is None else self.leak.to_dict(),
        }


def audit(subject: Subject, bars: pl.DataFrame, *, cuts: int = 12, seed: int = 0) -> Audit:
    """Audit a strategy over these bars.

    Args:
        subject: the strategy and how it is run.
        bars: columns of `BAR_SCHEMA`, warm-up included.
        cuts: number of decisions after which the future is changed; spread over all, the exact ones are drawn.
        seed: of these decisions and of the random markets.

    Raises:
        StrategyError: the strategy fails on the bars as they are.
    """
    rng = np.random.default_rng(seed)
    strategy = subject.strategy()
    _, rows = subject.prepare(bars, strategy)
    original = _HashJournal(subject.content)
    _simulate(subject, bars, original)
    decisions = len(original.hashes)
    leak = _compare(subject, bars, bars, original, decisions - 1, "repetition", original.times[-1])
    compared, done = decisions, []
    for at in _choose(decisions, cuts, rng):
        end = int(rows[at]) + 1
        done.append(original.times[at])
        variants: tuple[tuple[Kind, pl.DataFrame], ...] = (
            ("truncation", until(bars, done[-1])),
            ("future", replace_future(bars, done[-1], rng)),
        )
        for kind, changed in variants:
            if leak is None:
                compared += at + 1
                leak = _compare(subject, bars, changed, original, at, kind, done[-1])
                leak = leak or _audit_all(subject, bars, changed, end, kind, done[-1])
    return Audit(strategy=strategy.name, decisions=decisions, cuts=tuple(done), compared=compared, leak=leak)


def until(bars: pl.DataFrame, instant: int) -> pl.DataFrame:
    """Return the bars of all symbols that have closed by an instant.

    Args:
        bars: columns of `BAR_SCHEMA`.
        instant: UTC us.
    """
    return bars.filter(pl.col("close_time").to_physical() <= instant)


def replace_future(bars: pl.DataFrame, instant: int, rng: np.random.Generator) -> pl.DataFrame:
    """Replace the bars of every symbol after an instant, as in `random_future`.

    A symbol that has no bar by then keeps its bars.

    Args:
        bars: columns of `BAR_SCHEMA`.
        instant: UTC us.
        rng: draws the new bars.
    """
    parts = bars.partition_by("symbol", maintain_order=True) if "symbol" in bars.columns else [bars]
    ends = [len(until(part, instant)) for part in parts]
    return pl.concat([random_future(part, end, rng) if end else part for part, end in zip(parts, ends, strict=True)])


def random_future(bars: pl.DataFrame, end: int, rng: np.random.Generator) -> pl.DataFrame:
    """Replace the bars of one symbol from a row on by a random walk of prices and random volumes; times stay.

    Args:
        bars: columns of `BAR_SCHEMA`.
        end: first row to replace.
        rng: draws the new bars.
    """
    kept, rest = bars.head(end), bars.slice(end)
    if rest.is_empty():
        return bars
    n = len(rest)
    last = float(kept["close"][-1])
    close = last * np.exp(np.cumsum(rng.normal(0.0, 0.01, n)))
    open_ = np.concatenate([[last], close[:-1]])
    spread = np.abs(rng.normal(0.0, 0.005, (2, n)))
    volume = rng.lognormal(3.0, 1.0, n)
    taker = rng.uniform(0.0, 1.0, n)
    replaced = rest.with_columns(
        open=pl.Series(open_),
        high=pl.Series(np.maximum(open_, close) * (1.0 + spread[0])),
        low=pl.Series(np.minimum(open_, close) * (1.0 - spread[1])),
        close=pl.Series(close),
        volume=pl.Series(volume),
        quote_asset_volume=pl.Series(volume * close),
        trades=pl.Series(rng.integers(1, 10_000, n)),
        taker_base=pl.Series(volume * taker),
        taker_quote=pl.Series(volume * taker * close),
        filled=pl.Series(rng.uniform(0.0, 1.0, n) < 0.01),
    )
    return pl.concat([kept, replaced.cast(bars.schema)])


def _choose(decisions: int, cuts: int, rng: np.random.Generator) -> list[int]:
    """Draw one decision out of each of `cuts` equal ranges, ascending."""
    edges = np.linspace(0, decisions, min(cuts, decisions) + 1).astype(int)
    return [int(rng.integers(low, high)) for low, high in pairwise(edges)]


def _simulate(subject: Subject, bars: pl.DataFrame, journal: Journal, decisions: int | None = None) -> None:
    strategy = subject.strategy()
    market, rows = subject.prepare(bars, strategy)
    simulate(market=market, bars=rows[:decisions], strategy=strategy, setup=subject.setup, journal=journal)


class _HashJournal:
    """A journal that keeps the hash of every step."""

    def __init__(self, content: Callable[[Step], Mapping[str, Any]]) -> None:
        self.hashes: list[str] = []
        self.times: list[int] = []
        self._content = content

    def append(self, step: Step) -> None:
        """Hash the step."""
        self.hashes.append(content_hash("agent-bt/audit/v1", self._content(step)))
        self.times.append(step.view.now)


class _Found(Exception):
    """Ends a simulation: this is the step that was looked for."""

    def __init__(self, index: int, content: Mapping[str, Any]) -> None:
        super().__init__(index)
        self.index = index
        self.content = content


class _ComparingJournal(_HashJournal):
    """A journal that compares every step with the hash of its original, and stops at the first that differs."""

    def __init__(self, content: Callable[[Step], Mapping[str, Any]], original: Sequence[str]) -> None:
        super().__init__(content)
        self._original = original

    def append(self, step: Step) -> None:
        """Compare the step."""
        super().append(step)
        if self.hashes[-1] != self._original[step.index]:
            raise _Found(step.index, self._content(step))


class _StopAt:
    """A journal that stops at one step."""

    def __init__(self, content: Callable[[Step], Mapping[str, Any]], index: int) -> None:
        self._content = content
        self._index = index

    def append(self, step: Step) -> None:
        """Stop if this is the step."""
        if step.index == self._index:
            raise _Found(step.index, self._content(step))


def _compare(
    subject: Subject, bars: pl.DataFrame, changed: pl.DataFrame, original: _HashJournal, last: int, kind: Kind, cut: int
) -> Leak | None:
    """Simulate over the changed bars up to decision `last`; return the first difference, if any."""
    against = _ComparingJournal(subject.content, original.hashes)

    def leak(index: int, field: str, before: Any, after: Any) -> Leak:
        time = original.times[index]
        return Leak(kind=kind, cut=cut, index=index, time=time, field=field, original=before, changed=after)

    try:
        _simulate(subject, changed, against, last + 1)
    except _Found as found:
        before, after = _original_step(subject, bars, found.index), found.content
        field, one, other = _first_difference(before, after)
        return leak(found.index, field, one, other)
    except StrategyError as error:
        cause = error.__cause__ or error
        return leak(len(against.hashes), "decision", "a decision", f"a failure ({type(cause).__name__}: {cause})")
    if len(against.hashes) <= last:
        return leak(len(against.hashes), "decision", "made", "not made")
    return None


def _original_step(subject: Subject, bars: pl.DataFrame, index: int) -> Mapping[str, Any]:
    try:
        _simulate(subject, bars, _StopAt(subject.content, index), index + 1)
    except _Found as found:
        return found.content
    return {}


def _audit_all(
    subject: Subject, bars: pl.DataFrame, changed: pl.DataFrame, end: int, kind: Kind, cut: int
) -> Leak | None:
    """Compare the targets of a vectorised strategy for all bars at once: up to `end` they must stay equal."""
    strategy = subject.strategy()
    if not isinstance(strategy, VectorisedStrategy):
        return None
    market, _ = subject.prepare(bars, strategy)
    bars_asked = np.arange(end)
    before = strategy.decide_all(market, bars_asked)
    after = strategy.decide_all(subject.prepare(changed, strategy)[0], bars_asked)
    rows = np.flatnonzero(~np.isclose(before, after, rtol=0.0, atol=0.0, equal_nan=True).reshape(end, -1).all(axis=1))
    if not len(rows):
        return None
    row = int(rows[0])
    field, one, other = _first_difference(before[row], after[row])
    place = f"decide_all[{row}]{field}"
    time = int(market.times[row])
    return Leak(kind=kind, cut=cut, index=row, time=time, field=place, original=one, changed=other)


def _first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any]:
    """Find where plain data differ first, what was seen before what followed from it; ("", ...) if nowhere."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [*(key for key in _SEEN_FIRST if key in one), *(key for key in one if key not in _SEEN_FIRST)]
        inner = ((f"{path}.{key}" if path else key, one[key], other.get(key)) for key in keys)
    elif isinstance(one, np.ndarray | list | tuple) and isinstance(other, np.ndarray | list | tuple):
        if len(one) != len(other):
            return f"{path}: length", len(one), len(other)
        inner = ((f"{path}[{at}]", a, b) for at, (a, b) in enumerate(zip(one, other, strict=True)))
    else:
        return ("", None, None) if one == other or (one != one and other != other) else (path, one, other)
    return next((found for where, a, b in inner if (found := _first_difference(a, b, where))[0]), ("", None, None))


def _around_difference(one: Any, other: Any) -> tuple[str, str]:
    """Return both values as text, long ones cut to where they differ."""
    texts = [str(one), str(other)]
    if max(map(len, texts)) <= 2 * _SHOWN:
        return texts[0], texts[1]
    same = next((at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    low, high = max(0, same - _SHOWN // 2), same + _SHOWN
    first, second = (f"...{text[low:high]}..." for text in texts)
    return first, second
