"""The provider that docs/extending.md shows runs as it stands there."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from agent_bt.backtest.replay import replay
from agent_bt.backtest.run import run_config
from agent_bt.config.load import load_config
from agent_bt.llm import provider
from agent_bt.records.read import load_run

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


class Handler(BaseHTTPRequestHandler):
    """POST /generate {"prompt", "max_tokens"} -> {"text"}; every other path is a 404."""

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/generate" and set(body) == {"prompt", "max_tokens"}
        text = '{"action": "BUY", "size_pct": 0.25}' if "position" in body["prompt"] else "no prompt"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"text": text}).encode())


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/generate"
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the page, with its module in the working directory."""
    text = PAGE.read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(r"(?ms)^```python\n(.*?)^```", text) if "generate_api" in found)
    (tmp_path / "generate_api.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "generate_api", raising=False)
    (line,) = re.findall(r"(?m)^    (llm: .*)", text)
    (tmp_path / "page.yaml").write_text(line, encoding="utf-8")
    llm = load_config(tmp_path / "page.yaml", env={}).llm
    return {"llm__provider": llm.provider, "llm__model": llm.model, "strategy__every": "2h"}


def test_the_provider_of_the_page_runs_and_replays(settings: dict[str, Any], url: str, tmp_path: Path) -> None:
    ended = run_config(load_config(small_config(tmp_path, None, llm__base_url=url, **settings)))
    assert ended.error is None
    decisions = load_run(ended.run_dir).decisions
    assert set(decisions["provenance"]) == {"model"}
    assert set(decisions["action"]) == {"BUY"}
    assert replay(ended.run_dir).identical


def test_its_transport_failures_stop_the_run(settings: dict[str, Any], url: str, tmp_path: Path) -> None:
    wrong = url.replace("/generate", "/nothing")
    limit = {"risk__max_failures_in_a_row": 2, "prefetch__depth": 0}
    ended = run_config(load_config(small_config(tmp_path, None, llm__base_url=wrong, **settings, **limit)))
    assert "2 calls in a row have failed, the last one with connection" in str(ended.error)


def test_the_table_names_members_that_a_provider_has() -> None:
    rows = re.findall(r"(?m)^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"))
    named = {name for row in rows for name in re.findall(r"`(\w+)[(`]", row)}
    members = {name for name in vars(provider.Provider) if not name.startswith("_")}
    assert len(named) > 10
    assert named <= members
