"""The configuration of a run: validated, frozen objects. `agent_bt.settings` reads the files behind them.

Validation is strict (no text for a number, no `1` for true), so that equal configurations are equal values. Keys never
enter it: whatever looks like one is refused.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent_bt.core.clock import DAY, duration_us, iso, time_us
from agent_bt.core.extensions import ExtensionPoint
from agent_bt.core.frequency import fixed_period

PROVIDERS = ExtensionPoint[Any]("llm.provider", "agent_bt.llm.providers")
"""Names that `llm.provider` accepts; what stands behind them is `agent_bt.llm.provider.Provider`."""

ADVICE_ON_KEYS = "keys come from the environment or `.env`; name the variable in llm.api_key_env"
_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|access_?key|secret(_key)?|password|passwd|authorization|bearer|credentials?|private_key"
    r"|(access|auth|api|bearer|refresh|id)_?token)$|^(token|key)$"
)
_SECRET_VALUE = re.compile(r"\b(sk|pk|xai|gsk|hf|ghp|AIza)[-_][A-Za-z0-9_-]{12,}|\bbearer\s+\S{8,}", re.IGNORECASE)


def names_secret(key: str) -> bool:
    """Whether a key of that name would hold a password or an API key: `api_key`, `Authorization`, `x-api-key`."""
    return _SECRET_NAME.search(key.lower().replace("-", "_")) is not None


def holds_secret(text: str) -> bool:
    """Whether a text looks like an API key, or holds one; such text is never shown."""
    return _SECRET_VALUE.search(text) is not None


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _instant(value: Any) -> str:
    if not isinstance(value, str | date | datetime):
        raise ValueError("write a date or time: 2024-07-01 or 2024-07-01T12:00:00Z")
    us = time_us(value)
    return iso(us)[:10] if us % DAY == 0 else iso(us)


def _duration(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit; write a whole number and a unit: 30s, 15m, 1h, 7d")
    if value.endswith("M"):
        raise ValueError(f"{value!r}: months are no fixed length of time; m is minutes, d is days")
    duration_us(value)
    return value


def _symbol(value: str) -> str:
    if not value.isalnum() or not value.isascii():
        raise ValueError(f"{value!r} is no symbol; write it as the exchange does: BTCUSDT")
    return value.upper()


def _no_secrets(value: Any) -> Any:
    """Refuse key material anywhere inside a free-form value; the message does not repeat it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if names_secret(key):
                raise ValueError(f"{key} does not belong into a config: {ADVICE_ON_KEYS}")
            _no_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_secrets(inner)
    elif isinstance(value, str) and holds_secret(value):
        raise ValueError(f"this looks like a key: {ADVICE_ON_KEYS}")
    return value


def _variable(value: str) -> str:
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*", value) is None:
        raise ValueError("give the name of an environment variable in capitals (OPENAI_API_KEY), not the key itself")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL; write https://host/path") from None
    if (
        parts.username is not None
        or parts.password is not None
        or any(names_secret(k) for k, _ in parse_qsl(parts.query))
    ):
        raise ValueError(f"holds credentials: {ADVICE_ON_KEYS}")
    if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.scheme == "file"):
        raise ValueError(f"{value!r} is no URL; write https://host/path")
    return value


def _web_url(value: str) -> str:
    if value.startswith("file:"):
        raise ValueError(f"{value!r} is no web address; write http:// or https://")
    return _url(value)


