"""Preview a run before it begins: check its config, and render the prompt of one decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.plan import RunPlan, plan_run
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.config.model import Config
from agent_bt.core.clock import iso, time_us
from agent_bt.core.errors import AgentBtError, UsageError
from agent_bt.core.finding import Finding
from agent_bt.core.protocols import AgentStrategy
from agent_bt.core.types import Portfolio
from agent_bt.llm.provider import get_provider
from agent_bt.strategies.registry import asks_model

Messages = list[dict[str, str]]


def render_prompt(config: Config, at: str | None = None, *, config_path: Path | None = None) -> Messages:
    """Render the messages that an agent without a position would send at its first decision at or after an instant.

    Args:
        config: of the agent.
        at: the instant, ISO 8601, UTC; None: the start of the run.
        config_path: file the config was read from; prompts beside it are found.

    Raises:
        UsageError: the config's strategy is not an agent, or no decision is due from that instant on.
    """
    if not asks_model(config.strategy.kind, config.strategy.params):
        raise UsageError(f"strategy.kind is {config.strategy.kind}, which has no prompt; set strategy.kind=agent")
    plan = plan_run(config, config_path=config_path)
    return _messages(plan, prepare_market(plan.config, plan.loaded.bars, plan.strategy), at)


def _messages(plan: RunPlan, prepared: PreparedMarket, at: str | None = None) -> Messages:
    times, since = prepared.market.times, 0 if at is None else time_us(at)
    bar = next((int(row) for row in prepared.schedule.bars if times[row] >= since), None)
    if bar is None:
        raise UsageError(
            f"no decision at or after {at}; the last one is at {iso(int(times[prepared.schedule.bars[-1]]))}"
        )
    empty = Portfolio(cash=plan.setup.cash, positions={}, peak_equity=plan.setup.cash)
    assert isinstance(plan.strategy, AgentStrategy)
    requests = plan.strategy.requests(prepared.market.at(bar), empty)
    if not requests:
        raise UsageError(
            f"no symbol may be bought at {iso(int(times[bar]))}, so no request is sent; choose another instant"
        )
    return requests[0].messages


def validate(config: Config, config_path: Path | None = None) -> Sequence[Finding]:
    """Check a config, its prompt, strategy and data without running anything and without a request to a model.

    Args:
        config: of the run.
        config_path: file it was read from; prompts beside it are found.

    Returns:
        The findings of all levels: `ok`, `warning` and `error`; errors are returned, not raised.
    """
    findings = []
    try:
        findings += _check_run(config, config_path)
    except AgentBtError as error:
        findings.append(Finding(level="error", what=str(error)))
    if config.market.source == "sample":
        findings.append(
            Finding(
                level="warning",
                what="market.source is sample: the prices are generated, results say nothing about the real market",
                advice="backfill real data with `agent-bt data backfill`, then set market.source: store",
            )
        )
    if asks_model(config.strategy.kind, config.strategy.params) and (notice := _provider_notice(config)):
        findings.append(notice)
    return findings


def _check_run(config: Config, config_path: Path | None) -> list[Finding]:
    """Plan the run, prepare its market, and describe both."""
    plan = plan_run(config, config_path=config_path)
    findings = [Finding(level="ok", what=f"market: {plan.loaded.label}, {len(plan.loaded.bars):,} bars")]
    findings += [Finding(level="warning", what=note) for note in plan.loaded.notes]
    prepared = prepare_market(plan.config, plan.loaded.bars, plan.strategy)
    schedule = prepared.schedule
    skipped = f", {schedule.skipped} skipped where nothing traded" if schedule.skipped else ""
    unchanged = f", {schedule.unchanged:,} of them with unchanged targets" if schedule.unchanged else ""
    findings.append(Finding(level="ok", what=f"decisions: {len(schedule.due):,}{skipped}{unchanged}"))
    if plan.prompt:
        size = sum(len(message["content"]) for message in _messages(plan, prepared))
        findings.append(
            Finding(level="ok", what=f"prompt: {plan.prompt.reference}, {size:,} characters at the first decision")
        )
        findings += _prefetch_warnings(plan.config, plan.prompt)
    return findings


def _provider_notice(config: Config) -> Finding | None:
    """Return the warning of the provider; None for one that cannot be built, which `_check_run` has reported."""
    try:
        notice = get_provider(config.llm).notice
    except AgentBtError:
        return None
    return Finding(level="warning", what=notice[0], advice=notice[1]) if notice else None


_RARELY_REPEATED = {
    "account.cash": "cash", "account.equity": "equity", "account.realised_pnl": "realised PnL", "account.fees": "fees",
    "account.quantity": "the quantity held", "account.average_price": "the entry price", "account": "the whole account",
}  # fmt: skip
"""Variables of a prompt whose values almost never repeat, so that prefetched replies are not used."""

_NEW_AT_EACH_ENTRY = {
    "account.unrealised": "the result", "account.held": "decisions held", "account.bars_held": "bars held",
}  # fmt: skip
"""Variables of a prompt that differ at each entry, so that `prefetch.guess: states` finds no state again."""


def _prefetch_warnings(config: Config, prompt: Prompt) -> Iterator[Finding]:
    """Warn of variables in the prompt that make prefetched replies useless."""
    if not config.prefetch.depth:
        return
    uses = prompt.uses()
    if shown := [words for name, words in _RARELY_REPEATED.items() if name in uses]:
        yield Finding(
            level="warning",
            what=f"the prompt shows {', '.join(shown)}: after a trade, no prefetched reply is used",
            advice="show account.position, account.unrealised and account.held instead, or set prefetch.depth: 0",
        )
    elif config.prefetch.guess == "states" and (
        new := [words for name, words in _NEW_AT_EACH_ENTRY.items() if name in uses]
    ):
        yield Finding(
            level="warning",
            what=f"the prompt shows {', '.join(new)}, and prefetch.guess is states: every entry is a new state",
            advice="use a prompt of few states, such as btcusdt_trader/v1-states, or set prefetch.guess: hold",
        )
