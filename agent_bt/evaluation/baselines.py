"""What a run is compared with: buy-and-hold, random agents of equal exposure, and a moving-average rule.

All three trade at the run's own decision bars, with its costs and lots, without its stops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_bt.core.types import Fill
from agent_bt.engine.market import Market
from agent_bt.engine.vectorised import drive
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
    """One account run to the end: equity and exposure per bar of the market, and its fills."""

    equity: np.ndarray
    exposure: np.ndarray
    fills: list[Fill]


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

    def run(targets: np.ndarray) -> Outcome:
        broker = SimulatedBroker(tape=market, rules=plain, cash=cash, first=market.first)
        fills = drive(broker=broker, limits=limits, bars=bars, targets=targets.reshape(-1, 1))
        return Outcome(equity=broker.equity, exposure=broker.exposure, fills=fills)

    hold = np.full(len(bars), np.nan)
    hold[:1] = 1.0
    final = float(strategy.equity[-1])
    random = sorted((run(targets) for targets in _random_targets(strategy, bars, market.first, seed)), key=_final)
    traded = bool(strategy.fills)
    return Baselines(
        buy_and_hold=run(hold),
        random=random[len(random) // 2],
        sma=run(_on_change(_above_average(market.close[bars, 0]))),
        random_beaten=sum(_final(outcome) < final for outcome in random) / len(random) if traded else None,
    )


def _final(outcome: Outcome) -> float:
    return float(outcome.equity[-1])


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
    enter = min(1.0, entries / (len(bars) * max(1.0 - share, 1.0 / len(bars))))
    leave = min(1.0, entries / (len(bars) * share)) if share < 1.0 else 0.0
    chains = []
    for draws in np.random.default_rng(seed).random((RANDOM_AGENTS, len(bars))):
        state, long = np.zeros(len(bars)), False
        for at, draw in enumerate(draws.tolist()):
            long = draw >= leave if long else draw < enter
            state[at] = size if long else 0.0
        chains.append(_on_change(state))
    return chains
