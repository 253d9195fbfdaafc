"""Choose the assumption of prefetch about the next decisions."""

from __future__ import annotations

from agent_bt.config.model import Config
from agent_bt.core.errors import ConfigError
from agent_bt.core.types import Decision, Portfolio
from agent_bt.core.view import MarketView
from agent_bt.engine.prefetch import Guess
from agent_bt.features.specs import feature_specs
from agent_bt.strategies.registry import agent_kinds, make_strategy


def make_guess(config: Config) -> Guess | None:
    """Return the assumption about the next decisions that `prefetch.guess` names; None for HOLD.

    Raises:
        ConfigError: there is no such guess, or its rule needs more than the agent sees.
    """
    name = config.prefetch.guess
    if name in ("hold", "states"):
        return None
    if name == "last":
        return _repeat_last
    if "agent_ranker" in agent_kinds(config.strategy.kind, config.strategy.params):
        raise ConfigError(f"prefetch.guess must be hold or last for a ranker, got {name}")
    try:
        rule = make_strategy(name, {})
    except ConfigError as error:
        raise ConfigError(
            f"prefetch.guess must be hold, last, states or the name of a rule, got {name}: {error}"
        ) from None
    lacking = {spec.column for spec in rule.features} - {spec.column for spec in feature_specs(config.features)}
    if rule.lookback > config.features.window or lacking:
        raise ConfigError(
            f"prefetch.guess {name} needs more bars or features than the agent sees; widen features.window, or set hold"
        )

    def by_rule(view: MarketView, portfolio: Portfolio, last: Decision | None) -> Decision:  # noqa: ARG001
        return rule.decide(view, portfolio)

    return by_rule


def _repeat_last(view: MarketView, portfolio: Portfolio, last: Decision | None) -> Decision | None:  # noqa: ARG001
    return last
