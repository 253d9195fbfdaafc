"""The HTML report of a sweep: one page that opens from the disk, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.core.canonical import canonical
from agent_bt.experiments.sweep.folder import SweepFolder, folder_of
from agent_bt.experiments.sweep.report_facts import short_names, value_text
from agent_bt.reports.html_format import DASH, percent, ratio, signed_percent
from agent_bt.reports.html_pack import Column, pack_columns, quantise, significant_decimals
from agent_bt.reports.html_page import plotly_tag, render_page, write_page

REPORT = "report.html"
_MOST = 1e9
SCRIPTS = ("pack", "format", "page", "table", "sweep")
"""The page's own scripts, in the order in which they build on each other."""

MEASURES = {
    "sharpe": ("Sharpe", "ratio"),
    "total_return": ("Return", "share"),
    "max_drawdown": ("Drawdown", "share"),
    "sortino": ("Sortino", "ratio"),
    "calmar": ("Calmar", "ratio"),
    "annualised_return": ("Annual return", "share"),
    "volatility": ("Volatility", "share"),
    "win_rate": ("Win rate", "share"),
    "profit_factor": ("Profit factor", "ratio"),
    "trades": ("Trades", "count"),
    "turnover": ("Turnover", "ratio"),
    "exposure": ("Exposure", "share"),
    "fees": ("Fees", "amount"),
    "out_of_sample_sharpe": ("Tested Sharpe", "ratio"),
    "out_of_sample_return": ("Tested return", "share"),
    "times_chosen": ("Times chosen", "count"),
}
"""Measures of the heat map and the table: title and format."""


def write_sweep_report(folder: Path, *, single_file: bool = False, out: Path | None = None) -> Path:
    """Write the report of a sweep; the file appears whole.

    Args:
        folder: the sweep's, `runs/sweeps/<id>/`.
        single_file: put plotly's script inside (about 5 MB) instead of beside the reports.
        out: the file to write; default: `report.html` in the sweep's folder.

    Returns:
        The path of the report.

    Raises:
        RecordError: a file of the sweep cannot be read, or the report not be written.
    """
    sweep = SweepFolder(folder)
    record = sweep.read()
    results, curves = sweep.tables()
    out = folder / REPORT if out is None else out
    inside = out.resolve().parent == folder.resolve()
    root = folder.resolve().parent.parent
    shared = root if inside and folder_of(root, folder.resolve().name).path == folder.resolve() else None
    page = render_page(
        "sweep_report.html.j2",
        styles=("report", "sweep_report"),
        scripts=SCRIPTS,
        settings=_settings(record, results, curves),
        blocks={"results": _pack_results(record, results), "curves": _pack_curves(curves)},
        plotly=plotly_tag(out, shared=shared, single_file=single_file, later=True),
        facts=_facts(record),
    )
    write_page(out, page, ())
    return out


def _settings(record: Mapping[str, Any], results: pl.DataFrame, curves: pl.DataFrame) -> dict[str, Any]:
    names = short_names(record["params"])
    return {
        "count": len(results),
        "metric": record["metric"],
        "best": None if record["best"] is None else record["best"]["index"],
        "params": [
            {"path": path, "name": names[path], "values": [value_text(value) for value in values]}
            for path, values in record["params"].items()
        ],
        "measures": [
            {"name": name, "title": title, "form": form}
            for name, (title, form) in MEASURES.items()
            if name in results.columns
        ],
        "curves": curves["curve"].unique(maintain_order=True).to_list(),
    }


