"""`agent-bt ab run` and `ab report` write the report of what really ran."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from agent_bt.cli import main as command

BASE = "name: base\nmarket: {start: 2024-07-01, end: 2024-07-04}\nstrategy: {kind: agent, every: 4h}\n"


def agent_bt(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agent-bt", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)


def test_ab_run_writes_the_report_and_ab_report_writes_it_again_where_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts, another model's parameters, and a rule without a prompt, over two windows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    arms = {
        "v1": {"strategy.prompt": "btcusdt_trader/v1"},
        "v2": {"strategy.prompt": "btcusdt_trader/v2"},
        "bad": {"llm.params": {"malformed": 0.5}},
        "rule": {"strategy.kind": "buy_and_hold"},
    }
    settings = {"output": "runs", "cache.path": "cache.sqlite", "risk.max_failed_share": 1.0}
    experiment = {"base": "base.yaml", "set": settings, "arms": arms, "baseline": "v1", "windows": {"every": "1d"}}
    (tmp_path / "ab.yaml").write_text(json.dumps({**experiment, "replicates": 2}))
    assert agent_bt(monkeypatch, "ab", "run", "ab.yaml", "--progress", "none") == 0
    (report,) = (tmp_path / "runs" / "ab").glob("*/report.html")
    assert str(report.relative_to(tmp_path)) in "".join(capsys.readouterr())
    text = report.read_text(encoding="utf-8")
    assert re.search(r'id="headline">(None of|bad|v2|rule)', text)
    assert "malformed" in text

    assert agent_bt(monkeypatch, "ab", "report", "--single-file", "--output", "sent.html") == 0
    sent = (tmp_path / "sent.html").read_text(encoding="utf-8")
    assert len(sent) > len(text) + 3_000_000
    assert not re.search(r"<script[^>]+src=", sent)
