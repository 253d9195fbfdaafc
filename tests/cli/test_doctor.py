"""`agent-bt doctor` finds what prevents a run, and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_server import ChatServer, stand_in_answer

from agent_bt.agents.agent import RequestForm
from agent_bt.backtest import model
from agent_bt.backtest.model import Model, open_model
from agent_bt.cli.doctor import check_dotenv, diagnose
from agent_bt.config.load import load_config
from agent_bt.core.errors import EndpointDown
from agent_bt.core.finding import Finding
from agent_bt.llm.scripted import ScriptedLLM

ENDPOINT = ["llm.provider=openai", "llm.model=m", "llm.api_key_env=DOCTOR_TEST_KEY"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOCTOR_TEST_KEY", raising=False)


def about(topic: str, findings: Iterable[Finding]) -> Finding:
    """The one finding about a topic."""
    (found,) = [finding for finding in findings if finding.what.startswith(topic)]
    return found


def test_the_defaults_are_healthy() -> None:
    findings = diagnose(None, [], probe=True)
    assert {finding.level for finding in findings} <= {"ok", "warning"}
    for topic in ("Python", "numba", "config", "prompt", "key", "endpoint", "market data", "output", "cache"):
        about(topic, findings)


def test_a_wrong_config_is_a_finding() -> None:
    finding = about("config", diagnose(None, ["llm.provider=x"], probe=False))
    assert finding.level == "error"
    assert "llm.provider" in finding.what


def test_a_missing_key_says_which_variable_to_set() -> None:
    finding = about("key", diagnose(None, ENDPOINT, probe=False))
    assert finding.level == "error"
    assert "DOCTOR_TEST_KEY" in finding.advice


def test_a_key_is_seen_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_TEST_KEY", "very-secret-key")
    findings = diagnose(None, ENDPOINT, probe=False)
    assert about("key", findings).level == "ok"
    assert "very-secret-key" not in repr(findings)


def test_the_endpoint_is_tested_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(config: object) -> object:
        asked.append(config)
        form = RequestForm(provider="p", endpoint_id="e", replicate=0, body=lambda messages: {"messages": messages})
        llm = ScriptedLLM(lambda _: "{}")
        return Model(llm=llm, form=form, requested={}, negotiated={"response_format": "json_schema"})

    monkeypatch.setenv("DOCTOR_TEST_KEY", "k")
    monkeypatch.setattr(model, "open_model", answer)
    assert "--probe" in about("endpoint", diagnose(None, ENDPOINT, probe=False)).what
    assert asked == []
    assert "json_schema" in about("endpoint", diagnose(None, ENDPOINT, probe=True)).what
    assert len(asked) == 1


def test_an_endpoint_that_is_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(_: object) -> object:
        raise EndpointDown("no connection")

    monkeypatch.setenv("DOCTOR_TEST_KEY", "k")
    monkeypatch.setattr(model, "open_model", down)
    finding = about("endpoint", diagnose(None, ENDPOINT, probe=True))
    assert finding.level == "error"
    assert "no connection" in finding.what


def test_an_empty_store_says_how_to_fill_it() -> None:
    finding = about("market data", diagnose(None, ["market.source=store"], probe=False))
    assert finding.level == "error"
    assert "agent-bt data backfill" in finding.what + finding.advice


def test_a_missing_prompt_is_an_error() -> None:
    for kind in KINDS.values():
        assert about("prompt", diagnose(None, [*kind, "strategy.prompt=nobody/v9"], probe=False)).level == "error"
    rule = diagnose(None, ["strategy.kind=rsi", "strategy.prompt=nobody/v9"], probe=False)
    assert not [finding for finding in rule if finding.what.startswith("prompt")]


@pytest.mark.parametrize(("free", "level"), [(10 * 2**20, "error"), (2**30, "warning"), (2**40, "ok")])
def test_a_nearly_full_disk_is_a_finding(free: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert about("output", diagnose(None, [], probe=False)).level == level


def test_keys_that_others_can_read_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o644)
    assert "chmod 600" in about(str(path), check_dotenv(path)).advice
    path.chmod(0o600)
    assert list(check_dotenv(path)) == []


def test_a_probe_sends_the_endpoint_small_requests(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer()) as server:
        local = [*ENDPOINT, f"llm.base_url={server.url}"]
        findings = diagnose(None, local, probe=True)
        finding = about("endpoint", findings)
        assert finding.level == "ok"
        assert f"m at {server.url} answers" in finding.what
        assert "json_schema" in finding.what
        same = about("replies", findings)
        assert (same.level, same.what) == (
            "ok",
            "replies: the same question, 3 times alone and 4 times together, has the same answer",
        )
        assert server.calls == 8
        # Nothing of it is kept: the next probe asks again, and a run does not find its replies.
        assert not Path("runs").exists()
        diagnose(None, local, probe=True)
        assert server.calls == 16
        forbidden = about("endpoint", diagnose(None, [*local, "budget.usd=1"], probe=True))
        assert (forbidden.level, forbidden.advice) == ("error", "")
        assert "not tested: budget.usd is set" in forbidden.what
        assert server.calls == 16


@pytest.mark.parametrize(
    ("answer", "defect", "more"),
    [
        ("I would hold here.", "not_json", ()),
        ('{"action": "BUY", "size_pct": 100}', "schema: size_pct must be", ()),
        ('{"action": "HOLD", "confidence": 1}', 'schema: the key "confidence" is not allowed', ()),
        ("", "empty", ()),
        ('{"action": "BUY", "size_pct": 0.3}', "schema: size_pct must be one of", ("strategy.sizes=[0.5, 1]",)),
        ('{"action": "HOLD"}', "schema", ("strategy.kind=agent_ranker", "mode=cross_sectional")),
    ],
)
def test_an_answer_to_the_probe_that_is_not_valid_is_a_warning(answer: str, defect: str, more: tuple[str, ...]) -> None:
    with ChatServer(lambda _: answer) as server:
        findings = diagnose(None, [*ENDPOINT, f"llm.base_url={server.url}", *more], probe=True)
    finding = about("validity", findings)
    assert finding.level == "warning"
    assert f"is not valid ({defect}" in finding.what


def test_a_valid_answer_to_the_probe_is_no_finding() -> None:
    with ChatServer(lambda _: '{"action": "HOLD"}') as server:
        findings = diagnose(None, [*ENDPOINT, f"llm.base_url={server.url}"], probe=True)
    assert not [finding for finding in findings if finding.what.startswith("validity")]


def test_answers_that_differ_together_are_a_warning() -> None:
    def answer(_: dict[str, object]) -> str:
        """The first of calls under way together answers as alone, the others as a batch rounds."""
        if server.calls > 4:
            server.together = 4  # answers are held back until all four are there
        return f'{{"action": "HOLD", "note": "{min(server.record.in_flight, 2)}"}}'

    with ChatServer(answer) as server:
        local = [*ENDPOINT, f"llm.base_url={server.url}"]
        finding = about("replies", diagnose(None, local, probe=True))
    assert finding.level == "warning"
    assert "has other answers together than alone" in finding.what and "replay is exact" in finding.what
    assert "prefetch.depth: 0" in finding.advice


def test_answers_that_differ_even_alone_are_a_warning() -> None:
    with ChatServer(lambda _: f'{{"action": "HOLD", "note": "{server.calls}"}}') as server:
        local = [*ENDPOINT, f"llm.base_url={server.url}"]
        finding = about("replies", diagnose(None, [*local, "llm.temperature=1"], probe=True))
    assert finding.level == "warning"
    assert "different answers, even alone" in finding.what and "llm.temperature: 0" in finding.advice


def test_a_ranker_is_asked_for_weights() -> None:
    with ChatServer(lambda _: '{"weights": []}') as server:
        ranks = ["strategy.kind=agent_ranker", "strategy.prompt=panel_ranker/v1", "mode=cross_sectional"]
        findings = diagnose(None, [*ENDPOINT, f"llm.base_url={server.url}", *ranks], probe=True)
        assert about("replies", findings).level == "ok"
        assert all("weights" in str(body["messages"]) for body in server.bodies)


KINDS = {
    "agent": [],
    "ranker": ["strategy.kind=agent_ranker", "strategy.prompt=panel_ranker/v1", "mode=cross_sectional"],
    "ensemble": ["strategy.kind=ensemble", "strategy.params={members: [{kind: agent}, {kind: rsi}]}"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_probe_asks_the_endpoint_whatever_is_remembered_of_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCTOR_TEST_KEY", "right-key-of-a-test")
    reply = '{"weights": []}' if kind == "ranker" else '{"action": "HOLD"}'
    with ChatServer(lambda _: reply, api_key="right-key-of-a-test") as server:
        local = [*ENDPOINT, f"llm.base_url={server.url}", "llm.retries=0", *KINDS[kind]]
        config = load_config(None, [*local, f"cache.path={tmp_path / 'cache.sqlite'}"], env={})
        with closing(open_model(config)):
            assert server.calls == 1
        with closing(open_model(config)):
            assert server.calls == 1  # remembered
        remembered = [*local, f"cache.path={tmp_path / 'cache.sqlite'}"]
        assert about("endpoint", diagnose(None, remembered, probe=True)).level == "ok"
        assert server.calls > 1
        monkeypatch.setenv("DOCTOR_TEST_KEY", "wrong-key-of-a-test")
        refused = about("endpoint", diagnose(None, remembered, probe=True))
        assert (refused.level, "does not accept the API key" in refused.what) == ("error", True)
    dead = about("endpoint", diagnose(None, remembered, probe=True))
    assert (dead.level, "does not answer" in dead.what) == ("error", True)


def test_one_call_at_a_time_is_asked_alone_only() -> None:
    with ChatServer() as server:
        local = [*ENDPOINT, f"llm.base_url={server.url}", "llm.max_in_flight=1"]
        findings = diagnose(None, local, probe=True)
        assert "3 times alone and 0 times together" in about("replies", findings).what
        assert server.calls == 4 and server.peak == 1
