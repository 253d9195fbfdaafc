"""What a model wrote apart from its answer is shown with the decision."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from chat_server import HOLD, ChatServer
from small_run import cli, small_config

from agent_bt.reports.html_decisions import Decisions


def test_reasoning_is_shown_beside_a_valid_answer(tmp_path: Path) -> None:
    with ChatServer(lambda _: HOLD) as server:

        def answer(body: dict[str, Any]) -> dict[str, Any]:
            several = [
                {"content": HOLD, "reasoning_content": "first I think"},
                {"content": HOLD, "reasoning": "then I think"},
                {"content": HOLD, "reasoning": ""},
                {"content": HOLD},
                {"content": "", "reasoning_content": "only thoughts"},
            ]
            return several[(server.calls - 2) % 5]

        server.answer = answer
        assert cli("run", small_config(tmp_path, server.url, prefetch__depth=0), "-q", "--limit", 5).code == 0
    (folder,) = tmp_path.glob("runs/2*")
    decisions = Decisions(folder / "decisions.parquet")
    shown = [row for chunk in decisions.chunks() for row in json.loads(zlib.decompress(base64.b64decode(chunk)))]
    assert [row["telemetry"]["reasoning"] for row in shown] == ["first I think", "then I think", None, None, None]
    # An invalid reply has the whole body beside it.
    assert "only thoughts" in shown[4]["telemetry"]["body"]
    assert "13 characters of reasoning" in shown[4]["telemetry"]["detail"]
