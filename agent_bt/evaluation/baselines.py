"""What a run is compared with: buy-and-hold, random agents of equal exposure, and a moving-average rule.

All three trade at the run's own decision times, with its costs, lots and limits on positions, without its stops. A run
over several symbols is compared with accounts over these symbols.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from agent_bt.core.jit import njit
from agent_bt.core.targets import changed_cells
from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import run_targets_without_fills
from agent_bt.execution.broker import SimulatedBroker

RANDOM_AGENTS = 100
SMA_DECISIONS = 50

CONVENTION = (
    f"Baselines trade at the same decision times with the same costs, without stops. random: the median of "
    f"{RANDOM_AGENTS} random agents with the strategy's share of time in the market, position size and number of "
    f"entries. sma: long while the close is above the mean of the last {SMA_DECISIONS} decision closes."
)


CONVENTION_MANY = (
    "Baselines trade at the same decision times with the same costs, without stops. buy & hold: equal weights of what "
    "is eligible at the first decision, then left alone. "
    f"random: the median of {RANDOM_AGENTS} that hold the shares of the strategy, for as long as it does, in symbols "
    "drawn from the eligible ones. "
    f"sma: each symbol, with an equal share, while its close is above the mean of its last {SMA_DECISIONS} decision "
    "closes."
)

_FLAT, _LONG, _SHORT = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One account run to the end: equity and exposure per bar of the market, its fills, and the funding it paid."""

    equity: np.ndarray
    exposure: np.ndarray
    fills: list[Fill]
    funding: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """The three baselines; `random_beaten` is the share of random agents that end below the strategy."""

    buy_and_hold: Outcome
    random: Outcome
    sma: Outcome
    random_beaten: float | None


