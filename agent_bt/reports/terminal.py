"""The summary of a run for a terminal: warnings, figures next to the baselines, and the conventions behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent_bt.records.summary import list_details
from agent_bt.reports.number_format import DASH, count, fixed, percent

COLUMNS = {"strategy": "strategy", "buy_and_hold": "buy & hold", "random": "random", "sma": "SMA"}
"""Key and title of each account in the table of figures."""


def render(summary: Mapping[str, Any]) -> RenderableType:
    """Render a summary, as in `summary.json`, for a terminal of at least 80 columns."""
    return Group(*_parts(summary))


def _parts(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    for banner in summary.get("banners", ()):
        yield Text(f" {banner} ", style="bold black on yellow")
    for warning in summary["warnings"]:
        yield Text(f"warning: {warning}", style="yellow")
    yield _heading(summary)
    yield _measures(summary)
    yield from _lines(summary)
    if summary.get("conventions"):
        yield Text()
        yield from (Text(line, style="dim") for line in summary["conventions"])


def _heading(summary: Mapping[str, Any]) -> Text:
    about, status = summary.get("about", {}), summary["status"]
    colour = "green" if status == "done" else "red" if status == "failed" else "yellow"
    text = Text.assemble(("\n" + summary["run_id"], "bold"), "  ", (status, f"bold {colour}"))
    described = [_described(key, about) for key, value in about.items() if value is not None]
    if any(described):
        text.append("\n" + " · ".join(filter(None, described)), style="dim")
    return text


def _described(key: str, about: Mapping[str, Any]) -> str:
    """Describe one entry of `about`; empty for a default and for what another entry includes."""
    value = about[key]
    if key == "pool":
        return f"pool: top {value['top_n']} by volume over {value['lookback']}, refreshed {value['reselect']}"
    if isinstance(value, str):
        value = _WORDS.get((key, value), value)
    return _LABELS.get(key, "{}").format(value, **about) if value else ""


_WORDS = {
    ("kind", "spot"): "",
    ("kind", "um"): "perpetuals",
    ("mode", "time_series"): "",
    ("mode", "cross_sectional"): "cross-sectional",
}
_LABELS = {
    **dict.fromkeys(("name", "symbols", "end"), ""),
    "every": "every {}",
    "rebalance": "rebalanced {}",
    "start": "{start} to {end}",
    "initial_cash": "cash {:,.0f}",
}


def _measures(summary: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name, title in COLUMNS.items():
        table.add_column(title, justify="right", style="bold" if name == "strategy" else None)
    results = {"strategy": summary["performance"], **summary["baselines"]}
    funded = any(measures and measures["funding"] for measures in results.values())
    for key, (title, form) in _ROWS.items():
        if key == "funding" and not funded:
            continue
        cells = [_cell(results.get(name), key, form) for name in COLUMNS]
        table.add_row(title, *cells)
    return table


def _cell(measures: Mapping[str, Any] | None, key: str, form: Callable[[float], str]) -> Text:
    value = None if measures is None else measures[key]
    if value is None:
        return Text(DASH, style="dim")
    text = form(value)
    return Text(text, style="red" if key in _SIGNED and text.startswith("-") else "")


_ROWS: dict[str, tuple[str, Callable[[float], str]]] = {
    "final_equity": ("final equity", fixed),
    "total_pnl": ("total PnL", fixed),
    "realised_pnl": ("  realised", fixed),
    "unrealised_pnl": ("  unrealised", fixed),
    "fees": ("  fees", fixed),
    "slippage": ("  slippage (in prices)", fixed),
    "funding": ("  funding", fixed),
    "total_return": ("total return", percent),
    "annualised_return": ("annualised return", percent),
    "volatility": ("volatility, annualised", percent),
    "max_drawdown": ("max drawdown", percent),
    "sharpe": ("Sharpe ratio", fixed),
    "sortino": ("Sortino ratio", fixed),
    "calmar": ("Calmar ratio", fixed),
    "trades": ("trades", count),
    "win_rate": ("win rate", percent),
    "profit_factor": ("profit factor", fixed),
    "turnover": ("turnover, one-way", fixed),
    "exposure": ("exposure", percent),
}

_DETAILS = 5
"""How many kinds of invalid replies are listed."""

_SIGNED = ("total_pnl", "realised_pnl", "unrealised_pnl", "total_return", "annualised_return", "sharpe", "sortino")


def _lines(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    beaten = summary.get("random_beaten")
    portfolio = summary.get("portfolio")
    if beaten is not None:
        like = "that hold as many random symbols" if portfolio else "with the same exposure"
        yield _line("vs random", f"final equity above {beaten:.0%} of random agents {like}")
    if portfolio:
        yield from _holdings(portfolio, summary["performance"])
    yield _line("decisions", _decisions(summary["decisions"], summary["bars"]))
    if details := list_details(summary["decisions"]):
        yield _line("invalid", _details(details))
    if summary["llm"]["calls"] or summary["llm"]["cached"]:
        yield _line("model", _llm(summary["llm"]))
    seconds = summary["timing"].get("seconds")
    if seconds:
        yield _line("time", f"{seconds:,.1f} s, {summary['decisions']['total'] / seconds:,.0f} decisions/s")
    hashes = (f"{name}:{value[:8]}" for name, value in summary["hashes"].items() if value)
    yield _line("hashes", " ".join(hashes))


def _holdings(portfolio: Mapping[str, Any], performance: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Describe what a run over several symbols held, and its PnL by leg and symbol."""
    gross, most, net = (percent(portfolio[key], 1) for key in ("mean_gross", "max_gross", "mean_net"))
    yield _line(
        "holdings",
        f"{portfolio['mean_positions']:,.1f} symbols on average, {portfolio['traded']:,} of {portfolio['symbols']:,} "
        f"traded; mean gross exposure {gross} (max {most}), net {net}",
    )
    turnover = percent(portfolio["mean_turnover"], 1)
    yield _line("turnover", f"{turnover} one-way per decision on average, {portfolio['rebalances']:,} decisions")
    legs = f"long {_signed(portfolio['long_pnl'])}, short {_signed(portfolio['short_pnl'])}"
    funding = f" and funding of {fixed(performance['funding'])}" if performance["funding"] else ""
    yield _line("PnL by leg", f"{legs}, before fees of {fixed(performance['fees'])}{funding}")
    for name in ("best", "worst"):
        ranked = [f"{one['symbol']} {_signed(one['pnl'])}" for one in portfolio[name]]
        yield _line(f"{name} symbols", ", ".join(ranked) or DASH)


