"""Views over several symbols for the tests of rankers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent_bt.agents.agent import RequestForm
from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.agents.ranker import RankerAgent
from agent_bt.core.clock import DAY, HOUR
from agent_bt.core.types import Portfolio, Position, Reply
from agent_bt.core.view import BAR_COLUMNS, MarketView
from agent_bt.llm.scripted import ScriptedLLM

NOW = 19_900 * DAY
FLAT = Portfolio(cash=10_000.0, positions={})
SYMBOLS = ("AUSDT", "BUSDT", "CUSDT", "DUSDT")
FORM = RequestForm(provider="scripted", endpoint_id="local", replicate=0, body=lambda messages: {"messages": messages})


def panel_view(
    closes: Sequence[float] = (100.0, 2.5, 0.00012345, 30_000.0),
    *,
    eligible: Sequence[bool] = (True, True, True, True),
    **columns: Sequence[float],
) -> MarketView:
    """One row of four symbols; `columns` beside the bars', and any of those."""
    names = (*BAR_COLUMNS, *(name for name in columns if name not in BAR_COLUMNS))
    values = {name: np.zeros(4) for name in names} | {name: np.array(each, float) for name, each in columns.items()}
    values["close"] = np.array(closes, float)
    return MarketView(
        now=NOW,
        interval=HOUR,
        symbols=SYMBOLS,
        columns=names,
        times=np.array([NOW]),
        data=np.stack([values[name] for name in names], axis=-1)[np.newaxis],
        eligible=np.array(eligible),
    )


def ranker(*replies: str | Reply, prompt: str = "panel_ranker/v1", **params: Any) -> RankerAgent:
    """A ranker whose model answers from a script."""
    return RankerAgent(
        prompt=load_prompt(prompt, prompt_roots()),
        form=FORM,
        llm=ScriptedLLM(replies),
        **{"frequency": "W-MON", "columns": ["return_24"], **params},
    )


def holding(view: MarketView, **weights: float) -> Portfolio:
    """An account of 10,000 that holds these weights."""
    positions = {
        symbol: Position(quantity=1e4 * weight / view.prices[symbol], average_price=view.prices[symbol], opened=0)
        for symbol, weight in weights.items()
    }
    return Portfolio(cash=1e4 * (1.0 - sum(weights.values())), positions=positions)
