"""Audit the strategy of a config or of a run for look-ahead: build what `evaluation.audit` needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import load_bars
from agent_bt.backtest.model import build_form
from agent_bt.backtest.prepare import prepare_market
from agent_bt.backtest.replay import load_recorded_prompt
from agent_bt.backtest.strategy import apply_prompt_defaults, build_strategy, find_prompt
from agent_bt.config.load import load_config
from agent_bt.config.model import Config
from agent_bt.core.errors import UsageError
from agent_bt.core.protocols import Strategy
from agent_bt.engine.market import Market
from agent_bt.evaluation.audit import Audit, Subject, audit
from agent_bt.llm.random_replies import RandomReplyLLM
from agent_bt.records.decision_record import build_content
from agent_bt.records.read import load_run


def audit_config(config: Config, config_path: Path | None = None, *, cuts: int = 12) -> Audit:
    """Audit the strategy of a config for look-ahead over its own market; `RandomReplyLLM` takes the place of a model.

    Args:
        config: of the strategy.
        config_path: file it was read from; prompts beside it are found.
        cuts: number of decisions after which the future is changed.

    Raises:
        AgentBtError: its prompt, bars or strategy are missing or not valid, or the strategy fails.
    """
    prompt = find_prompt(config, config_path)
    config = apply_prompt_defaults(config, prompt)
    return _audit(config, prompt, load_bars(config).bars, cuts)


def audit_run(path: Path, *, cuts: int = 12) -> Audit:
    """Audit the strategy of a run over the bars and with the prompt that it recorded.

    Args:
        path: the run folder.
        cuts: number of decisions after which the future is changed.

    Raises:
        AgentBtError: it is not a run folder, or the strategy is missing or fails.
    """
    run = load_run(path)
    kept = run.manifest.get("prompt")
    prompt = None if kept is None else load_recorded_prompt(kept)
    return _audit(load_config(run.folder.config, env={}), prompt, run.market, cuts)


def _audit(config: Config, prompt: Prompt | None, bars: pl.DataFrame, cuts: int) -> Audit:
    bars = _listed_throughout(bars)
    setup = build_execution(config)

    def strategy() -> Strategy:
        form = None if prompt is None else build_form(config, None)
        return build_strategy(config, prompt, form, None if prompt is None else RandomReplyLLM())

    def prepare(bars: pl.DataFrame, strategy: Strategy) -> tuple[Market, np.ndarray]:
        prepared = prepare_market(config, bars, strategy)
        return prepared.market, prepared.schedule.bars

    subject = Subject(strategy=strategy, prepare=prepare, setup=setup, content=build_content)
    return audit(subject, bars, cuts=cuts, seed=config.seed)


def _listed_throughout(bars: pl.DataFrame) -> pl.DataFrame:
    """Leave out symbols that are listed or delisted during the run: a market that ends earlier may not have them.

    Raises:
        UsageError: no symbol is listed throughout.
    """
    if "symbol" not in bars.columns:
        return bars
    traded = pl.col("close_time").filter(pl.col("volume") > 0)
    ranges = bars.group_by("symbol").agg(first=pl.col("close_time").min(), last=traded.max())
    ends = bars["close_time"].max()
    day = pl.duration(days=1)
    kept = ranges.filter((pl.col("first") == ranges["first"].min()) & (pl.col("last") > pl.lit(ends) - day))["symbol"]
    if kept.is_empty():
        raise UsageError("no symbol is listed from the first bar to the last; audit a shorter range")
    return bars.filter(pl.col("symbol").is_in(kept.to_list()))
