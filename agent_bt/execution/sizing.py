"""Size decisions as whole-lot orders and apply the risk limits; compiled, and used by every driver.

Prices are the closes of the decision bar. A buy is sized so that the cash pays for it with slippage and fee; if the
price moves until the fill, the accounting step scales it to the cash again.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np

from agent_bt.core.fills import lots_opened, may_be_small
from agent_bt.core.jit import njit
from agent_bt.core.lots import MAX_LOTS, floor_to_lots, parse_lot_step
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
"""Largest weight of one symbol; largest sum of absolute weights, sum of weights, and leverage; largest one-way turnover
of one decision; loss since the beginning of the UTC day from which on no position grows (inf where there is no limit);
drift of a weight that is left alone; whether shorts are allowed."""

AVAILABLE, EQUITY, TARGETS = 0, 1, 2
"""What the numbers of a decision are: fractions of the cash or the holding, changes in parts of equity, or target
weights."""
CUT_REASONS = (
    *("", "max_position", "max_gross", "allow_short", "min_size", "no_cash"),
    *("not_eligible", "max_daily_loss", "max_leverage", "max_net", "max_turnover", "too_many_lots"),
)
NOTHING, MAX_POSITION, MAX_GROSS, NO_SHORT, MIN_SIZE, NO_CASH = range(6)
NOT_ELIGIBLE, DAILY_LOSS, MAX_LEVERAGE, MAX_NET, MAX_TURNOVER, TOO_MANY = range(6, 12)


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
    """Make the `RULES` record of one configuration.

    Args:
        fill: `close`, at the close of the decision bar, or `next_open`.
        latency_bars: bars by which every order fills later.
        slippage_bps: slippage, always adverse, in basis points of the price.
        fee_rate: fee as a fraction of the notional.
        lot_step: smallest quantity, base units; a positive decimal number.
        min_quantity: smallest order, base units.
        min_notional: smallest order, quote units.
        stop_loss: loss at which a position is closed, a fraction of its entry price; None: no stop.
        take_profit: profit at which a position is closed, a fraction of its entry price; None: no take-profit.
        max_drawdown: drawdown at which everything is closed, a fraction of the highest equity; None: no limit.
        allow_short: whether positions may be short.
        margin: whether positions are held on margin (perpetuals).
        max_leverage: most leverage on margin, a multiple of the equity.

    Returns:
        `RULES`, (1,).

    Raises:
        ValueError: the lot step is not a positive decimal number, or the smallest order has more than 2^53 lots.
    """
    multiple, scale = parse_lot_step(lot_step)
    if min_quantity * scale / multiple > MAX_LOTS:
        raise ValueError(f"min_quantity {min_quantity:g} is more than 2^53 lots of {lot_step:g}; set a larger lot step")
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
    """Make the `LIMITS` record of one configuration.

    Args:
        max_position: largest absolute weight of one symbol.
        max_gross: largest sum of absolute weights.
        no_trade_band: drift of a weight from its target that is left alone.
        allow_short: whether positions may be short.
        max_net: largest absolute sum of weights; None: no limit.
        max_leverage: largest sum of absolute weights, where it is below `max_gross`; None: no limit.
        max_turnover: largest one-way turnover of one decision, a fraction of equity; None: no limit.
        max_daily_loss: loss since the beginning of the UTC day, a fraction of the equity then, from which on no
            position grows; None: no limit.

    Returns:
        `LIMITS`, (1,).
    """
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
    apply_limits(account, positions, rules, limits, closes, eligible, opening, lots, verdicts)
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
    """Write the lots that the fractions of a decision with trades amount to; other arguments as of `size_decision`.

    Args:
        account: cash and equity are read.
        positions: what is held.
        rules: costs and lots.
        closes: float64 (N,).
        trades: signed fractions, float64 (N,), NaN: none.
        sizing: `AVAILABLE` or `EQUITY`.
        lots: receives the signed lots, int64 (N,).
    """
    rule = rules[0]
    cash, equity = account[0].cash, account[0].equity
    for symbol in range(len(trades)):
        fraction, held, close = trades[symbol], positions[symbol].lots, closes[symbol]
        lots[symbol] = 0
        if np.isnan(fraction) or fraction == 0.0 or np.isnan(close):
            continue
        if fraction > 0.0:
            cost = close * (1.0 + rule.slippage) * (1.0 + rule.fee_rate)
            quantity = fraction * max(cash, 0.0) / cost if sizing == AVAILABLE else fraction * equity / close
            lots[symbol] = floor_to_lots(quantity, rule.multiple, rule.scale)
        elif sizing == AVAILABLE:
            if fraction == -1.0:
                lots[symbol] = -held
            else:
                lots[symbol] = -floor_to_lots(-fraction * positions[symbol].quantity, rule.multiple, rule.scale)
        else:
            wanted = floor_to_lots(-fraction * equity / close, rule.multiple, rule.scale)
            lots[symbol] = -wanted if rule.allow_short == 1 else -min(wanted, held)


@njit
def _lots_after_orders(positions, rules, symbol):
    """Return the lots of a position once its waiting orders have filled; without shorts at least 0."""
    lots = positions[symbol].lots + positions[symbol].ordered
    return lots if rules[0].allow_short == 1 else max(lots, 0)


@njit
def size_targets(account, positions, rules, limits, closes, targets, on_change, lots):
    """Write the lots that move each symbol to its target weight.

    Waiting orders count as filled: a weight that is wanted twice while nothing trades is bought once.

    Args:
        account: the equity is read.
        positions: what is held, ordered, and the targets given last.
        rules: lots.
        limits: the no-trade band.
        closes: float64 (N,).
        targets: target weights, float64 (N,), NaN: left alone.
        on_change: whether a target equal to the one given last is left alone.
        lots: receives the signed lots, int64 (N,).
    """
    rule = rules[0]
    equity = account[0].equity
    for symbol in range(len(targets)):
        target, position = targets[symbol], positions[symbol]
        lots[symbol] = 0
        if not is_change(target, position.target, on_change):
            continue
        held = _lots_after_orders(positions, rules, symbol)
        if target == 0.0:
            lots[symbol] = -held
            continue
        if np.isnan(closes[symbol]):
            continue
        weight = held * rule.multiple / rule.scale * closes[symbol] / equity
        if held != 0 and abs(target - weight) <= limits[0].no_trade_band:
            continue
        wanted = floor_to_lots(abs(target) * equity / closes[symbol], rule.multiple, rule.scale)
        lots[symbol] = (wanted if target > 0.0 else -wanted) - held


@njit
def apply_limits(account, positions, rules, limits, closes, eligible, opening, lots, verdicts):
    """Clip or reject orders.

    An order that reduces a position is cut by the limit on turnover only. One that opens or increases a position is
    clipped to `max_position`, then all of them in proportion to `max_gross`, `max_leverage` and `max_net`; it is not
    allowed once the daily loss is passed. Orders below the smallest size are rejected: those that reduce before the
    limits, so that the others do not rely on them, those that open after the clipping. Waiting orders count as filled.
    An order after which more than `MAX_LOTS` lots would be held gets the verdict `TOO_MANY`: the caller refuses it.

    Args:
        account: the equity is read.
        positions: what is held and ordered.
        rules: lots and the smallest order.
        limits: `LIMITS`, (1,).
        closes: float64 (N,).
        eligible: bool (N,), symbols whose position may grow.
        opening: equity at the beginning of the UTC day.
        lots: signed lots, int64 (N,); changed.
        verdicts: receives the code of the rule that cut each order, int64 (N,), 0 where none did.
    """
    rule, limit = rules[0], limits[0]
    equity = account[0].equity
    lost = equity < opening * (1.0 - limit.max_daily_loss)
    for symbol in range(len(lots)):
        verdicts[symbol] = NOTHING
        held = _lots_after_orders(positions, rules, symbol)
        if lots[symbol] == 0:
            continue
        if limit.allow_short == 0 and held + lots[symbol] < 0:
            lots[symbol] = -held
            verdicts[symbol] = NO_SHORT
        opened = lots_opened(lots[symbol], held)
        if opened > 0 and (lost or not eligible[symbol]):
            lots[symbol] += -opened if lots[symbol] > 0 else opened
            verdicts[symbol] = DAILY_LOSS if eligible[symbol] else NOT_ELIGIBLE
            opened = 0
        if opened == 0:
            _reject_small(positions, rules, closes, lots, verdicts, symbol)
            continue
        cap = floor_to_lots(max(limit.max_position * equity, 0.0) / closes[symbol], rule.multiple, rule.scale)
        less = min(abs(held + lots[symbol]) - cap, opened)
        if less > 0:
            lots[symbol] += -less if lots[symbol] > 0 else less
            verdicts[symbol] = MAX_POSITION
        if abs(held + lots[symbol]) > MAX_LOTS:
            lots[symbol] = 0
            verdicts[symbol] = TOO_MANY
    _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_gross, 0, MAX_GROSS)
    if limit.max_leverage < limit.max_gross:
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_leverage, 0, MAX_LEVERAGE)
    if limit.max_net < np.inf:
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_net, 1, MAX_NET)
        _clip_sum(account, positions, rules, closes, lots, verdicts, limit.max_net, -1, MAX_NET)
    if limit.max_turnover < np.inf:
        _clip_turnover(account, rules, limits, closes, lots, verdicts)
    for symbol in range(len(lots)):
        _reject_small(positions, rules, closes, lots, verdicts, symbol)


@njit
def _reject_small(positions, rules, closes, lots, verdicts, symbol):
    """Reject an order below the smallest size; on margin, what only reduces may be below the smallest notional."""
    rule, size = rules[0], abs(lots[symbol])
    few = size * rule.multiple / rule.scale * closes[symbol] < rule.min_notional
    if few and may_be_small(rule, lots[symbol], _lots_after_orders(positions, rules, symbol)):
        few = False
    if size > 0 and (size < rule.min_lots or few):
        lots[symbol] = 0
        verdicts[symbol] = MIN_SIZE


@njit
def _clip_sum(account, positions, rules, closes, lots, verdicts, most, side, verdict):
    """Scale down what is opened, until the sum of weights is at most `most`.

    `side` 0: the sum of absolute weights; 1 or -1: the sum of weights, taken with that sign.
    """
    rule = rules[0]
    equity = account[0].equity
    total, added = 0.0, 0.0
    for symbol in range(len(lots)):
        held = _lots_after_orders(positions, rules, symbol)
        after = held + lots[symbol]
        if after == 0:
            continue
        value = rule.multiple / rule.scale * closes[symbol]
        total += abs(after) * value if side == 0 else side * after * value
        if side == 0 or (lots[symbol] > 0) == (side > 0):
            added += lots_opened(lots[symbol], held) * value
    excess = total - most * equity
    if excess <= 1e-9 * abs(equity) or added == 0.0:
        return
    keep = max(0.0, 1.0 - excess / added)
    for symbol in range(len(lots)):
        opened = lots_opened(lots[symbol], _lots_after_orders(positions, rules, symbol))
        if opened > 0 and (side == 0 or (lots[symbol] > 0) == (side > 0)):
            less = opened - int(np.floor(opened * keep))
            lots[symbol] += -less if lots[symbol] > 0 else less
            verdicts[symbol] = verdict


@njit
def _clip_turnover(account, rules, limits, closes, lots, verdicts):
    """Scale every order down, until half of the traded notional is at most the allowed fraction of equity."""
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
