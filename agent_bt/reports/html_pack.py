"""Packs numbers and texts for a page: integer columns in byte planes, deflated, as base64 for `assets/pack.js`."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl

MAX_DECIMALS = 12
"""Maximum decimals of a column."""
_MOST_CODE = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of numbers, codes / 10 ** decimals.

    Attributes:
        name: of the column.
        codes: whole numbers, int64.
        decimals: digits after the point.
        delta: store differences between consecutive codes.
        missing: true where there is no value, bool; None if there are values everywhere.
    """

    name: str
    codes: np.ndarray
    decimals: int = 0
    delta: bool = False
    missing: np.ndarray | None = None


def quantise(name: str, values: np.ndarray, decimals: int, *, delta: bool = False) -> Column:
    """Make a column of rounded values; non-finite ones are missing.

    Args:
        name: of the column.
        values: float64.
        decimals: digits after the point to keep.
        delta: store differences between consecutive codes; ignored where values are missing.
    """
    finite = np.isfinite(values)
    missing = None if finite.all() else ~finite
    codes = np.rint(np.where(finite, values, 0.0) * 10.0**decimals).astype(np.int64)
    return Column(name=name, codes=codes, decimals=decimals, delta=delta and missing is None, missing=missing)


def to_floats(values: pl.Series) -> np.ndarray:
    """Convert a series to float64; nulls become NaN."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def decimals_of(values: np.ndarray, digits: int = 8) -> int:
    """Return the decimals that represent all values exactly, else those that give the largest one `digits` digits.

    Args:
        values: float64; non-finite ones are ignored.
        digits: significant digits of the largest value where no number of decimals is exact.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0
    largest = float(np.max(np.abs(finite)))
    for decimals in range(MAX_DECIMALS + 1):
        scale = 10.0**decimals
        if largest * scale > _MOST_CODE:
            break
        if np.array_equal(np.rint(finite * scale) / scale, finite):
            return decimals
    return significant_decimals(finite, digits)


def significant_decimals(values: np.ndarray, digits: int) -> int:
    """Return the decimals (0 to `MAX_DECIMALS`) that give the largest value about `digits` significant digits.

    Args:
        values: float64; non-finite ones are ignored.
        digits: significant digits of the largest value.
    """
    finite = values[np.isfinite(values)]
    largest = float(np.max(np.abs(finite))) if len(finite) else 0.0
    if largest == 0.0:
        return 0
    return min(MAX_DECIMALS, max(0, digits - 1 - math.floor(math.log10(largest))))


def pack_columns(columns: Sequence[Column]) -> str:
    """Pack columns into one block: the length of a JSON head (uint32, little-endian), the head, then the byte planes.

    Codes are delta-coded where the column says so, then zigzag-coded; in a column with missing values, 0 stands for a
    missing one and all other codes are one higher. The bytes of a column are stored in planes of equal significance,
    low byte first, which compresses better.
    """
    heads, bodies = [], []
    for column in columns:
        codes = np.diff(column.codes, prepend=0) if column.delta else column.codes
        zigzag = ((codes << 1) ^ (codes >> 63)).astype("<u8")
        if column.missing is not None:
            zigzag = np.where(column.missing, 0, zigzag + 1).astype("<u8")
        width = max(1, (int(zigzag.max()).bit_length() + 7) // 8) if len(zigzag) else 1
        planes = zigzag.view(np.uint8).reshape(-1, 8)[:, :width]
        heads.append(
            {
                "name": column.name,
                "count": len(codes),
                "width": width,
                "decimals": column.decimals,
                "delta": column.delta,
                "nullable": column.missing is not None,
            }
        )
        bodies.append(np.ascontiguousarray(planes.T).tobytes())
    head = orjson.dumps(heads)
    return deflated(b"".join([len(head).to_bytes(4, "little"), head, *bodies]))


def pack_json(value: Any) -> str:
    """Pack plain data into one block."""
    return deflated(orjson.dumps(value))


def deflated(data: bytes, level: int = 4) -> str:
    """Compress bytes to zlib format, as base64; the browser's `DecompressionStream("deflate")` reads it.

    Args:
        data: the bytes.
        level: of zlib; 4 takes a third of the time of its default, for 5 % more bytes.
    """
    return base64.b64encode(zlib.compress(data, level)).decode("ascii")


def script_json(value: Any) -> str:
    """Write JSON that is safe inside a script element: nothing in it can end the element or a line of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
