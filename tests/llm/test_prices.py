"""Token counts from the usage of many providers, and what they cost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_bt.config.model import PricesConfig
from agent_bt.core.types import Reply, Usage
from agent_bt.llm.address import OPENAI_BASE_URL
from agent_bt.llm.prices import (
    PriceTable,
    add_cost,
    price_table_version,
    read_tier,
    reported_cost,
    usage_from_body,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)

BODIES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "openai, reasoning and cached": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
        },
        (2006, 300, 1920, 192),
    ),
    "deepseek": (
        {
            "prompt_tokens": 500,
            "completion_tokens": 60,
            "total_tokens": 560,
            "prompt_cache_hit_tokens": 448,
            "prompt_cache_miss_tokens": 52,
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
        (500, 60, 448, 40),
    ),
    "anthropic's own names": (
        {"input_tokens": 50, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 50, "output_tokens": 20},
        (1000, 20, 900, 0, 50),
    ),
    "openrouter, cache written": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 800},
        },
        (1000, 20, 100, 0, 800),
    ),
    "litellm, cache written": (
        {"prompt_tokens": 1000, "completion_tokens": 20, "cache_creation_input_tokens": 700},
        (1000, 20, 0, 0, 700),
    ),
    "more written than the prompt has": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 99},
        },
        (10, 1, 4, 0, 6),
    ),
    "anthropic, compatible endpoint": (
        {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320},
        (300, 20, 0, 0),
    ),
    "openrouter": (
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.00014,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        (194, 2, 0, 0),
    ),
    "vllm": (
        {"prompt_tokens": 41, "total_tokens": 60, "completion_tokens": 19, "prompt_tokens_details": None},
        (41, 19, 0, 0),
    ),
    "ollama": ({"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}, (26, 298, 0, 0)),
    "gemini: thoughts only in the total": (
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        (20, 603, 0, 0),
    ),
    "gemini: thoughts in the details, not in the completion": (
        {
            "prompt_tokens": 21,
            "completion_tokens": 0,
            "total_tokens": 81,
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
        (21, 60, 0, 60),
    ),
    "grok: reasoning beside the completion": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"cached_tokens": 6, "text_tokens": 32},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        (32, 103, 6, 94),
    ),
    "responses": (
        {
            "input_tokens": 81,
            "output_tokens": 1035,
            "total_tokens": 1116,
            "input_tokens_details": {"cached_tokens": 10},
            "output_tokens_details": {"reasoning_tokens": 832},
        },
        (81, 1035, 10, 832),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_usage_of_a_provider(name: str) -> None:
    usage, (prompt, completion, cached, reasoning, *written) = BODIES[name]
    assert usage_from_body({"usage": usage}) == Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=sum(written),
    )


@pytest.mark.parametrize(
    "body",
    [{}, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": {"prompt_tokens": "7", "completion_tokens": True}}],
)
def test_no_usage_is_none_and_not_zero(body: dict[str, Any]) -> None:
    assert usage_from_body(body) is None


def test_absurd_counts_are_not_accepted() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10**30}}
    assert usage_from_body({"usage": usage}) == Usage(prompt_tokens=10, completion_tokens=5)
    assert usage_from_body({"usage": {"prompt_tokens": 10, "completion_tokens": -5}}) is None


def test_the_table_prices_what_it_knows() -> None:
    # gpt-4o-mini, published by OpenAI: 0.15 input, 0.075 cached input, 0.60 output, US dollars per million tokens.
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    assert table.cost_usd(usage, AT) == pytest.approx((600 * 0.15 + 400 * 0.075 + 100 * 0.6) / 1e6)
    # Reasoning tokens are part of the completion and not charged again.
    thinking = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400, reasoning_tokens=90)
    assert table.cost_usd(thinking, AT) == table.cost_usd(usage, AT)
    assert table.version == price_table_version()
    assert table.version.startswith("genai-prices ")


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("no-such-model", OPENAI_BASE_URL),
        ("gpt-4o-mini", None),  # the name alone, without an endpoint
        ("gpt-4o-mini", "http://127.0.0.1:8000/v1"),  # the same name on one's own machine
        ("llama3", "http://localhost:11434/v1"),
        ("gemma-3", "https://generativelanguage.googleapis.com/v1beta/openai/"),  # listed without prices
    ],
)
def test_an_unknown_price_is_none_and_not_zero(model: str, base_url: str | None) -> None:
    table = PriceTable(model=model, base_url=base_url)
    assert table.cost_usd(Usage(prompt_tokens=10, completion_tokens=10), AT) is None
    assert not table.priced


def test_configured_prices_take_precedence() -> None:
    own = PricesConfig(input=2.0, output=10.0, cached_input=0.5)
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL, prices=own)
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=100_000, cached_tokens=400_000)
    assert table.cost_usd(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
    assert table.version == "llm.prices"
    plain = PriceTable(model="x", prices=PricesConfig(input=2.0, output=10.0))
    assert plain.cost_usd(usage) == pytest.approx(1.0 * 2 + 0.1 * 10)
    assert PriceTable(model="x", prices=PricesConfig(input=0, output=0)).cost_usd(usage) == 0.0


def test_embedded_models_are_priced_at_zero() -> None:
    table = PriceTable(model="baseline", free=True)
    assert table.priced and table.cost_usd(Usage(prompt_tokens=5, completion_tokens=5)) == 0.0


def test_prices_change_with_the_date() -> None:
    # deepseek-chat: cheaper at night (16:30 to 00:30 UTC) until 2025-09-05.
    table = PriceTable(model="deepseek-chat", base_url="https://api.deepseek.com")
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
    day, night = datetime(2025, 6, 1, 12, tzinfo=UTC), datetime(2025, 6, 1, 20, tzinfo=UTC)
    assert table.cost_usd(usage, day) == pytest.approx(0.27)
    assert table.cost_usd(usage, night) == pytest.approx(0.135)


def test_the_cost_that_the_endpoint_reports_takes_precedence() -> None:
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    body = '{"usage": {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.5}}'
    assert add_cost(Reply(body=body), table) == Reply(
        body=body, usage=Usage(prompt_tokens=10, completion_tokens=2), cost_usd=0.5
    )
    assert reported_cost({"usage": {"cost": True}}) is None
    assert reported_cost({"usage": {"cost": float("nan")}}) is None


@pytest.mark.parametrize(
    ("usage", "model", "dollars"),
    [
        # A key of one's own behind OpenRouter: the fee is 0, the cost is the one of the provider behind.
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.036}}, "openai/gpt-5", 0.036),
        ({"cost": 0.0018, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.036}}, "x", 0.0378),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, "x", None),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0}}, "x", None),
        ({"cost": 0.002, "is_byok": True}, "x", None),
        ({"cost": 0, "is_byok": True}, "x", None),
        ({"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}, "x", 0.5),
        # Free, and not known.
        ({"cost": 0}, "deepseek/deepseek-r1:free", 0.0),
        ({"cost": 0}, "deepseek/deepseek-r1", None),
        ({"cost": 0.0, "is_byok": False}, "", None),
        ({"cost": -1}, "x", None),
        ({"cost": True}, "x", None),
        ({}, "x:free", None),
    ],
)
def test_a_reported_cost_is_never_0_by_accident(usage: dict[str, Any], model: str, dollars: float | None) -> None:
    found = reported_cost({"usage": usage}, model)
    assert found == (None if dollars is None else pytest.approx(dollars))


def test_own_prices_win_over_what_the_endpoint_reports() -> None:
    own = PriceTable(model="m", prices=PricesConfig(input=2.0, output=10.0))
    for usage in ({"cost": 0}, {"cost": 0.5}, {"cost": 0, "is_byok": True}):
        body = json.dumps({"usage": {"prompt_tokens": 1000, "completion_tokens": 100, **usage}})
        assert add_cost(Reply(body=body), own).cost_usd == pytest.approx(1000 * 2e-6 + 100 * 10e-6)


@pytest.mark.parametrize("tier", ["flex", "priority", "batch", "scale", "performance"])
def test_a_service_tier_without_a_published_price_is_unpriced(tier: str) -> None:
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    served = Reply(body=json.dumps({"service_tier": tier, "usage": usage}))
    assert add_cost(served, table).cost_usd is None
    assert read_tier(served.body) == tier
    asked = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL, tier=tier)
    assert not asked.priced and asked.why_unpriced == f"gpt-4o-mini is unpriced for the service tier {tier}"
    # One's own prices, and a cost that the endpoint reports, hold for any tier.
    own = PriceTable(model="gpt-4o-mini", prices=PricesConfig(input=1.0, output=1.0), tier=tier)
    assert add_cost(served, own).cost_usd == pytest.approx(1100e-6)
    reported = Reply(body=json.dumps({"service_tier": tier, "usage": {**usage, "cost": 0.25}}))
    assert add_cost(reported, asked).cost_usd == 0.25


@pytest.mark.parametrize("tier", ["default", "auto", "standard", "on_demand", None, ""])
def test_the_default_service_tier_has_the_published_price(tier: str | None) -> None:
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    body = json.dumps({"service_tier": tier, "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}})
    assert add_cost(Reply(body=body), table).cost_usd == pytest.approx(0.15)
    assert read_tier(body) is None


def test_cache_writes_have_their_own_price() -> None:
    # Claude Sonnet 4.5, published by Anthropic: 3 input, 3.75 cache write, 0.30 cache read, 15 output.
    table = PriceTable(model="claude-sonnet-4-5", base_url="https://api.anthropic.com/v1")
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=300, cache_write_tokens=600)
    assert table.cost_usd(usage, AT) == pytest.approx((100 * 3 + 300 * 0.3 + 600 * 3.75 + 100 * 15) / 1e6)
    own = PriceTable(model="x", prices=PricesConfig(input=2.0, output=10.0, cached_input=0.5, cache_write=2.5))
    assert own.cost_usd(usage) == pytest.approx((100 * 2 + 300 * 0.5 + 600 * 2.5 + 100 * 10) / 1e6)
    plain = PriceTable(model="x", prices=PricesConfig(input=2.0, output=10.0))
    assert plain.cost_usd(usage) == pytest.approx((1000 * 2 + 100 * 10) / 1e6)


def test_the_worst_case_of_a_prompt_is_that_it_is_written_to_the_cache() -> None:
    table = PriceTable(model="claude-sonnet-4-5", base_url="https://api.anthropic.com/v1")
    assert table.worst_usd(prompt_tokens=1000, completion_tokens=100) == pytest.approx((1000 * 3.75 + 100 * 15) / 1e6)
    own = PriceTable(model="x", prices=PricesConfig(input=2.0, output=10.0, cache_write=1.0))
    assert own.worst_usd(prompt_tokens=1000, completion_tokens=0) == pytest.approx(0.002)
    assert PriceTable(model="no-such-model").worst_usd(prompt_tokens=1, completion_tokens=1) is None


def test_a_reply_without_usage_has_no_cost() -> None:
    table = PriceTable(model="gpt-4o-mini", base_url=OPENAI_BASE_URL)
    for body in ("", "<html>", "[]", '{"choices": []}'):
        assert add_cost(Reply(body=body), table).cost_usd is None
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
    assert add_cost(Reply(usage=usage), table).cost_usd == pytest.approx(0.15)
