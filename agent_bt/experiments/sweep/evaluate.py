"""Evaluates many strategies over one market: shared columns, compiled rules, and the accounting step of every run.

1. Candidates are taken in blocks whose columns fit into memory together                   `_blocks`
2. The columns that a block needs and the previous one did not are computed                `SharedColumns.load`
3. Threads take a few candidates at a time: signals from compiled rules or `decide_all`,
   then their accounts                                                                     `_evaluate_some`
Every span of rows is independent: its account starts with fresh cash at the first row and sees nothing after the last.
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
from agent_bt.experiments.sweep.rules import Key, Program, Signals, program_of, run_programs

BLOCK_BYTES = 160 * 2**20
"""Size of the shared columns that are kept at the same time."""
_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One combination.

    Attributes:
        strategy: of the combination.
        rules: its execution, `RULES` records (1,).
        limits: its risk limits, `LIMITS` records (1,).
    """

    strategy: VectorisedStrategy
    rules: np.ndarray
    limits: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A range of rows with an account of its own.

    Attributes:
        first, last: rows of the market, both included.
        cash: at the start, quote units.
    """

    first: int
    last: int
    cash: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The results of C candidates over one span.

    Attributes:
        outcomes: `OUTCOME` records (C,).
        marks: equity at the end of each UTC day, float64 (C, D), quote units.
        decisions: number of decisions of each, int64 (C,).
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
    """Run every candidate over every span; equal to `engine.vectorised.run_targets` of each to the last bit.

    Args:
        market: with or without features of its own.
        due: rows at which decisions are due, int64, ascending.
        candidates: all with the same delay between decision and fill.
        spans: the ranges of rows.

    Returns:
        One result for each span, in their order.

    Raises:
        StrategyError: a strategy's features or its `decide_all` failed.
    """
    results = [
        Evaluated(
            outcomes=np.zeros(len(candidates), OUTCOME),
            marks=np.zeros((len(candidates), len(last_rows_of_days(market.times[: span.last + 1], span.first)))),
            decisions=np.zeros(len(candidates), np.int64),
        )
        for span in spans
    ]
    if not candidates:
        return results
    shared = SharedColumns(market)
    threads = max(1, min(os.cpu_count() or 1, len(candidates)))
    delay = int(candidates[0].rules[0]["delay"])
    runners = [_runners(market, span, delay, threads) for span in spans]
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="sweep") as workers:
        for low, high in _blocks(market, candidates):
            block = candidates[low:high]
            programs = [program_of(candidate.strategy) for candidate in block]
            shared.load((spec for candidate in block for spec in candidate.strategy.features), workers)
            inputs = _Inputs(shared, due, [key for program in programs if program for key in program.keys])
            ready = [shared.ready(each.strategy.features, each.strategy.lookback) for each in block]
            tasks = [
                workers.submit(
                    _evaluate_some, inputs, block[a:b], programs[a:b], ready[a:b], span, idle, low + a, result
                )
                for span, idle, result in zip(spans, runners, results, strict=True)
                for a, b in _batches(len(block), programs)
            ]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise
    return results


class _Inputs:
    """The columns and eligibility that the strategies of a block read."""

    def __init__(self, shared: SharedColumns, due: np.ndarray, keys: Sequence[Key]) -> None:
        self.market = shared.market()
        self.due = due
        rows = _as_slice(due)
        self.eligible = np.ascontiguousarray(self.market.eligible[rows])
        self.columns = {key: _at_rows(shared.column(key[0]), due, key[1]) for key in dict.fromkeys(keys)}


def _at_rows(column: np.ndarray, rows: np.ndarray, lag: int) -> np.ndarray:
    """Return the column `lag` rows before each of `rows`, NaN before its first; a view of contiguous rows."""
    if not len(rows) or rows[0] >= lag:
        found: np.ndarray = column[_as_slice(rows - lag)]
    else:
        found = column[np.maximum(rows - lag, 0)]
        found[rows < lag] = np.nan
    return np.ascontiguousarray(found)


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
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
    """Cut candidates into ranges whose columns fit into `BLOCK_BYTES`; one that needs more is a block by itself."""
    most = max(1, BLOCK_BYTES // (9 * len(market) * len(market.symbols)))
    low, columns = 0, set[str]()
    for at, candidate in enumerate(candidates):
        own = {spec.column for spec in candidate.strategy.features}
        if at > low and len(columns | own) > most:
            yield low, at
            low, columns = at, set()
        columns |= own
    yield low, len(candidates)


def _batches(count: int, programs: Sequence[Program | None]) -> Iterator[tuple[int, int]]:
    """Cut a block into batches for one thread; a batch holds compiled rules or other strategies, never both."""
    low = 0
    for at in range(1, count + 1):
        if at == count or at - low == _BATCH or (programs[at] is None) != (programs[low] is None):
            yield low, at
            low = at


def _evaluate_some(
    inputs: _Inputs,
    candidates: Sequence[Candidate],
    programs: Sequence[Program | None],
    ready: Sequence[int],
    span: Span,
    runners: SimpleQueue[BatchRunner],
    place: int,
    result: Evaluated,
) -> None:
    """Evaluate a batch of candidates, and write their results from `place` on."""
    begins = np.searchsorted(inputs.due, np.maximum(np.array(ready), span.first))
    end = int(np.searchsorted(inputs.due, span.last, side="right"))
    begins = np.minimum(begins, end)
    rules = [program for program in programs if program is not None]
    if rules:
        signals = run_programs(
            rules,
            columns={key: column[:end] for key, column in inputs.columns.items()},
            eligible=inputs.eligible[:end],
            rows=inputs.due[:end],
            begins=begins,
        )
    else:
        signals = _signals_by_decide_all(inputs, [candidate.strategy for candidate in candidates], begins, end)
    here = slice(place, place + len(candidates))
    accounts = Accounts(
        rules=np.concatenate([candidate.rules for candidate in candidates]),
        limits=np.concatenate([candidate.limits for candidate in candidates]),
        on_change=np.array([candidate.strategy.on_change for candidate in candidates]),
        starts=signals.starts,
        rows=signals.rows,
        targets=signals.targets,
    )
    runner = runners.get()
    try:
        runner.run_batch(accounts, result.outcomes[here], result.marks[here])
    finally:
        runners.put(runner)
    result.decisions[here] = end - begins


def _signals_by_decide_all(
    inputs: _Inputs, strategies: Sequence[VectorisedStrategy], begins: np.ndarray, end: int
) -> Signals:
    """Compute the signals of strategies by `decide_all`; decisions that change no target are left out."""
    rows, targets = [], []
    for strategy, begin in zip(strategies, begins.tolist(), strict=True):
        bars = inputs.due[begin:end]
        try:
            wanted = np.ascontiguousarray(strategy.decide_all(inputs.market, bars), np.float64)
        except StrategyError:
            raise
        except Exception as error:
            raise StrategyError(f"strategy {strategy.name}: decide_all: {type(error).__name__}: {error}") from error
        if wanted.shape != (len(bars), len(inputs.market.symbols)):
            raise StrategyError(
                f"strategy {strategy.name}: decide_all must return targets of shape ({len(bars)} decisions,"
                f" {len(inputs.market.symbols)} symbols), got {wanted.shape}"
            )
        changed = changed_rows(wanted, strategy.on_change)
        rows.append(bars[changed])
        targets.append(wanted[changed])
    starts = np.concatenate([[0], np.cumsum([len(each) for each in rows])]).astype(np.int64)
    return Signals(starts=starts, rows=np.concatenate(rows), targets=np.concatenate(targets))
