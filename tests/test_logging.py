"""What the package logs: under one logger, silent until asked for, and never a key."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import cli, small_config, write_market

import agent_bt
from agent_bt.data.transport import Transport, Unreachable

KEY = "a-test-key-that-must-not-be-logged"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_market(tmp_path / "market.parquet", hours=4)
    return tmp_path


def test_every_logger_is_a_child_of_the_one_of_the_package() -> None:
    package = Path(agent_bt.__file__).parent
    named = {name for file in package.rglob("*.py") for name in re.findall(r"getLogger\((.*?)\)", file.read_text())}
    assert named == {"__name__", '"agent_bt"'}


def test_importing_the_package_changes_no_handler_but_its_own() -> None:
    code = "import logging, agent_bt; l = logging.getLogger; print(l().handlers, l('agent_bt').handlers, l().level)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] [<NullHandler (NOTSET)>] 30\n"


def test_a_run_is_silent_until_its_log_is_asked_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("run", small_config(config, None), "-q")
    assert (done.code, done.err) == (0, "")
    monkeypatch.setenv("AGENT_BT_LOG", "info")
    done = cli("run", small_config(config, None), "-q")
    assert done.code == 0
    line = re.compile(r"\S+Z INFO    agent_bt\.backtest\.execute: run \S+: (.*)")
    said = [found[1] for found in map(line.fullmatch, done.err.splitlines()) if found]
    assert [re.sub(r"\d[\d.]*", "N", words) for words in said] == [
        "new, N decisions",
        "done after N decisions, N s",
    ]
    assert logging.getLogger("agent_bt").level == logging.NOTSET
    assert len(logging.getLogger("agent_bt").handlers) == 1


def test_a_level_that_does_not_exist_is_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_BT_LOG", "loud")
    done = cli("version")
    assert (done.code, done.err) == (2, "error: AGENT_BT_LOG must be one of debug, info, warning, error, got 'loud'\n")


def test_retries_negotiation_and_the_cache_are_logged_and_the_key_is_not(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_BT_LOG", "debug")
    script = [None, "429", "drop"]
    with ChatServer(stand_in_answer(), script=script, refuse=["json_schema"], api_key=KEY) as server:
        settings = {"llm__retries": 5, "prefetch__depth": 0}
        done = cli("run", small_config(config, server.url, **settings), "-q")
        again = cli("run", small_config(config, server.url, **settings), "-q")
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}-which-is-wrong")
        refused = cli("run", small_config(config, server.url, cache__path=str(config / "new"), **settings), "-q")
    assert done.code == again.code == 0, done.err
    for part in (
        "INFO    agent_bt.llm.negotiation: the endpoint refuses a parameter: ",
        "INFO    agent_bt.llm.negotiation: the endpoint accepts response_format json_object and max_tokens, found in",
        "INFO    agent_bt.llm.retry: attempt 1 at local failed (rate_limit: ",
        "INFO    agent_bt.llm.retry: attempt 2 at local failed (connection: ",
        "INFO    agent_bt.llm.limiter: HTTP 429: from now on at most ",
        "DEBUG   agent_bt.llm.openai_client: http://127.0.0.1",
        "DEBUG   agent_bt.llm.cache: cache miss ",
    ):
        assert part in done.err
    assert "cache hit" in again.err
    assert "cache miss" not in again.err
    assert refused.code == 1
    assert KEY not in done.err + again.err + refused.err


def test_a_download_is_logged_without_the_password_of_its_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="agent_bt")
    transport = Transport(retries=1, sleep=lambda _: None)
    with pytest.raises(Unreachable):
        transport.get("http://someone:password@127.0.0.1:9/data/file.zip?token=secret")
    assert [record.message.partition(": ")[0] for record in caplog.records if record.name.startswith("agent_bt")] == [
        "GET http://127.0.0.1:9/data/file.zip"
    ]
