"""A run folder alone rebuilds its run: identical wherever it lies, or the first divergence, field by field."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from chat_server import ChatServer, FaultPlan, stand_in_answer
from small_run import clean_env, cli, small_config

from agent_bt.core.rules_version import RULES_VERSION

NO_SOCKETS = """
import sys
opened = []
def watch(event, arguments):
    if event.startswith("socket."):
        opened.append(event)
        raise RuntimeError(f"{event}: a socket was touched")
sys.addaudithook(watch)
sys.argv = ["agent-bt", *sys.argv[1:]]
from agent_bt.cli.main import main
try:
    main()
finally:
    print("sockets:", len(opened), file=sys.stderr)
"""
"""The interpreter itself reports every socket that is made, by whichever library."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run over a server that is gone; some of its calls failed, some replies were invalid."""
    folder = tmp_path_factory.mktemp("made")
    faults = FaultPlan(rates={"500": 0.1, "bad_reply": 0.1}, seed=1)
    with ChatServer(stand_in_answer(eagerness=0.7), faults=faults) as server:
        done = cli("run", small_config(folder, server.url, llm__retries=0), "-q")
    assert done.code == 0, done.err
    summary = json.loads(next(folder.glob("runs/2*/summary.json")).read_text())
    counts = summary["decisions"]
    assert min(counts[kind] for kind in ("model", "invalid", "transport", "buy", "sell")) > 0, counts
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of its run folder, alone, zipped and unpacked somewhere else."""
    (original,) = made.glob("runs/2*")
    archive = shutil.make_archive(str(tmp_path / "run"), "zip", original)
    unpacked = tmp_path / "elsewhere" / original.name
    with zipfile.ZipFile(archive) as file:
        file.extractall(unpacked)
    return unpacked


def test_a_folder_that_was_zipped_and_unpacked_elsewhere_replays_identically(run: Path) -> None:
    done = cli("replay", run, "--json", "-q")
    assert done.code == 0, done.err
    recorded = json.loads((run / "summary.json").read_text())["hashes"]
    assert done.json["identical"]
    assert done.json["hashes"] == {name: recorded[name] for name in ("data", "decisions", "fills", "equity")}


@pytest.mark.parametrize("command", [("replay", "latest"), ("run", "small.yaml", "--offline", "--fresh")])
def test_no_socket_is_opened(made: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    shutil.copytree(made, tmp_path / "copy")
    env = clean_env(AGENT_BT_OUTPUT=str(tmp_path / "copy" / "runs"))
    del env["OPENAI_API_KEY"]  # offline needs none either
    more = ("--set", "cache.offline_miss=hold", "--set", "prefetch.depth=4") if command[0] == "run" else ()
    done = subprocess.run(
        [sys.executable, "-c", NO_SOCKETS, *command, *more, "-q"],
        cwd=tmp_path / "copy",
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "sockets: 0"), done.stderr


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def other_fee(run: Path) -> None:
    edit(run / "config.yaml", lambda text: text.replace("fee_rate: 0.001", "fee_rate: 0.002"))


def other_prompt(run: Path) -> None:
    edit(run / "manifest.json", lambda text: text.replace("position: flat", "position: none"))


def other_price(run: Path) -> None:
    edit_column(run / "market.parquet", "close", lambda row, price: price * 1.001 if row == 200 else price)


def other_reply(run: Path) -> None:
    sell = '{"action": "BUY", "size_pct": 0.25}'
    edit_column(run / "decisions.parquet", "reply", lambda row, reply: sell if row == 7 else reply)


def other_note(run: Path) -> None:
    edit_column(run / "decisions.parquet", "note", lambda row, note: f"{note}!" if row == 5 else note)


def edit_column(path: Path, name: str, change: Callable[[int, Any], Any]) -> None:
    table = pl.read_parquet(path)
    values = [change(row, value) for row, value in enumerate(table[name].to_list())]
    table.with_columns(pl.Series(name, values, dtype=table.schema[name])).write_parquet(path)


@pytest.mark.parametrize(
    ("tamper", "index", "field", "said"),
    [
        (other_fee, None, "orders", "lots"),
        (other_prompt, 0, "messages", "position: none"),
        (other_price, None, "messages", "+ "),
        (other_reply, 7, "action", "BUY"),
        (other_note, 5, "note", "!"),
    ],
)
def test_the_first_divergence_is_named(
    run: Path, tamper: Callable[[Path], None], index: int | None, field: str, said: str
) -> None:
    tamper(run)
    done = cli("replay", run, "--json", "-q")
    assert done.code == 5
    first = done.json["divergence"]
    assert not done.json["identical"]
    assert first["field"] == field
    assert index is None or first["index"] == index
    if index is None:
        assert first["index"] > 0  # what comes before the change is identical
    assert f"decision {first['index']} at 2024-07-01T" in done.err
    assert (field if field != "messages" else "the prompt differs") in done.err
    assert said in done.err


def test_a_new_run_names_the_version_of_its_rules(run: Path) -> None:
    assert json.loads((run / "manifest.json").read_text())["rules"] == RULES_VERSION


def test_a_divergence_of_an_older_run_says_which_rules_have_changed(run: Path) -> None:
    other_fee(run)
    done = cli("replay", run, "--json", "-q")
    assert (done.code, done.json["changed_rules"]) == (5, [])
    assert "rules of the account" not in done.err
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["rules"]  # as before there were versions
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = cli("replay", run, "--json", "-q")
    assert done.code == 5
    assert len(done.json["changed_rules"]) == RULES_VERSION - 1
    assert "the rules of the account have changed: version 2: a quantity of more than 2^53 lots" in done.err


def test_an_older_run_that_a_changed_rule_refuses_says_so(tmp_path: Path) -> None:
    config = small_config(tmp_path, None, strategy__kind="buy_and_hold", account__cash=1e9)
    assert cli("run", config, "-q").code == 0
    (run,) = (tmp_path / "runs").glob("2*")
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["rules"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    # Some 1.6e4 units are bought, 1.6e19 lots of 1e-15.
    kept = yaml.safe_load((run / "config.yaml").read_text())
    kept["execution"]["lot_step"] = 1e-15
    (run / "config.yaml").write_text(yaml.safe_dump(kept))
    done = cli("replay", run, "-q")
    assert done.code == 5
    assert "cannot be replayed" in done.err
    assert "version 2: a quantity of more than 2^53 lots" in done.err


def test_a_missing_file_is_named(run: Path) -> None:
    (run / "market.parquet").unlink()
    done = cli("replay", run, "-q")
    assert done.code == 1
    assert "market.parquet" in done.err


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"risk__max_drawdown": 0.002, "strategy__kind": "buy_and_hold"}, "done"),  # trading ended by the drawdown
        ({"strategy__kind": "stay_out"}, "done"),
        ({"risk__stop_loss": 0.002}, "done"),
        ({"execution__fill": "next_open", "execution__latency_bars": 2}, "done"),
        ({"market__gaps": "drop", "strategy__every": "20m", "features__window": 30}, "done"),
    ],
)
def test_every_kind_of_run_replays(tmp_path: Path, settings: dict[str, Any], status: str) -> None:
    done = cli("run", small_config(tmp_path, None, **settings), "--json", "--progress", "none")
    assert done.json["status"] == status, done.err
    (run,) = (tmp_path / "runs").glob("2*")
    again = cli("replay", run, "-q", "--json")
    assert again.code == 0, again.err
    assert again.json["decisions"] == done.json["decisions"]["total"] > 0


def test_a_limited_run_and_one_that_stopped_at_its_budget_replay_too(tmp_path: Path) -> None:
    with ChatServer(stand_in_answer(eagerness=0.7)) as server:
        config = small_config(tmp_path, server.url, budget__calls=15, prefetch__depth=0)
        assert cli("run", config, "-q").code == 4
        assert cli("run", config, "-q", "--limit", 9, "--fresh").code == 0
    for run in (tmp_path / "runs").glob("2*"):
        done = cli("replay", run, "-q", "--json")
        assert done.code == 0, done.err
        assert done.json["identical"]
