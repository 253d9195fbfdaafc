"""Plan a run: find its prompt, build its strategy, load its bars and derive its identity; nothing begins yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.guess import make_guess
from agent_bt.backtest.identity import derive_identity
from agent_bt.backtest.model_reference import ModelReference
from agent_bt.backtest.prepare import PreparedMarket
from agent_bt.backtest.strategy import apply_prompt_defaults, build_strategy, check_agent, find_prompt
from agent_bt.config.model import Config
from agent_bt.core.protocols import Strategy
from agent_bt.engine.prefetch import Guess
from agent_bt.execution.setup import ExecutionSetup
from agent_bt.llm.ledger import Ledger
from agent_bt.records.hashes import data_hash
from agent_bt.records.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run that is ready to begin.

    Attributes:
        config: of the run, with the defaults of its prompt.
        strategy: decides; built here, once for the whole run.
        prompt: of an agent; None for a strategy that asks no model.
        model: what the agent refers to as its model, to be opened when the run begins; None without a prompt.
        guess: what prefetch assumes of the next decisions; None: HOLD.
        setup: how orders fill, what limits them, and the starting cash.
        loaded: bars, warm-up included.
        identity: what makes it this run (see `derive_identity`).
        root: folder in which its run folder is made.
        config_path: file of the config; prompts beside it are found again when the run is resumed.
        limit: number of decisions after which it stops; None: all.
    """

    config: Config
    strategy: Strategy
    prompt: Prompt | None
    model: ModelReference | None
    guess: Guess | None
    setup: ExecutionSetup
    loaded: LoadedBars
    identity: Mapping[str, Any]
    root: Path
    config_path: Path | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A planned run with everything opened that it needs.

    Attributes:
        plan: the run.
        prepared: its market and decision bars.
        folder: what it is recorded in.
        continued: whether an earlier part of it is recorded there.
        offline: whether replies come from the cache alone, so that prefetch has no wait to save.
        ledger: what calls to the model have cost so far; None where nothing is paid.
    """

    plan: RunPlan
    prepared: PreparedMarket
    folder: RunFolder
    continued: bool
    offline: bool = False
    ledger: Ledger | None = None


def plan_run(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    root: Path | None = None,
    load: Callable[[Config], LoadedBars] = load_bars,
) -> RunPlan:
    """Check and collect what a run needs, without beginning it.

    Args:
        config: of the run.
        config_path: file it was read from; prompts beside it are found.
        limit: number of decisions after which the run stops; None: all.
        root: folder in which the run folder is made; None: the config's `output`.
        load: loads the bars.

    Raises:
        AgentBtError: the prompt, the strategy or the bars are missing or not valid.
    """
    prompt = find_prompt(config, config_path)
    config = apply_prompt_defaults(config, prompt)
    model = guess = None
    if prompt is not None:
        check_agent(config)
        guess = make_guess(config)
        model = ModelReference(config)
    # What is wrong with the strategy or the account is reported before a market is loaded for it.
    strategy = build_strategy(config, prompt, model.form if model else None, model)
    setup = build_execution(config)
    loaded = load(config)
    identity = derive_identity(config, strategy=strategy, prompt=prompt, data=data_hash(loaded.bars), limit=limit)
    return RunPlan(
        config=config,
        strategy=strategy,
        prompt=prompt,
        model=model,
        guess=guess,
        setup=setup,
        loaded=loaded,
        identity=identity,
        root=root or Path(config.output),
        config_path=config_path,
        limit=limit,
    )
