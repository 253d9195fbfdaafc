"""Parse feature names: columns such as "sma_50" or "macd_hist_12_26_9" name their kind and periods."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from agent_bt.core.errors import StrategyError
from agent_bt.core.suggest import nearest
from agent_bt.core.types import FeatureSpec
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.features.specs import KINDS, resolve

ALIASES = {"momentum": "return", "bollinger_mid": "sma"}
"""Alternative names of kinds in column names."""


@lru_cache(maxsize=4096)
def spec_of(column: str) -> FeatureSpec | None:
    """Return the feature of a column name, which is kind and periods joined by underscores; None for a bar column.

    "sma_50" is the `sma` of period 50, "bollinger_upper_20_2" the `bollinger_upper` of period 20 and 2 deviations. The
    column of the spec is the name as written.

    Raises:
        StrategyError: the kind is unknown, or its periods are not those of the kind.
    """
    if column in BAR_COLUMNS:
        return None
    parts = column.split("_")
    numbers: list[int] = []
    while len(parts) > 1 and parts[-1].isascii() and parts[-1].isdecimal():
        numbers.insert(0, int(parts.pop()))
    written = "_".join(parts)
    name = ALIASES.get(written, written)
    if name not in KINDS:
        raise StrategyError(_unknown(column, written, numbers))
    params = KINDS[name].params
    if len(numbers) != len(params):
        raise StrategyError(
            f"column {column!r}: {written} takes {_count(len(params))} ({', '.join(params)}), got {len(numbers)};"
            f" write it as {form(written)}"
        )
    spec = FeatureSpec(column=column, kind=name, params=tuple(zip(params, numbers, strict=True)))
    resolve(spec)
    return spec


def specs_of(columns: Iterable[str]) -> tuple[FeatureSpec, ...]:
    """Return the features of column names, in order of first mention, without duplicates and bar columns.

    Raises:
        StrategyError: as for `spec_of`.
    """
    specs = (spec_of(column) for column in dict.fromkeys(columns))
    return tuple(spec for spec in specs if spec is not None)


def form(kind: str) -> str:
    """Return the form of the column names of a kind (or of an alias): "macd_<fast>_<slow>_<signal>"."""
    return "_".join([kind, *(f"<{name}>" for name in KINDS[ALIASES.get(kind, kind)].params)])


def _count(numbers: int) -> str:
    return "one number" if numbers == 1 else f"{numbers} numbers"


def _unknown(column: str, written: str, numbers: list[int]) -> str:
    kinds = [*KINDS, *ALIASES]
    near = nearest(written, kinds)
    if near:
        suited = len(numbers) == len(KINDS[ALIASES.get(near, near)].params)
        guess = "_".join([near, *map(str, numbers)]) if suited else form(near)
    else:
        guess = nearest(column, BAR_COLUMNS) or ""
    hint = f"; did you mean {guess}?" if guess else "."
    return (
        f"no column {column!r}{hint} Bars have {', '.join(BAR_COLUMNS)};"
        f" features are written {', '.join(form(kind) for kind in sorted(kinds))}"
    )
