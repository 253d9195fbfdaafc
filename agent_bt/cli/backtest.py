# ruff: noqa: ARG001 - the flags are read from the context
"""`agent-bt backtest`: a rule or a ranker with flags instead of a config file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from agent_bt.cli import common
from agent_bt.core.errors import UsageError
from agent_bt.core.suggest import nearest

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of the command: unknown options are parameters of the strategy."""

_FLAGS = {
    "source": "market.source",
    "symbol": "market.symbol",
    "symbols": "market.symbols",
    "kind": "market.kind",
    "interval": "market.interval",
    "start": "market.start",
    "end": "market.end",
    "warmup": "market.warmup",
    "every": "strategy.every",
    "rebalance": "rebalance",
    "cash": "account.cash",
    "fee_rate": "execution.fee_rate",
    "slippage_bps": "execution.slippage_bps",
    "fill": "execution.fill",
    "allow_short": "risk.allow_short",
    "output": "output",
}


def backtest(
    context: typer.Context,
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="A registered name, or module:Class.", show_default=False)
    ],
    source: Annotated[str | None, typer.Option(help="sample, store, or a Parquet path.", show_default=False)] = None,
    symbol: Annotated[str | None, typer.Option(help="One symbol.", show_default=False)] = None,
    symbols: Annotated[
        str | None, typer.Option(help="Several symbols, separated by commas: A,B.", show_default=False)
    ] = None,
    kind: Annotated[Literal["spot", "um"] | None, typer.Option(help="Spot or perpetuals.", show_default=False)] = None,
    interval: Annotated[str | None, typer.Option(help="Bar interval; default 1h.", show_default=False)] = None,
    start: Annotated[str | None, typer.Option(help="Start, UTC; default 2024-07-01.", show_default=False)] = None,
    end: Annotated[
        str | None, typer.Option(help="End, exclusive, UTC; default 2024-10-01.", show_default=False)
    ] = None,
    warmup: Annotated[
        str | None, typer.Option(help="History read before the start, such as 30d.", show_default=False)
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Time between decisions; default: every bar.", show_default=False)
    ] = None,
    rebalance: Annotated[
        str | None,
        typer.Option(help="Rebalance frequency: W-MON, MS, QS, D, 4h; runs cross-sectionally.", show_default=False),
    ] = None,
    pool: Annotated[
        int | None, typer.Option(help="Restrict to the top N symbols by volume, refreshed monthly.", show_default=False)
    ] = None,
    cash: Annotated[float | None, typer.Option(help="Starting cash.", show_default=False)] = None,
    fee_rate: Annotated[
        float | None, typer.Option(help="Fraction of notional, such as 0.001.", show_default=False)
    ] = None,
    slippage_bps: Annotated[
        float | None, typer.Option(help="Slippage in bps, always adverse.", show_default=False)
    ] = None,
    fill: Annotated[
        Literal["close", "next_open"] | None, typer.Option(help="When orders fill.", show_default=False)
    ] = None,
    allow_short: Annotated[
        bool, typer.Option("--allow-short", help="Allow short positions; perpetuals only (--kind um).")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the run, part of its folder's name.", show_default=False)
    ] = None,
    output: Annotated[str | None, typer.Option(help="Folder of runs.", show_default=False)] = None,
    overrides: common.SetOption = None,
    as_json: common.JsonOption = False,
    progress: common.ProgressOption = "auto",
    report: common.ReportOption = True,
    quiet: common.QuietOption = False,
    verbose: common.VerboseOption = False,
) -> None:
    """Backtest a rule or a ranker; any other flag is a parameter of the strategy.

    agent-bt backtest ma_cross --fast 24 --slow 96

    agent-bt backtest momentum --source panel.parquet --lookback-col return_168 --top-n-long 5 --rebalance W-MON
    """
    from agent_bt.config.load import Values, load_config
    from agent_bt.strategies.registry import is_cross_sectional, parameters_of

    # 0 is a value; a switch that is not set is not one.
    given = {
        key: value
        for key, value in context.params.items()
        if key in _FLAGS and value is not None and value is not False
    }
    cross_sectional = rebalance is not None or (is_cross_sectional(strategy) and symbol is None)
    if cross_sectional and every is not None:
        raise UsageError(
            "--every cannot be used here: a cross-sectional strategy decides at each rebalance; write --rebalance 4h"
        )
    bar = interval or "1h"
    values: dict[str, Any] = {
        "name": name or strategy.replace(":", "."),
        "strategy.kind": strategy,
        "market.interval": bar,
        "strategy.every": every or bar,
        "mode": "cross_sectional" if cross_sectional else "time_series",
        **{_FLAGS[key]: value for key, value in given.items()},
    }
    if strategy == "agent_ranker":
        values["strategy.prompt"] = "panel_ranker/v1"
    if symbols is not None:
        values["market.symbols"] = [each.strip() for each in symbols.split(",") if each.strip()]
    if pool is not None:
        values |= {"pool.enabled": True, "pool.top_n": pool}
    origins = {_FLAGS[key]: f"--{key.replace('_', '-')}" for key in given}
    accepted = parameters_of(strategy)
    if allow_short and accepted and "allow_short" in accepted:
        # A rule also has its own parameter, which is false by default; the flag sets both.
        values["strategy.params.allow_short"] = True
        origins["strategy.params.allow_short"] = "--allow-short"
    for flag, key, value in _parameters(context.args):
        _check_known(flag, key, accepted, [*_FLAGS, "pool", "name"])
        values[f"strategy.params.{key}"] = value
        origins[f"strategy.params.{key}"] = flag
    origins = {path: origins.get(path, "agent-bt backtest") for path in values}
    settings = load_config(None, overrides or (), over_file=Values(values=values, origins=origins))
    from agent_bt.backtest.run import run_config
    from agent_bt.cli.progress import make_progress

    result = run_config(settings, progress=make_progress("none" if quiet else progress), fresh=True, report=report)
    common.show_result(result, as_json=as_json, quiet=quiet)


def _check_known(flag: str, key: str, accepted: Sequence[str] | None, flags: Sequence[str]) -> None:
    """Refuse a misspelt flag of the command; other unknown parameters are reported with the strategy's own.

    Raises:
        UsageError: it is not a parameter of the strategy, and similar to a flag.
    """
    if accepted is None or key in accepted:
        return
    near = nearest(key, [*accepted, *flags])
    if near is not None and near not in accepted:
        meant = near.replace("_", "-")
        raise UsageError(f"{flag} is not a flag or a parameter of the strategy; did you mean --{meant}?")


def _parameters(arguments: list[str]) -> list[tuple[str, str, Any]]:
    """Parse each remaining `--name value` into (flag, name, value); values are read as YAML.

    Raises:
        UsageError: an argument is not a flag, or a flag has no value.
    """
    from agent_bt.config.yaml import parse_yaml

    found = []
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or len(flag) == 2:
            raise UsageError(f"{flag!r} is not a flag; parameters of the strategy are written --name value")
        flag, _, text = flag.partition("=")
        if not text:
            if not rest:
                raise UsageError(f"{flag} has no value; parameters of the strategy are written --name value")
            text = rest.pop(0)
        # As in a config file, where 1e-3 is a number.
        document = parse_yaml(text)
        value = text if document.problems else document.data
        found.append((flag, flag[2:].replace("-", "_"), value))
    return found
