"""The scripted model that ships for users' tests."""

from __future__ import annotations

import pytest

from agent_bt.core.errors import ModelError
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request
from agent_bt.llm.scripted import ScriptedLLM


def ask(text: str) -> Request:
    return Request(provider="scripted", endpoint_id="", body={"messages": [{"role": "user", "content": text}]})


def test_a_list_is_answered_in_order_and_the_requests_are_kept() -> None:
    failure = Reply(failure="timeout")
    llm: LLM = ScriptedLLM(["a", failure, Reply(text="b", finish_reason="length")])
    first, second = ask("1"), ask("2")
    assert llm.complete(first) == Reply(text="a", finish_reason="stop")
    assert llm.submit(second).result() is failure
    assert llm.submit(ask("3")).result().finish_reason == "length"
    assert llm.requests[:2] == [first, second]  # type: ignore[attr-defined]
    llm.close()


def test_a_function_sees_the_request() -> None:
    llm = ScriptedLLM(lambda request: request.messages[-1]["content"].upper())
    assert [llm.complete(ask(text)).text for text in ("x", "y")] == ["X", "Y"]


def test_too_few_replies_are_an_error_in_submit_and_complete() -> None:
    llm = ScriptedLLM(["a"])
    llm.complete(ask("1"))
    with pytest.raises(ModelError, match="1 replies, and request number 2 was sent"):
        llm.complete(ask("2"))
    with pytest.raises(ModelError, match="number 3"):
        llm.submit(ask("3")).result()


def test_an_exception_of_the_script_reaches_the_caller() -> None:
    def script(_: Request) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ScriptedLLM(script).submit(ask("1")).result()