def run_baselines(
    *,
    market: Market,
    rules: np.ndarray,
    limits: np.ndarray,
    cash: float,
    bars: np.ndarray,
    recorded: np.ndarray,
    strategy: Outcome,
    seed: int,
) -> Baselines:
    """Run the baselines over the market.

    Args:
        market: of one or several symbols.
        rules: rules of the run's account, as `execution.sizing.make_rules` makes them; its stops are left out.
        limits: risk limits of the run, as `execution.sizing.make_limits` makes them.
        cash: what each account starts with, quote units.
        bars: rows of all decisions, unchanged ones too, int64 (D,), at least one.
        recorded: rows of the decisions that were recorded, int64 (R,).
        strategy: outcome of the run that is compared.
        seed: of the random agents.
    """
    plain, allowed = rules.copy(), limits.copy()
    plain["stop_loss"] = plain["take_profit"] = plain["max_drawdown"] = 0.0
    allowed["max_turnover"] = allowed["max_daily_loss"] = np.inf

    def driven(bars: np.ndarray, targets: np.ndarray) -> SimulatedBroker:
        broker = SimulatedBroker(prices=market, rules=plain, cash=cash, first=market.first)
        run_targets_without_fills(broker=broker, limits=allowed, bars=bars, targets=targets)
        return broker

    def run(bars: np.ndarray, targets: np.ndarray) -> Outcome:
        broker = driven(bars, targets)
        funding = float(broker.account[0]["funding"])
        return Outcome(equity=broker.equity, exposure=broker.exposure, fills=broker.take_fills(), funding=funding)

    if len(market.symbols) == 1:
        drawn_at = bars
        average = changed_cells(_above_average(market.close[bars, 0]).reshape(-1, 1), 0.0)

        def agents() -> Iterator[np.ndarray]:
            return (targets.reshape(-1, 1) for targets in _random_targets(strategy, bars, market.first, seed))
    else:
        drawn_at = recorded
        average = _averages(market, bars)

        def agents() -> Iterator[np.ndarray]:
            return _dealt_targets(market, rules[0], strategy, recorded, seed)

    # Only the median agent is kept whole: a hundred equity curves of a long market would fill the memory.
    ends = [float(driven(drawn_at, targets).equity[-1]) for targets in agents()]
    median = sorted(range(len(ends)), key=ends.__getitem__)[len(ends) // 2]
    end = float(strategy.equity[-1])
    return Baselines(
        buy_and_hold=run(bars[:1], _equal_weights(market, bars[:1])),
        random=run(drawn_at, next(islice(agents(), median, None))),
        sma=run(bars, average),
        random_beaten=sum(other < end for other in ends) / len(ends) if strategy.fills else None,
    )


def _equal_weights(market: Market, bars: np.ndarray) -> np.ndarray:
    """Equal shares of what is eligible at each of `bars`, 0 for the rest; a single symbol is held whole."""
    if len(market.symbols) == 1:
        return np.ones((len(bars), 1))
    there = market.eligible[bars]
    weights: np.ndarray = there / np.maximum(there.sum(axis=1, keepdims=True), 1)
    return weights


def _above_average(closes: np.ndarray) -> np.ndarray:
    """1 where a close is above the mean of the last SMA_DECISIONS closes (itself included), 0 elsewhere."""
    above = np.zeros(len(closes))
    if len(closes) >= SMA_DECISIONS:
        means = np.lib.stride_tricks.sliding_window_view(closes, SMA_DECISIONS).mean(axis=1)
        above[SMA_DECISIONS - 1 :] = closes[SMA_DECISIONS - 1 :] > means
    return above


def _averages(market: Market, bars: np.ndarray) -> np.ndarray:
    """An equal share of what is eligible in each symbol above its average, given where that changes."""
    weights = _equal_weights(market, bars)
    above = np.column_stack([_above_average(market.close[bars, at]) for at in range(len(market.symbols))])
    above *= market.eligible[bars]
    averages: np.ndarray = changed_cells(above, 0.0) * np.where(above > 0.0, weights, 1.0)
    return averages


def _random_targets(strategy: Outcome, bars: np.ndarray, first: int, seed: int) -> Iterator[np.ndarray]:
    """Markov chains whose stationary share of time long, and short, and rate of changes are the strategy's."""
    exposure = strategy.exposure[first:]
    held = exposure > 0
    if (exposure < 0).any():
        start, moves, sizes = _three_states(exposure, len(bars))
    elif held.any():
        share, size = float(held.mean()), float(exposure[held].mean())
        entries = int(np.count_nonzero(np.diff(held.astype(np.int8), prepend=0) > 0))
        # Drawn from its stationary state on, the chain has the share in the market, and these the entries, on average.
        rate = (entries - share) / max(1, len(bars) - 1)
        moves = np.zeros((3, 3))
        moves[_FLAT, _LONG] = min(1.0, rate / (1.0 - share)) if share < 1.0 else 0.0
        moves[_LONG, _FLAT] = min(1.0, rate / share)
        start, sizes = np.array([1.0 - share, share, 0.0]), np.array([0.0, size, 0.0])
    else:
        start, moves, sizes = np.array([1.0, 0.0, 0.0]), np.zeros((3, 3)), np.zeros(3)
    random = np.random.default_rng(seed)
    for _ in range(RANDOM_AGENTS):
        yield _chain(random.random(len(bars)), start, moves, sizes)


def _three_states(exposure: np.ndarray, decisions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of time flat, long and short; chances of a change at a decision, (3, 3); mean exposures."""
    state = np.where(exposure > 0, _LONG, np.where(exposure < 0, _SHORT, _FLAT))
    start = np.bincount(state, minlength=3) / len(state)
    changes = np.zeros((3, 3))
    np.add.at(changes, (state[:-1], state[1:]), 1.0)
    # As many changes there as back: then the shares of time are the stationary ones.
    flows = (changes + changes.T) / 2.0 / max(1, decisions - 1)
    moves = np.minimum(1.0, np.divide(flows, start[:, None], out=np.zeros((3, 3)), where=start[:, None] > 0))
    sizes = np.array([0.0, *(exposure[state == side].mean() if start[side] else 0.0 for side in (_LONG, _SHORT))])
    return start, moves, sizes


@njit
def _chain(draws, start, moves, sizes):
    """Targets at the decisions, NaN where they don't change: one draw each, the first from the shares of time."""
    targets = np.full(len(draws), np.nan)
    before = _FLAT
    for at in range(len(draws)):
        state = before
        if at == 0:
            if draws[0] < start[_LONG]:
                state = _LONG
            elif draws[0] < start[_LONG] + start[_SHORT]:
                state = _SHORT
        else:
            bound = 0.0
            for other in range(3):
                if other != before:
                    bound += moves[before, other]
                    if draws[at] < bound:
                        state = other
                        break
        if state != before:
            targets[at] = sizes[state]
        before = state
    return targets


def _dealt_targets(
    market: Market, rule: np.void, strategy: Outcome, recorded: np.ndarray, seed: int
) -> Iterator[np.ndarray]:
    """The strategy's own positions, each in another symbol, drawn when it is opened and kept as long as it is."""
    # With orders that fill later, what a decision led to is seen then.
    rows = np.minimum(recorded + rule["delay"], len(market) - 1)
    lots = _lots_held(market, rule, strategy.fills, rows)
    value = lots * rule["multiple"] / rule["scale"] * market.close[rows]
    shares = np.where(lots != 0, value / strategy.equity[rows, None], 0.0)
    moved = np.diff(lots, axis=0, prepend=0) != 0
    eligible = market.eligible[recorded]
    random = np.random.default_rng(seed)
    for _ in range(RANDOM_AGENTS):
        yield _deal(shares, moved, eligible, random.random(np.count_nonzero(shares)))


def _lots_held(market: Market, rule: np.void, fills: Sequence[Fill], rows: np.ndarray) -> np.ndarray:
    """Lots held after all fills up to each of `rows`, int64 (R, N)."""
    numbers = {symbol: number for number, symbol in enumerate(market.symbols)}
    traded = np.zeros((len(rows), len(numbers)), np.int64)
    after = np.searchsorted(rows, np.array([fill.bar for fill in fills], np.int64))
    for at, fill in zip(after.tolist(), fills, strict=True):
        if at < len(rows):
            traded[at, numbers[fill.symbol]] += round(fill.quantity * rule["scale"] / rule["multiple"])
    return np.cumsum(traded, axis=0)


@njit
def _deal(shares, moved, eligible, draws):
    """Targets (R, N) of an account that holds `shares` (R, N) in symbols of its own, NaN where it leaves alone.

    What the strategy holds of a symbol stands in one drawn from the eligible ones that are free, one of `draws` each;
    it is traded when the strategy trades (`moved`), and dealt anew when its own symbol is no longer eligible. A symbol
    that was given up is drawn again at once only if there is no other: the strategy too sells one to buy another.
    """
    decisions, symbols = shares.shape
    targets = np.full((decisions, symbols), np.nan)
    place = np.full(symbols, -1)
    taken = np.zeros(symbols, np.bool_)
    drawn = 0
    for at in range(decisions):
        fresh = eligible[at].copy()
        for symbol in range(symbols):
            own = place[symbol]
            if own >= 0 and (shares[at, symbol] == 0.0 or not eligible[at, own]):
                targets[at, own] = 0.0
                taken[own] = False
                fresh[own] = False
                place[symbol] = -1
        for symbol in range(symbols):
            if shares[at, symbol] == 0.0:
                continue
            if place[symbol] < 0:
                free = np.count_nonzero(fresh & ~taken)
                if free == 0:
                    fresh = eligible[at].copy()
                    free = np.count_nonzero(fresh & ~taken)
                if free == 0:
                    continue
                pick = int(draws[drawn] * free)
                drawn += 1
                for other in range(symbols):
                    if fresh[other] and not taken[other]:
                        if pick == 0:
                            place[symbol] = other
                            break
                        pick -= 1
                taken[place[symbol]] = True
                targets[at, place[symbol]] = shares[at, symbol]
            elif moved[at, symbol]:
                targets[at, place[symbol]] = shares[at, symbol]
    return targets