def _sizes(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value:
        raise ValueError("lists no size; write [0.25, 0.5, 0.75, 1], or null for any number from 0 to 1")
    for size in value:
        if not 0 < size <= 1:
            percent = f" ({size:g} % is {size / 100:g})" if 1 < size <= 100 else ""
            raise ValueError(f"{size:g} is not a size; each must be above 0 and at most 1{percent}")
    if twice := sorted({size for size in value if value.count(size) > 1}):
        raise ValueError(f"{', '.join(f'{size:g}' for size in twice)} is listed twice; list each size once")
    return value


def _provider(value: str) -> str:
    if holds_secret(value):
        raise ValueError("the value (not shown: it looks like a key) is not the name of a provider")
    PROVIDERS.check(value)
    return value


def _rhythm(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no rhythm; write W-MON, MS, QS, D, or a duration: 4h")
    fixed_period(value)
    return value


Instant = Annotated[str, BeforeValidator(_instant), Field(examples=["2024-07-01", "2024-07-01T12:00Z"])]
Duration = Annotated[str, BeforeValidator(_duration), Field(examples=["15m", "1h", "7d"])]
Rhythm = Annotated[str, BeforeValidator(_rhythm), Field(examples=["W-MON", "MS", "QS", "D", "4h"])]
Symbol = Annotated[str, AfterValidator(_symbol), Field(examples=["BTCUSDT"])]
Interval = Literal["1m", "5m", "15m", "1h", "4h", "1d"]
Url = Annotated[str, AfterValidator(_url)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
VariableName = Annotated[str, AfterValidator(_variable)]
ProviderName = Annotated[
    str, AfterValidator(_provider), Field(examples=["stand_in", "openai", "scripted", "my_module:MyProvider"])
]
Params = Annotated[dict[str, Any], AfterValidator(_no_secrets)]
Sizes = Annotated[tuple[float, ...], Field(strict=False), AfterValidator(_sizes)]
Symbols = Annotated[tuple[Symbol, ...], Field(strict=False)]


class Section(BaseModel):
    """Base of every part: unknown keys are errors, and nothing can be changed afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        # A value left out and the same value written down must be the same value: 0 and 0.0 hash differently.
        validate_default=True,
    )


class MarketConfig(Section):
    """Which bars the run walks over."""

    kind: Literal["spot", "um"] = Field(
        "spot", description="`spot`: no short, no leverage; `um`: USD-margined perpetuals, with funding."
    )
    symbol: Symbol = Field("BTCUSDT", description="The symbol, as the exchange writes it.")
    symbols: Annotated[tuple[Symbol, ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="Several symbols in one account; null: `symbol` alone, or, cross-sectional, all there are."
    )
    interval: Interval = Field("1m", description="Length of a bar; all are aggregated from 1m.")
    source: str = Field("sample", description="`sample` (generated), `store` (backfilled), or a Parquet path.")
    start: Instant = Field("2024-07-01", description="First instant, inclusive, UTC.")
    end: Instant = Field("2024-10-01", description="Last instant, exclusive, UTC.")
    warmup: Duration = Field("0d", description="How much before `start` may be read to fill windows.")
    gaps: Literal["forward_fill", "drop"] = Field("forward_fill", description="Missing bars: fill flat, or leave out.")

    @model_validator(mode="after")
    def _ordered(self) -> MarketConfig:
        if self.symbols and (twice := sorted({name for name in self.symbols if self.symbols.count(name) > 1})):
            raise ValueError(f"symbols names {', '.join(twice)} twice")
        if time_us(self.start) >= time_us(self.end):
            raise ValueError(f"start ({self.start}) must be before end ({self.end})")
        for name, instant in (("start", self.start), ("end", self.end)):
            if time_us(instant) % duration_us(self.interval):
                raise ValueError(f"{name} ({instant}) must be the beginning of a bar of interval {self.interval}")
        return self


class DataConfig(Section):
    """Where market data is kept and fetched from."""

    root: str = Field("data", description="Folder of the store.")
    archive_url: Url = Field("https://data.binance.vision/data", description="Archive; http(s):// or file://.")
    rest_url: WebUrl = Field("https://data-api.binance.vision", description="REST endpoint for what no archive has.")
    rest_url_um: WebUrl = Field("https://fapi.binance.com", description="The same for `um`, USD-M perpetuals.")


class FeaturesConfig(Section):
    """What is computed from the bars; periods in bars."""

    window: Count = Field(60, description="Rows of the window a decision sees.")
    ema_fast: Count = Field(12, description="Period of the fast EMA.")
    ema_slow: Count = Field(26, description="Period of the slow EMA.")
    rsi: Annotated[int, Field(ge=2)] = Field(14, description="Period of the RSI (Wilder).")
    cmf: Count = Field(20, description="Period of the Chaikin money flow.")
    macd_fast: Annotated[int, Field(ge=2)] = Field(12, description="Fast period of the MACD.")
    macd_slow: Annotated[int, Field(ge=2)] = Field(26, description="Slow period of the MACD.")
    macd_signal: Count = Field(9, description="Signal period of the MACD.")
    atr: Count = Field(14, description="Period of the ATR (Wilder).")
    summary: Literal["calendar", "rolling"] = Field("calendar", description="7 UTC days, or 168 h back from now.")

    @model_validator(mode="after")
    def _ordered(self) -> FeaturesConfig:
        for fast, slow in (("ema_fast", "ema_slow"), ("macd_fast", "macd_slow")):
            if getattr(self, fast) >= getattr(self, slow):
                raise ValueError(f"{fast} ({getattr(self, fast)}) must be below {slow} ({getattr(self, slow)})")
        return self


class StrategyConfig(Section):
    """Who decides, and when."""

    kind: str = Field("agent", description="`agent`, a registered name, or `module:Class` of your own.")
    prompt: str = Field("btcusdt_trader/v1", description="Prompt of an agent: name/version under `prompts/`.")
    every: Duration = Field("1h", description="Time between decisions, aligned to UTC.")
    sizing: Literal["available", "equity"] = Field("available", description="What size_pct is a share of.")
    sizes: Sizes | None = Field(
        None, description="The only values that size_pct may have: [0.25, 0.5, 0.75, 1]; null: any number from 0 to 1."
    )
    params: Params = Field(default_factory=dict, description="Parameters of the strategy itself.")


class PoolConfig(Section):
    """The dynamic asset pool of cross-sectional runs."""

    enabled: bool = Field(False, description="Choose the symbols anew as the run goes; off: all of them, always.")
    top_n: Count = Field(100, description="How many symbols the pool holds: those of the largest mean quote volume.")
    reselect: Rhythm = Field("MS", description="When it is chosen anew: W-MON, MS, QS, D, 4h, ...")
    lookback: Duration = Field("30D", description="Over how long the volume is ranked.")
    include: Symbols = Field((), description="Always in the pool, beside the top_n.")
    exclude: Symbols = Field((), description="Never in the pool.")

    @model_validator(mode="after")
    def _disjoint(self) -> PoolConfig:
        if both := sorted(set(self.include) & set(self.exclude)):
            raise ValueError(f"include and exclude both name {', '.join(both)}")
        return self


class PricesConfig(Section):
    """Prices of the model, US dollars per million tokens; null: the price table's."""

    input: NonNegative | None = Field(None, description="Prompt tokens.")
    output: NonNegative | None = Field(None, description="Completion tokens, reasoning included.")
    cached_input: NonNegative | None = Field(None, description="Cached prompt tokens; null: as `input`.")

    @model_validator(mode="after")
    def _together(self) -> PricesConfig:
        if (self.input is None) != (self.output is None) or (self.input is None and self.cached_input is not None):
            raise ValueError("give input and output together; cached_input only with them")
        return self


class LLMConfig(Section):
    """Which model answers, and how it is asked."""

    provider: ProviderName = Field(
        "stand_in",
        description="`openai`: any OpenAI-compatible endpoint; `stand_in`: the embedded small policy; `scripted`: "
        "replies from `llm.params`; or `module:Class` of your own.",
    )
    model: str = Field("baseline", description="The model's name at the endpoint.")
    base_url: WebUrl | None = Field(None, description="Endpoint; null: the provider's own.")
    endpoint_id: str | None = Field(None, description="Name of the endpoint in cache keys; default: its host.")
    api_key_env: VariableName = Field("OPENAI_API_KEY", description="Environment variable that holds the key.")
    temperature: NonNegative | None = Field(0, description="null: not sent (reasoning models).")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(None, description="Sent as `seed` where given.")
    max_tokens: Count = Field(512, description="Most completion tokens.")
    timeout_s: Positive = Field(30, description="Time-out of one attempt, seconds.")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(3, description="Attempts after the first.")
    max_in_flight: Count = Field(16, description="Most requests under way at once.")
    response_format: Literal["auto", "json_schema", "json_object", "text", "grammar"] = Field(
        "auto",
        description="`auto`: the best the endpoint takes, found before the run starts; `grammar`: GBNF, for llama.cpp "
        "servers: no free white space, notes of at most 200 characters.",
    )
    strip: Literal["none", "code_fence", "think", "both"] = Field(
        "none", description="Declared repairs of a reply; each use is recorded."
    )
    knowledge_cutoff: Instant | None = Field(None, description="Last day the model may have been trained on.")
    replicate: Annotated[int, Field(ge=0)] = Field(0, description="Number of the repetition; part of cache keys.")
    prices: PricesConfig = PricesConfig()
    params: Params = Field(default_factory=dict, description="Further body parameters, or the stand-in's.")


class PrefetchConfig(Section):
    """How far ahead requests are sent on a guess."""

    depth: Annotated[int, Field(ge=0)] = Field(8, description="Most requests ahead; 0: one call after another.")
    guess: str = Field("hold", description="`hold`, `last`, `states`, or the name of a rule.")
    max_waste: NonNegative = Field(1.0, description="Wasted calls per used one.")


class CacheConfig(Section):
    """Where replies are kept."""

    path: str = Field("runs/cache.sqlite", description="The store of replies.")
    offline_miss: Literal["error", "hold"] = Field("error", description="What a missing reply does offline.")


class BudgetConfig(Section):
    """What a run may spend; null: no limit."""

    usd: NonNegative | None = Field(None, description="US dollars.")
    calls: Annotated[int, Field(ge=0)] | None = Field(None, description="Paid calls.")
    tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Prompt and completion tokens.")
    on_limit: Literal["stop", "hold"] = Field("stop", description="Stop resumable, or HOLD from there on.")


class AccountConfig(Section):
    """What the account starts with."""

    cash: Annotated[float, Field(gt=0, le=1e12)] = Field(10000, description="Starting cash, quote units.")


class ExecutionConfig(Section):
    """How orders fill."""

    fill: Literal["close", "next_open"] = Field(
        "close", description="Price of a fill: the decision bar's close, or the next open."
    )
    latency_bars: Annotated[int, Field(ge=0, le=10_000)] = Field(0, description="Bars between decision and fill.")
    slippage_bps: Annotated[float, Field(ge=0, lt=10_000)] = Field(5, description="Always adverse; 5 = 0.05 %.")
    fee_rate: Annotated[float, Field(ge=0, lt=0.1)] = Field(0.001, description="Share of notional; 0.001 = 0.1 %.")
    lot_step: Positive = Field(0.00001, description="Smallest step of a quantity, base units.")
    min_quantity: NonNegative = Field(0, description="Smallest order, base units.")
    min_notional: NonNegative = Field(5, description="Smallest order, quote units.")
    no_trade_band: Fraction = Field(0.0, description="Drift of a target share that is left alone.")
    funding: bool = Field(True, description="Charge funding (perpetuals only).")


class RiskConfig(Section):
    """What limits a strategy."""

    max_position: Annotated[float, Field(gt=0, le=125)] = Field(
        1.0, description="Largest share of equity in one symbol."
    )
    max_gross: Annotated[float, Field(gt=0, le=125)] = Field(1.0, description="Largest sum of absolute shares.")
    max_net: Annotated[float, Field(ge=0, le=125)] | None = Field(
        None, description="Largest sum of signed shares, either way."
    )
    max_leverage: Annotated[float, Field(ge=1, le=125)] = Field(
        1.0, description="Most that may be held on margin, in multiples of equity; spot: 1."
    )
    allow_short: bool = Field(False, description="Whether positions may be short; spot: never.")
    max_turnover: Positive | None = Field(
        None, description="Largest one-way turnover of one decision, share of equity."
    )
    max_daily_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Loss since the UTC day began, from which on no position grows until the next."
    )
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Share of the entry price.")
    take_profit: Positive | None = Field(None, description="Share of the entry price.")
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Closes everything and ends the trading."
    )
    max_failed_share: Fraction = Field(0.05, description="More failed decisions than this: the run has failed.")
    max_failures_in_a_row: Count = Field(20, description="So many transport failures in a row stop the run.")


class Config(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        "run", description="Part of the run folder's name."
    )
    mode: Literal["time_series", "cross_sectional"] = Field(
        "time_series", description="Decisions every `strategy.every`, or over many symbols at each `rebalance`."
    )
    market: MarketConfig = MarketConfig()
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    strategy: StrategyConfig = StrategyConfig()
    pool: PoolConfig = PoolConfig()
    rebalance: Rhythm = Field("W-MON", description="When a cross-sectional run decides: W-MON, MS, QS, D, 4h, ...")
    llm: LLMConfig = LLMConfig()
    prefetch: PrefetchConfig = PrefetchConfig()
    cache: CacheConfig = CacheConfig()
    budget: BudgetConfig = BudgetConfig()
    account: AccountConfig = AccountConfig()
    execution: ExecutionConfig = ExecutionConfig()
    risk: RiskConfig = RiskConfig()
    output: str = Field("runs", description="Where run folders are made.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        7, description="Seed of the sample market and the random baseline."
    )

    @model_validator(mode="after")
    def _schedule(self) -> Config:
        every, bar = duration_us(self.strategy.every), duration_us(self.market.interval)
        if every < bar or every % bar:
            raise ValueError(
                f"strategy.every ({self.strategy.every}) must be a multiple of market.interval ({self.market.interval})"
            )
        for name, frequency in (("rebalance", self.rebalance), ("pool.reselect", self.pool.reselect)):
            period = fixed_period(frequency)
            if self.mode == "cross_sectional" and period is not None and period[0] % bar:
                raise ValueError(f"{name} ({frequency}) must be a multiple of market.interval ({self.market.interval})")
        return self

    @model_validator(mode="after")
    def _means(self) -> Config:
        risk = self.risk
        if self.market.kind == "spot":
            for name in ("max_position", "max_gross", "max_leverage"):
                if (most := getattr(risk, name)) > 1:
                    percent = f"; {most:g} % is {most / 100:g}" if 1 < most <= 100 else ""
                    raise ValueError(f"risk.{name}: {most:g} is too large; spot has no leverage, at most 1{percent}")
            if risk.allow_short:
                raise ValueError("risk.allow_short: spot cannot be sold short; set market.kind: um for perpetuals")
        for name in ("max_gross", "max_position"):
            if getattr(risk, name) > max(risk.max_leverage, 1.0):
                raise ValueError(
                    f"risk.{name} ({getattr(risk, name):g}) needs risk.max_leverage to be at least as much"
                )
        return self

    @model_validator(mode="after")
    def _many(self) -> Config:
        if self.pool.enabled and not self.multi_symbol:
            raise ValueError("pool.enabled needs several symbols: set mode: cross_sectional, or market.symbols")
        return self

    @property
    def multi_symbol(self) -> bool:
        """Whether the run holds several symbols in one account."""
        return self.mode == "cross_sectional" or self.market.symbols is not None
