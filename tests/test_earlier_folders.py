"""Run folders, caches, experiments and sweeps of an earlier version replay, resume and are read as before.

They are kept in `tests/earlier`; its README says what each covers. The hashes are those that the earlier version
recorded. A change that does not come to them breaks the folders and caches of every user.
"""

from __future__ import annotations

import csv
import json
import lzma
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from earlier.make import CONFIGS, STOP, serve
from small_run import cli

from agent_bt import load_config, load_run, replay, run

CONTENT = ("data", "decisions", "fills", "equity")
HASHES: dict[str, dict[str, str | None]] = {
    "agent": {
        "config": "1a2b5fa91e51d7a63c717aa92e174d8188d7436173826942df33b93db246541c",
        "data": "923432d3b1bcbbd6b5cf49fbb5f7868fc399d94e1c69528f73ca6705e5b0bcef",
        "prompt": "839cf92b1c7dac66164e159839da458f1537652dd7d643cc6a7f33983d8a87f1",
        "decisions": "e689be2116a64245a50ab3e099c296b30207450abb0e4ceb5ae6ae71a5346348",
        "fills": "f340caaa32b41e2ac6c9e028d1cee80cee22de2c91d515fb413e188989207ee5",
        "equity": "9f467e9f044b0720a0f57a06c6252dc1aca6981e900d0278894baeb55a27aaf5",
    },
    "ranker": {
        "config": "f7ebb633c13d9da78ed6fe40533382d88eb2ca78cff96672833417f7a44e25f1",
        "data": "e3f0bcce1f37d939d918cc0b60ca621189257f638de6acd3b24bc9f376f72906",
        "prompt": "f45d4292dce16b43d84cce7b5b4f7d4b9bcead5fadcb0448e093111b4a905459",
        "decisions": "2e458bd296fdf68567ae39b37ef2243ef09363b6492e3650c903ff8cae7daf2e",
        "fills": "80ea72918fd2eca3b721d20daba10e9c3dae1c3381513b1081413e312dac64fe",
        "equity": "41aac5ca26dc8e6934e2c69e2ce7b410cb8162f0b90466961995f0681e8062d3",
    },
    "rule": {
        "config": "ccb67fcf330ce5c9e6c19272a9186c8bc3e972a97adade48f9f1e2b94a1d04ba",
        "data": "cdaff4e30a36a59ddccb79ebdc3e0978bcd0d81ba0014076123d74ef871cedf1",
        "prompt": None,
        "decisions": "51869b2895d74d5598cd297e7de9e60bce367c88d833bf607f60234f0c4fd3ad",
        "fills": "9c6e9c32dee2f617b8cf27fd26a10595b797e0c057178e6d695c74b508170b40",
        "equity": "43c2728ef13cd5680d6a5590b63b41f93e1c8578a0c1f135f0f0b7767a0ec522",
    },
    "long_short": {
        "config": "e7a5c4af87522425afa8fe969b81b1df4f35ec79d9e938e030bfffa3a6f22666",
        "data": "c24287a489c0a396b23687b5bd97a6ce6705bccbca9639bdb655195e068a6919",
        "prompt": None,
        "decisions": "0add423716ebd7894af9f8c62112318adc9c649fa345d8f3a02dae41b5fcd5cb",
        "fills": "122caa2eaa371e79c0bd19ad766ec232051e32fbf8a32a3e2e27cb92223bd64e",
        "equity": "634ce3fb087afc7f5c0b798108aac8664785e1b6034311c3810a10a4420a8d7a",
    },
    "ensemble": {
        "config": "b0cab14770344e2b336962c69614627bb9810ea04aca58a53230c3da1472262f",
        "data": "ea967bdbfefe473cda78b844b097d585fcd3f523c30fdd414ed4e420dd1844ca",
        "prompt": "839cf92b1c7dac66164e159839da458f1537652dd7d643cc6a7f33983d8a87f1",
        "decisions": "d1ae8e912058827bf0c2b120e0c257d373f1df4d99b440080ab1500e9fd7327f",
        "fills": "edc520a3b034c83c3c735f4329f164f5f413ba9e68d81079601f05c101271a4d",
        "equity": "a824294072943e24c2e9ca9caead50e90a7c7a18da290741be5762188e9029f7",
    },
    "stopped": {
        "config": "b30d546fe1fccbe5a0637f623ce60e4c8e0873401ab67ca5c066bae61b02e778",
        "data": "a9e9c86536eef3e300f8598f699687bbef872e37fa81ee317bf16909d0df9091",
        "prompt": "839cf92b1c7dac66164e159839da458f1537652dd7d643cc6a7f33983d8a87f1",
        "decisions": "862149de7e5241cbd4031f865dcc8fbedc43ec5578d0d440612d069e156d7e62",
        "fills": "9b3daaa82a891e2fbc12d435e2a2e0c8cdeaa1d34ba67487b04b3edea0b5f15c",
        "equity": "37602f8c852bd043c9d99fff0974860df3c9bbd2447ed415aa838222b821fbd3",
    },
    "openai": {
        "config": "b30d546fe1fccbe5a0637f623ce60e4c8e0873401ab67ca5c066bae61b02e778",
        "data": "8cb43849894f22e571c3aa21fc7afac7dde20838d3aca4631badf5f46ea7ceb2",
        "prompt": "839cf92b1c7dac66164e159839da458f1537652dd7d643cc6a7f33983d8a87f1",
        "decisions": "973bb285c664c1fca4ca18ed0129007288647b33b83d764fc309438454a26b30",
        "fills": "e123418c46953bbc5fda1dc601dbde772eba8cf2daf8643192f87761f9d4ae42",
        "equity": "dbea03e256cf581a1477ad86673e5e2e370f3d7966c64a5ecb09fc56404574bf",
    },
    "transport": {
        "config": "0b0db29054e8f645489ccc93734223117845db0d9596857b707a616ddefa8eba",
        "data": "3d0e332be198acfbaa694be9b57bb1fd378214d3a30c8304eb958bc23bde0240",
        "prompt": "da9268488c0817d4be958fe45d0d0c30c125fb589f0dd117598a9e52e78f7bd2",
        "decisions": "706027b4ee974a979dbb3d741b17084e9595171f58040e4276f149c6c3945681",
        "fills": "17390c8a50d2388dd9e8c993ab488a4a217bb73d2aa25b18533970d99d373797",
        "equity": "38ee1b52f6c9689da2dddb78e5c01b0a358ca5963284708cb119248e894ddd16",
    },
}

