"""`strategy.sizes`: an enumeration in schema and prompt, anything else invalid, and nothing new where it is not set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import ChatServer
from small_run import cli, small_config

from agent_bt.backtest.identity import derive_identity
from agent_bt.backtest.model import negotiation_key
from agent_bt.backtest.replay import replay
from agent_bt.config.load import load_config
from agent_bt.records.read import load_run
from agent_bt.records.verify import verify

SIZES = [0.25, 0.5, 1.0]
V3: dict[str, Any] = {"strategy__prompt": "btcusdt_trader/v3", "features__window": 12}


def decisions(folder: Path) -> pl.DataFrame:
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    return pl.read_parquet(run / "decisions.parquet")


def test_sizes_stand_in_the_schema_and_in_the_prompt(tmp_path: Path) -> None:
    replies = ['{"action": "BUY", "size_pct": 1, "note": ""}', '{"action": "BUY", "size_pct": 100, "note": ""}']

    def answer(body: dict[str, Any]) -> str:
        return replies[len(json.dumps(body["messages"])) % 2]

    with ChatServer(answer) as server:
        done = cli("run", small_config(tmp_path, server.url, strategy__sizes=SIZES, **V3), "--quiet", "--no-report")
        bodies = server.bodies
    assert done.code == 0, done.err
    sent = {json.dumps(body["response_format"]["json_schema"]["schema"]["properties"]["size_pct"]) for body in bodies}
    assert [json.loads(each)["enum"] for each in sent] == [[0.25, 0.5, 1]]
    assert all("0.25 or 0.5 or 1," in body["messages"][0]["content"] for body in bodies[1:])
    made = decisions(tmp_path)
    taken = made.filter(pl.col("provenance") == "model")
    refused = made.filter(pl.col("provenance") == "invalid")
    assert len(taken) and len(refused) and len(taken) + len(refused) == len(made)
    assert taken["size"].unique().to_list() == [1.0]
    assert refused["telemetry"].struct.field("detail").unique().to_list() == [
        "size_pct must be one of 0.25, 0.5, 1, got 100.0"
    ]
    (run,) = (tmp_path / "runs").glob("*small*")
    assert replay(run).identical and verify(run) == []
    counted = load_run(run).summary["decisions"]["details"]
    assert counted == {"invalid: schema": {"size_pct must be one of 0.25, 0.5, 1, got 100.0": len(refused)}}
    shown = cli("runs", "show", run)
    assert f"invalid         {len(refused)} x size_pct must be one of 0.25, 0.5, 1, got 100.0" in shown.out


def test_a_grammar_holds_the_sizes_where_it_is_asked_for(tmp_path: Path) -> None:
    with ChatServer(lambda _: '{"action": "HOLD", "size_pct": 0.25, "note": ""}') as server:
        config = small_config(tmp_path, server.url, strategy__sizes=SIZES, llm__response_format="grammar", **V3)
        done = cli("run", config, "--quiet", "--no-report")
        bodies = server.bodies
    assert done.code == 0, done.err
    assert all('("0.25" | "0.5" | "1")' in body["grammar"] and "response_format" not in body for body in bodies)


def test_a_config_without_sizes_is_the_run_it_was(tmp_path: Path) -> None:
    plain = load_config(small_config(tmp_path, "http://127.0.0.1:9/v1"), env={})
    identity = derive_identity(plain, strategy=None, prompt=None, data="", limit=None)
    assert sorted(identity["strategy"]) == ["every", "kind", "params", "prompt", "sizing"]
    assert "sizes" not in negotiation_key(plain)
    sized = load_config(small_config(tmp_path, "http://127.0.0.1:9/v1", strategy__sizes=SIZES, **V3), env={})
    assert derive_identity(sized, strategy=None, prompt=None, data="", limit=None)["strategy"]["sizes"] == SIZES
    assert negotiation_key(sized)[-1] == "sizes"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy__sizes": SIZES}, "the prompt btcusdt_trader/v1 does not show them to the model"),
        ({"strategy__sizes": SIZES, "strategy__kind": "rsi"}, "rsi does not: remove it"),
        ({"strategy__sizes": []}, "strategy.sizes must list at least one size"),
        (
            {"strategy__sizes": [0.5, 50]},
            "must list numbers above 0 and at most 1, got 50 (50 % is 0.5)",
        ),
        ({"strategy__sizes": [0, 0.5]}, "above 0 and at most 1, got 0"),
        ({"strategy__sizes": [0.5, 1, 0.5]}, "must list each size once, got 0.5 twice"),
        ({"strategy__sizes": ["half"]}, "strategy.sizes[0] must be a finite number, got 'half'"),
        ({"strategy__sizes": [None]}, "strategy.sizes[0] must not be empty"),
        ({"strategy__sizes": [True]}, "strategy.sizes[0]"),
        ({"strategy__sizes": 0.5}, "must be a list such as [0.25, 0.5, 1], got 0.5"),
    ],
)
def test_sizes_that_cannot_be_meant_are_an_error(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    done = cli("run", small_config(tmp_path, None, **settings), "--quiet")
    assert done.code == 2
    assert message in " ".join(done.err.split())
