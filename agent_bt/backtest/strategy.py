"""Build the strategy of a run, with its prompt if it asks a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_bt.agents.agent import PromptAgent, RequestForm
from agent_bt.agents.prompt import Prompt, load_prompt, prompt_roots
from agent_bt.agents.ranker import RankerAgent
from agent_bt.backtest.model_reference import ModelReference
from agent_bt.config.model import Config
from agent_bt.core.clock import duration_us
from agent_bt.core.errors import AgentBtError, ConfigError, PromptError
from agent_bt.core.params import keys
from agent_bt.core.protocols import LLM, AgentStrategy, Strategy
from agent_bt.features.specs import feature_specs
from agent_bt.llm.provider import get_provider
from agent_bt.strategies.registry import agent_kinds, agent_params, make_strategy


def find_prompt(config: Config, config_path: Path | None) -> Prompt | None:
    """Find the prompt of an agent, also of one in an ensemble; None for any other strategy.

    Args:
        config: of the run.
        config_path: file it was read from; prompts beside it are found.

    Raises:
        PromptError: there is no such prompt, it is not valid, or it does not show the sizes there are.
        ConfigError: sizes are given for a strategy that answers with none.
    """
    kinds = agent_kinds(config.strategy.kind, config.strategy.params)
    if config.strategy.sizes and "agent" not in kinds:
        raise ConfigError(
            f"strategy.sizes is for agents that answer with an action and a size; {config.strategy.kind} does not: "
            "remove it"
        )
    if not kinds:
        return None
    prompt = load_prompt(config.strategy.prompt, prompt_roots(config_path))
    ranks = "weights" in prompt.output.get("properties", {})
    if ranks != ("agent_ranker" in kinds):
        wanted, fitting = ("weights", "panel_ranker/v1") if not ranks else ("action", "btcusdt_trader/v1")
        raise PromptError(
            f"strategy.prompt {prompt.reference}: its output has no {wanted}, which {' and '.join(sorted(kinds))} "
            f"{'wants' if len(kinds) == 1 else 'want'}; set strategy.prompt: {fitting}, or one of your own"
        )
    if config.strategy.sizes and "sizes" not in prompt.inputs:
        raise PromptError(
            f"strategy.sizes: the prompt {prompt.reference} does not show them to the model; set strategy.prompt: "
            "btcusdt_trader/v3, or name `sizes` among the inputs of your own and list them in its text"
        )
    return prompt


def apply_prompt_defaults(config: Config, prompt: Prompt | None) -> Config:
    """Return the config with the model settings that the prompt suggests, where the config does not set them.

    Args:
        config: of the run.
        prompt: None: the config is returned unchanged.
    """
    if prompt is None:
        return config
    suggested = prompt.model.model_dump(exclude_none=True)
    changes = {key: value for key, value in suggested.items() if key not in config.llm.model_fields_set}
    return config.model_copy(update={"llm": config.llm.model_copy(update=changes)}) if changes else config


def check_agent(config: Config) -> None:
    """Check the rules for agents that involve several sections of the config.

    Raises:
        ConfigError: an agent decides on several symbols or a ranker on one; both are in one ensemble; an agent has
            parameters; or a ranker may sell short what the account may not.
    """
    strategy = config.strategy
    kinds = agent_kinds(strategy.kind, strategy.params)
    if kinds:
        get_provider(config.llm).check()
    if strategy.kind == "agent" and strategy.params:
        raise ConfigError("strategy.params: an agent takes none; what the model gets is set under llm and features")
    if len(kinds) > 1:
        raise ConfigError("strategy.params.members: agent and agent_ranker cannot vote together: they share one prompt")
    if "agent" in kinds and config.multi_symbol:
        raise ConfigError("strategy.kind agent decides on one symbol; set strategy.kind: agent_ranker for several")
    if "agent_ranker" in kinds and not config.multi_symbol:
        raise ConfigError(
            "strategy.kind agent_ranker weighs symbols against each other; set mode: cross_sectional, or market.symbols"
        )
    short = any(each.get("allow_short") is True for each in agent_params(strategy.kind, strategy.params))
    if short and not config.risk.allow_short:
        raise ConfigError(
            "strategy.params.allow_short: the account may not be short; set risk.allow_short: true, market.kind: um"
        )


def build_strategy(
    config: Config, prompt: Prompt | None, form: RequestForm | None = None, llm: LLM | None = None
) -> Strategy:
    """Build the strategy that `strategy.kind` names.

    Args:
        config: of the run.
        prompt: of an agent; None for a strategy that asks no model.
        form: what the requests of an agent have in common; None: as configured.
        llm: answers the requests of an agent; None: it can build its requests, but not send them.

    Raises:
        ConfigError: there is no such strategy, or its parameters don't fit.
    """

    if prompt is not None and (form is None or llm is None):
        unopened = ModelReference(config)
        form, llm = form or unopened.form, llm or unopened

    def agent(kind: str, params: Mapping[str, Any]) -> AgentStrategy:
        shared: dict[str, Any] = {"prompt": prompt, "form": form, "llm": llm, "strip": config.llm.strip}
        if kind == "agent_ranker":
            frequency = config.rebalance if config.mode == "cross_sectional" else config.strategy.every
            try:
                keys("params", params, allowed=("columns", "allow_short", "max_symbols"))
                return RankerAgent(frequency=frequency, **shared, **params)
            except AgentBtError as error:
                raise ConfigError(f"strategy {kind}: {error}") from error
        if params:
            raise ConfigError(f"{kind} takes no params; what the model gets is set under llm and features")
        return PromptAgent(
            window=config.features.window,
            every=duration_us(config.strategy.every),
            features=feature_specs(config.features),
            summary=config.features.summary,
            sizing=config.strategy.sizing,
            sizes=config.strategy.sizes or (),
            **shared,
        )

    return make_strategy(config.strategy.kind, config.strategy.params, agent if prompt is not None else None)
