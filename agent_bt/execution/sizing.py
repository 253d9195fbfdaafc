"""From a decision to whole-lot orders, and the risk limits that clip or reject them; compiled for every driver.

Prices here are the closes of the decision bar. A buy is sized so that the cash pays for it with slippage and fee;
what the price does until the fill is the broker's business, which scales buys to the cash once more.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np

from agent_bt.core.accounting import RULES, lot_of, lots_in
from agent_bt.core.jit import njit

LIMITS = np.dtype(
    [("max_position", np.float64), ("max_gross", np.float64), ("no_trade_band", np.float64), ("allow_short", np.int64)]
)
"""Largest share of equity in one symbol, largest sum of absolute shares, drift that is left alone, shorts allowed."""

AVAILABLE, EQUITY = 0, 1
NOTHING, MAX_POSITION, MAX_GROSS, NO_SHORT, MIN_SIZE, NO_CASH = 0, 1, 2, 3, 4, 5
CUT_REASONS = ("", "max_position", "max_gross", "allow_short", "min_size", "no_cash")


def make_rules(
    *,
    fill: str,
    latency_bars: int,
    slippage_bps: float,
    fee_rate: float,
    lot_step: float,
    min_quantity: float,
    min_notional: float,
    stop_loss: float | None,
    take_profit: float | None,
    max_drawdown: float | None,
    allow_short: bool,
) -> np.ndarray:
    """The `RULES` record of one configuration; shares, base units and quote units as in the config.

    Raises:
        ValueError: the lot step is no positive decimal.
    """
    multiple, scale = lot_of(lot_step)
    rules = np.zeros(1, RULES)
    rule = rules[0]
    rule["fee_rate"], rule["slippage"] = fee_rate, slippage_bps / 1e4
    rule["multiple"], rule["scale"] = multiple, scale
    rule["min_lots"] = max(1, math.ceil(round(min_quantity * scale / multiple, 9)))
    rule["min_notional"] = min_notional
    rule["stop_loss"], rule["take_profit"] = stop_loss or 0.0, take_profit or 0.0
    rule["max_drawdown"] = max_drawdown or 0.0
    rule["allow_short"] = int(allow_short)
    rule["at_close"] = int(fill == "close")
    rule["delay"] = latency_bars + (0 if fill == "close" else 1)
    return rules


def make_limits(*, max_position: float, max_gross: float, no_trade_band: float, allow_short: bool) -> np.ndarray:
    """The `LIMITS` record of one configuration; shares of equity."""
    return np.array([(max_position, max_gross, no_trade_band, int(allow_short))], LIMITS)


@njit
def size_trades(account, positions, rules, closes, trades, sizing, lots):
    """Write the signed `lots` (int64 (N,)) that signed shares `trades` (float64 (N,), NaN: none) amount to."""
    rule = rules[0]
    cash, equity = account[0].cash, account[0].equity
    for symbol in range(len(trades)):
        share, held, close = trades[symbol], positions[symbol].lots, closes[symbol]
        lots[symbol] = 0
        if np.isnan(share) or share == 0.0:
            continue
        if share > 0.0:
            cost = close * (1.0 + rule.slippage) * (1.0 + rule.fee_rate)
            quantity = share * max(cash, 0.0) / cost if sizing == AVAILABLE else share * equity / close
            lots[symbol] = lots_in(quantity, rule.multiple, rule.scale)
        elif sizing == AVAILABLE:
            if share == -1.0:
                lots[symbol] = -held
            else:
                lots[symbol] = -lots_in(-share * positions[symbol].quantity, rule.multiple, rule.scale)
        else:
            wanted = lots_in(-share * equity / close, rule.multiple, rule.scale)
            lots[symbol] = -wanted if rule.allow_short == 1 else -min(wanted, held)


@njit
def size_targets(account, positions, rules, limits, closes, targets, lots):
    """Write the signed `lots` (int64 (N,)) that move each symbol to its target share (float64 (N,), NaN: leave)."""
    rule = rules[0]
    equity = account[0].equity
    for symbol in range(len(targets)):
        target, held = targets[symbol], positions[symbol]
        lots[symbol] = 0
        if np.isnan(target):
            continue
        if target == 0.0:
            lots[symbol] = -held.lots
            continue
        share = held.quantity * closes[symbol] / equity
        if held.lots != 0 and abs(target - share) <= limits[0].no_trade_band:
            continue
        wanted = lots_in(abs(target) * equity / closes[symbol], rule.multiple, rule.scale)
        lots[symbol] = (wanted if target > 0.0 else -wanted) - held.lots


@njit
def check(account, positions, rules, limits, closes, lots, verdicts):
    """Clip or reject `lots` in place; `verdicts` (int64 (N,)) gets the code of the rule that cut, 0 where none did.

    An order that reduces a position is never cut by the share limits. A buy above `max_position` or `max_gross` is
    clipped to them; what is left below the smallest order is rejected.
    """
    rule, limit = rules[0], limits[0]
    equity = account[0].equity
    gross = 0.0
    for symbol in range(len(lots)):
        verdicts[symbol] = NOTHING
        after = positions[symbol].lots + lots[symbol]
        if limit.allow_short == 0 and after < 0:
            lots[symbol] = -positions[symbol].lots
            after = 0
            verdicts[symbol] = NO_SHORT
        cap = lots_in(max(limit.max_position * equity, 0.0) / closes[symbol], rule.multiple, rule.scale)
        if abs(after) > cap and abs(after) > abs(positions[symbol].lots):
            kept = max(cap, abs(positions[symbol].lots)) if after * positions[symbol].lots >= 0 else cap
            after = kept if after > 0 else -kept
            lots[symbol] = after - positions[symbol].lots
            verdicts[symbol] = MAX_POSITION
        gross += abs(after) * rule.multiple / rule.scale * closes[symbol]
    excess = gross - limit.max_gross * equity
    if excess > 1e-9 * equity:
        added = 0.0
        for symbol in range(len(lots)):
            grown = abs(positions[symbol].lots + lots[symbol]) - abs(positions[symbol].lots)
            if grown > 0:
                added += grown * rule.multiple / rule.scale * closes[symbol]
        keep = max(0.0, 1.0 - excess / added) if added > 0.0 else 1.0
        for symbol in range(len(lots)):
            held = positions[symbol].lots
            grown = abs(held + lots[symbol]) - abs(held)
            if grown > 0 and keep < 1.0:
                less = grown - int(np.floor(grown * keep))
                lots[symbol] += -less if lots[symbol] > 0 else less
                verdicts[symbol] = MAX_GROSS
    for symbol in range(len(lots)):
        size = abs(lots[symbol])
        notional = size * rule.multiple / rule.scale * closes[symbol]
        if size > 0 and (size < rule.min_lots or notional < rule.min_notional):
            lots[symbol] = 0
            verdicts[symbol] = MIN_SIZE
