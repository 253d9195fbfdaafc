"""From a decision to whole-lot orders, and the risk limits that clip or reject them; compiled for every driver.

Prices here are the closes of the decision bar. A buy is sized so that the cash pays for it with slippage and fee;
what the price does until the fill is the broker's business, which scales buys to the cash once more.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np

from agent_bt.core.fills import opened_by
from agent_bt.core.jit import njit
from agent_bt.core.lots import lot_of, lots_in
from agent_bt.core.records import RULES
from agent_bt.core.targets import is_change

LIMITS = np.dtype(
    [
        *(
            (name, np.float64)
            for name in ("max_position", "max_gross", "max_net", "max_leverage", "max_turnover", "max_daily_loss")
        ),
        ("no_trade_band", np.float64),
        ("allow_short", np.int64),
    ]
)
"""Largest share of equity in one symbol; largest sum of absolute shares, sum of shares, leverage; largest one-way
turnover of one decision; loss since the beginning of the UTC day from which on nothing grows (the last three: inf
where there is no limit); drift that is left alone; whether shorts are allowed."""

AVAILABLE, EQUITY, TARGETS = 0, 1, 2
"""What the numbers of a decision are: fractions of the cash or the holding, changes in parts of equity, or target
weights."""
CUT_REASONS = (
    *("", "max_position", "max_gross", "allow_short", "min_size", "no_cash"),
    *("not_eligible", "max_daily_loss", "max_leverage", "max_net", "max_turnover"),
)
NOTHING, MAX_POSITION, MAX_GROSS, NO_SHORT, MIN_SIZE, NO_CASH = range(6)
NOT_ELIGIBLE, DAILY_LOSS, MAX_LEVERAGE, MAX_NET, MAX_TURNOVER = range(6, 11)


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
    margin: bool = False,
    max_leverage: float = 1.0,
) -> np.ndarray:
    """The `RULES` record of one configuration; shares, base units and quote units as in the config.

    `margin`: positions are held on margin (perpetuals), up to `max_leverage` times the equity.

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
    rule["allow_short"], rule["margin"], rule["max_leverage"] = int(allow_short), int(margin), max_leverage
    rule["at_close"] = int(fill == "close")
    rule["delay"] = latency_bars + (0 if fill == "close" else 1)
    return rules


def make_limits(
    *,
    max_position: float,
    max_gross: float,
    no_trade_band: float,
    allow_short: bool,
    max_net: float | None = None,
    max_leverage: float | None = None,
    max_turnover: float | None = None,
    max_daily_loss: float | None = None,
) -> np.ndarray:
    """The `LIMITS` record of one configuration; shares of equity, None where there is no limit."""
    limits = np.zeros(1, LIMITS)
    limit = limits[0]
    limit["max_position"], limit["max_gross"] = max_position, max_gross
    limit["no_trade_band"], limit["allow_short"] = no_trade_band, int(allow_short)
    for name, value in (
        ("max_net", max_net),
        ("max_leverage", max_leverage),
        ("max_turnover", max_turnover),
        ("max_daily_loss", max_daily_loss),
    ):
        limit[name] = np.inf if value is None else value
    return limits


