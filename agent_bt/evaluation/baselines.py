"""What a run is compared with: buy-and-hold, random agents of equal exposure, and a moving-average rule.

All three trade at the run's own decision bars, with its costs and lots, without its stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import drive, drive_silently
from agent_bt.execution.broker import SimulatedBroker

RANDOM_AGENTS = 100
SMA_DECISIONS = 50

CONVENTION = (
    f"Baselines trade at the same decision times with the same costs, without stops. random: the median of "
    f"{RANDOM_AGENTS} random agents with the strategy's share of time in the market, position size and number of "
    f"entries. sma: long while the close is above the mean of the last {SMA_DECISIONS} decision closes."
)


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
    strategy: Outcome,
    seed: int,
) -> Baselines:
    """Run the baselines over the market, deciding at `bars` (rows, int64 (D,)); D must be at least 1."""
    plain = rules.copy()
    plain["stop_loss"] = plain["take_profit"] = plain["max_drawdown"] = 0.0

    def account() -> SimulatedBroker:
        return SimulatedBroker(tape=market, rules=plain, cash=cash, first=market.first)

    def run(targets: np.ndarray) -> Outcome:
        broker = account()
        fills = drive(broker=broker, limits=limits, bars=bars, targets=targets.reshape(-1, 1))
        funding = float(broker.account[0]["funding"])
        return Outcome(equity=broker.equity, exposure=broker.exposure, fills=fills, funding=funding)

    def final(targets: np.ndarray) -> float:
        broker = account()
        drive_silently(broker=broker, limits=limits, bars=bars, targets=targets.reshape(-1, 1))
        return float(broker.equity[-1])

    hold = np.full(len(bars), np.nan)
    hold[:1] = 1.0
    chains = _random_targets(strategy, bars, market.first, seed)
    # Only the median agent is kept whole: a hundred equity curves of a long market would fill the memory.
    ends = [final(chain) for chain in chains]
    median = sorted(range(len(ends)), key=ends.__getitem__)[len(ends) // 2]
    end = float(strategy.equity[-1])
    return Baselines(
        buy_and_hold=run(hold),
        random=run(chains[median]),
        sma=run(_on_change(_above_average(market.close[bars, 0]))),
        random_beaten=sum(other < end for other in ends) / len(ends) if strategy.fills else None,
    )


def _above_average(closes: np.ndarray) -> np.ndarray:
    """1 where a close is above the mean of the last SMA_DECISIONS closes (itself included), 0 elsewhere."""
    above = np.zeros(len(closes))
    if len(closes) >= SMA_DECISIONS:
        means = np.lib.stride_tricks.sliding_window_view(closes, SMA_DECISIONS).mean(axis=1)
        above[SMA_DECISIONS - 1 :] = closes[SMA_DECISIONS - 1 :] > means
    return above


def _on_change(state: np.ndarray) -> np.ndarray:
    """The state where it differs from the one before (which starts at 0), NaN elsewhere."""
    return np.where(np.diff(state, prepend=0.0) != 0.0, state, np.nan)


def _random_targets(strategy: Outcome, bars: np.ndarray, first: int, seed: int) -> list[np.ndarray]:
    """Two-state Markov chains whose stationary share of time long and rate of entries are the strategy's."""
    exposure = strategy.exposure[first:]
    held = exposure > 0
    share = float(held.mean())
    entries = int(np.count_nonzero(np.diff(held.astype(np.int8), prepend=0) > 0))
    if not entries:
        return [np.full(len(bars), np.nan)]
    size = float(exposure[held].mean())
    # Drawn from its stationary state on, the chain has the share in the market, and these the entries, on average.
    rate = (entries - share) / max(1, len(bars) - 1)
    enter = min(1.0, rate / (1.0 - share)) if share < 1.0 else 0.0
    leave = min(1.0, rate / share)
    chains = []
    for draws in np.random.default_rng(seed).random((RANDOM_AGENTS, len(bars))).tolist():
        state, long = np.zeros(len(bars)), draws[0] < share
        state[0] = size if long else 0.0
        for at, draw in enumerate(draws[1:], start=1):
            long = draw >= leave if long else draw < enter
            state[at] = size if long else 0.0
        chains.append(_on_change(state))
    return chains
