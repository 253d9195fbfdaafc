"""The configuration of a run as validated, frozen objects; `agent_bt.config.load` reads the files behind them.

Validation is strict (no text for a number, no `1` for true), so that equal configurations are equal values. API keys
never enter it: a value that looks like one is an error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_bt.config.values import (
    Count,
    Duration,
    Fraction,
    Frequency,
    Headers,
    Instant,
    Interval,
    NonNegative,
    Params,
    Positive,
    ProviderName,
    Sizes,
    Symbol,
    Symbols,
    Url,
    VariableName,
    WebUrl,
)
from agent_bt.core.clock import duration_us, time_us
from agent_bt.core.frequency import fixed_period


class Section(BaseModel):
    """Base of every section: unknown keys are errors, and nothing can be changed after validation."""

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
    """The market data of a run."""

    kind: Literal["spot", "um"] = Field(
        "spot",
        description="`spot`: no short positions, no leverage; `um`: USD-margined perpetual futures, with funding.",
    )
    symbol: Symbol = Field("BTCUSDT", description="Symbol, as the exchange writes it.")
    symbols: Annotated[tuple[Symbol, ...], Field(strict=False, min_length=1)] | None = Field(
        None,
        description="Several symbols in one account; null: only `symbol`, or all of a cross-sectional run's source.",
    )
    interval: Interval = Field("1m", description="Length of a bar; all are aggregated from 1m bars.")
    source: str = Field("sample", description="`sample` (generated prices), `store` (backfilled), or a Parquet path.")
    start: Instant = Field("2024-07-01", description="First instant, inclusive, UTC.")
    end: Instant = Field("2024-10-01", description="Last instant, exclusive, UTC.")
    warmup: Duration = Field("0d", description="How much data before `start` may be read to fill lookback windows.")
    gaps: Literal["forward_fill", "drop"] = Field(
        "forward_fill", description="Missing bars: fill with flat bars, or leave out."
    )

    @model_validator(mode="after")
    def _ordered(self) -> MarketConfig:
        if self.symbols and (twice := sorted({name for name in self.symbols if self.symbols.count(name) > 1})):
            raise ValueError(f"symbols must list each symbol once, got {', '.join(twice)} twice")
        if time_us(self.start) >= time_us(self.end):
            raise ValueError(f"start ({self.start}) must be before end ({self.end})")
        for name, instant in (("start", self.start), ("end", self.end)):
            if time_us(instant) % duration_us(self.interval):
                raise ValueError(f"{name} ({instant}) must be the beginning of a bar of interval {self.interval}")
        return self


class DataConfig(Section):
    """Where market data is stored, and where it is downloaded from."""

    root: str = Field("data", description="Folder of the store.")
    exchange: str = Field("binance", description="Exchange to download from: binance, or module:Class.")
    archive_url: Url = Field("https://data.binance.vision/data", description="Archive; http(s):// or file://.")
    rest_url: WebUrl = Field(
        "https://data-api.binance.vision", description="REST endpoint, for data that no archive has."
    )
    rest_url_um: WebUrl = Field("https://fapi.binance.com", description="The same for `um`.")


class FeaturesConfig(Section):
    """Features that an agent sees, computed from the bars; periods are numbers of bars."""

    window: Count = Field(60, description="Rows of bars and features that an agent sees.")
    ema_fast: Count = Field(12, description="Period of the fast EMA.")
    ema_slow: Count = Field(26, description="Period of the slow EMA.")
    rsi: Annotated[int, Field(ge=2)] = Field(14, description="Period of the RSI (Wilder).")
    cmf: Count = Field(20, description="Period of the Chaikin money flow.")
    macd_fast: Annotated[int, Field(ge=2)] = Field(12, description="Fast period of the MACD.")
    macd_slow: Annotated[int, Field(ge=2)] = Field(26, description="Slow period of the MACD.")
    macd_signal: Count = Field(9, description="Signal period of the MACD.")
    atr: Count = Field(14, description="Period of the ATR (Wilder).")
    summary: Literal["calendar", "rolling"] = Field(
        "calendar", description="Days of the 7-day summary: UTC days, or the 168 h before the decision."
    )

    @model_validator(mode="after")
    def _ordered(self) -> FeaturesConfig:
        for fast, slow in (("ema_fast", "ema_slow"), ("macd_fast", "macd_slow")):
            if getattr(self, fast) >= getattr(self, slow):
                raise ValueError(f"{fast} ({getattr(self, fast)}) must be below {slow} ({getattr(self, slow)})")
        return self


class StrategyConfig(Section):
    """The strategy, and the time between its decisions."""

    kind: str = Field("agent", description="`agent`, `agent_ranker`, a registered name, or `module:Class` of your own.")
    prompt: str = Field("btcusdt_trader/v1", description="Prompt of an agent: name/version under `prompts/`.")
    every: Duration = Field("1h", description="Time between decisions, aligned to UTC.")
    sizing: Literal["available", "equity"] = Field(
        "available",
        description="What size_pct is a fraction of: the available cash (BUY) and the position (SELL), or the equity.",
    )
    sizes: Sizes | None = Field(
        None, description="The only values that size_pct may have: [0.25, 0.5, 0.75, 1]; null: any number from 0 to 1."
    )
    params: Params = Field(default_factory=dict, description="Parameters of the strategy itself.")


class PoolConfig(Section):
    """The dynamic asset pool of runs over several symbols."""

    enabled: bool = Field(False, description="Select symbols again and again during the run; false: all, throughout.")
    top_n: Count = Field(100, description="Number of symbols in the pool: those with the highest mean quote volume.")
    reselect: Frequency = Field("MS", description="When symbols are selected again: W-MON, MS, QS, D, 4h, ...")
    lookback: Duration = Field("30D", description="Period over which the volume is averaged.")
    include: Symbols = Field((), description="Always in the pool, in addition to the top_n.")
    exclude: Symbols = Field((), description="Never in the pool.")

    @model_validator(mode="after")
    def _disjoint(self) -> PoolConfig:
        if both := sorted(set(self.include) & set(self.exclude)):
            raise ValueError(f"include and exclude must not both list {', '.join(both)}")
        return self


class PricesConfig(Section):
    """Prices of the model, US dollars per million tokens; null: from the price table."""

    input: NonNegative | None = Field(None, description="Prompt tokens.")
    output: NonNegative | None = Field(None, description="Completion tokens, reasoning included.")
    cached_input: NonNegative | None = Field(None, description="Cached prompt tokens; null: as `input`.")
    cache_write: NonNegative | None = Field(
        None, description="Prompt tokens that the provider writes to its cache; null: as `input`."
    )

    @model_validator(mode="after")
    def _together(self) -> PricesConfig:
        partial = self.cached_input is not None or self.cache_write is not None
        if (self.input is None) != (self.output is None) or (self.input is None and partial):
            raise ValueError("input and output must be set together, cached_input and cache_write only with them")
        return self


class ServerConfig(Section):
    """The server that `llm.provider: llama_cpp` starts on 127.0.0.1 for the run."""

    threads: Count | None = Field(None, description="Compute threads; null: number of cores minus one.")
    context: Count = Field(8192, description="Maximum tokens of a prompt and its reply together.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(0, description="Port; 0: any free port.")


class LLMConfig(Section):
    """The model, and how requests are sent to it."""

    provider: ProviderName = Field(
        "stand_in",
        description="`openai`: any OpenAI-compatible endpoint; `stand_in`: the embedded small policy; "
        "`llama_cpp`: a GGUF file on this machine; `scripted`: replies from `llm.params`; or `module:Class` of your "
        "own.",
    )
    model: str = Field(
        "baseline", description="Name of the model at the endpoint; for `llama_cpp` a GGUF file, or a package with one."
    )
    base_url: WebUrl | None = Field(None, description="URL of the endpoint; null: the provider's own.")
    endpoint_id: str | None = Field(
        None, description="Name of the endpoint in cache keys; null: its host, port and path, without a plain `/v1`."
    )
    headers: Headers = Field(
        default_factory=dict,
        description="Further HTTP headers, such as a gateway wants; `${NAME}` is the environment variable NAME, where "
        "keys belong.",
    )
    api_key_env: VariableName = Field("OPENAI_API_KEY", description="Environment variable that holds the key.")
    temperature: NonNegative | None = Field(
        0, description="Sampling temperature; null: not sent (for reasoning models)."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="Sampling seed; null: not sent."
    )
    max_tokens: Count = Field(512, description="Maximum completion tokens.")
    timeout_s: Positive = Field(30, description="Timeout of one attempt, seconds.")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(3, description="Attempts after the first.")
    stream: bool = Field(False, description="Ask for the answer in parts: for servers that answer in no other way.")
    max_in_flight: Count = Field(16, description="Maximum number of concurrent requests.")
    response_format: Literal["auto", "json_schema", "json_object", "text", "grammar"] = Field(
        "auto",
        description="`auto`: the strictest that the endpoint accepts, negotiated before the run starts; `grammar`: "
        "GBNF, for llama.cpp servers: no free white space, notes of at most 200 characters.",
    )
    strip: Literal["none", "code_fence", "think", "both"] = Field(
        "none", description="Declared repairs of a reply before it is parsed; each use is recorded."
    )
    knowledge_cutoff: Instant | None = Field(None, description="Last day that the training data may contain.")
    replicate: Annotated[int, Field(ge=0)] = Field(0, description="Number of the replicate; part of cache keys.")
    prices: PricesConfig = PricesConfig()
    server: ServerConfig = ServerConfig()
    params: Params = Field(
        default_factory=dict, description="Further parameters of the request body, or of the provider."
    )


class PrefetchConfig(Section):
    """Speculative prefetch: requests of the next decisions, sent ahead on a guess."""

    depth: Annotated[int, Field(ge=0)] = Field(
        8, description="Maximum number of requests ahead; 0: one call after another."
    )
    guess: str = Field(
        "hold",
        description="Assumption about the next decisions: `hold`, `last`, `states`, or the name of a rule.",
    )
    max_waste: NonNegative = Field(1.0, description="Maximum number of unused calls per used one.")


class CacheConfig(Section):
    """The store of replies."""

    path: str = Field("runs/cache.sqlite", description="File of the reply cache.")
    offline_miss: Literal["error", "hold"] = Field(
        "error", description="What happens offline when a reply is missing: an error, or HOLD."
    )


class BudgetConfig(Section):
    """Limits on what a run may spend; null: no limit."""

    usd: NonNegative | None = Field(None, description="US dollars.")
    calls: Annotated[int, Field(ge=0)] | None = Field(None, description="Paid calls.")
    tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="Prompt and completion tokens.")
    on_limit: Literal["stop", "hold"] = Field(
        "stop", description="At a limit: stop, resumable, or HOLD at every decision from there on."
    )


class AccountConfig(Section):
    """The account at the start."""

    cash: Annotated[float, Field(gt=0, le=1e12)] = Field(10000, description="Starting cash, quote units.")


class ExecutionConfig(Section):
    """How orders are filled."""

    fill: Literal["close", "next_open"] = Field(
        "close", description="Price of a fill: the close of the decision bar, or the next open."
    )
    latency_bars: Annotated[int, Field(ge=0, le=10_000)] = Field(0, description="Bars between decision and fill.")
    slippage_bps: Annotated[float, Field(ge=0, lt=10_000)] = Field(
        5, description="Slippage in basis points, always adverse; 5 = 0.05 %."
    )
    fee_rate: Annotated[float, Field(ge=0, lt=0.1)] = Field(
        0.001, description="Fee as a fraction of notional; 0.001 = 0.1 %."
    )
    lot_step: Positive = Field(0.00001, description="Step of quantities, base units.")
    min_quantity: NonNegative = Field(0, description="Minimum quantity of an order, base units.")
    min_notional: NonNegative = Field(5, description="Minimum notional of an order, quote units.")
    no_trade_band: Fraction = Field(0.0, description="Deviation from a target weight that is not traded.")
    funding: bool = Field(True, description="Charge funding (perpetual futures only).")


class RiskConfig(Section):
    """Risk limits."""

    max_position: Annotated[float, Field(gt=0, le=125)] = Field(
        1.0, description="Maximum absolute weight of one symbol."
    )
    max_gross: Annotated[float, Field(gt=0, le=125)] = Field(
        1.0, description="Maximum gross exposure: sum of absolute weights."
    )
    max_net: Annotated[float, Field(ge=0, le=125)] | None = Field(
        None, description="Maximum net exposure: absolute sum of weights."
    )
    max_leverage: Annotated[float, Field(ge=1, le=125)] = Field(
        1.0, description="Maximum exposure on margin, as a multiple of equity; spot: 1."
    )
    allow_short: bool = Field(False, description="Whether positions may be short; spot: never.")
    max_turnover: Positive | None = Field(
        None, description="Maximum one-way turnover of one decision, as a fraction of equity."
    )
    max_daily_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Loss since the start of the UTC day, as a fraction, at which positions stop growing that day.",
    )
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Distance of the stop-loss from the entry price, as a fraction of it."
    )
    take_profit: Positive | None = Field(
        None, description="Distance of the take-profit from the entry price, as a fraction of it."
    )
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Drawdown, as a fraction, at which all positions are closed and trading ends."
    )
    max_failed_share: Fraction = Field(0.05, description="Fraction of failed decisions above which the run has failed.")
    max_failures_in_a_row: Count = Field(20, description="Consecutive transport failures that stop the run.")


class Config(Section):
    """The configuration of a run."""

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
    rebalance: Frequency = Field("W-MON", description="When a cross-sectional run decides: W-MON, MS, QS, D, 4h, ...")
    llm: LLMConfig = LLMConfig()
    prefetch: PrefetchConfig = PrefetchConfig()
    cache: CacheConfig = CacheConfig()
    budget: BudgetConfig = BudgetConfig()
    account: AccountConfig = AccountConfig()
    execution: ExecutionConfig = ExecutionConfig()
    risk: RiskConfig = RiskConfig()
    output: str = Field("runs", description="Folder in which run folders are created.")
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
    def _leverage(self) -> Config:
        risk = self.risk
        if self.market.kind == "spot":
            for name in ("max_position", "max_gross", "max_leverage"):
                if (most := getattr(risk, name)) > 1:
                    percent = f" ({most:g} % is {most / 100:g})" if 1 < most <= 100 else ""
                    raise ValueError(
                        f"risk.{name} must be at most 1 on spot, which has no leverage, got {most:g}{percent}"
                    )
            if risk.allow_short:
                raise ValueError(
                    "risk.allow_short must be false on spot, which cannot be sold short; set market.kind: um for "
                    "perpetual futures"
                )
        for name in ("max_gross", "max_position"):
            if (most := getattr(risk, name)) > max(risk.max_leverage, 1.0):
                raise ValueError(
                    f"risk.{name} must be at most risk.max_leverage ({risk.max_leverage:g}), got {most:g}; raise "
                    "risk.max_leverage to hold as much"
                )
        return self

    @model_validator(mode="after")
    def _pool_of_several(self) -> Config:
        if self.pool.enabled and not self.multi_symbol:
            raise ValueError("pool.enabled needs several symbols: set mode: cross_sectional, or market.symbols")
        return self

    @property
    def multi_symbol(self) -> bool:
        """Whether the run holds several symbols in one account."""
        return self.mode == "cross_sectional" or self.market.symbols is not None
