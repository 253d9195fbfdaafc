"""nautilus_trader: one moving-average cross over one symbol, bar by bar through `on_bar`."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import timing
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

given = timing.inputs()
closes = given["close"]
VENUE = Venue("SIM")
INSTRUMENT = CurrencyPair(
    instrument_id=InstrumentId(Symbol("BTCUSDT"), VENUE), raw_symbol=Symbol("BTCUSDT"),
    base_currency=BTC, quote_currency=USDT, price_precision=2, size_precision=8,
    price_increment=Price.from_str("0.01"), size_increment=Quantity.from_str("0.00000001"),
    maker_fee=Decimal(str(given["fee_rate"])), taker_fee=Decimal(str(given["fee_rate"])), ts_event=0, ts_init=0,
)  # fmt: skip
BAR_TYPE = BarType.from_str("BTCUSDT.SIM-1-MINUTE-LAST-EXTERNAL")
frame = pd.DataFrame(
    {name: np.round(given[name], 2) for name in ("open", "high", "low", "close")} | {"volume": 1e9},
    index=pd.date_range("2024-01-01", periods=len(closes), freq="1min", tz="UTC"),
)
BARS = BarDataWrangler(BAR_TYPE, INSTRUMENT).process(frame)


class Cross(Strategy):
    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = SimpleMovingAverage(given["fast"]), SimpleMovingAverage(given["slow"])
        self.above = False
        self.held: Quantity | None = None

    def on_start(self) -> None:
        self.register_indicator_for_bars(BAR_TYPE, self.fast)
        self.register_indicator_for_bars(BAR_TYPE, self.slow)
        self.subscribe_bars(BAR_TYPE)

    def on_bar(self, bar) -> None:
        if not self.slow.initialized:
            return
        above = self.fast.value > self.slow.value
        if above == self.above:
            return
        self.above = above
        if above:
            free = float(self.portfolio.account(VENUE).balance_free(USDT))
            # A hair less than all of it: an order that the cash does not cover is refused whole.
            self.held = INSTRUMENT.make_qty(free * 0.9999 / (float(bar.close) * (1.0 + given["fee_rate"])))
            side = OrderSide.BUY
        else:
            side = OrderSide.SELL
        self.submit_order(self.order_factory.market(INSTRUMENT.id, side, self.held))


def engine() -> BacktestEngine:
    made = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    made.add_venue(
        venue=VENUE, oms_type=OmsType.NETTING, account_type=AccountType.CASH,
        starting_balances=[Money(given["cash"], USDT)],
    )  # fmt: skip
    made.add_instrument(INSTRUMENT)
    made.add_data(BARS)
    made.add_strategy(Cross())
    return made


def equity(made: BacktestEngine) -> np.ndarray:
    """The curve from the fills, marked in one go after the run: cheaper for it than asking its portfolio each bar."""
    fills = made.trader.generate_order_fills_report()
    at = np.searchsorted(frame.index.to_numpy().astype("datetime64[ns]"), fills["ts_last"].to_numpy("datetime64[ns]"))
    sign = np.where(fills["side"] == "BUY", 1.0, -1.0)
    quantity = fills["filled_qty"].astype(float).to_numpy() * sign
    price = fills["avg_px"].astype(float).to_numpy()
    cash, held = np.zeros(len(frame)), np.zeros(len(frame))
    np.add.at(cash, at, -quantity * price - abs(quantity) * price * given["fee_rate"])
    np.add.at(held, at, quantity)
    return given["cash"] + np.cumsum(cash) + np.cumsum(held) * frame["close"].to_numpy()


def run() -> np.ndarray:
    made = engine()
    made.run()
    curve = equity(made)
    made.dispose()
    return curve


variants, curves = {}, {}
variants["on_bar"], curves["on_bar"] = timing.best_of(run, warm=False)
timing.report(variants, ("nautilus_trader",), **curves)