@njit
def size_decision(account, positions, rules, limits, closes, eligible, opening, wanted, basis, on_change):
    """Size a decision and check it against the limits; nothing is written to the account.

    Args:
        account: `ACCOUNT` (1,).
        positions: `POSITION` (N,).
        rules: `RULES` (1,).
        limits: `LIMITS` (1,).
        closes: float64 (N,), prices to size at; NaN where a symbol is not listed.
        eligible: bool (N,), symbols whose position may grow.
        opening: equity at the beginning of the UTC day.
        wanted: float64 (N,), what the decision names, NaN for the other symbols.
        basis: what these numbers are: `AVAILABLE`, `EQUITY` or `TARGETS`.
        on_change: whether a target equal to the one given last is left alone.

    Returns:
        The signed lots to order, and the code of the rule that cut each order (0 where none did); int64 (N,) both.
    """
    lots = np.zeros(len(wanted), np.int64)
    verdicts = np.zeros(len(wanted), np.int64)
    if basis == TARGETS:
        size_targets(account, positions, rules, limits, closes, wanted, on_change, lots)
    else:
        size_trades(account, positions, rules, closes, wanted, basis, lots)
    asked = lots.copy()
    check(account, positions, rules, limits, closes, eligible, opening, lots, verdicts)
    for symbol in range(len(wanted)):
        if asked[symbol] != 0 or verdicts[symbol] != NOTHING:
            continue
        if abs(wanted[symbol]) > 0.0 and np.isnan(closes[symbol]):
            if basis != TARGETS or is_change(wanted[symbol], positions[symbol].target, on_change):
                verdicts[symbol] = NOT_ELIGIBLE
        elif basis != TARGETS and wanted[symbol] > 0.0:
            verdicts[symbol] = NO_CASH
    return lots, verdicts


@njit
def size_trades(account, positions, rules, closes, trades, sizing, lots):
    """Write the signed `lots` (int64 (N,)) that signed shares `trades` (float64 (N,), NaN: none) amount to."""
    rule = rules[0]
    cash, equity = account[0].cash, account[0].equity
    for symbol in range(len(trades)):
        share, held, close = trades[symbol], positions[symbol].lots, closes[symbol]
        lots[symbol] = 0
        if np.isnan(share) or share == 0.0 or np.isnan(close):
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
def _coming(positions, rules, symbol):
    """The lots of a position once what waits has filled; what an account without shorts cannot sell is not sold."""
    lots = positions[symbol].lots + positions[symbol].ordered
    return lots if rules[0].allow_short == 1 else max(lots, 0)


@njit
def size_targets(account, positions, rules, limits, closes, targets, on_change, lots):
    """Write the signed `lots` (int64 (N,)) that move each symbol to its target share (float64 (N,), NaN: leave).

    What is ordered and waits counts as held: asking twice for a weight while nothing trades buys it once. With
    `on_change`, a target equal to the one given last is left alone.
    """
    rule = rules[0]
    equity = account[0].equity
    for symbol in range(len(targets)):
        target, position = targets[symbol], positions[symbol]
        lots[symbol] = 0
        if not is_change(target, position.target, on_change):
            continue
        held = _coming(positions, rules, symbol)
        if target == 0.0:
            lots[symbol] = -held
            continue
        if np.isnan(closes[symbol]):
            continue
        share = held * rule.multiple / rule.scale * closes[symbol] / equity
        if held != 0 and abs(target - share) <= limits[0].no_trade_band:
            continue
        wanted = lots_in(abs(target) * equity / closes[symbol], rule.multiple, rule.scale)
        lots[symbol] = (wanted if target > 0.0 else -wanted) - held


