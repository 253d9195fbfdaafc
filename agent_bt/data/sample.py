"""Generate realistic minute bars of a sample market from a seed, so that everything runs without a download.

Deterministic for (seed, symbol) on any machine, and independent of the requested range:

  1. one pass over all days gives regime, volatility and the log price at each midnight   `_days`
  2. each day draws from its own counter-based stream, and its minutes are shifted so that
     the day ends at the next midnight's price (a Brownian bridge)                         `_minutes`
  3. once in every quarter some minutes are missing, as in a real outage                  `_outage`
  4. as a perpetual it settles funding every 8 hours                                      `_rate`

Only operations that IEEE 754 defines to the last bit are used (+ - x / and square root, sums in fixed order), and raw
bits of Philox, which NumPy keeps stable: results of `exp`, `log` and `cos` differ between processors, and prompts are
cached by their hash.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import polars as pl

from agent_bt.core.clock import DAY, HOUR, MINUTE, interval_us, iso, time_us
from agent_bt.core.errors import MissingData
from agent_bt.core.schema import STORE_SCHEMA, TIME
from agent_bt.data.resample import Gaps, to_bars, whole_bars
from agent_bt.data.settlements import FUNDING_SCHEMA
from agent_bt.data.spans import Span, days_in

FIRST, LAST = time_us("2010-01-01"), time_us("2050-01-01")
"""Start and exclusive end of the sample market, UTC us."""

MINUTES = DAY // MINUTE
BASE_PRICE = 50_000.0
BASE_VOLUME = 14.0
"""Long-run level of the price (quote units) and of the volume of a minute (base units)."""

# Daily volatility and drift (log return) of the calm, normal and stressed regime, and the probability to stay in it a
# day: it lasts 1 / (1 - stay) days on average.
_VOLATILITY = (0.014, 0.024, 0.046)
_DRIFT = (0.0008, 0.0012, -0.0022)
_STAY = (0.97, 0.96, 0.92)
_MEAN_REVERSION = 0.001  # a day, to the base price: the half-life of a deviation is 1.9 years
_DAY_MEMORY, _DAY_VOL_OF_VOL = 0.94, 0.13
_MINUTE_MEMORY, _MINUTE_VOL_OF_VOL = 0.99, 0.06
_DEGREES = 4  # of freedom of the minute returns

# Relative volume by UTC hour: lowest before Asia opens, highest when Europe and America trade at the same time.
_HOURS = (1.05, 0.95, 0.85, 0.75, 0.70, 0.70, 0.75, 0.90, 1.00, 0.95, 0.90, 0.95,
          1.10, 1.45, 1.75, 1.70, 1.45, 1.25, 1.10, 1.05, 1.05, 0.95, 0.85, 0.85)  # fmt: skip

_NORMALS_A_MINUTE = _DEGREES + 7
_OUTAGE_MINUTES = (20, 180)

# Funding: positions in the direction of the trend of the last days pay. The rate is Binance's formula: premium +
# clamp(interest - premium, +-0.05%), at most 0.75% in 8 hours; near the interest rate it is the interest rate.
_FUNDING_EVERY = 8 * HOUR
_INTEREST, _INTEREST_CLAMP, _RATE_CAP = 0.0001, 0.0005, 0.0075
_TREND_DAYS, _TREND_SHARE, _PREMIUM_NOISE = 3, 0.012, 0.0002


class SampleSource:
    """Generate bars of the sample market; its label marks them as generated, not real, data."""

    def __init__(self, symbol: str, seed: int, gaps: Gaps = "forward_fill") -> None:
        """Choose a market.

        Args:
            symbol: any name; each has its own market.
            seed: seed of the generator.
            gaps: `forward_fill` (default) or `drop`, see `data.resample.to_bars`.
        """
        self.symbol = symbol
        self.seed = seed
        self.label = f"SAMPLE MARKET (seed {seed})"
        self._gaps: Gaps = gaps

    def __repr__(self) -> str:
        return f"SampleSource({self.symbol!r}, seed={self.seed}, gaps={self._gaps!r})"

    def fetch_ohlcv(self, interval: str, start: int, end: int) -> pl.DataFrame:
        """Return the bars that open at or after `start` and close by `end`.

        Args:
            interval: length of a bar, such as `1m`, `1h` or `1d`.
            start: earliest open time, UTC us.
            end: latest close time, UTC us.

        Returns:
            One row a bar, columns of `BAR_SCHEMA`, sorted by time.

        Raises:
            MissingData: the span is not within 2010 to 2049.
        """
        length = interval_us(interval)
        span = whole_bars(Span(start, end), length)
        return to_bars(self.minutes(span), span, length, self._gaps)

    def fetch_funding(self, start: int, end: int) -> pl.DataFrame:
        """Return the settlements in (start, end] of this market as a perpetual.

        Args:
            start: UTC us; a settlement at this instant is left out.
            end: UTC us; a settlement at this instant is included.

        Returns:
            One row a settlement, columns of `FUNDING_SCHEMA`, sorted by time.

        Raises:
            MissingData: the span is not within 2010 to 2049.
        """
        _check_years(Span(start, end))
        first = start // _FUNDING_EVERY * _FUNDING_EVERY + _FUNDING_EVERY
        times = list(range(first, end + 1, _FUNDING_EVERY))
        table = {"funding_time": times, "rate": [_rate(self.seed, self.symbol, at) for at in times]}
        return pl.DataFrame(table, schema={"funding_time": pl.Int64, "rate": pl.Float64}).cast(FUNDING_SCHEMA)

    def minutes(self, span: Span) -> pl.DataFrame:
        """Return the minute bars of all days that overlap `span`, columns of `STORE_SCHEMA`.

        Raises:
            MissingData: the span is not within 2010 to 2049.
        """
        _check_years(span)
        parts = [_minutes(self.seed, self.symbol, day.start) for day in days_in(span)]
        if not parts:
            return STORE_SCHEMA.to_frame()
        table = pl.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        times = {"open_time": pl.col("open_time").cast(TIME), "close_time": (pl.col("open_time") + MINUTE).cast(TIME)}
        return table.with_columns(**times).select(STORE_SCHEMA.names()).cast(STORE_SCHEMA)


def _check_years(span: Span) -> None:
    if span.start < FIRST or span.end > LAST:
        raise MissingData(f"the sample market exists from {iso(FIRST)[:10]} to {iso(LAST)[:10]}, requested {span}")


def _bits(count: int, *name: object) -> np.ndarray:
    """Return `count` raw 64-bit numbers of the stream with that name."""
    key = hashlib.sha256("|".join(("agent-bt/sample/v1", *map(str, name))).encode()).digest()[:16]
    raw: np.ndarray = np.random.Philox(key=int.from_bytes(key, "big")).random_raw(count)
    return raw


def _uniform(bits: np.ndarray) -> np.ndarray:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(bits: np.ndarray) -> np.ndarray:
    """Return one normal for three raw numbers each: the sum of twelve 16-bit parts (Irwin-Hall), exact in integers."""
    parts = bits.astype("<u8").view("<u2").reshape(-1, 12)
    normals: np.ndarray = (parts.sum(axis=1, dtype=np.int64) - 12 * 32767.5) / 65536.0
    return normals


def _exp(x: np.ndarray) -> np.ndarray:
    """Return e^x for |x| < 8 to about 1e-13: the Taylor series at x / 256, squared eight times."""
    x = x / 256.0
    result = np.ones_like(x)
    for divisor in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0):
        result = 1.0 + x / divisor * result
    for _ in range(8):
        result = result * result
    return result


@lru_cache(maxsize=8)
def _days(seed: int, symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the log price at each midnight (days + 1,) and the daily volatility (days + 1,), from FIRST on."""
    count = (LAST - FIRST) // DAY + 1
    moves = _uniform(_bits(count, seed, symbol, "regimes")).tolist()
    shocks = _normal(_bits(6 * count, seed, symbol, "days")).reshape(2, count)
    noise = shocks[0].tolist()
    steps = shocks[1].tolist()
    regime, excess, level = 1, 0.0, 0.0
    levels, excesses, bases = [], [], []
    for day in range(count):
        levels.append(level)
        if moves[day] > _STAY[regime]:
            up = moves[day] > (1.0 + _STAY[regime]) / 2.0
            regime = (1 if up else 2) if regime == 0 else (2 if up else 0) if regime == 1 else (1 if up else 0)
        excess = _DAY_MEMORY * excess + _DAY_VOL_OF_VOL * noise[day]
        excesses.append(excess)
        bases.append(_VOLATILITY[regime])
        volatility = _VOLATILITY[regime] * (1.0 + excess if excess > 0.0 else 1.0 / (1.0 - excess))
        level += _DRIFT[regime] - _MEAN_REVERSION * level + volatility * steps[day]
    return np.array(levels), np.array(bases) * _exp(np.array(excesses))


