"""Write the banners, conventions and warnings that a report shows beside the figures of a run."""

from __future__ import annotations

from collections.abc import Sequence

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.bars import LoadedBars
from agent_bt.config.model import Config
from agent_bt.evaluation import baselines as baseline_accounts
from agent_bt.evaluation.performance import CONVENTIONS
from agent_bt.evaluation.sensitivity import CONVENTION as SENSITIVITY
from agent_bt.execution.broker import SimulatedBroker
from agent_bt.llm.provider import get_provider
from agent_bt.records.holdings import CONVENTION as HOLDINGS
from agent_bt.records.run_folder import Status
from agent_bt.records.tally import Tally

_FEW_TRADES = 30
_MOST_NAMED = 5


def make_banners(config: Config, loaded: LoadedBars, prompt: Prompt | None) -> list[str]:
    """Write the banners, in capitals, of a run whose results say nothing about the real market or a language model.

    Args:
        config: of the run.
        loaded: its bars.
        prompt: of an agent; None for a strategy that asks no model.
    """
    banners = []
    if loaded.sample:
        banners.append("SAMPLE MARKET: generated prices; nothing here says anything about the real market")
    banner = get_provider(config.llm).banner if prompt else None
    if banner is not None:
        banners.append(banner)
    return banners


def state_conventions(config: Config, symbols: int) -> list[str]:
    """State how the figures of a run were computed.

    Args:
        config: of the run.
        symbols: number of symbols.
    """
    holdings = [HOLDINGS] if config.multi_symbol else []
    baselines = baseline_accounts.CONVENTION if symbols == 1 else baseline_accounts.CONVENTION_MANY
    return [_execution_convention(config), *CONVENTIONS, *holdings, baselines, SENSITIVITY]


def _execution_convention(config: Config) -> str:
    execution = config.execution
    when = "at the close of the decision bar" if execution.fill == "close" else "at the next bar's open"
    late = f", {execution.latency_bars} bars later" if execution.latency_bars else ""
    return (
        f"Fills {when}{late}; slippage {execution.slippage_bps:g} bps, always adverse; fee {execution.fee_rate:.4%} of "
        "notional. On bars without a trade nothing fills."
    )


def make_warnings(
    config: Config,
    *,
    status: Status,
    broker: SimulatedBroker,
    tally: Tally,
    trades: int,
    delisted: Sequence[str],
) -> list[str]:
    """Write the warnings about what limits the meaning of a run's results.

    Args:
        config: of the run.
        status: how it ended.
        broker: its account at the end.
        tally: counts over its decisions.
        trades: number of closed trades.
        delisted: symbols that were delisted while they were held.
    """
    warnings, failed = [], tally.failed_share
    if status in ("interrupted", "budget"):
        warnings.append("The run is not finished: these are the results until it stopped. Run it again to continue.")
    if failed > config.risk.max_failed_share:
        warnings.append(
            f"{failed:.1%} of the decisions failed and became HOLD; more than risk.max_failed_share "
            f"({config.risk.max_failed_share:.1%}): the result means nothing"
        )
    elif failed > 0:
        warnings.append(f"{failed:.1%} of the decisions failed and became HOLD")
    warnings += tally.served.warnings()
    for tier, calls in sorted(tally.unpriced_tiers.items()):
        warnings.append(
            f"{calls:,} calls were served in the service tier {tier}, whose price is not known: they are unpriced; "
            "give llm.prices"
        )
    if broker.halted_by == "drawdown":
        warnings.append(
            f"risk.max_drawdown ({config.risk.max_drawdown:.1%}) was exceeded: all positions were closed and trading "
            "ended"
        )
    if broker.halted_by == "used_up":
        warnings.append("The account was used up: equity fell to zero, all positions were closed and trading ended")
    if delisted:
        more = f" and {len(delisted) - _MOST_NAMED} more" if len(delisted) > _MOST_NAMED else ""
        named = ", ".join(delisted[:_MOST_NAMED])
        warnings.append(f"Delisted during the run, and closed at the last trade: {named}{more}")
    if broker.dropped:
        warnings.append(
            f"{broker.dropped} orders were dropped at the fill: below a minimum size, or no cash or position left"
        )
    if shorts := tally.cuts["allow_short"]:
        spot = config.market.kind == "spot"
        reason = "spot cannot be sold short; market.kind: um can" if spot else "risk.allow_short is false"
        warnings.append(f"{shorts:,} orders to sell short were cut: {reason}")
    if trades < _FEW_TRADES:
        closed = {0: "No closed trade", 1: "Only 1 closed trade"}.get(trades, f"Only {trades} closed trades")
        warnings.append(f"{closed}: too few to tell skill from luck")
    return warnings
