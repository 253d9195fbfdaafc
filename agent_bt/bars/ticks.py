"""Read ticks from frames and files, and refuse or repair what cannot be one.

A tick is a trade: when, at which price, how much, and whether the buyer was the maker (then the taker sold).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from agent_bt.core.clock import iso
from agent_bt.core.errors import DataError, UsageError

Repair = Literal["sort", "drop_duplicates", "drop_invalid"]
REPAIRS: tuple[Repair, ...] = ("sort", "drop_duplicates", "drop_invalid")

TIME_COLUMNS = ("timestamp", "transact_time", "time")
ID_COLUMNS = ("agg_trade_id", "trade_id", "id")
_QUANTITY_COLUMNS = ("quantity", "qty", "size")
_HEADERLESS = {
    7: ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker"),
    8: ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker", "b"),
    6: ("trade_id", "price", "quantity", "quote_quantity", "transact_time", "is_buyer_maker"),
}  # fmt: skip
"""Columns of Binance's archives without a header: aggTrades of futures (7) and spot (8), trades (6)."""

_MILLISECONDS, _MICROSECONDS, _NANOSECONDS = 10**11, 10**14, 10**17
"""Times from each of these on are of that unit; the first is March 1973, the others as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Ticks as arrays of one length T.

    Attributes:
        times: int64, UTC us, ascending.
        prices: float64, quote units, > 0.
        quantities: float64, base units, > 0.
        makers: bool, True where the buyer was the maker.
        repaired: what was repaired -> number of ticks.
    """

    times: np.ndarray
    prices: np.ndarray
    quantities: np.ndarray
    makers: np.ndarray
    repaired: dict[str, int]

    def __len__(self) -> int:
        return len(self.times)


def read_ticks(data: Any, repair: Sequence[Repair] = (), *, after: int | None = None) -> Ticks:
    """Read one chunk of ticks.

    Args:
        data: a Polars, pandas or Arrow table with columns `timestamp` or `transact_time` (s, ms, us or ns since 1970,
            told from the size of the number; or a date type), `price`, `quantity`, `is_buyer_maker`; optionally
            `agg_trade_id` or `trade_id`, by which duplicates are recognised.
        repair: what may be mended: `sort` by time, `drop_duplicates` (the same id again), `drop_invalid` (a price or
            quantity that is missing, not finite, zero or negative, a missing time). Default: nothing is mended.
        after: the time of the tick before this chunk, UTC us.

    Raises:
        UsageError: the data are not a table, or `repair` names something else.
        DataError: a column is missing, or a tick is invalid, out of order or there twice and may not be mended; the
            message names the first row and the repair.
    """
    unknown = sorted(set(repair) - set(REPAIRS))
    if unknown:
        raise UsageError(f"repair must be some of {', '.join(REPAIRS)}, got {unknown[0]!r}")
    frame = to_frame(data)
    repaired: dict[str, int] = {}
    frame = _normalise(frame)
    valid = (
        pl.col("time").is_not_null()
        & pl.col("maker").is_not_null()
        & pl.all_horizontal(
            pl.col(name).is_finite() & (pl.col(name) > 0.0) for name in ("price", "quantity")
        ).fill_null(value=False)
    )
    frame = _mend(
        frame, valid, "drop_invalid", repair, repaired, "has no valid time, price, quantity or is_buyer_maker"
    )
    if "id" in frame.columns:
        frame = _mend(frame, pl.col("id").is_first_distinct(), "drop_duplicates", repair, repaired, "is there twice")
    times = frame["time"].to_numpy()
    disorder = np.flatnonzero(times[1:] < times[:-1])
    if len(disorder):
        if "sort" not in repair:
            row = int(disorder[0]) + 1
            raise DataError(
                f"tick {row} at {iso(int(times[row]))} is earlier than the one before; "
                "pass repair=['sort'] to sort them"
            )
        repaired["sort"] = len(disorder)
        frame = frame.sort("time", maintain_order=True)
        times = frame["time"].to_numpy()
    if after is not None and len(times) and int(times[0]) < after:
        raise DataError(
            f"a chunk begins at {iso(int(times[0]))}, before the end of the one before it ({iso(after)}); "
            "give chunks and files in the order of time"
        )
    return Ticks(
        times=np.ascontiguousarray(times),
        prices=np.ascontiguousarray(frame["price"].to_numpy()),
        quantities=np.ascontiguousarray(frame["quantity"].to_numpy()),
        makers=np.ascontiguousarray(frame["maker"].to_numpy()),
        repaired=repaired,
    )


def read_chunks(data: Any, chunk_size: int | None = None) -> Iterator[pl.DataFrame]:
    """Yield tables of ticks of frames, of a file, or of a list of files in order.

    Args:
        data: a table (see `read_ticks`), a path of a `.parquet`, `.csv`, `.csv.gz` or `.zip` file, or a list of paths.
        chunk_size: most rows of one table; None: a table at a time, as it comes.

    Raises:
        UsageError: the data are something else.
        DataError: a file is missing or cannot be read.
    """
    for frame in _frames(data, chunk_size):
        if chunk_size is None or len(frame) <= chunk_size:
            yield frame
        else:
            yield from frame.iter_slices(chunk_size)


def _frames(data: Any, chunk_size: int | None) -> Iterator[pl.DataFrame]:
    if isinstance(data, str | Path):
        yield from _read_file(Path(data), chunk_size)
    elif isinstance(data, Iterable) and not hasattr(data, "columns") and not hasattr(data, "collect_schema"):
        for each in data:
            yield from _frames(each, chunk_size)
    else:
        yield to_frame(data)