def _signed(value: float) -> str:
    return fixed(value, signed=bool(round(value, 2)))


def _line(label: str, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", width=14)
    grid.add_column()
    grid.add_row(label, Text(text))
    return grid


def _decisions(counts: Mapping[str, Any], bars: int) -> str:
    actions = ", ".join(f"{counts[action]:,} {action}" for action in ("buy", "sell", "hold"))
    text = f"{counts['total']:,} over {bars:,} bars: {actions}"
    failed = [f"{counts[kind]:,} {kind}" for kind in ("invalid", "transport", "budget") if counts[kind]]
    if failed:
        share = 1 - counts["model"] / counts["total"]
        text += f"; failed, counted as HOLD: {', '.join(failed)} ({share:.1%})"
    reasons = [f"{reason} x {count:,}" for reason, count in counts.get("reasons", {}).items()]
    if reasons:
        text += f" [{', '.join(reasons)}]"
    also = [f"{counts[kind]:,} {kind}" for kind in ("clipped", "rejected") if counts[kind]]
    cuts = [f"{reason} x {count:,}" for reason, count in counts.get("cuts", {}).items()]
    if cuts:
        also.append(f"orders cut by limits: {', '.join(cuts)}")
    if counts["skipped"]:
        also.append(f"{counts['skipped']:,} skipped (bar without trades)")
    if counts.get("silent"):
        also.append(f"{counts['silent']:,} unchanged (not recorded)")
    return text + (f"; {', '.join(also)}" if also else "")


def _details(details: list[tuple[int, str]]) -> str:
    lines = [f"{count:,} x {text}" for count, text in details[:_DETAILS]]
    more = details[_DETAILS:]
    if more:
        lines.append(f"{sum(count for count, _ in more):,} x other messages")
    return "\n".join(lines)


def _llm(usage: Mapping[str, Any]) -> str:
    tokens = f"{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    parts = [f"{usage['calls']:,} calls", f"{usage['cached']:,} from cache", tokens, _cost(usage)]
    if usage["cached"] and usage["cost_saved_usd"] is None:
        parts.append("saved by the cache: unpriced")
    elif usage["cost_saved_usd"]:
        parts.append(f"${usage['cost_saved_usd']:,.4f} saved by the cache")
    if usage["speculated"]:
        hits, wasted = usage["speculation_hits"], usage["speculation_wasted"]
        parts.append(f"prefetched {usage['speculated']:,}: {hits:,} used, {wasted:,} wasted")
    if usage["latency_ms_p50"] is not None:
        parts.append(f"latency p50 {usage['latency_ms_p50']:,.0f} ms, p95 {usage['latency_ms_p95']:,.0f} ms")
    return ", ".join(parts)


def _cost(usage: Mapping[str, Any]) -> str:
    if usage["cost_usd"] is None:
        return f"cost unknown ({usage['unpriced']:,} calls unpriced)"
    return f"${usage['cost_usd']:,.4f}"
