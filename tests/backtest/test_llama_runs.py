"""Runs with `llm.provider: llama_cpp`: they start a server when it is needed, end it, and know the file they asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_run import Done, cli, small_config

from agent_bt.agents.prompt import load_prompt, prompt_roots
from agent_bt.backtest.identity import derive_identity
from agent_bt.backtest.model import negotiation_key
from agent_bt.backtest.replay import replay
from agent_bt.config.load import load_config
from agent_bt.llm.llama_cpp import process

FAKE = Path(__file__).parents[1] / "support" / "fake_llama"
BUY = '{"action": "BUY", "size_pct": 0.5, "note": "fake"}'
SHAPE: dict[str, Any] = {
    "strategy__prompt": "btcusdt_trader/v3", "strategy__sizes": [0.25, 0.5, 1], "strategy__every": "1h",
    "features__window": 12, "llm__provider": "llama_cpp",
}  # fmt: skip


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process ids of the servers that were started."""
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    pids: list[int] = []
    start = process.LlamaServer._start

    def counted(self: process.LlamaServer) -> str:
        pids.append(self.pid)
        return start(self)

    monkeypatch.setattr(process.LlamaServer, "_start", counted)
    return pids


def write_model(path: Path, **script: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"GGUF" + json.dumps(script).encode())
    return path


def run(folder: Path, *options: str, **settings: Any) -> Done:
    config = small_config(folder, None, **{**SHAPE, "llm__model": str(folder / "toy.gguf"), **settings})
    return cli("run", config, "--quiet", "--no-report", *options)


def folders(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "runs").iterdir() if path.is_dir())


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "(python) Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_run_starts_its_server_ends_it_and_replays_without_it(tmp_path: Path, starts: list[int]) -> None:
    model = write_model(tmp_path / "toy.gguf", replies=[BUY, '{"action": "HOLD", "size_pct": 1, "note": ""}'])
    done = run(tmp_path)
    assert done.code == 0, done.err
    assert len(starts) == 1 and is_gone(starts[0])
    (folder,) = folders(tmp_path)
    summary, manifest = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "manifest"))
    assert summary["about"]["model"] == "llama_cpp/toy.gguf"
    assert (summary["llm"]["cost_usd"], summary["llm"]["speculated"], summary["decisions"]["invalid"]) == (0.0, 0, 0)
    negotiated = manifest["llm"]["effective"]
    assert negotiated["response_format"] == "grammar" and len(negotiated["model_hash"]) == 64
    assert pl.read_parquet(folder / "decisions.parquet")["size"].unique().sort().to_list() == [0.5, 1.0]
    model.unlink()
    assert replay(folder).identical
    offline = run(tmp_path, "--offline", "--fresh")
    assert offline.code == 0, offline.err
    assert len(starts) == 1


def test_what_is_in_the_cache_needs_no_server(tmp_path: Path, starts: list[int]) -> None:
    write_model(tmp_path / "toy.gguf")
    assert run(tmp_path).code == 0
    assert run(tmp_path, "--fresh").code == 0
    assert len(starts) == 1 and len(folders(tmp_path)) == 2


def test_a_model_that_was_moved_is_the_same_run_with_the_same_replies(tmp_path: Path, starts: list[int]) -> None:
    here, there = tmp_path / "toy.gguf", tmp_path / "models" / "toy.gguf"
    identities, prompt = [], load_prompt("btcusdt_trader/v3", prompt_roots())
    for model in (here, there):
        config = load_config(small_config(tmp_path, None, **SHAPE, llm__model=str(model)), env={})
        identity = derive_identity(config, strategy=None, prompt=prompt, data="", limit=None)
        identities.append((identity, negotiation_key(config)))
    assert identities[0] == identities[1] and identities[0][0]["llm"]["model"] == "toy.gguf"
    write_model(here)
    assert run(tmp_path).code == 0
    write_model(there)
    assert run(tmp_path, "--fresh", llm__model=str(there)).code == 0
    assert len(starts) == 1


def test_another_file_of_the_same_name_is_another_model(tmp_path: Path, starts: list[int]) -> None:
    write_model(tmp_path / "toy.gguf")
    assert run(tmp_path).code == 0
    write_model(tmp_path / "toy.gguf", replies=[BUY])
    done = run(tmp_path, "--fresh")
    assert done.code == 2 and "toy.gguf is not the file that the cache" in done.err
    assert run(tmp_path, "--fresh", llm__endpoint_id="toy-2").code == 0
    assert len(starts) == 2


def test_a_run_is_continued_by_the_file_it_began_with(tmp_path: Path, starts: list[int]) -> None:
    model = write_model(tmp_path / "toy.gguf", dies_after=3)
    done = run(tmp_path)
    assert done.code == 1, done.err
    assert "killed by signal 9: ggml: out of memory); the same command starts it again" in " ".join(done.err.split())
    write_model(model, replies=[BUY])
    done = run(tmp_path, cache__path=str(tmp_path / "other.sqlite"))
    assert done.code == 2 and "is not the file that this run has replies of" in " ".join(done.err.split())
    write_model(model, dies_after=3)
    for _ in range(12):
        if run(tmp_path).code == 0:
            break
    (folder,) = folders(tmp_path)
    assert json.loads((folder / "summary.json").read_text())["decisions"]["transport"] == 0
    assert all(is_gone(pid) for pid in starts)


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"llm__model": "nowhere/toy.gguf"}, 2, "llm.model: there is no file nowhere/toy.gguf"),
        ({"llm__model": "no-such-model"}, 2, "neither a GGUF file nor an installed package"),
        ({"llm__base_url": "http://127.0.0.1:1/v1"}, 2, "llama_cpp starts a server of its own; remove it"),
        ({"llm__server": {"threads": 0}}, 2, "llm.server.threads must be at least 1, got 0"),
        ({"llm__server": {"context": "8k"}}, 2, "llm.server.context must be an integer"),
        ({"llm__server": {"port": 70_000}}, 2, "llm.server.port must be at most 65535, got 70000"),
        ({"llm__server": {"ports": 1}}, 2, "did you mean"),
        ({"llm__params": {"grammar": "root"}}, 2, "llm.params.grammar is set by agent-bt itself"),
        (
            {"llm__provider": "stand_in", "llm__model": "baseline", "llm__server": {"port": 1}},
            2,
            "llm.server: llm.provider stand_in starts no server",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    tmp_path: Path, starts: list[int], settings: dict[str, Any], code: int, message: str
) -> None:
    write_model(tmp_path / "toy.gguf")
    done = run(tmp_path, **settings)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert starts == []


def test_without_llama_cpp_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "toy.gguf")
    monkeypatch.setattr(process, "find_spec", lambda _: None)
    done = run(tmp_path)
    assert done.code == 2 and "pip install 'agent-bt[local]'" in " ".join(done.err.split())
    config = small_config(tmp_path, None, **SHAPE, llm__model=str(tmp_path / "toy.gguf"))
    checked = cli("doctor", config, "--json")
    assert checked.code == 2 and "pip install 'agent-bt[local]'" in checked.out


def test_doctor_starts_the_model_only_to_probe(tmp_path: Path, starts: list[int]) -> None:
    write_model(tmp_path / "toy.gguf")
    config = small_config(tmp_path, None, **SHAPE, llm__model=str(tmp_path / "toy.gguf"))
    assert cli("doctor", config).code == 0
    assert starts == []
    assert cli("doctor", config, "--probe").code == 0
    assert all(is_gone(pid) for pid in starts) and starts