@njit
def check(account, positions, rules, limits, closes, eligible, opening, lots, verdicts):
    """Clip or reject `lots` in place; `verdicts` (int64 (N,)) gets the code of the rule that cut, 0 where none did.

    `eligible` (bool (N,)): symbols whose position may grow; `opening`: equity at the beginning of the UTC day.
    An order that reduces a position is cut by the limit on turnover alone. What would open one, or make one grow, is
    clipped to `max_position`, then all of it in proportion to `max_gross`, `max_leverage` and `max_net`, and not
    allowed once the daily loss is passed. What is below the smallest order is rejected: what reduces at once, so that
    the others don't count on it; what opens when it has been clipped. Orders that wait count as filled.
    """
    rule, limit = rules[0], limits[0]
    equity = account[0].equity
    lost = equity < opening * (1.0 - limit.max_daily_loss)
    for symbol in range(len(lots)):
        verdicts[symbol] = NOTHING
        held = _coming(positions, rules, symbol)
        if lots[symbol] == 0:
            continue
        if limit.allow_short == 0 and held + lots[symbol] < 0:
            lots[symbol] = -held
            verdicts[symbol] = NO_SHORT
        opened = opened_by(lots[symbol], held)
        if opened > 0 and (lost or not eligible[symbol]):
            lots[symbol] += -opened if lots[symbol] > 0 else opened
            verdicts[symbol] = DAILY_LOSS if eligible[symbol] else NOT_ELIGIBLE
            opened = 0
        if opened == 0:
            _reject_small(rules, closes, lots, verdicts, symbol)
            continue
        cap = lots_in(max(limit.max_position * equity, 0.0) / closes[symbol], rule.multiple, rule.scale)
        less = min(abs(held + lots[symbol]) - cap, opened)
        if less > 0:
            lots[symbol] += -less if lots[symbol] > 0 else less
            verdicts[symbol] = MAX_POSITION
    _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_gross, 0, MAX_GROSS)
    if limit.max_leverage < limit.max_gross:
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_leverage, 0, MAX_LEVERAGE)
    if limit.max_net < np.inf:
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_net, 1, MAX_NET)
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_net, -1, MAX_NET)
    if limit.max_turnover < np.inf:
        _clip_turnover(account, rules, limits, closes, lots, verdicts)
    for symbol in range(len(lots)):
        _reject_small(rules, closes, lots, verdicts, symbol)


@njit
def _reject_small(rules, closes, lots, verdicts, symbol):
    """Reject an order below the smallest size."""
    rule, size = rules[0], abs(lots[symbol])
    if size > 0 and (size < rule.min_lots or size * rule.multiple / rule.scale * closes[symbol] < rule.min_notional):
        lots[symbol] = 0
        verdicts[symbol] = MIN_SIZE


@njit
def _clip_sum(account, positions, rules, closes, lots, verdicts, most, side, verdict):
    """Scale down what is opened, until the sum of shares is at most `most`.

    `side` 0: the sum of absolute shares; 1 or -1: the sum of shares, taken with that sign.
    """
    rule = rules[0]
    equity = account[0].equity
    total, added = 0.0, 0.0
    for symbol in range(len(lots)):
        held = _coming(positions, rules, symbol)
        after = held + lots[symbol]
        if after == 0:
            continue
        value = rule.multiple / rule.scale * closes[symbol]
        total += abs(after) * value if side == 0 else side * after * value
        if side == 0 or (lots[symbol] > 0) == (side > 0):
            added += opened_by(lots[symbol], held) * value
    excess = total - most * equity
    if excess <= 1e-9 * abs(equity) or added == 0.0:
        return
    keep = max(0.0, 1.0 - excess / added)
    for symbol in range(len(lots)):
        opened = opened_by(lots[symbol], _coming(positions, rules, symbol))
        if opened > 0 and (side == 0 or (lots[symbol] > 0) == (side > 0)):
            less = opened - int(np.floor(opened * keep))
            lots[symbol] += -less if lots[symbol] > 0 else less
            verdicts[symbol] = verdict


@njit
def _clip_turnover(account, rules, limits, closes, lots, verdicts):
    """Scale every order down, until half of what is traded is at most the largest share of equity."""
    rule, limit = rules[0], limits[0]
    traded = 0.0
    for symbol in range(len(lots)):
        if lots[symbol] != 0:
            traded += abs(lots[symbol]) * rule.multiple / rule.scale * closes[symbol]
    most = 2.0 * limit.max_turnover * account[0].equity
    if traded <= most * (1.0 + 1e-9):
        return
    keep = max(most, 0.0) / traded
    for symbol in range(len(lots)):
        if lots[symbol] != 0:
            kept = int(np.floor(abs(lots[symbol]) * keep))
            lots[symbol] = kept if lots[symbol] > 0 else -kept
            verdicts[symbol] = MAX_TURNOVER
