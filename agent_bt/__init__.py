"""agent-bt: a backtester for the decisions of LLM agents.

>>> from agent_bt import load_config, run
>>> config = load_config(overrides=["market.end=2024-07-03", "strategy.every=6h"], env={})
>>> result = run(config)
>>> result.decisions.select("action").height, result.equity.columns[:2]     # Polars frames
(8, ['time', 'equity'])
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent_bt.core.lazy import lazy_names

if TYPE_CHECKING:
    from agent_bt.backtest.in_memory import (
        create_backtest_engine,
        create_mean_reversion_backtest,
        create_momentum_backtest,
    )
    from agent_bt.backtest.replay import replay
    from agent_bt.backtest.run import run
    from agent_bt.config.load import load_config
    from agent_bt.core.types import Decision, FeatureSpec, Portfolio
    from agent_bt.core.view import MarketView
    from agent_bt.experiments.ab.run import compare
    from agent_bt.records.read import load_run
    from agent_bt.strategies.base import Strategy
    from agent_bt.strategies.ensemble import EnsembleSignalGenerator
    from agent_bt.strategies.factors import FactorConfig, FactorSignalGenerator
    from agent_bt.strategies.ranks import RankSignalGenerator
    from agent_bt.strategies.registry import create_strategy
    from agent_bt.strategies.rules import RuleCondition, RuleSignalGenerator
    from agent_bt.strategies.signals import SignalStrategy
    from agent_bt.strategies.technical import TechnicalRuleGenerator

__version__ = "0.1.0"

# Silent until the user of the package configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "Decision": "agent_bt.core.types",
    "EnsembleSignalGenerator": "agent_bt.strategies.ensemble",
    "FactorConfig": "agent_bt.strategies.factors",
    "FactorSignalGenerator": "agent_bt.strategies.factors",
    "FeatureSpec": "agent_bt.core.types",
    "MarketView": "agent_bt.core.view",
    "Portfolio": "agent_bt.core.types",
    "RankSignalGenerator": "agent_bt.strategies.ranks",
    "RuleCondition": "agent_bt.strategies.rules",
    "RuleSignalGenerator": "agent_bt.strategies.rules",
    "SignalStrategy": "agent_bt.strategies.signals",
    "Strategy": "agent_bt.strategies.base",
    "TechnicalRuleGenerator": "agent_bt.strategies.technical",
    "compare": "agent_bt.experiments.ab.run",
    "create_backtest_engine": "agent_bt.backtest.in_memory",
    "create_mean_reversion_backtest": "agent_bt.backtest.in_memory",
    "create_momentum_backtest": "agent_bt.backtest.in_memory",
    "create_strategy": "agent_bt.strategies.registry",
    "load_config": "agent_bt.config.load",
    "load_run": "agent_bt.records.read",
    "replay": "agent_bt.backtest.replay",
    "run": "agent_bt.backtest.run",
}

__all__ = [
    "Decision",
    "EnsembleSignalGenerator",
    "FactorConfig",
    "FactorSignalGenerator",
    "FeatureSpec",
    "MarketView",
    "Portfolio",
    "RankSignalGenerator",
    "RuleCondition",
    "RuleSignalGenerator",
    "SignalStrategy",
    "Strategy",
    "TechnicalRuleGenerator",
    "compare",
    "create_backtest_engine",
    "create_mean_reversion_backtest",
    "create_momentum_backtest",
    "create_strategy",
    "load_config",
    "load_run",
    "replay",
    "run",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _MODULES)
