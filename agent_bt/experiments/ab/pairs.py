"""The decisions of two runs beside each other: which were made at the same time, and what a silent run held to then.

A strategy whose targets are known beforehand records only the decisions that say something new; where it is silent, it
decided to hold, and its targets stand as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.targets import standing_targets
from agent_bt.evaluation.stats import decisions as compared
from agent_bt.records.read import Run

Grid = Sequence[Sequence[Run]]
"""The runs of an arm: one row a replicate, one column a window."""


def multi_symbol(run: Run) -> bool:
    """Whether a run held several symbols in one account."""
    identity = run.manifest["identity"]
    return identity.get("mode") == "cross_sectional" or bool(identity["market"].get("symbols"))


def silent_count(run: Run) -> int:
    """Decisions that a run made without recording them, because they said nothing new."""
    return int(run.summary["decisions"].get("silent", 0))


def made(run: Run) -> int:
    """All decisions of a run, the silent ones included."""
    return int(run.summary["decisions"]["total"]) + silent_count(run)


def at_once(one: Run, other: Run, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The times at which both decided and at least one recorded it; int64, ascending.

    `first`, `second`: the recorded times of each, int64, ascending, UTC us.
    """
    union = np.union1d(first, second)
    paired: np.ndarray = union[decided(one, first, union) & decided(other, second, union)]
    return paired


def alike_in_silence(one: Run, other: Run, paired: int) -> int:
    """At how many more times both decided to hold, and neither recorded it."""
    if not (silent_count(one) and silent_count(other)):
        return 0
    return max(0, min(made(one), made(other)) - paired)


def pairs_of(baseline: Grid, arm: Grid) -> list[tuple[Run, Run]]:
    """The runs of the same replicate and window."""
    rows = zip(baseline, arm, strict=True)
    return [(one, other) for first, second in rows for one, other in zip(first, second, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The target shares that stood after each recorded decision: times int64 (D,), UTC us; shares float64 (D, N)."""

    times: np.ndarray
    symbols: tuple[str, ...]
    shares: np.ndarray

    def at(self, times: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """Those that stood at `times`, in the order of `symbols`; float64, 0 before the first and for a stranger."""
        table = np.vstack([np.zeros((1, len(self.symbols))), self.shares])
        standing = table[np.searchsorted(self.times, times, side="right")]
        places = {symbol: at for at, symbol in enumerate(self.symbols)}
        wanted = np.zeros((len(times), len(symbols)))
        for at, symbol in enumerate(symbols):
            if symbol in places:
                wanted[:, at] = standing[:, places[symbol]]
        return wanted


def read_targets(run: Run) -> Targets:
    """The standing targets of a run over many symbols; what a decision leaves alone stays as it was."""
    frame = pl.scan_parquet(run.folder.decisions).select("time", "targets").collect()
    given = (
        frame.with_row_index("row").select("row", "targets").explode("targets").drop_nulls("targets").unnest("targets")
    )
    symbols = tuple(sorted(given["symbol"].unique().to_list()))
    places = {symbol: at for at, symbol in enumerate(symbols)}
    shares = np.full((len(frame), len(symbols)), np.nan)
    shares[given["row"].to_numpy(), [places[symbol] for symbol in given["symbol"]]] = given["share"].to_numpy()
    return Targets(
        times=frame["time"].to_physical().to_numpy(),
        symbols=symbols,
        shares=standing_targets(shares, len(shares) + 1),
    )


def whole_percent(shares: np.ndarray) -> np.ndarray:
    """Shares in whole per cent, by which weights are called the same: a third is 0.3333 to one and 0.33 to another."""
    whole: np.ndarray = np.rint(100.0 * shares) + 0.0
    return whole


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much of two portfolios is the same, in [0, 1]; float64 (D,) of two float64 (D, N).

    The weight that both hold of the same symbol on the same side, as a share of the larger one's gross weight; 1
    where both hold nothing.
    """
    common = np.where(first * second > 0.0, np.minimum(np.abs(first), np.abs(second)), 0.0).sum(axis=1)
    gross = np.maximum(np.abs(first).sum(axis=1), np.abs(second).sum(axis=1))
    shared: np.ndarray = np.divide(common, gross, out=np.ones(len(common)), where=gross > 0.0)
    return shared


def compare_targets(baseline: Grid, arm: Grid, *, alpha: float) -> dict[str, Any]:
    """How far two arms over many symbols want the same: at equal times, the shares that stood after the decision."""
    equal = unpaired = 0
    shared: list[np.ndarray] = []
    for one, other in pairs_of(baseline, arm):
        mine, theirs = read_targets(one), read_targets(other)
        times = at_once(one, other, mine.times, theirs.times)
        unpaired += made(one) + made(other) - 2 * (len(times) + alike_in_silence(one, other, len(times)))
        symbols = sorted({*mine.symbols, *theirs.symbols})
        first, second = mine.at(times, symbols), theirs.at(times, symbols)
        equal += int((whole_percent(first) == whole_percent(second)).all(axis=1).sum())
        shared.append(overlap(first, second))
    common = np.concatenate(shared)
    return {
        "kind": "targets",
        "paired": len(common),
        "unpaired": unpaired,
        "equal": asdict(compared.wilson_rate(equal, len(common), alpha=alpha)) if len(common) else None,
        "overlap": float(common.mean()) if len(common) else None,
        "baseline": _habits(baseline),
        "arm": _habits(arm),
    }


def _habits(grid: Grid) -> Mapping[str, float | None]:
    """Symbols wanted, their gross weight, and one-way turnover a decision as a share of equity; means over all runs."""
    runs = [run for replicate in grid for run in replicate]
    shares = [read_targets(run).shares for run in runs]
    count = sum(map(len, shares))
    turnovers = [_turnover(run) for run in runs]
    return {
        "positions": sum(float((whole_percent(each) != 0.0).sum()) for each in shares) / count if count else None,
        "gross": sum(float(np.abs(each).sum()) for each in shares) / count if count else None,
        "turnover": float(np.mean(turnovers)),
    }


def _turnover(run: Run) -> float:
    """One-way turnover of a decision: half of what was traded, over the mean equity and all decisions."""
    fills = pl.scan_parquet(run.folder.fills).select((pl.col("quantity") * pl.col("price")).abs().sum()).collect()
    traded, equity = float(fills.item() or 0.0), float(np.mean(run.equity["equity"].to_numpy()))
    decisions = made(run)
    return traded / 2.0 / equity / decisions if decisions and equity > 0.0 else 0.0


def decided(run: Run, recorded: np.ndarray, times: np.ndarray) -> np.ndarray:
    """At which of `times` a run decided, the silent decisions included; bool. `recorded`: times of the others."""
    if not silent_count(run) or not len(recorded):
        return np.isin(times, recorded)
    end = int(run.equity["time"].to_physical()[-1])
    inside: np.ndarray = (times >= recorded[0]) & (times <= end)
    return inside
