"""Compute feature columns over a whole market, once; prompt and engine read rows of the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from agent_bt.core.errors import StrategyError
from agent_bt.core.types import FeatureSpec
from agent_bt.features.specs import Columns, resolve


def compute(bars: Columns, specs: Sequence[FeatureSpec]) -> np.ndarray:
    """Compute the columns of `specs`, in their order.

    Args:
        bars: T bars by column name, oldest first.
        specs: the features to compute.

    Returns:
        float64 (T, len(specs)), NaN where undefined. Row t depends on the bars up to and including t only.

    Raises:
        StrategyError: a kind is unknown, its periods are not those of the kind, or its computation failed.
    """
    # Columns are written and later read one by one: Fortran order keeps each contiguous.
    table = np.empty((len(bars["close"]), len(specs)), order="F")
    for at, column in enumerate(columns(bars, specs)):
        table[:, at] = column
    return table


def columns(bars: Columns, specs: Sequence[FeatureSpec]) -> Iterator[np.ndarray]:
    """Yield the columns of `compute` one after another, without a table that holds them all.

    Args:
        bars: T bars by column name, oldest first.
        specs: the features to compute.

    Yields:
        float64 (T,) for each of `specs`, NaN where undefined.

    Raises:
        StrategyError: as for `compute`.
    """
    resolved = [resolve(spec) for spec in specs]
    names = {name for kind, _ in resolved for name in kind.inputs}
    arrays = {name: np.ascontiguousarray(bars[name], dtype=np.float64) for name in names}
    for spec, (kind, periods) in zip(specs, resolved, strict=True):
        try:
            column = np.asarray(kind.compute(*(arrays[name] for name in kind.inputs), *periods), np.float64)
            if column.shape != (len(bars["close"]),):
                raise ValueError(
                    f"the array must have one value per bar, shape ({len(bars['close'])},), got {column.shape}"
                )
        except Exception as error:
            raise StrategyError(f"feature {spec.column!r}: {kind.name} of {periods} failed: {error}") from error
        yield column
