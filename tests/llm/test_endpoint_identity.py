"""An endpoint is its host, port and path: what is asked of one is never answered by another."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer
from small_run import cli, small_config

from agent_bt.config.model import LLMConfig
from agent_bt.llm.address import endpoint_identity
from agent_bt.llm.provider import get_provider


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        # A plain /v1 is left out: these are the names of caches that there are.
        ("https://api.openai.com/v1", "api.openai.com"),
        ("http://localhost:11434/v1", "localhost:11434"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("https://api.deepseek.com", "api.deepseek.com"),
        ("http://[::1]:8000/v1/", "[::1]:8000"),
        # Two of one host.
        ("https://gateway.example/openai/v1", "gateway.example/openai/v1"),
        ("https://gateway.example/groq/v1/", "gateway.example/groq/v1"),
        ("https://x.openai.azure.com/openai/deployments/a", "x.openai.azure.com/openai/deployments/a"),
        ("https://openrouter.ai/api/v1", "openrouter.ai/api/v1"),
        ("https://host.example/v1/v1", "host.example/v1/v1"),
        ("https://host.example/V1", "host.example/V1"),
        # What names the same, and what must not be in a cache.
        ("https://HOST.example:443/v1", "host.example"),
        ("http://host.example:80/v1", "host.example"),
        ("http://host.example:443/v1", "host.example:443"),
        ("https://host.example:/v1", "host.example"),
        ("HTTPS://[::1]:0443/v1", "[::1]"),
        (
            "https://x.openai.azure.com/openai/deployments/a?api-version=2024-10-21",
            "x.openai.azure.com/openai/deployments/a",
        ),
    ],
)
def test_the_name_of_an_endpoint(base_url: str, name: str) -> None:
    assert endpoint_identity(base_url) == name
    assert get_provider(LLMConfig(provider="openai", base_url=base_url)).endpoint_id == name


def test_credentials_and_queries_are_no_part_of_the_name() -> None:
    assert endpoint_identity("https://user:secret@host.example/v1?key=secret") == "host.example"


def test_endpoint_id_names_an_endpoint_whatever_its_address() -> None:
    for base_url in (None, "https://one.example/v1", "https://two.example/a/v1"):
        assert get_provider(LLMConfig(provider="openai", base_url=base_url, endpoint_id="mine")).endpoint_id == "mine"


def action(size: float) -> str:
    return json.dumps({"action": "BUY", "size_pct": size})


def test_an_experiment_over_two_paths_of_one_host_asks_both(tmp_path: Path) -> None:
    with ChatServer(lambda _: action(0.5)) as server:
        server.answers = {"/openai/v1": action(0.25), "/groq/v1": action(0.75)}
        host = server.url.removesuffix("/v1")
        base = small_config(tmp_path, f"{host}/openai/v1", llm__endpoint_id=None, prefetch__depth=0)
        arms = {"openai": {}, "groq": {"llm.base_url": f"{host}/groq/v1"}}
        spec = tmp_path / "ab.yaml"
        spec.write_text(yaml.safe_dump({"name": "x", "base": str(base), "arms": arms, "baseline": "openai"}))
        assert cli("ab", "run", spec, "-q", "--no-report").code == 0
        assert server.record.paths["/openai/v1"] == server.record.paths["/groq/v1"] > 1
    (folder,) = tmp_path.glob("runs/ab/2*")
    hashes = {
        arm: json.loads(next(folder.glob(f"runs/{arm}/*/2*/summary.json")).read_text())["hashes"]["decisions"]
        for arm in arms
    }
    assert hashes["openai"] != hashes["groq"]


def earlier_folder(tmp_path: Path, server: ChatServer, *options: object) -> tuple[Path, Path]:
    """A run as an earlier version has left it: named by its host alone, although its address has a path."""
    server.answers = {"/api/v1": action(0.5)}
    base_url = server.url.replace("/v1", "/api/v1")
    host = re.sub(r"^http://|/.*", "", base_url)
    config = small_config(tmp_path, base_url, llm__endpoint_id=host, prefetch__depth=0)
    cli("run", config, "-q", *options)
    (folder,) = tmp_path.glob("runs/2*")
    for path in (config, folder / "config.yaml"):
        written = yaml.safe_load(path.read_text())
        written["llm"]["endpoint_id"] = None
        path.write_text(yaml.safe_dump(written))
    return config, folder


def test_a_folder_of_an_earlier_version_replays_and_its_cache_is_told_of(tmp_path: Path) -> None:
    with ChatServer(lambda _: action(0.5)) as server:
        config, folder = earlier_folder(tmp_path, server)
    assert cli("replay", folder, "--json").json["identical"]
    offline = cli("run", config, "--offline", "--fresh", "-q")
    assert offline.code == 5
    host = re.search(r"set llm\.endpoint_id: (\S+)", offline.err)
    assert host is not None
    assert cli("run", config, "--offline", "--fresh", "-q", "--set", f"llm.endpoint_id={host[1]}").code == 0


def test_an_unfinished_folder_of_an_earlier_version_is_resumed_but_not_at_another_endpoint(tmp_path: Path) -> None:
    with ChatServer(lambda _: action(0.5)) as server, ChatServer(lambda _: action(0.5)) as other:
        _, folder = earlier_folder(tmp_path, server, "--set", "budget.calls=5")
        refused = cli("resume", folder, "--set", f"llm.base_url={other.url}", "--set", "budget.calls=1000")
        assert (refused.code, other.calls) == (2, 0)
        assert "llm.endpoint_id" in refused.err
        assert cli("resume", folder, "--set", "budget.calls=1000", "-q").code == 0
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
