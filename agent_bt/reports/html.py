"""The HTML report of a run: one page that opens from the disk, without a network.

1. the figures and texts                               `html_facts`, `html_cards`, `html_returns`, `html_calls`
2. candles, curves and decisions, packed               `html_symbols`, `html_curves`, `html_decisions`, `html_pack`
   over several symbols also holdings and attribution  `html_portfolio`
3. the page around them, with its styles and scripts   `html_page`, `assets/report.html.j2`
4. plotly's script, from the installed package, once next to the reports or inside the page
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from agent_bt.core.clock import duration_us
from agent_bt.core.errors import RecordError
from agent_bt.records.read import Run, load_run
from agent_bt.reports.html_curves import pack_curves, read_baselines
from agent_bt.reports.html_decisions import CHUNK, Decisions
from agent_bt.reports.html_facts import build_facts
from agent_bt.reports.html_pack import pack_json
from agent_bt.reports.html_page import plotly_tag, render_page, write_page
from agent_bt.reports.html_portfolio import build_portfolio_facts, read_portfolio
from agent_bt.reports.html_symbols import Symbols, short_names
from agent_bt.reports.html_trades import build_trade_rows

SCRIPTS = (
    "pack", "format", "page", "table", "market", "marks", "chart", "positions", "detail", "decisions", "lists",
    "symbols", "portfolio", "main",
)  # fmt: skip
"""The page's own scripts, each after those that it uses."""


def write_report(run: Run | str | Path, *, single_file: bool = False, out: Path | None = None) -> Path:
    """Write the report of a run; the file is complete or unchanged.

    Args:
        run: a run, or its folder.
        single_file: put plotly's script (about 5 MB) inside the file instead of next to the reports.
        out: the file to write; default: `report.html` in the run folder.

    Returns:
        The path of the report.

    Raises:
        RecordError: the run has no result yet, or a file cannot be read or written.
    """
    run = run if isinstance(run, Run) else load_run(run)
    out = run.folder.report if out is None else out
    inside = out.resolve().parent == run.path.resolve()
    plotly = plotly_tag(out, shared=run.path.resolve().parent if inside else None, single_file=single_file)
    decisions = _decisions(run)
    symbol = (run.summary.get("about") or {}).get("symbol") or ""
    symbols = Symbols(_visible_bars(run.market, run.equity), run.fills, symbol)
    page = _page(run, decisions, symbols, plotly)
    write_page(out, page, decisions.chunks(), symbols.other_blocks())
    return out


def _page(run: Run, decisions: Decisions, symbols: Symbols, plotly: Markup) -> str:
    equity, baselines = run.equity, read_baselines(run.path)
    about = run.summary.get("about") or {}
    portfolio = read_portfolio(run)
    short = short_names(symbols.names)
    blocks = {
        **decisions.index(short if symbols.multi_symbol else None),
        **symbols.first_block(),
        "curves": pack_curves(equity, baselines),
        "trades": pack_json(build_trade_rows(run.fills)),
        **(portfolio.blocks() if portfolio else {}),
        "failures": pack_json(decisions.failures().with_columns(pl.col("time").dt.epoch("ms")).to_dicts()),
    }
    facts = {
        **build_facts(run, equity, baselines, decisions.calls()),
        "multi_symbol": symbols.multi_symbol,
        "trade_count": len(run.fills),
        "portfolio": portfolio
        and build_portfolio_facts(portfolio, summary=run.summary, fills=run.fills, closes=symbols.last_closes()),
    }
    settings: dict[str, Any] = {
        "count": decisions.count,
        "chunk": CHUNK,
        "multi_symbol": symbols.multi_symbol,
        "symbols": symbols.names,
        "short_names": [short[name] for name in symbols.names],
        "first_symbol": symbols.first,
        "delisted": (run.summary.get("portfolio") or {}).get("delisted") or [],
        "uses_model": facts["uses_model"],
        "unchanged": run.summary["decisions"].get("silent") or 0,
        "named": portfolio.named() if portfolio else [],
        "interval_ms": duration_us(about["interval"]) // 1000 if about.get("interval") else None,
        "run_id": run.run_id,
    }
    return render_page(
        "report.html.j2",
        styles=("report",),
        scripts=SCRIPTS,
        settings=settings,
        blocks=blocks,
        plotly=plotly,
        facts=facts,
    )


def _decisions(run: Run) -> Decisions:
    try:
        return Decisions(run.folder.decisions)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RecordError(f"{run.folder.decisions} cannot be read: {error}; the run is incomplete") from error


def _visible_bars(bars: pl.DataFrame, equity: pl.DataFrame) -> pl.DataFrame:
    """Select the bars of the run and of the day before it, where the first windows begin."""
    start = equity["time"][0] - pl.duration(days=1)
    return bars.filter(pl.col("close_time") >= start)
