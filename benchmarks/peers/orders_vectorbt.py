"""vectorbt: given target shares of one or many symbols filled at the closes; cash is shared, shorts are allowed."""

from __future__ import annotations

import pandas as pd
import timing
import vectorbt as vbt

given = timing.inputs()
portfolio = vbt.Portfolio.from_orders(
    pd.DataFrame(given["close"]), given["sizes"], size_type="targetpercent", direction="both",
    group_by=True, cash_sharing=True, call_seq="auto", min_size=0.0,
    init_cash=given["cash"], fees=given["fee_rate"], slippage=given["slippage_bps"] / 1e4,
)  # fmt: skip
timing.report({}, ("vectorbt",), equity=portfolio.value().to_numpy(), orders=portfolio.orders.values["size"])
