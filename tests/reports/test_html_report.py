"""The report as a file: its content, where plotly's script is, and that no text of a model is ever markup."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from report_runs import CASH, NASTY, make_run

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Fill
from agent_bt.evaluation.metrics import trade_results
from agent_bt.records.read import load_run
from agent_bt.records.schema import json_schema
from agent_bt.reports.html import write_report
from agent_bt.reports.html_facts import build_facts
from agent_bt.reports.html_trades import build_trade_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), 150)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Start tags with their attributes, and the text inside each element with an id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._id: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._id = dict(attributes).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data


def block(page: str, name: str) -> Any:
    found = re.search(rf'id="{name}">([A-Za-z0-9+/=]*)</script>', page)
    assert found
    return json.loads(zlib.decompress(base64.b64decode(found[1])))


def test_every_decision_is_in_its_chunk_exactly_as_recorded(run: Path, page: str) -> None:
    recorded = load_run(run).decisions
    rows = recorded.cast(json_schema(recorded.schema)).to_dicts()
    packed = [row for number in range(3) for row in block(page, f"chunk-{number}")]
    assert len(packed) == len(rows) == 150
    assert [row["messages"] for row in packed] == [row["messages"] for row in rows]
    assert [row["reply"] for row in packed] == [row["reply"] for row in rows]
    assert [row["account"] for row in packed] == [row["account"] for row in rows]
    assert [row["telemetry"]["latency_ms"] for row in packed] == [row["telemetry"]["latency_ms"] for row in rows]
    assert block(page, "texts-block")["note"] == [row["note"] for row in rows]
    assert all(NASTY[index] in packed[index]["messages"][1]["content"] for index in NASTY)


def test_text_of_a_model_or_a_config_is_never_markup(page: str) -> None:
    elements = Elements(page)
    assert {tag for tag, _ in elements.tags} & {"img", "iframe", "object", "embed", "link", "b"} == {"b"}
    assert [attributes for tag, attributes in elements.tags if any(name.startswith("on") for name in attributes)] == []
    assert "a warning &lt;b&gt;in plain sight&lt;/b&gt;" in page
    assert "window.__pwned = 1</script>" not in page
    assert "&lt;/script&gt;&lt;script&gt;window.__pwned" in page


def test_nothing_is_fetched_from_a_network(page: str) -> None:
    elements = Elements(page)
    links = [value for _, attributes in elements.tags for name, value in attributes.items() if name in ("src", "href")]
    assert sorted({link for link in links if link and not link.startswith("#")}) == [
        next(link for link in links if link and link.startswith("../assets/plotly-"))
    ]
    assert "connect-src 'none'" in page
    assert re.findall(r"https?://(?!www\.w3\.org)[\w.]+", page) == []


def test_plotly_is_written_once_for_all_reports_of_a_folder(run: Path, page: str) -> None:
    scripts = list((run.parent / "assets").iterdir())
    assert len(scripts) == 1
    before = scripts[0].stat().st_mtime_ns
    write_report(run)
    assert scripts[0].stat().st_mtime_ns == before
    scripts[0].write_bytes(b"torn")
    write_report(run)
    assert scripts[0].stat().st_size > 1_000_000


def test_a_single_file_is_self_contained(run: Path, tmp_path: Path) -> None:
    path = write_report(run, single_file=True, out=tmp_path / "one.html")
    assert list(tmp_path.iterdir()) == [path]
    assert not any("src" in attributes for _, attributes in Elements(path.read_text(encoding="utf-8")).tags)


def test_a_report_written_elsewhere_has_its_script_next_to_it(run: Path, tmp_path: Path) -> None:
    write_report(str(run), out=tmp_path / "there.html")
    (source,) = re.findall(r'<script id="plotly" src="([^"]+)"', (tmp_path / "there.html").read_text(encoding="utf-8"))
    assert (tmp_path / source).is_file()


def test_headings_banners_warnings_and_figures_are_in_the_page(run: Path, page: str) -> None:
    summary = load_run(run).summary
    for text in ("SAMPLE MARKET", "STAND-IN MODEL", "Execution sensitivity", "Monthly returns", "Conventions"):
        assert text in page
    for value in summary["hashes"].values():
        assert value in page
    assert summary["conventions"][0].split(",")[0] in page
    assert f"{summary['llm']['speculation_hits']:,}" in page


def test_a_folder_without_a_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no run folder"):
        write_report(tmp_path / "nothing")
    run = make_run(tmp_path, 5)
    (run / "decisions.parquet").unlink()
    with pytest.raises(RecordError, match=r"decisions\.parquet cannot be read"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_run_of_a_rule_without_decisions_of_a_model_has_a_report(tmp_path: Path) -> None:
    """No prompt, no reply, no fills, no baselines, measures undefined."""
    run = make_run(tmp_path, 3)
    decisions = pl.read_parquet(run / "decisions.parquet").with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("prompt", "request", "reply", "failure")
    )
    decisions.drop("window").write_parquet(run / "decisions.parquet")
    pl.read_parquet(run / "fills.parquet").head(0).write_parquet(run / "fills.parquet")
    (run / "baselines.parquet").unlink()
    summary = json.loads((run / "summary.json").read_text())
    for key in ("sharpe", "volatility", "annualised_return", "win_rate", "profit_factor"):
        summary["performance"][key] = None
    summary |= {"sensitivity": [], "baselines": {}, "random_beaten": None}
    (run / "summary.json").write_text(json.dumps(summary))
    assert "Not computed for this run" in write_report(run).read_text(encoding="utf-8")


def test_a_run_without_decisions_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, 4)
    decisions = pl.read_parquet(run / "decisions.parquet").head(0)
    decisions.write_parquet(run / "decisions.parquet")
    assert 'id="chunk-0"' not in write_report(run).read_text(encoding="utf-8")


def test_monthly_and_daily_returns_follow_from_the_marks(run: Path) -> None:
    """Two months by hand: a bar that closes at midnight still belongs to the month before."""
    times = ["2024-07-01T00:01", "2024-08-01T00:00", "2024-08-01T00:01", "2024-08-31T12:00"]
    marks = [10_500.0, 11_000.0, 12_000.0, 9_900.0]
    equity = pl.DataFrame({"time": times, "equity": marks}).with_columns(
        pl.col("time").str.to_datetime(time_unit="us", time_zone="UTC")
    )
    loaded = load_run(run)
    facts = build_facts(loaded, equity, None, loaded.decisions.select(pl.col("telemetry").struct.unnest()))
    assert CASH == 10_000.0
    (row,) = facts["returns"]["rows"]
    assert [cell["text"] for cell in row["cells"] if cell["text"]] == ["+10.0%", "\u221210.0%"]
    assert row["total"]["text"] == "\u22121.0%"
    (year,) = facts["returns"]["days"]
    assert [day["title"].split("  ")[0] for day in year["days"]] == [
        "2024-07-01", "2024-07-31", "2024-08-01", "2024-08-31",
    ]  # fmt: skip
    assert [day["row"] for day in year["days"]] == [1, 3, 4, 6]
    assert [day["column"] for day in year["days"]] == [1, 5, 5, 9]


def test_trades_show_the_results_that_the_metrics_count() -> None:
    def fill(minute: int, quantity: float, price: float, realised: float = 0.0) -> dict[str, Any]:
        return {
            "time": minute * 60_000_000, "bar": minute, "symbol": "BTCUSDT", "quantity": quantity, "price": price,
            "reference_price": price, "fee": 1.0, "slippage": 0.5, "realised_pnl": realised, "reason": "order",
        }  # fmt: skip

    rows = [fill(1, 1.0, 100), fill(2, 1.0, 110), fill(5, -1.0, 120, 15.0), fill(9, -1.0, 90, -15.0), fill(12, 1.0, 90)]
    frame = pl.DataFrame(rows).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    shown = build_trade_rows(frame)
    assert [row["result"] for row in shown if row["result"] is not None] == trade_results([Fill(**row) for row in rows])
    assert [row["held"] for row in shown] == [None, None, 240_000, 480_000, None]
    assert [row["position"] for row in shown] == [1.0, 2.0, 1.0, 0.0, 1.0]
    assert np.isclose(shown[2]["result"], 15.0 - 1.0 - 1.0)


def test_what_was_wrong_with_invalid_replies_is_listed_with_its_count(page: str, run: Path) -> None:
    counts = load_run(run).summary["decisions"]
    assert counts["invalid"] > 0
    listed = re.search(r'<ul class="counted" id="details">(.*?)</ul>', page)
    assert listed is not None
    assert re.findall(r"<b>(.*?)</b> (.*?)</li>", listed[1]) == [
        (str(counts["invalid"]), "the reply is no JSON object")
    ]