@lru_cache(maxsize=1)
def _shape() -> np.ndarray:
    """Return the relative volume by minute of the day (1440,), mean 1, interpolated linearly between the hours."""
    hours = np.array((*_HOURS, _HOURS[0]))
    at, part = np.divmod(np.arange(MINUTES), 60)
    shape = hours[at] + (hours[at + 1] - hours[at]) * (part / 60.0)
    relative: np.ndarray = shape / (np.cumsum(shape)[-1] / MINUTES)
    return relative


@lru_cache(maxsize=128)
def _minutes(seed: int, symbol: str, start: int) -> dict[str, np.ndarray]:
    """Return the bars of one day as columns, without the minutes of an outage."""
    levels, volatilities = _days(seed, symbol)
    day = (start - FIRST) // DAY
    noise = _normal(_bits(3 * _NORMALS_A_MINUTE * MINUTES, seed, symbol, "minutes", day))
    z, *chi, volatility_noise, up, down, volume_noise, taker_noise, trades_noise = noise.reshape(
        _NORMALS_A_MINUTE, MINUTES
    )

    # Volatility: the day's, interpolated to the next day's; times the hour's; times a slow AR(1) process.
    part = np.arange(MINUTES) / MINUTES
    daily = volatilities[day] + (volatilities[day + 1] - volatilities[day]) * part
    decay = np.cumprod(np.full(MINUTES, _MINUTE_MEMORY))
    log_volatility = _MINUTE_VOL_OF_VOL * np.cumsum(volatility_noise / decay) * decay
    sigma = daily / math.sqrt(MINUTES) * np.sqrt(_shape()) * _exp(log_volatility)

    # Student's t: a normal divided by the root of a mean of squares, scaled to variance 1.
    squares = chi[0] * chi[0]
    for other in chi[1:]:
        squares = squares + other * other
    shock = z / np.sqrt(squares / _DEGREES + 0.02) * math.sqrt((_DEGREES - 2) / _DEGREES)
    step = sigma * shock
    variance = np.cumsum(sigma * sigma)
    path = np.cumsum(step)
    first, last = levels[day], levels[day + 1]
    path = first + path + (last - first - path[-1]) * (variance / variance[-1])
    close = np.round(BASE_PRICE * _exp(np.concatenate(([first], path[:-1], [last]))), 2)
    opened, close = close[:-1], close[1:]
    high = np.round(np.maximum(opened, close) * (1.0 + 0.45 * sigma * np.abs(up)), 2)
    low = np.round(np.minimum(opened, close) / (1.0 + 0.45 * sigma * np.abs(down)), 2)

    # Volume depends on the hour, the volatility and the size of the move; taker buys rise with the return.
    activity = daily / _VOLATILITY[1] * _exp(0.8 * log_volatility + 0.5 * volume_noise)
    volume = np.round(BASE_VOLUME * _shape() * activity * (0.7 + 0.5 * np.abs(shock)), 5) + 1e-5
    taker_share = 0.5 + 0.35 * (pressure := 0.5 * shock + 0.6 * taker_noise) / (1.0 + np.abs(pressure))
    volume = np.round(volume, 5)
    taker = np.round(volume * taker_share, 5)
    mean = (opened + high + low + close) / 4.0
    columns = {
        "open_time": start + np.arange(MINUTES, dtype=np.int64) * MINUTE,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": volume,
        "quote_asset_volume": np.round(volume * mean, 5),
        "trades": 1 + (volume * 60.0 * _exp(0.2 * trades_noise)).astype(np.int64),
        "taker_base": taker,
        "taker_quote": np.round(taker * mean, 5),
    }
    closed_from, closed_to = _outage(seed, symbol, start)
    if closed_from < closed_to:
        kept = np.r_[0:closed_from, closed_to:MINUTES]
        columns = {name: values[kept] for name, values in columns.items()}
    for values in columns.values():
        values.flags.writeable = False
    return columns