EXPERIMENT = "60ec55f7aa14db6514949727bd9d71739316bcaed84dc9cc746bc37a6e3f0728"
SWEEP = "sweep-c98bd97b04"
REPLIES = 30
TRIALS = 16


@pytest.fixture(autouse=True)
def work_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a copy of the earlier folder, without a key and without settings from the environment."""
    copied = tmp_path / "work"
    shutil.copytree(CONFIGS.parent, copied)
    monkeypatch.chdir(copied)
    for name in [name for name in os.environ if name.startswith("AGENT_BT_") or name == "OPENAI_API_KEY"]:
        monkeypatch.delenv(name)


def earlier(name: str) -> Path:
    """Return the run folder of this name."""
    (path,) = Path("runs").glob(f"*-{name}-*")
    return path


def command(*arguments: object, code: int = 0) -> str:
    """Run `agent-bt` in this process, check its exit code and return what it printed."""
    done = cli(*arguments)
    assert done.code == code, done.err
    return done.out


def run_today(name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the config of an earlier run with the code of today, and return the new run folder."""
    options: tuple[object, ...] = ("--set", "output=today", "--no-report", "-q")
    if name == "openai":
        command("run", "configs/openai.yaml", "--offline", *options)
    elif name in ("transport", "stopped"):
        monkeypatch.setenv("OPENAI_API_KEY", "a-test-key")
        config, more, code = ("openai", STOP, 4) if name == "stopped" else ("transport", (), 0)
        with serve(config) as server:
            options += ("--set", f"llm.base_url={server.url}", "--set", "cache.path=today.sqlite", *more)
            command("run", f"configs/{config}.yaml", *options, code=code)
    else:
        command("run", f"configs/{name}.yaml", *options)
    (path,) = Path("today").glob(f"*-{name}-*")
    return path


