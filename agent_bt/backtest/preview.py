"""Show what a run would do before it begins: its findings, and the prompt of one decision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.prepare import PreparedMarket, prepare_market
from agent_bt.backtest.strategy import build_strategy, check_agent, find_prompt
from agent_bt.config.model import Config
from agent_bt.core.clock import iso, time_us
from agent_bt.core.errors import AgentBtError, UsageError
from agent_bt.core.finding import Finding
from agent_bt.core.protocols import AgentStrategy, Strategy
from agent_bt.core.types import Portfolio
from agent_bt.llm.provider import get_provider
from agent_bt.strategies.registry import asks_model

Messages = list[dict[str, str]]


def load_market(config: Config) -> LoadedBars:
    """Load the bars of a run of this config (`.bars`, columns of `BAR_SCHEMA`)."""
    return load_bars(config)


def render_prompt(config: Config, at: str | None = None, *, config_path: Path | None = None) -> Messages:
    """Render the messages that an agent without a position would send at its first decision at or after an instant.

    Args:
        config: of the agent.
        at: the instant, ISO 8601, UTC; None: the start of the run.
        config_path: file the config was read from; prompts beside it are found.

    Raises:
        UsageError: the config's strategy is not an agent, or there is no decision at or after that instant.
    """
    prompt = find_prompt(config, config_path)
    if prompt is None:
        raise UsageError(f"strategy.kind is {config.strategy.kind}, which has no prompt; set strategy.kind=agent")
    check_agent(config)
    strategy = build_strategy(config, prompt)
    prepared = prepare_market(config, load_bars(config).bars, strategy)
    return _messages(config, strategy, prepared, at)


def _messages(config: Config, strategy: Strategy, prepared: PreparedMarket, at: str | None = None) -> Messages:
    times, since = prepared.market.times, time_us(at) if at else 0
    bar = next((int(row) for row in prepared.schedule.bars if times[row] >= since), None)
    if bar is None:
        raise UsageError(
            f"there is no decision at or after {at}; the last one is at {iso(int(times[prepared.schedule.bars[-1]]))}"
        )
    empty = Portfolio(cash=config.account.cash, positions={}, peak_equity=config.account.cash)
    assert isinstance(strategy, AgentStrategy)
    requests = strategy.requests(prepared.market.at(bar), empty)
    if not requests:
        raise UsageError(
            f"at {iso(int(times[bar]))} no symbol may be bought, so that no request is sent; choose another instant"
        )
    return requests[0].messages


def validate(config: Config, config_path: Path | None = None) -> Sequence[Finding]:
    """Check a config, its prompt and its data without running anything and without asking a model."""
    findings = []
    try:
        prompt = find_prompt(config, config_path)
        check_agent(config)
        loaded = load_bars(config)
        findings.append(Finding(level="ok", what=f"market: {loaded.label}, {len(loaded.bars):,} bars"))
        findings += [Finding(level="warning", what=note) for note in loaded.notes]
        strategy = build_strategy(config, prompt)
        prepared = prepare_market(config, loaded.bars, strategy)
        skipped = f", {prepared.schedule.skipped} skipped where nothing traded" if prepared.schedule.skipped else ""
        unchanged = (
            f", {prepared.schedule.unchanged:,} of them with nothing new to say" if prepared.schedule.unchanged else ""
        )
        findings.append(Finding(level="ok", what=f"decisions: {len(prepared.schedule.due):,}{skipped}{unchanged}"))
        build_execution(config)
        if prompt:
            text = _messages(config, strategy, prepared)
            size = sum(len(message["content"]) for message in text)
            findings.append(
                Finding(level="ok", what=f"prompt: {prompt.reference}, {size:,} characters at the first decision")
            )
            findings += _about_speculation(config, prompt)
    except AgentBtError as error:
        findings.append(Finding(level="error", what=str(error)))
    if config.market.source == "sample":
        findings.append(
            Finding(
                level="warning",
                what="market.source is sample: the market is generated, results say nothing about the real one",
                advice="backfill real data with `agent-bt data backfill`, then set market.source: store",
            )
        )
    if asks_model(config.strategy.kind, config.strategy.params) and (notice := _provider_notice(config)):
        findings.append(notice)
    return findings


def _provider_notice(config: Config) -> Finding | None:
    """The warning that the provider gives about itself; a provider that cannot be made is an error found before."""
    try:
        notice = get_provider(config.llm).notice
    except AgentBtError:
        return None
    return Finding(level="warning", what=notice[0], advice=notice[1]) if notice else None


ENDLESS = {
    "account.cash": "cash", "account.equity": "equity", "account.realised_pnl": "realised PnL", "account.fees": "fees",
    "account.quantity": "the quantity held", "account.average_price": "the entry price", "account": "the whole account",
}  # fmt: skip
"""What a prompt can show that hardly ever comes to the same value twice, so that replies asked ahead don't fit."""


EVER_NEW = {"account.unrealised": "the result", "account.held": "decisions held", "account.bars_held": "bars held"}
"""What differs from one entry to the next, so that `prefetch.guess: states` never meets a state again."""


def _about_speculation(config: Config, prompt: Prompt) -> list[Finding]:
    """Warn of what makes requests that are sent ahead useless."""
    uses = prompt.uses()
    shown = [words for name, words in ENDLESS.items() if name in uses]
    if not config.prefetch.depth:
        return []
    if not shown and config.prefetch.guess == "states":
        new = [words for name, words in EVER_NEW.items() if name in uses]
        return [
            Finding(
                level="warning",
                what=f"the prompt shows {', '.join(new)}, and prefetch.guess is states: every entry is a new state",
                advice="use a prompt of few states, such as btcusdt_trader/v1-states, or set prefetch.guess: hold",
            )
        ] * bool(new)
    if not shown:
        return []
    return [
        Finding(
            level="warning",
            what=f"the prompt shows {', '.join(shown)}: after a trade, replies asked for ahead never fit again",
            advice="show account.position, account.unrealised and account.held instead, or set prefetch.depth: 0",
        )
    ]