def _read_file(path: Path, chunk_size: int | None) -> Iterator[pl.DataFrame]:
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"{path} is not a file; give the path of a .parquet, .csv, .csv.gz or .zip file with ticks")
    try:
        if name.endswith(".parquet"):
            if chunk_size is None:
                yield pl.read_parquet(path, glob=False)
                return
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=chunk_size):
                    yield to_frame(batch)
        elif name.endswith((".csv", ".csv.gz")):
            yield _read_csv(path.read_bytes(), path)
        elif name.endswith(".zip"):
            import zipfile

            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield _read_csv(archive.read(member), path)
        else:
            raise DataError(f"{path} is of no known kind; ticks are read from .parquet, .csv, .csv.gz and .zip files")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error


def _read_csv(text: bytes, path: Path) -> pl.DataFrame:
    first = pl.read_csv(text, has_header=False, n_rows=1, infer_schema=False)
    if all(value is not None and value[:1].isdigit() for value in first.row(0)[:2]):
        names = _HEADERLESS.get(first.width)
        if names is None:
            raise DataError(f"{path} has no header and {first.width} columns; name them in its first line")
        return pl.read_csv(text, has_header=False, new_columns=list(names), infer_schema_length=10_000)
    return pl.read_csv(text, infer_schema_length=10_000)


def to_frame(data: Any) -> pl.DataFrame:
    """Return a Polars table of a Polars, pandas or Arrow one.

    Raises:
        UsageError: the data are not a table.
    """
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if (
        hasattr(data, "__dataframe__")
        or hasattr(data, "to_pandas")
        or type(data).__module__.startswith(("pandas", "pyarrow"))
    ):
        try:
            frame = pl.DataFrame(data) if type(data).__module__.startswith("pandas") else pl.from_arrow(data)
        except (TypeError, ValueError, ImportError, pl.exceptions.PolarsError) as error:
            raise UsageError(f"ticks must be a table of columns, got {type(data).__name__} ({error})") from error
        if isinstance(frame, pl.DataFrame):
            return frame
    raise UsageError(f"ticks must be a table, a path or a list of paths, got {type(data).__name__}")


def _normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """Return columns time (us), price, quantity, maker, and id where there is one."""
    time = _column(frame, TIME_COLUMNS, "time")
    quantity = _column(frame, _QUANTITY_COLUMNS, "quantity")
    for name in ("price", "is_buyer_maker"):
        _column(frame, (name,), name)
    if "symbol" in frame.columns and frame["symbol"].n_unique() > 1:
        raise DataError("the ticks are of several symbols; aggregate one symbol at a time")
    identity = next((name for name in ID_COLUMNS if name in frame.columns), None)
    try:
        return frame.select(
            _microseconds(frame[time]).alias("time"),
            pl.col("price").cast(pl.Float64),
            pl.col(quantity).cast(pl.Float64).alias("quantity"),
            _maker(frame["is_buyer_maker"]).alias("maker"),
            *([pl.col(identity).alias("id")] if identity else ()),
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the ticks have a column of another type: {str(error).splitlines()[0]}") from error


def _column(frame: pl.DataFrame, names: Sequence[str], what: str) -> str:
    for name in names:
        if name in frame.columns:
            return name
    raise DataError(f"the ticks have no column for {what} ({' or '.join(names)}); they have {', '.join(frame.columns)}")


def _microseconds(times: pl.Series) -> pl.Series:
    """Return int64 microseconds since 1970; whole or fractional numbers of any unit, told by their size."""
    if times.dtype.is_temporal():
        return times.cast(pl.Datetime("us")).to_physical()
    number = pl.col("t")
    if times.dtype.is_float():
        us = (number * 1e6).round()
        scaled = (
            pl.when(number >= _NANOSECONDS).then(number / 1e3)
            .when(number >= _MICROSECONDS).then(number)
            .when(number >= _MILLISECONDS).then(number * 1e3)
            .otherwise(us)
        )  # fmt: skip
        return times.to_frame("t").select(scaled.round().cast(pl.Int64)).to_series()
    whole = times.cast(pl.Int64).to_frame("t")
    scaled = (
        pl.when(number >= _NANOSECONDS).then(number // 1_000)
        .when(number >= _MICROSECONDS).then(number)
        .when(number >= _MILLISECONDS).then(number * 1_000)
        .otherwise(number * 1_000_000)
    )  # fmt: skip
    return whole.select(scaled).to_series()


def _maker(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    if values.dtype == pl.String:
        lowered = values.str.to_lowercase()
        return pl.select(
            pl.when(lowered.is_in(["true", "1"])).then(True).when(lowered.is_in(["false", "0"])).then(False)
        ).to_series()
    return values.cast(pl.Int64).replace_strict({0: False, 1: True}, default=None, return_dtype=pl.Boolean)


def _mend(
    frame: pl.DataFrame,
    good: pl.Expr,
    how: Repair,
    repair: Sequence[Repair],
    repaired: dict[str, int],
    words: str,
) -> pl.DataFrame:
    """Return the rows that are good; refuse the others unless this repair was declared."""
    kept = frame.select(good).to_series()
    if kept.all():
        return frame
    if how not in repair:
        row = int(kept.arg_min() or 0)
        raise DataError(
            f"tick {row} {words}: {frame.row(row, named=True)}; pass repair=[{how!r}] to leave such ticks out"
        )
    repaired[how] = int((~kept).sum())
    return frame.filter(kept)
