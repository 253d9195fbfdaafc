"""Read ticks from tables and files, and reject or repair invalid ones.

A tick is a trade: its time, price, quantity, and whether the buyer was the maker (then the taker sold).
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
"""Smallest number that is read as a time of that unit; each stands for March 1973."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Ticks as arrays of one length T.

    Attributes:
        times: int64, UTC us, ascending.
        prices: float64, quote units, > 0.
        quantities: float64, base units, > 0.
        makers: bool, True where the buyer was the maker.
        repaired: kind of repair -> number of ticks.
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
            recognised by the magnitude of the number; or a date type), `price` (quote units), `quantity` (base units),
            `is_buyer_maker`; optionally `agg_trade_id` or `trade_id`, by which duplicates are recognised.
        repair: what may be repaired: `sort` by time, `drop_duplicates` (rows with the id of an earlier row),
            `drop_invalid` (a price or quantity that is missing, not finite, zero or negative, a missing time).
            Default: nothing is repaired.
        after: the time of the last tick before this chunk, UTC us; default: this is the first chunk.

    Raises:
        UsageError: `data` is not a table, or `repair` has an unknown value.
        DataError: a column is missing, or a tick is invalid, out of order or a duplicate and may not be repaired; the
            message names the first such row and the repair.
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
    frame = _repair(
        frame, valid, "drop_invalid", repair, repaired, "has no valid time, price, quantity or is_buyer_maker"
    )
    if "id" in frame.columns:
        first = pl.col("id").is_first_distinct()
        frame = _repair(frame, first, "drop_duplicates", repair, repaired, "is a duplicate")
    times = frame["time"].to_numpy()
    unsorted = np.flatnonzero(times[1:] < times[:-1])
    if len(unsorted):
        if "sort" not in repair:
            row = int(unsorted[0]) + 1
            raise DataError(
                f"tick {row} at {iso(int(times[row]))} is earlier than the tick before it; "
                "pass repair=['sort'] to sort them"
            )
        repaired["sort"] = len(unsorted)
        frame = frame.sort("time", maintain_order=True)
        times = frame["time"].to_numpy()
    if after is not None and len(times) and int(times[0]) < after:
        raise DataError(
            f"a chunk begins at {iso(int(times[0]))}, before the last tick of the previous chunk ({iso(after)}); "
            "pass chunks and files in chronological order"
        )
    return Ticks(
        times=np.ascontiguousarray(times),
        prices=np.ascontiguousarray(frame["price"].to_numpy()),
        quantities=np.ascontiguousarray(frame["quantity"].to_numpy()),
        makers=np.ascontiguousarray(frame["maker"].to_numpy()),
        repaired=repaired,
    )


def read_chunks(data: Any, chunk_size: int | None = None) -> Iterator[pl.DataFrame]:
    """Yield the ticks of tables or files, in order, as tables.

    Args:
        data: a table (see `read_ticks`), a path of a `.parquet`, `.csv`, `.csv.gz` or `.zip` file, or a list of these.
        chunk_size: maximum number of rows of a yielded table; None (default): each table and file as a whole.

    Raises:
        UsageError: the type of `data` is not supported.
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
            raise DataError(
                f"{path} has an unsupported file type; ticks are read from .parquet, .csv, .csv.gz and .zip files"
            )
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error


def _read_csv(text: bytes, path: Path) -> pl.DataFrame:
    first = pl.read_csv(text, has_header=False, n_rows=1, infer_schema=False)
    if all(value is not None and value[:1].isdigit() for value in first.row(0)[:2]):
        names = _HEADERLESS.get(first.width)
        if names is None:
            raise DataError(f"{path} has no header and {first.width} columns; add a header line with the column names")
        return pl.read_csv(text, has_header=False, new_columns=list(names), infer_schema_length=10_000)
    return pl.read_csv(text, infer_schema_length=10_000)


def to_frame(data: Any) -> pl.DataFrame:
    """Convert a Polars, pandas or Arrow table to a Polars table.

    Raises:
        UsageError: `data` is not a table.
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
        raise DataError("the ticks have several symbols; aggregate one symbol at a time")
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
        raise DataError(f"a column of the ticks has the wrong type: {str(error).splitlines()[0]}") from error


def _column(frame: pl.DataFrame, names: Sequence[str], meaning: str) -> str:
    for name in names:
        if name in frame.columns:
            return name
    raise DataError(
        f"the ticks have no column for {meaning} ({' or '.join(names)}); they have {', '.join(frame.columns)}"
    )


def _microseconds(times: pl.Series) -> pl.Series:
    """Return int64 microseconds since 1970; the unit of numbers is recognised by their magnitude."""
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


def _repair(
    frame: pl.DataFrame,
    valid: pl.Expr,
    kind: Repair,
    repair: Sequence[Repair],
    repaired: dict[str, int],
    problem: str,
) -> pl.DataFrame:
    """Return the valid rows; raise DataError if there are others and `repair` does not allow this kind of repair."""
    kept = frame.select(valid).to_series()
    if kept.all():
        return frame
    if kind not in repair:
        row = int(kept.arg_min() or 0)
        raise DataError(
            f"tick {row} {problem}: {frame.row(row, named=True)}; pass repair=[{kind!r}] to leave such ticks out"
        )
    repaired[kind] = int((~kept).sum())
    return frame.filter(kept)