@pytest.mark.parametrize("name", HASHES)
def test_an_earlier_run_replays_to_the_hashes_it_recorded(name: str) -> None:
    again = replay(earlier(name))
    assert again.divergence is None
    assert dict(again.hashes) == {kind: HASHES[name][kind] for kind in CONTENT}
    assert load_run(earlier(name)).summary["hashes"] == HASHES[name]


def test_every_earlier_run_verifies() -> None:
    manifests = [*Path("runs").glob("*/manifest.json"), *Path("runs").glob("ab/*/runs/*/*/*/manifest.json")]
    assert len(manifests) == len(HASHES) + 1 + 2
    for manifest in manifests:
        assert json.loads(command("runs", "verify", manifest.parent, "--json"))["verified"]


ADDED = ("details",)
"""Keys that summaries of today have beside those of the folders."""


@pytest.mark.parametrize("name", HASHES)
def test_the_same_config_gives_the_same_run_today(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, today = earlier(name), run_today(name, monkeypatch)
    recorded, summary = (json.loads((path / "summary.json").read_text()) for path in (before, today))
    assert summary["hashes"] == HASHES[name]
    for part in ("bars", "decisions", "performance", "baselines", "random_beaten", "portfolio", "sensitivity"):
        found = summary[part]
        if part == "decisions":
            found = {key: value for key, value in found.items() if key not in ADDED}
        assert numbers(found) == near(recorded[part])
    # A run from the cache alone pays for nothing and has no ledger.
    for file in (file for file in before.iterdir() if (name, file.name) != ("openai", "ledger.jsonl")):
        missing = keys_in(file) - keys_in(today / file.name)
        assert not missing, f"{file.name} no longer has {sorted(missing)}"


def test_runs_in_python_give_the_same_as_earlier_commands() -> None:
    config = Path("configs/rule.yaml")
    assert run(load_config(config, ["output=today"]), config_path=config).summary["hashes"] == HASHES["rule"]


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_an_unfinished_run_resumes_to_the_hashes_of_the_undisturbed_one(name: str) -> None:
    path = earlier(name)
    lines = (path / "journal.jsonl").read_text().splitlines()
    changes = ("--set", "budget.calls=null", "--set", "cache.path=runs/cache.sqlite")
    done = json.loads(command("resume", name, "--root", "runs", *changes, "--offline", "--json", "--progress", "none"))
    assert (done["run_id"], done["status"], done["hashes"]) == (path.name, "done", HASHES["openai"])
    ledger = [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]
    assert done["llm"]["calls"] == len([entry for entry in ledger if entry[0] == "reserve"]) > 0
    # What the journal held is part of the run: its telemetry is that of the earlier session.
    latencies = load_run(path).decisions["telemetry"].struct.field("latency_ms").to_list()
    assert latencies[: len(lines)] == [json.loads(line)["telemetry"]["latency_ms"] for line in lines]


def test_exported_replies_are_imported_and_answer_the_same_run_offline() -> None:
    store = ("--path", "imported.sqlite")
    assert json.loads(command("cache", "import", "replies.jsonl.xz", *store, "--json"))["new"] == REPLIES
    options = ("--set", "cache.path=imported.sqlite", "--set", "output=today", "--offline", "--no-report")
    done = json.loads(command("run", "configs/openai.yaml", *options, "--json", "--progress", "none"))
    assert done["hashes"] == HASHES["openai"]
    assert (done["llm"]["calls"], done["llm"]["cached"]) == (0, done["decisions"]["total"])


def test_an_earlier_cache_is_exported_as_it_was() -> None:
    command("cache", "export", "again.jsonl.xz", "--path", "runs/cache.sqlite")
    before, again = (lzma.decompress(Path(name).read_bytes()) for name in ("replies.jsonl.xz", "again.jsonl.xz"))
    assert again == before


def test_an_earlier_experiment_is_listed_and_its_report_is_written_again() -> None:
    (listed,) = json.loads(command("ab", "list", "--root", "runs", "--json"))["experiments"]
    assert (listed["name"], listed["status"], listed["verdicts"]) == ("ab", "done", {"agent": "cannot_tell"})
    command("ab", "report", "ab", "--root", "runs", "-o", "ab.html")
    assert "experiment" in Path("ab.html").read_text()


def test_the_same_experiment_gives_the_same_verdicts_today() -> None:
    (before,) = (json.loads(path.read_text()) for path in Path("runs").glob("ab/*/experiment.json"))
    options = ("--json", "--no-report", "--progress", "none")
    today = json.loads(command("ab", "run", "configs/ab.yaml", *options))
    assert today["identity"] == before["identity"] == EXPERIMENT
    # The registry knows every trial of it, so that none is counted again.
    assert today["arms"]["agent"]["trials"] == before["arms"]["agent"]["trials"] == TRIALS
    assert today["arms"]["agent"]["verdict"] == before["arms"]["agent"]["verdict"]
    for part in ("arms", "bars"):
        assert numbers(today[part]) == near(before[part])
    made = Path("runs/ab", today["experiment_id"], "experiment.json")
    assert keys(before) <= keys_in(made)
    places = [[Path(cell["run"]).parent for cell in record["cells"]] for record in (before, today)]
    assert places[0] == places[1]


def test_the_same_sweep_gives_the_same_results_today() -> None:
    options = ("--set", "output=today", "--json", "--no-report", "--progress", "none")
    today = json.loads(command("sweep", "configs/sweep.yaml", *options))
    before, after = (Path(root) / "sweeps" / SWEEP for root in ("runs", "today"))
    assert (today["sweep_id"], before.is_dir()) == (SWEEP, True)
    for table in ("results.parquet", "curves.parquet"):
        recorded, made = (pl.read_parquet(path / table) for path in (before, after))
        assert recorded.schema == made.schema
        assert numbers(made.to_dicts()) == near(recorded.to_dicts())
    assert keys_in(before / "sweep.json") <= keys_in(after / "sweep.json")


def test_earlier_runs_are_listed_and_reported() -> None:
    listed = json.loads(command("runs", "list", "--root", "runs", "--json"))["runs"]
    assert {entry["name"] for entry in listed} == {*HASHES, "killed"}
    assert {entry["name"] for entry in listed if entry["resumable"]} == {"stopped", "killed"}
    for name in ("openai", "long_short"):
        command("report", name, "--root", "runs")
        assert (earlier(name) / "report.html").stat().st_size > 0


def keys_in(path: Path) -> set[str]:
    """Return the keys of a file: of JSON and YAML their paths, of a table its columns and their types."""
    if path.suffix == ".parquet":
        return {part for name, kind in pl.read_parquet_schema(path).items() for part in types(name, kind)}
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return set(next(csv.reader(file)))
    if path.suffix == ".jsonl":
        return {key for line in path.read_text().splitlines() for key in keys(json.loads(line))}
    # JSON is YAML, but slower to read as such.
    found = keys(json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text()))
    return {key for key in found if not key.startswith(".packages.")}


