"""Pairs the decisions of two runs in time, and compares the target weights of multi-symbol runs.

A strategy that computes all its targets in one call records only the decisions that change them. A decision that is
not recorded is HOLD, and the targets stay as they were.
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
    """Return whether a run trades several symbols in one account."""
    identity = run.manifest["identity"]
    return identity.get("mode") == "cross_sectional" or bool(identity["market"].get("symbols"))


def unchanged_count(run: Run) -> int:
    """Return how many decisions a run made without recording them, because its targets were unchanged."""
    return int(run.summary["decisions"].get("silent", 0))


def decision_count(run: Run) -> int:
    """Return the number of all decisions of a run, unchanged ones included."""
    return int(run.summary["decisions"]["total"]) + unchanged_count(run)


def common_times(one: Run, other: Run, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the times at which both runs decided and at least one recorded it; int64, ascending, UTC us.

    Args:
        one: the first run.
        other: the second run.
        first: recorded decision times of `one`, int64, ascending, UTC us.
        second: recorded decision times of `other`, in the same form.
    """
    union = np.union1d(first, second)
    paired: np.ndarray = union[decided_at(one, first, union) & decided_at(other, second, union)]
    return paired


def count_unrecorded_pairs(one: Run, other: Run, paired: int) -> int:
    """Return at how many more times both runs decided to hold and neither recorded it.

    Args:
        one: the first run.
        other: the second run.
        paired: number of their `common_times`.
    """
    if not (unchanged_count(one) and unchanged_count(other)):
        return 0
    return max(0, min(decision_count(one), decision_count(other)) - paired)


def pairs_of(baseline: Grid, arm: Grid) -> list[tuple[Run, Run]]:
    """Return the pairs of runs (baseline, arm) of the same replicate and window.

    Args:
        baseline: its runs, by replicate and window.
        arm: the other arm's runs, as many.
    """
    rows = zip(baseline, arm, strict=True)
    return [(one, other) for first, second in rows for one, other in zip(first, second, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The target weights in effect after each recorded decision.

    Attributes:
        times: decision times, int64 (D,), UTC us, ascending.
        symbols: N names.
        weights: signed fraction of equity, float64 (D, N).
    """

    times: np.ndarray
    symbols: tuple[str, ...]
    weights: np.ndarray

    def at(self, times: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """Return the weights in effect at `times`; float64 (T, M), 0 before the first decision and for unknown symbols.

        Args:
            times: int64 (T,), UTC us.
            symbols: M names, the order of the columns.
        """
        table = np.vstack([np.zeros((1, len(self.symbols))), self.weights])
        standing = table[np.searchsorted(self.times, times, side="right")]
        places = {symbol: at for at, symbol in enumerate(self.symbols)}
        wanted = np.zeros((len(times), len(symbols)))
        for at, symbol in enumerate(symbols):
            if symbol in places:
                wanted[:, at] = standing[:, places[symbol]]
        return wanted


def read_targets(run: Run) -> Targets:
    """Read the target weights of a multi-symbol run; a symbol that a decision does not name keeps its weight."""
    frame = pl.scan_parquet(run.folder.decisions).select("time", "targets").collect()
    given = (
        frame.with_row_index("row").select("row", "targets").explode("targets").drop_nulls("targets").unnest("targets")
    )
    symbols = tuple(sorted(given["symbol"].unique().to_list()))
    places = {symbol: at for at, symbol in enumerate(symbols)}
    weights = np.full((len(frame), len(symbols)), np.nan)
    weights[given["row"].to_numpy(), [places[symbol] for symbol in given["symbol"]]] = given["share"].to_numpy()
    return Targets(
        times=frame["time"].to_physical().to_numpy(),
        symbols=symbols,
        weights=standing_targets(weights, len(weights) + 1),
    )


def whole_percent(weights: np.ndarray) -> np.ndarray:
    """Round weights to whole per cent, at which two weights count as equal: 0.3333 and 0.33 are both a third."""
    whole: np.ndarray = np.rint(100.0 * weights) + 0.0
    return whole


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the overlap of two portfolios, in [0, 1]; float64 (D,).

    The overlap is the weight that both hold of the same symbol on the same side, divided by the larger gross weight; 1
    where both hold nothing.

    Args:
        first: weights of one portfolio, signed fractions of equity, float64 (D, N): decisions, symbols.
        second: weights of the other portfolio, in the same shape.
    """
    common = np.where(first * second > 0.0, np.minimum(np.abs(first), np.abs(second)), 0.0).sum(axis=1)
    gross = np.maximum(np.abs(first).sum(axis=1), np.abs(second).sum(axis=1))
    shared: np.ndarray = np.divide(common, gross, out=np.ones(len(common)), where=gross > 0.0)
    return shared


def compare_targets(baseline: Grid, arm: Grid, *, alpha: float) -> dict[str, Any]:
    """Compare the target weights of two multi-symbol arms after the decisions that they made at the same time.

    Args:
        baseline: runs of the baseline, by replicate and window.
        arm: runs of the other arm, as many.
        alpha: 1 - confidence of the limits, in (0, 1).
    """
    equal = unpaired = 0
    shared: list[np.ndarray] = []
    for one, other in pairs_of(baseline, arm):
        mine, theirs = read_targets(one), read_targets(other)
        times = common_times(one, other, mine.times, theirs.times)
        unpaired += (
            decision_count(one)
            + decision_count(other)
            - 2 * (len(times) + count_unrecorded_pairs(one, other, len(times)))
        )
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
        "baseline": _target_statistics(baseline),
        "arm": _target_statistics(arm),
    }


def _target_statistics(grid: Grid) -> Mapping[str, float | None]:
    """Return means over all runs: symbols with a target, gross weight, one-way turnover per decision over equity."""
    runs = [run for replicate in grid for run in replicate]
    weights = [read_targets(run).weights for run in runs]
    count = sum(map(len, weights))
    turnovers = [_turnover(run) for run in runs]
    return {
        "positions": sum(float((whole_percent(each) != 0.0).sum()) for each in weights) / count if count else None,
        "gross": sum(float(np.abs(each).sum()) for each in weights) / count if count else None,
        "turnover": float(np.mean(turnovers)),
    }


def _turnover(run: Run) -> float:
    """Return the one-way turnover per decision: half of the traded notional over mean equity and all decisions."""
    fills = pl.scan_parquet(run.folder.fills).select((pl.col("quantity") * pl.col("price")).abs().sum()).collect()
    traded, equity = float(fills.item() or 0.0), float(np.mean(run.equity["equity"].to_numpy()))
    decisions = decision_count(run)
    return traded / 2.0 / equity / decisions if decisions and equity > 0.0 else 0.0


def decided_at(run: Run, recorded: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return at which of `times` a run decided, unrecorded decisions included; bool (T,).

    Args:
        run: the run.
        recorded: its recorded decision times, int64, ascending, UTC us.
        times: int64 (T,), UTC us.
    """
    if not unchanged_count(run) or not len(recorded):
        return np.isin(times, recorded)
    end = int(run.equity["time"].to_physical()[-1])
    inside: np.ndarray = (times >= recorded[0]) & (times <= end)
    return inside
