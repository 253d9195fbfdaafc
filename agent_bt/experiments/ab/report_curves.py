"""Growth of the account of every arm for the page: median, lowest and highest of the replicates, beside holding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import polars as pl

from agent_bt.core.errors import RecordError
from agent_bt.experiments.ab.pairs import Grid
from agent_bt.records.read import Run
from agent_bt.reports.html_curves import read_baselines
from agent_bt.reports.html_pack import Column, pack_columns, quantise

MAX_POINTS = 1_500
_DECIMALS = 6


def pack_bands(arms: Mapping[str, Grid], *, baseline: str) -> str:
    """Pack the columns `time`, `hold` if known, and for arm i `median<i>`, `low<i>`, `high<i>`: growth.

    Growth is equity / cash - 1, compounded from window to window, at the bars that all runs have in common: about
    `MAX_POINTS` of them, evenly taken. `low` and `high` are those of the replicates at that bar. `hold` is what buying
    and holding earned, as recorded by the baseline's first replicate.

    Args:
        arms: the runs of each arm, by replicate and window.
        baseline: name of the arm that the others are compared with.

    Raises:
        RecordError: the equity of a run cannot be read.
    """
    windows = len(next(iter(arms.values()))[0])
    curves = {run.path: _curve(run) for grid in arms.values() for replicate in grid for run in replicate}
    common = [
        reduce(np.intersect1d, [curves[replicate[w].path][0] for grid in arms.values() for replicate in grid])
        for w in range(windows)
    ]
    share = min(1.0, MAX_POINTS / max(1, sum(map(len, common))))
    times = [_thinned(each, share) for each in common]
    columns = [Column(name="time", codes=np.concatenate(times) // 1000, delta=True)]
    held = [_held(run) for run in arms[baseline][0]]
    if all(each is not None for each in held):
        columns.append(quantise("hold", _growth([each for each in held if each], times), _DECIMALS))
    for number, grid in enumerate(arms.values()):
        growth = np.stack([_growth([curves[run.path] for run in replicate], times) for replicate in grid])
        columns += [
            quantise(f"median{number}", np.median(growth, axis=0), _DECIMALS),
            quantise(f"low{number}", growth.min(axis=0), _DECIMALS),
            quantise(f"high{number}", growth.max(axis=0), _DECIMALS),
        ]
    return pack_columns(columns)


_Curve = tuple[np.ndarray, np.ndarray]
"""Close times (UTC us), and the account as a multiple of what it began with."""


def _curve(run: Run) -> _Curve:
    try:
        frame = pl.read_parquet(run.folder.equity, columns=["time", "equity"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RecordError(f"{run.folder.equity} cannot be read: {error}; the experiment is incomplete") from error
    return frame["time"].to_physical().to_numpy(), frame["equity"].to_numpy() / run.summary["about"]["initial_cash"]


def _held(run: Run) -> _Curve | None:
    frame = read_baselines(run.path)
    if frame is None or "buy_and_hold" not in frame.columns:
        return None
    cash = run.summary["about"]["initial_cash"]
    return frame["time"].to_physical().to_numpy(), frame["buy_and_hold"].to_numpy() / cash


def _thinned(times: np.ndarray, share: float) -> np.ndarray:
    """About this share of the times, first and last among them."""
    count = min(len(times), max(2, round(len(times) * share)))
    return times[np.linspace(0, len(times) - 1, count).round().astype(int)] if count else times


def _growth(windows: Sequence[_Curve], times: Sequence[np.ndarray]) -> np.ndarray:
    """Growth at the given times of each window, each going on from the end of the one before."""
    reached, parts = 1.0, []
    for (own, values), at in zip(windows, times, strict=True):
        parts.append(reached * values[np.searchsorted(own, at)] - 1.0)
        reached *= float(values[-1])
    return np.concatenate(parts)