def _pack_results(record: Mapping[str, Any], results: pl.DataFrame) -> str:
    """`p0`, `p1`...: which value of each parameter; then the measures."""
    columns = []
    for number, (path, values) in enumerate(record["params"].items()):
        places = {_key(value): at for at, value in enumerate(values)}
        codes = [places[_key(value)] for value in results[path].to_list()]
        columns.append(Column(name=f"p{number}", codes=np.array(codes, np.int64)))
    for name, (_, form) in MEASURES.items():
        if name in results.columns:
            found = results[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            # Annualising a few good days can give an astronomical number.
            shown = np.clip(found, -_MOST, _MOST)
            columns.append(quantise(name, shown, min(6 if form == "share" else 8, significant_decimals(shown, 12))))
    return pack_columns(columns)


def _key(value: Any) -> str:
    """Return the key of a parameter's value, equal for the value as given and as in the table (numbers as floats)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return value if isinstance(value, str) else canonical(value).decode()


def _pack_curves(curves: pl.DataFrame) -> str:
    columns = []
    for name in curves["curve"].unique(maintain_order=True):
        curve = curves.filter(pl.col("curve") == name)
        columns.append(Column(name=f"{name}_time", codes=curve["time"].to_physical().to_numpy() // 1000, delta=True))
        equity = curve["equity"].to_numpy()
        columns.append(quantise(name, equity, significant_decimals(equity, 8)))
    return pack_columns(columns)


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    about, counts, best, forward = record["about"], record["combinations"], record["best"], record["walk_forward"]
    names = short_names(record["params"])
    symbols = about["symbols"]
    return {
        "name": record["name"],
        "sweep_id": record["sweep_id"],
        "banners": [text.split(": ", 1) for text in record["banners"]],
        "warnings": record["warnings"],
        "headline": "No combination has the metric: none traded, or there are too few days."
        if best is None
        else record["evidence"]["sentence"],
        "heading": (
            f"{about['strategy']} on {about['source']}, {', '.join(symbols[:4])}{' ...' if len(symbols) > 4 else ''} "
            f"{about['interval']}, {about['start']} to {about['end']}, decisions {about['rhythm']} · "
            f"{counts['tried']:,} of {counts['all']:,} combinations tried, chosen by {record['metric']}"
        ),
        "best": None if best is None else _params_text(best["params"], names),
        "evidence": [] if best is None else _evidence(record["evidence"]),
        "accounts": _accounts(record),
        "forward": None if forward is None else _forward(record, names),
        "metric": record["metric"],
        "reasons": counts["reasons"],
        "made_of": [
            ("sweep", record["sweep_id"]),
            ("identity", record["identity"]),
            ("fees and slippage", f"{about['fee_rate']:.4%} of notional, {about['slippage_bps']:g} bps"),
            ("begins with", f"{about['initial_cash']:,.2f}"),
            *((path, ", ".join(map(value_text, values))) for path, values in record["params"].items()),
            *((path, value_text(value)) for path, value in record["declared"]["set"].items()),
        ],
    }


def _params_text(params: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return ", ".join(f"{names[path]} {value_text(value)}" for path, value in params.items())


def _evidence(evidence: Mapping[str, Any]) -> list[dict[str, str]]:
    expected = "expected maximum Sharpe ratio of that many variants without skill"
    halves = "fraction of splits in which the best of one half of the days is below the median in the other"
    rows = [
        ("Sharpe of the best", ratio(evidence["sharpe"]), "annualised, on the data that it was chosen on"),
        ("Expected by chance", ratio(evidence["expected_best"]), expected),
        ("Variants tried", f"{evidence['trials']:,}", "on this data so far, as the registry counts them"),
        ("Deflated Sharpe", percent(evidence["dsr"], 1), "probability of skill (Bailey & Lopez de Prado 2014)"),
        ("Overfitting", percent(evidence["pbo"], 0), halves),
    ]
    return [{"title": title, "value": value, "note": note} for title, value, note in rows]


def _accounts(record: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    if record["best"] is not None:
        rows.append(("best", "Best, on the data it was chosen on (biased)", record["best"]["performance"]))
    rows.append(("buy_and_hold", "Buy and hold", record["buy_and_hold"]))
    if record["walk_forward"] is not None:
        forward = record["walk_forward"]
        rows.append(("walk_forward", "Walk-forward (out of sample)", forward["performance"]))
        rows.append(("held_forward", "Buy and hold, same windows", forward["buy_and_hold"]))
    return [
        {
            "key": key,
            "title": title,
            "total_return": signed_percent(one["total_return"]),
            "sharpe": ratio(one["sharpe"]),
            "max_drawdown": percent(one["max_drawdown"], 1),
            "trades": f"{one['trades']:,}",
            "exposure": percent(one["exposure"], 0),
        }
        for key, title, one in rows
    ]


def _forward(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    forward = record["walk_forward"]
    from_start = "on all data before" if forward["anchored"] else f"in {forward['train']}"
    return {
        "words": (
            f"Chosen {from_start}, tested in the {forward['test']} after it. Each test period starts flat, with the "
            "final equity of the previous one; a choice uses no data after its training period. "
            f"The probability that the true Sharpe ratio of this curve is above 0: {percent(_psr(forward), 0)}."
        ),
        "windows": [
            {
                "train": f"{_day(row['train']['start'])} to {_day(row['train']['end'])}",
                "test": f"{_day(row['test']['start'])} to {_day(row['test']['end'])}",
                "chosen": "nothing" if row["params"] is None else _params_text(row["params"], names),
                "in_sample": _figure(row["in_sample"]),
                "out_of_sample": _figure(row["out_of_sample"]),
                "total_return": signed_percent(row["total_return"]),
            }
            for row in forward["windows"]
        ],
    }


def _psr(forward: Mapping[str, Any]) -> float | None:
    found: float | None = forward["evidence"]["psr"]
    return found


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}".replace("-", "\u2212")


def _day(instant: str) -> str:
    return instant.removesuffix("T00:00Z")
