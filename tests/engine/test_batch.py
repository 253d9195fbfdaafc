"""Accounts run in one batch have the same bits as each in a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.core.clock import DAY, HOUR
from agent_bt.engine.batch import OUTCOME, Accounts, BatchRunner, last_rows_of_days
from agent_bt.engine.vectorised import run_targets
from agent_bt.evaluation import metrics
from agent_bt.evaluation.performance import performance
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.execution.sizing import make_limits, make_rules
from agent_bt.experiments.sweep.measures import measure

CASH = 10_000.0
ROWS = 60
SUMS = ("profit_factor", "turnover", "exposure", "realised_pnl", "unrealised_pnl", "fees", "slippage")
"""Measures that are sums of many numbers, added in another order than Python or numpy do."""


class PriceArrays:
    """Hours of a random market; some without a trade, one symbol that is delisted, funding at some bars."""

    def __init__(self, seed: int, symbols: int, *, margin: bool) -> None:
        draw = np.random.default_rng(seed)
        shape = (ROWS, symbols)
        self.symbols = tuple(f"S{at}" for at in range(symbols))
        self.times = (np.arange(ROWS, dtype=np.int64) + 1) * HOUR + 19_000 * DAY
        self.close = 100.0 * np.exp(np.cumsum(draw.normal(0, 0.03, shape), axis=0))
        self.open = np.ascontiguousarray(np.vstack([self.close[:1], self.close[:-1]]))
        self.high = np.maximum(self.open, self.close) * (1 + np.abs(draw.normal(0, 0.01, shape)))
        self.low = np.minimum(self.open, self.close) * (1 - np.abs(draw.normal(0, 0.01, shape)))
        self.traded = draw.random(shape) > 0.1
        self.ends = np.full(symbols, ROWS, np.int64)
        if symbols > 1:
            self.ends[-1] = ROWS - 12
            self.traded[ROWS - 12, -1] = True
        self.eligible = np.arange(ROWS)[:, None] < self.ends
        self.funding = np.where(draw.random(shape) > 0.9, 0.001, 0.0) if margin else np.empty((0, symbols))
        rows = [self.ends[self.ends < ROWS], np.flatnonzero(self.funding.any(axis=1))]
        self.special = np.unique(np.concatenate(rows)).astype(np.int64)


def rules_of(changes: dict[str, Any], *, margin: bool) -> np.ndarray:
    plain: dict[str, Any] = {
        "fill": "close", "latency_bars": 0, "slippage_bps": 5.0, "fee_rate": 0.001, "lot_step": 0.001,
        "min_quantity": 0.0, "min_notional": 5.0, "stop_loss": None, "take_profit": None, "max_drawdown": None,
    }  # fmt: skip
    return make_rules(**{**plain, **changes}, allow_short=margin, margin=margin, max_leverage=2.0 if margin else 1.0)


def limits_of(changes: dict[str, Any], *, margin: bool) -> np.ndarray:
    return make_limits(
        **{"max_position": 1.0, "max_gross": 1.0, "no_trade_band": 0.0, "allow_short": margin, **changes}
    )


executions = st.fixed_dictionaries(
    {
        "slippage_bps": st.sampled_from([0.0, 5.0]),
        "stop_loss": st.sampled_from([None, 0.02]),
        "take_profit": st.sampled_from([None, 0.03]),
        "max_drawdown": st.sampled_from([None, 0.1]),
    }
)
limits = st.fixed_dictionaries(
    {"max_daily_loss": st.sampled_from([None, 0.02]), "max_turnover": st.sampled_from([None, 0.3])}
)


@given(data=st.data(), symbols=st.sampled_from([1, 3]), margin=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_every_account_has_the_same_bits_as_in_a_run_of_its_own(
    data: st.DataObject, symbols: int, margin: bool, seed: int
) -> None:
    prices, draw = PriceArrays(seed, symbols, margin=margin), np.random.default_rng(seed + 1)
    first = data.draw(st.sampled_from([0, 7]))
    delay = data.draw(st.sampled_from([{}, {"fill": "next_open"}, {"latency_bars": 2}]))
    orders = data.draw(st.lists(st.tuples(executions, limits, st.booleans()), min_size=1, max_size=4))
    rules = [rules_of({**execution, **delay}, margin=margin) for execution, _, _ in orders]
    bounds = [limits_of(limit, margin=margin) for _, limit, _ in orders]
    wanted = [_targets(draw, symbols, first, short=margin) for _ in orders]
    accounts = Accounts(
        rules=np.concatenate(rules),
        limits=np.concatenate(bounds),
        on_change=np.array([on_change for *_, on_change in orders]),
        starts=np.concatenate([[0], np.cumsum([len(rows) for rows, _ in wanted])]),
        rows=np.concatenate([rows for rows, _ in wanted]),
        targets=np.concatenate([targets for _, targets in wanted]),
    )
    runner = BatchRunner(prices, cash=CASH, first=first, delay=int(rules[0][0]["delay"]))
    outcomes, marks = np.zeros(len(orders), OUTCOME), np.zeros((len(orders), runner.days))
    for _ in range(2):  # a runner can be used again
        runner.run_batch(accounts, outcomes, marks)
    for at, (rows, targets) in enumerate(wanted):
        single = SimulatedBroker(prices=prices, rules=rules[at], cash=CASH, first=first)
        fills = run_targets(broker=single, limits=bounds[at], bars=rows, targets=targets, on_change=orders[at][2])
        _compare(outcomes[at], marks[at], single, fills)


def _targets(draw: np.random.Generator, symbols: int, first: int, *, short: bool) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(draw.random(ROWS) > 0.5)
    rows = rows[rows >= first]
    weights = [np.nan, 0.0, 0.3, 0.9, *([-0.3, -0.9] if short else [])]
    return rows, draw.choice(weights, (len(rows), symbols))


def _compare(outcome: Any, marks: np.ndarray, single: SimulatedBroker, fills: Sequence[Any]) -> None:
    times, first = single.prices.times, single.first
    own = performance(
        times=times[first:], equity=single.equity[first:], exposure=single.exposure[first:], fills=fills,
        initial_cash=CASH, start=int(times[first]) - HOUR, funding=float(single.account[0]["funding"]),
    )  # fmt: skip
    batch = measure(outcome, marks, cash=CASH, elapsed_us=int(times[-1] - times[first]) + HOUR)
    for name, value in asdict(own).items():
        expected = pytest.approx(value, rel=1e-9, abs=1e-9) if name in SUMS else value
        assert getattr(batch, name) == expected, name
    assert outcome["fills"] == len(fills)
    assert outcome["dropped"] == single.dropped
    assert outcome["halted"] == single.account[0]["halted"]
    assert outcome["fees"] == single.account[0]["fees"]
    assert marks.tobytes() == single.equity[last_rows_of_days(times, first)].tobytes()


def test_daily_marks_give_the_daily_returns() -> None:
    times = np.arange(30, dtype=np.int64) * 7 * HOUR + 19_000 * DAY + HOUR
    equity = np.linspace(1.0, 2.0, len(times))
    marks = equity[last_rows_of_days(times, 4)]
    returns = np.diff(np.concatenate([[equity[3]], marks])) / np.concatenate([[equity[3]], marks[:-1]])
    assert returns.tolist() == metrics.daily_returns(times[4:], equity[4:], equity[3]).tolist()
