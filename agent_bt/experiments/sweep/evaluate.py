"""Evaluates many strategies over one market: shared columns, compiled rules, and the accounting step of every run.

1. Candidates are taken in blocks whose columns fit into memory together                   `_blocks`
2. The columns that a block needs and the one before had not are computed                  `SharedColumns.load`
3. Threads take a few candidates at a time: what they say, compiled for rules,
   by `decide_all` for others, then their accounts                                         `_evaluate_some`
Every span of rows is a market of its own: the account begins afresh at its first row and sees nothing after its last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from agent_bt.core.errors import StrategyError
from agent_bt.core.protocols import VectorisedStrategy
from agent_bt.core.targets import changed_rows
from agent_bt.engine.batch import OUTCOME, Accounts, BatchRunner, last_rows_of_days
from agent_bt.engine.market import Market
from agent_bt.experiments.sweep.columns import SharedColumns
from agent_bt.experiments.sweep.rules import Key, Program, Signals, listen, program_of

BLOCK_BYTES = 160 * 2**20
"""Shared columns that are kept at the same time."""
_TOGETHER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One combination: its strategy, and the `RULES` and `LIMITS` records (1,) of its execution and risk."""

    strategy: VectorisedStrategy
    rules: np.ndarray
    limits: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows of a market, `last` included, over which an account lives that begins with `cash`."""

    first: int
    last: int
    cash: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What came of C candidates over one span.

    `outcomes`: `OUTCOME` records (C,); `marks`: equity at the end of each UTC day, float64 (C, D); `decisions`: how
    many each made, int64 (C,).
    """

    outcomes: np.ndarray
    marks: np.ndarray
    decisions: np.ndarray


def evaluate(
    market: Market,
    due: np.ndarray,
    candidates: Sequence[Candidate],
    spans: Sequence[Span],
) -> list[Evaluated]:
    """Drive every candidate over every span; equal to `engine.vectorised.drive` of each to the last bit.

    Args:
        market: with or without features of its own.
        due: rows at which decisions are due, int64, ascending.
        candidates: all with the same delay between decision and fill.
        spans: as many results are returned, in their order.

    Raises:
        StrategyError: a strategy's features or its `decide_all` failed.
    """
    made = [
        Evaluated(
            outcomes=np.zeros(len(candidates), OUTCOME),
            marks=np.zeros((len(candidates), len(last_rows_of_days(market.times[: span.last + 1], span.first)))),
            decisions=np.zeros(len(candidates), np.int64),
        )
        for span in spans
    ]
    if not candidates:
        return made
    shared = SharedColumns(market)
    threads = max(1, min(os.cpu_count() or 1, len(candidates)))
    delay = int(candidates[0].rules[0]["delay"])
    runners = [_runners(market, span, delay, threads) for span in spans]
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="sweep") as workers:
        for low, high in _blocks(market, candidates):
            block = candidates[low:high]
            programs = [program_of(candidate.strategy) for candidate in block]
            shared.load((spec for candidate in block for spec in candidate.strategy.features), workers)
            seen = _Seen(shared, due, [key for program in programs if program for key in program.keys])
            ready = [shared.ready(each.strategy.features, each.strategy.lookback) for each in block]
            tasks = [
                workers.submit(_evaluate_some, seen, block[a:b], programs[a:b], ready[a:b], span, idle, low + a, result)
                for span, idle, result in zip(spans, runners, made, strict=True)
                for a, b in _cut(len(block), programs)
            ]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise
    return made


class _Seen:
    """What the strategies of a block look at."""

    def __init__(self, shared: SharedColumns, due: np.ndarray, keys: Sequence[Key]) -> None:
        self.market = shared.market()
        self.due = due
        rows = _slice_or(due)
        self.eligible = np.ascontiguousarray(self.market.eligible[rows])
        self.columns = {key: _at_rows(shared.column(key[0]), due, key[1]) for key in dict.fromkeys(keys)}


def _at_rows(column: np.ndarray, rows: np.ndarray, lag: int) -> np.ndarray:
    """The column `lag` rows before each of `rows`, NaN before its first; no copy where the rows follow each other."""
    if not len(rows) or rows[0] >= lag:
        found: np.ndarray = column[_slice_or(rows - lag)]
    else:
        found = column[np.maximum(rows - lag, 0)]
        found[rows < lag] = np.nan
    return np.ascontiguousarray(found)