def keys(data: Any) -> set[str]:
    """Return the path of every value in plain data; all items of a list share one."""
    return {path for path, _ in leaves(data)}


def numbers(data: Any) -> dict[str, float]:
    """Return every number of plain data by its path and, within a list, its position; NaN where there is none."""
    found = leaves(data, number_items=True)
    texts = (str, datetime)
    chosen = {path: value for path, value in found if not isinstance(value, texts) and "latency" not in path}
    return {path: math.nan if value is None else value for path, value in chosen.items()}


def near(data: Any) -> Any:
    """Return what compares equal to numbers that differ from those in `data` by rounding only."""
    return pytest.approx(numbers(data), rel=1e-9, abs=1e-9, nan_ok=True)


def leaves(data: Any, path: str = "", *, number_items: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every value that is neither a mapping nor a list."""
    parts: Sequence[tuple[str, Any]]
    if isinstance(data, dict):
        parts = [(f"{path}.{key}", value) for key, value in data.items()]
    elif isinstance(data, list):
        parts = [(f"{path}[{position if number_items else ''}]", value) for position, value in enumerate(data)]
    else:
        yield path, data
        return
    for name, value in parts:
        yield from leaves(value, name, number_items=number_items)


def types(path: str, kind: pl.DataType) -> Iterator[str]:
    """Yield `path: type` of a column, and of every field inside it."""
    if isinstance(kind, pl.Struct):
        for field in kind.fields:
            yield from types(f"{path}.{field.name}", field.dtype)
    elif isinstance(kind, pl.List):
        yield from types(f"{path}[]", kind.inner)
    else:
        yield f"{path}: {kind}"