def _outage(seed: int, symbol: str, start: int) -> tuple[int, int]:
    """Return the range [from, to) of minutes of the day that are missing; (0, 0) on most days."""
    year, month = int(iso(start)[:4]), int(iso(start)[5:7])
    quarter = f"{year}-{(month - 1) // 3 * 3 + 1:02}"
    day_bits, minute_bits, length_bits = (int(bits) for bits in _bits(3, seed, symbol, "outage", quarter))
    day = 10 + day_bits % 60
    if start != time_us(f"{quarter}-01") + day * DAY:
        return 0, 0
    shortest, longest = _OUTAGE_MINUTES
    length = shortest + length_bits % (longest - shortest + 1)
    first = minute_bits % (MINUTES - length)
    return first, first + length


def _rate(seed: int, symbol: str, at: int) -> float:
    """Return the funding rate settled at an instant: a function of the trend up to that midnight, and noise."""
    levels, _ = _days(seed, symbol)
    day = (at - FIRST) // DAY
    trend = levels[day] - levels[max(day - _TREND_DAYS, 0)]
    [noise] = _normal(_bits(3, seed, symbol, "funding", at))
    premium = float(_TREND_SHARE * trend + _PREMIUM_NOISE * noise)
    rate = premium + min(max(_INTEREST - premium, -_INTEREST_CLAMP), _INTEREST_CLAMP)
    return round(min(max(rate, -_RATE_CAP), _RATE_CAP), 8)
