"""Builds the tables of a sweep: one row for each combination, and daily equity curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.canonical import canonical
from agent_bt.core.schema import TIME
from agent_bt.evaluation.metrics import sharpe_ratio
from agent_bt.evaluation.performance import Performance
from agent_bt.experiments.sweep.measures import plain


def results_frame(
    combinations: Sequence[Mapping[str, Any]], performances: Sequence[Performance], fills: Sequence[int]
) -> pl.DataFrame:
    """Return one row for each combination, in order: `index`, parameters by their path, measures, `fills`.

    Args:
        combinations: path -> value of each.
        performances: over the whole range.
        fills: number of fills.
    """
    frame: dict[str, Any] = {"index": np.arange(len(combinations))}
    for path in combinations[0]:
        frame[path] = _values([values[path] for values in combinations])
    rows = [plain(asdict(each)) for each in performances]
    frame |= {name: pl.Series(name, [row[name] for row in rows], strict=False) for name in rows[0]}
    frame["fills"] = list(fills)
    return pl.DataFrame(frame, strict=False)


def with_out_of_sample(
    frame: pl.DataFrame, returns: Sequence[np.ndarray], chosen: Sequence[int | None]
) -> pl.DataFrame:
    """Return the table with the out-of-sample results of each combination, and how often it was chosen.

    Args:
        frame: as returned by `results_frame`.
        returns: daily returns of all test periods one after another, for each combination.
        chosen: index of the combination chosen in each window, None where there was none.
    """
    return frame.with_columns(
        pl.Series("out_of_sample_return", [float(np.prod(1.0 + each)) - 1.0 for each in returns]),
        pl.Series("out_of_sample_sharpe", [sharpe_ratio(each) for each in returns], dtype=pl.Float64),
        pl.Series("times_chosen", [sum(one == at for one in chosen) for at in range(len(returns))]),
    )


def curves_frame(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pl.DataFrame:
    """Return daily curves one after another: `curve`, `time`, `equity`; each given as times (UTC us) and equity."""
    frames = [
        pl.DataFrame({"curve": [name] * len(times), "time": pl.Series(times).cast(TIME), "equity": equity})
        for name, (times, equity) in curves.items()
    ]
    return pl.concat(frames)


def _values(values: list[Any]) -> list[Any]:
    """Return the values of a parameter for a column: numbers, texts and booleans unchanged, others as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) == 1 and kinds <= {int, float, str, bool}:
        return values
    return [canonical(value).decode() for value in values]
