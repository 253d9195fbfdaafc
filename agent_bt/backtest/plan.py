"""RunPlan a run: find its prompt and bars and derive its identity, without beginning it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.guess import guess_of
from agent_bt.backtest.identity import identity_of
from agent_bt.backtest.strategy import build_strategy, check_agent, find_prompt, with_prompt_defaults
from agent_bt.config.model import Config
from agent_bt.records.hashes import data_hash

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run that could begin: its prompt (None: no agent) and bars are there, and its identity is known.

    Its folder is made under `root`; prompts beside `config_path` are found again when it is resumed.
    """

    config: Config
    prompt: Prompt | None
    loaded: LoadedBars
    identity: Mapping[str, Any]
    root: Path
    config_path: Path | None = None
    limit: int | None = None


def plan_run(
    config: Config,
    *,
    config_path: Path | None = None,
    limit: int | None = None,
    root: Path | None = None,
    load: Callable[[Config], LoadedBars] = load_bars,
) -> RunPlan:
    """Find what a run needs, without beginning it; `root` stands in for the config's `output`, `load` fetches bars.

    Raises:
        AgentBtError: the prompt or the bars are not there.
    """
    prompt = find_prompt(config, config_path)
    config = with_prompt_defaults(config, prompt)
    if prompt is not None:
        check_agent(config)
        guess_of(config)
    # What is wrong with the strategy is told before a market is loaded for it.
    build_strategy(config, prompt)
    loaded = load(config)
    identity = identity_of(config, prompt=prompt, data=data_hash(loaded.bars), limit=limit)
    return RunPlan(
        config=config,
        prompt=prompt,
        loaded=loaded,
        identity=identity,
        root=root or Path(config.output),
        config_path=config_path,
        limit=limit,
    )
