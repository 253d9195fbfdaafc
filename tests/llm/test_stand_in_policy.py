"""The stand-in model: reads only the prompt, same address same answer, malformed replies at the configured rate."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.agents.reply import parse_reply
from agent_bt.core.errors import ConfigError
from agent_bt.core.types import Reply, Request
from agent_bt.llm.stand_in import StandInLLM, StandInParams, answer

EAGER = StandInParams(eagerness=1.0)
RISING = "5.0,1.0,60.0,20"
FALLING = "1.0,5.0,30.0,-20"


def request(text: str, replicate: int = 0) -> Request:
    body = {"model": "baseline", "messages": [{"role": "user", "content": text}]}
    return Request(provider="stand_in", endpoint_id="stand_in", body=body, replicate=replicate)


def prompt(row: str, account: str = "position: flat") -> str:
    return f"Account\n{account}\n\nBars\nclose,ema_fast,ema_slow,rsi,cmf\n9.0,1.0,5.0,50.0,0\n0.0,{row}"


def decide(text: str, params: StandInParams = EAGER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        answer([{"role": "system", "content": "rsi,x"}, {"role": "user", "content": text}], params)
    )
    return found


@pytest.mark.parametrize(
    ("row", "account", "action", "size"),
    [
        (RISING, "position: flat", "BUY", 0.5),
        ("5.0,1.0,60.0,10", "position: flat", "BUY", 0.25),
        (RISING, "position: 80% of equity, result 2%", "HOLD", None),
        (FALLING, "position: flat", "HOLD", None),
        (FALLING, "position: 80% of equity, result 2%", "SELL", 0.5),
        (FALLING, "position: 20% of equity, result 2%", "SELL", 1.0),
        ("5.0,1.0,80.0,20", "position: 50% of equity", "SELL", 0.5),
        ("5.0,1.0,50.0,20", "position: flat", "HOLD", None),
        ("5.0,na,60.0,20", "position: flat", "HOLD", None),
    ],
)
def test_the_last_row_and_the_account_decide(row: str, account: str, action: str, size: float | None) -> None:
    found = decide(prompt(row, account))
    assert (found["action"], found.get("size_pct")) == (action, size)


def test_the_trend_may_come_from_a_macd_column() -> None:
    assert decide("macd,rsi,cmf\n1.5,60.0,20")["action"] == "BUY"
    assert decide("macd,rsi,cmf\n-1.5,60.0,20")["action"] == "HOLD"


@given(st.text() | st.sampled_from(["rsi", "rsi\n60", "rsi,cmf\n", "rsi,cmf\n1", "x,rsi\n1,2,3", "rsi,cmf\nnan,inf"]))
@settings(max_examples=50)
def test_unknown_text_is_a_hold(text: str) -> None:
    assert decide(text)["action"] == "HOLD"


@pytest.mark.parametrize("messages", [[], [{}], [{"content": None}], [{"content": [{"type": "text"}]}]])
def test_messages_of_another_form_are_a_hold(messages: list[dict[str, Any]]) -> None:
    assert json.loads(answer(messages, EAGER))["action"] == "HOLD"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_it_reads_the_shipped_prompts(version: str) -> None:
    class Table:
        rows, days, place = 60, 0, None

        @staticmethod
        def table(*columns: str) -> str:
            row = dict(zip(("ema_fast", "ema_slow", "rsi", "cmf"), RISING.split(","), strict=True))
            return ",".join(columns) + "\n" + ",".join(row.get(column, "0.0") for column in columns)

        last = table

    account = {"position": 40, "unrealised": 1, "held": 2}
    time = {"hour": 1, "minute": 2}
    context = {"symbol": "X", "interval": "1m", "every": "1h", "sizing": "available", "account": account, "time": time}
    shipped = load_prompt(f"btcusdt_trader/{version}", prompt_roots()[-1:])
    for position, action in ((40, "BUY"), (80, "HOLD")):
        account["position"] = position
        messages = shipped.render({**context, "window": Table(), "summary": Table(), "price": 1.0, "features": {}})
        assert json.loads(answer(messages, EAGER))["action"] == action


def test_replies_are_valid_complete_and_free() -> None:
    llm = StandInLLM(params={"eagerness": 1})
    reply = llm.submit(request(prompt(RISING))).result(timeout=0)
    parsed = parse_reply(reply)
    assert (parsed.action, parsed.size, parsed.valid) == ("BUY", 0.5, True)
    assert (reply.finish_reason, reply.failure, reply.latency_ms, reply.cost_usd) == ("stop", None, 0.0, 0.0)
    body = json.loads(reply.body)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": reply.text}
    assert reply.usage is not None
    assert body["usage"]["prompt_tokens"] == reply.usage.prompt_tokens == -(-len(prompt(RISING)) // 4)
    assert body["usage"]["completion_tokens"] == reply.usage.completion_tokens > 0
    llm.close()


def replies(params: dict[str, Any], replicate: int = 0) -> list[Reply]:
    llm = StandInLLM(params=params)
    return [llm.complete(request(prompt(RISING) + ("0" * n), replicate)) for n in range(400)]


def test_the_random_choices_depend_on_address_and_seed() -> None:
    base = replies({"malformed": 0.2})
    assert base == replies({"malformed": 0.2})
    assert base != replies({"malformed": 0.2, "seed": 1})
    assert base != replies({"malformed": 0.2}, replicate=1)


def test_malformed_replies_come_at_their_rate_and_in_several_kinds() -> None:
    assert all(parse_reply(reply).valid for reply in replies({"malformed": 0.0}))
    rate = sum(not parse_reply(reply).valid for reply in replies({"malformed": 0.2})) / 400
    assert 0.12 < rate < 0.28  # four standard deviations
    for eagerness in (0, 1):
        parsed = [parse_reply(reply) for reply in replies({"malformed": 1.0, "eagerness": eagerness})]
        assert not any(one.valid for one in parsed)
        reasons = Counter(one.provenance.reason for one in parsed)
        assert set(reasons) == {"not_json", "empty", "schema", "not_finite", "duplicate_key"}


def test_a_code_fence_is_one_of_the_malformed_kinds_and_can_be_stripped() -> None:
    parsed = [parse_reply(reply, strip="code_fence") for reply in replies({"malformed": 1.0})]
    assert {one.provenance.repaired for one in parsed if one.valid} == {"code_fence"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"malforned": 0.1}, r"llm\.params\.malforned: .*malformed, eagerness, seed\).*did you mean '?malformed'?\?"),
        ({"malformed": 1.5}, r"llm\.params\.malformed must be a number from 0 to 1, got 1\.5"),
        ({"malformed": float("nan")}, "must be a number from 0 to 1"),
        ({"malformed": True}, "must be a number from 0 to 1"),
        ({"eagerness": "0.5"}, "must be a number from 0 to 1"),
        ({"seed": 1.5}, r"llm\.params\.seed must be an integer, got 1\.5"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StandInLLM(params=params)


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no model 'gpt'; known: baseline"):
        StandInLLM("gpt")
