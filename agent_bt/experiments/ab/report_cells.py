"""The decisions of all runs of an experiment beside each other, for the page: a packed matrix, and full records.

Rows are decision times, columns are arms x replicates; a run that did not decide at a time leaves its cell empty, one
that decided and had nothing new to say holds. The index holds the actions of all cells, and over many symbols which of
them want the same weights. A chunk holds the prompts, replies and accounts of `CHUNK` rows, each distinct
text once: replicates mostly see the same prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl

from agent_bt.core.errors import RecordError
from agent_bt.experiments.ab.pairs import decided_at, multi_symbol, read_targets, whole_percent
from agent_bt.records.direction import buys, direction_column, sells
from agent_bt.records.read import Run
from agent_bt.reports.html_decisions import SIDES, SOURCES
from agent_bt.reports.html_pack import Column, decimals_of, deflated, pack_columns, quantise

CHUNK = 32
_ROWS_AT_ONCE = 8 * CHUNK
_MISSING = -1

_CALL = pl.col("telemetry").struct
_EXCHANGE = ("messages", "reply", "finish_reason", "refusal", "failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One column of the matrix: the runs of an arm's replicate, window by window."""

    arm: str
    replicate: int
    runs: Sequence[Run]


class Cells:
    """Reads the decisions of every lane, a part at a time, in memory that does not grow with the runs."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self._frames = [[_read_index(run) for run in lane.runs] for lane in lanes]
        windows = range(len(lanes[0].runs)) if lanes else ()
        times = [_union([_times(frames[window]) for frames in self._frames]) for window in windows]
        self.times = np.concatenate(times) if times else np.empty(0, np.int64)
        self.windows = np.repeat(np.arange(len(times)), [len(each) for each in times])
        # Row of each lane's run at every time of the matrix; a time belongs to one window alone.
        self.by_targets = bool(lanes) and multi_symbol(lanes[0].runs[0])
        self._decided = [
            np.concatenate(
                [decided_at(run, _times(frame), at) for run, frame, at in zip(lane.runs, frames, times, strict=True)]
            )
            for lane, frames in zip(lanes, self._frames, strict=True)
        ]
        self._rows = [
            np.concatenate([_rows_at(frame, at) for frame, at in zip(frames, times, strict=True)])
            for frames in self._frames
        ]

    @property
    def count(self) -> int:
        """Rows of the matrix."""
        return len(self.times)

    def index(self) -> str:
        """Pack the columns `time`, `window`, `price`, and for lane i `cell<i>` and `size<i>`.

        A cell is side + 4 * source + 16 * (an order came of it), positions in `SIDES` and `SOURCES`.
        """
        columns = [
            Column(name="time", codes=self.times // 1000, delta=True),
            Column(name="window", codes=self.windows),
        ]
        prices = np.full(self.count, np.nan)
        cells = []
        for lane, (frames, rows) in enumerate(zip(self._frames, self._rows, strict=True)):
            there = rows != _MISSING
            frame = pl.concat(frames)
            offsets = np.cumsum([0, *(len(each) for each in frames)])[self.windows][there]
            at = rows[there] + offsets
            code = np.zeros(self.count, np.int64)
            size = np.full(self.count, np.nan)
            code[there] = frame["code"].to_numpy()[at]
            size[there] = frame["size"].to_numpy()[at]
            prices[there] = frame["price"].to_numpy()[at]
            cells.append(Column(name=f"cell{lane}", codes=code, missing=~self._decided[lane]))
            cells.append(quantise(f"size{lane}", size, 4))
        if self.by_targets:
            cells += self._wanted()
        return pack_columns([*columns, quantise("price", prices, decimals_of(prices)), *cells])

    def _wanted(self) -> list[Column]:
        """For lane i `group<i>`, equal where the weights wanted are the same, and `held<i>`, of how many symbols."""
        wanted = [[read_targets(run) for run in lane.runs] for lane in self.lanes]
        symbols = sorted({symbol for runs in wanted for each in runs for symbol in each.symbols})
        weights = np.zeros((len(wanted), self.count, len(symbols)))
        for lane, runs in enumerate(wanted):
            for window, targets in enumerate(runs):
                inside = self.windows == window
                weights[lane, inside] = whole_percent(targets.at(self.times[inside], symbols))
        groups = np.unique(weights.reshape(-1, len(symbols)), axis=0, return_inverse=True)[1]
        groups = groups.reshape(len(wanted), self.count)
        held = (weights != 0.0).sum(axis=2)
        return [
            Column(name=f"{name}{lane}", codes=codes[lane].astype(np.int64))
            for lane in range(len(wanted))
            for name, codes in (("group", groups), ("held", held))
        ]

    def chunks(self) -> Iterator[str]:
        """Pack `CHUNK` rows of JSON each: `texts`, and `rows` of cells that refer to them; null if none."""
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, self.count, _ROWS_AT_ONCE):
                yield from pool.map(deflated, self._parts(start, min(start + _ROWS_AT_ONCE, self.count)))

    def _parts(self, start: int, end: int) -> list[bytes]:
        records = [self._records(lane, start, end) for lane in range(len(self.lanes))]
        parts = []
        for first in range(0, end - start, CHUNK):
            texts: dict[str, int] = {}
            rows = [
                [record and _refer(record, texts) for record in (cells[row] for cells in records)]
                for row in range(first, min(first + CHUNK, end - start))
            ]
            parts.append(orjson.dumps({"texts": list(texts), "rows": rows}))
        return parts

    def _records(self, lane: int, start: int, end: int) -> list[dict[str, Any] | None]:
        """The full records of a lane at rows [start, end) of the matrix."""
        found: list[dict[str, Any] | None] = [None] * (end - start)
        for window in np.unique(self.windows[start:end]).tolist():
            inside = np.flatnonzero((self.windows[start:end] == window) & (self._rows[lane][start:end] != _MISSING))
            if not len(inside):
                continue
            rows = self._rows[lane][start:end][inside]
            table = pl.scan_parquet(self.lanes[lane].runs[window].folder.decisions)
            records = table.slice(int(rows[0]), int(rows[-1] - rows[0]) + 1).select(_detail_columns()).collect()
            for at, record in zip(inside.tolist(), records.to_dicts(), strict=True):
                found[at] = record
        return found


def _read_index(run: Run) -> pl.DataFrame:
    """Time, code, size and price of every decision of a run."""
    try:
        return (
            pl.scan_parquet(run.folder.decisions)
            .select(
                "time",
                pl.col("size").cast(pl.Float64).fill_null(float("nan")),
                price=pl.col("prices").list.first().struct.field("price").cast(pl.Float64).fill_null(float("nan")),
                code=_code(direction_column(), SIDES)
                + 4 * _code(pl.col("provenance"), SOURCES)
                + 16 * (buys() | sells()).cast(pl.Int64),
            )
            .collect()
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RecordError(f"{run.folder.decisions} cannot be read: {error}; the experiment is incomplete") from error


def _code(values: pl.Expr, names: Sequence[str]) -> pl.Expr:
    return values.replace_strict(names, range(len(names)), default=0, return_dtype=pl.Int64)


def _detail_columns() -> list[pl.Expr]:
    held = pl.col("positions").list.first().struct
    return [
        pl.struct(*_EXCHANGE).alias("first"),
        pl.col("others").list.eval(pl.struct(pl.element().struct.field(name) for name in _EXCHANGE)),
        pl.col("action"),
        pl.col("note"),
        pl.col("targets"),
        pl.col("reason"),
        pl.col("repaired"),
        pl.col("risk_cuts"),
        pl.col("account").struct.field("equity"),
        held.field("quantity"),
        pl.coalesce(_CALL.field("error"), _CALL.field("detail")).alias("detail"),
        _CALL.field("latency_ms"),
        _CALL.field("cached"),
        _CALL.field("cost_usd"),
        _CALL.field("prompt_tokens"),
        _CALL.field("completion_tokens"),
    ]


def _refer(record: Mapping[str, Any], texts: dict[str, int]) -> dict[str, Any]:
    """A record as the page wants it: what is empty left out, messages as positions in `texts`."""
    exchanges = [_exchange(each, texts) for each in (record["first"], *record["others"])]
    rest = {
        key: value for key, value in record.items() if key not in ("first", "others") and value not in (None, "", [])
    }
    return {**rest, "exchanges": [each for each in exchanges if each]}


def _exchange(exchange: Mapping[str, Any], texts: dict[str, int]) -> dict[str, Any]:
    messages = [
        [message["role"], texts.setdefault(message["content"], len(texts))] for message in exchange["messages"] or ()
    ]
    rest = {key: exchange[key] for key in _EXCHANGE[1:] if exchange[key] is not None}
    return {"messages": messages, **rest} if messages or rest else {}


def _union(times: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(times))


def _times(frame: pl.DataFrame) -> np.ndarray:
    times: np.ndarray = frame["time"].to_physical().to_numpy()
    return times


def _rows_at(frame: pl.DataFrame, times: np.ndarray) -> np.ndarray:
    """Row of the run's decision at each of `times`, `_MISSING` where there is none."""
    own = _times(frame)
    rows = np.searchsorted(own, times)
    there = (
        (rows < len(own)) & (own[np.minimum(rows, len(own) - 1)] == times) if len(own) else np.zeros(len(times), bool)
    )
    return np.where(there, rows, _MISSING)
