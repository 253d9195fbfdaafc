"""`agent-bt resume`: files next to the config of an unfinished run are found again."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_server import ChatServer, stand_in_answer
from small_run import cli, small_config, write_market

SHIPPED = Path(__file__).parents[2] / "prompts" / "btcusdt_trader" / "v1.prompty"


def test_the_prompt_next_to_the_config_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "local-test-key")
    write_market(tmp_path / "market.parquet", hours=6)
    prompt = tmp_path / "prompts" / "mine" / "v1.prompty"
    prompt.parent.mkdir(parents=True)
    prompt.write_text(SHIPPED.read_text().replace("name: btcusdt_trader", "name: mine"))
    with ChatServer(stand_in_answer()) as server:
        budget = {"budget__calls": 8, "prefetch__depth": 0}
        config = small_config(tmp_path, server.url, strategy__prompt="mine/v1", **budget)
        stopped = cli("run", config, "-q")
        assert stopped.code == 4, stopped.err
        done = cli("resume", "--root", tmp_path / "runs", "--set", "budget.calls=null", "--json", "--progress", "none")
    assert done.code == 0, done.err
    assert done.json["status"] == "done"
    assert done.json["decisions"]["total"] > 8