def _slice_or(rows: np.ndarray) -> slice | np.ndarray:
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _runners(market: Market, span: Span, delay: int, threads: int) -> SimpleQueue[BatchRunner]:
    prices = market.head(span.last + 1)
    runners: SimpleQueue[BatchRunner] = SimpleQueue()
    for _ in range(threads):
        runners.put(BatchRunner(prices, cash=span.cash, first=span.first, delay=delay))
    return runners


def _blocks(market: Market, candidates: Sequence[Candidate]) -> Iterator[tuple[int, int]]:
    """Runs of candidates whose columns fit into `BLOCK_BYTES`; of one that needs more, that one alone."""
    most = max(1, BLOCK_BYTES // (9 * len(market) * len(market.symbols)))
    low, columns = 0, set[str]()
    for at, candidate in enumerate(candidates):
        own = {spec.column for spec in candidate.strategy.features}
        if at > low and len(columns | own) > most:
            yield low, at
            low, columns = at, set()
        columns |= own
    yield low, len(candidates)


def _cut(count: int, programs: Sequence[Program | None]) -> Iterator[tuple[int, int]]:
    """A few candidates at a time; compiled rules and others never together."""
    low = 0
    for at in range(1, count + 1):
        if at == count or at - low == _TOGETHER or (programs[at] is None) != (programs[low] is None):
            yield low, at
            low = at


def _evaluate_some(
    seen: _Seen,
    candidates: Sequence[Candidate],
    programs: Sequence[Program | None],
    ready: Sequence[int],
    span: Span,
    runners: SimpleQueue[BatchRunner],
    place: int,
    result: Evaluated,
) -> None:
    """Write the results of a few candidates from `place` on."""
    begins = np.searchsorted(seen.due, np.maximum(np.array(ready), span.first))
    end = int(np.searchsorted(seen.due, span.last, side="right"))
    begins = np.minimum(begins, end)
    rules = [program for program in programs if program is not None]
    if rules:
        said = listen(
            rules,
            columns={key: column[:end] for key, column in seen.columns.items()},
            eligible=seen.eligible[:end],
            rows=seen.due[:end],
            begins=begins,
        )
    else:
        said = _ask(seen, [candidate.strategy for candidate in candidates], begins, end)
    here = slice(place, place + len(candidates))
    accounts = Accounts(
        rules=np.concatenate([candidate.rules for candidate in candidates]),
        limits=np.concatenate([candidate.limits for candidate in candidates]),
        on_change=np.array([candidate.strategy.on_change for candidate in candidates]),
        starts=said.starts,
        rows=said.rows,
        targets=said.targets,
    )
    runner = runners.get()
    try:
        runner.run_batch(accounts, result.outcomes[here], result.marks[here])
    finally:
        runners.put(runner)
    result.decisions[here] = end - begins


def _ask(seen: _Seen, strategies: Sequence[VectorisedStrategy], begins: np.ndarray, end: int) -> Signals:
    """What strategies say by `decide_all`, without what says nothing new."""
    rows, targets = [], []
    for strategy, begin in zip(strategies, begins.tolist(), strict=True):
        bars = seen.due[begin:end]
        try:
            wanted = np.ascontiguousarray(strategy.decide_all(seen.market, bars), np.float64)
        except StrategyError:
            raise
        except Exception as error:
            raise StrategyError(f"strategy {strategy.name}: decide_all: {type(error).__name__}: {error}") from error
        if wanted.shape != (len(bars), len(seen.market.symbols)):
            raise StrategyError(
                f"strategy {strategy.name}: decide_all gave targets of shape {wanted.shape} for {len(bars)} decisions"
                f" on {len(seen.market.symbols)} symbols"
            )
        changed = changed_rows(wanted, strategy.on_change)
        rows.append(bars[changed])
        targets.append(wanted[changed])
    starts = np.concatenate([[0], np.cumsum([len(each) for each in rows])]).astype(np.int64)
    return Signals(starts=starts, rows=np.concatenate(rows), targets=np.concatenate(targets))
