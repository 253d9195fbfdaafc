"""Plans a sweep: every combination as config, strategy and identity; invalid combinations are counted and skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_bt.backtest.account import build_execution
from agent_bt.backtest.bars import LoadedBars, load_bars
from agent_bt.backtest.identity import derive_identity
from agent_bt.config.model import Config
from agent_bt.core.canonical import canonical
from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import Strategy
from agent_bt.execution.setup import ExecutionSetup
from agent_bt.experiments.sweep.spec import Sweep, config_with
from agent_bt.records.hashes import data_hash
from agent_bt.strategies.registry import asks_model, make_strategy

_INNER = "strategy.params."


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSetup:
    """What combinations share that differ only in parameters of the strategy.

    Attributes:
        config: with the strategy's parameters as in the base.
        setup: execution and risk limits.
        identity: of a run, without the combination's own parameters.
        group_key: equal where combinations can be evaluated together: same market, schedule and fill delay.
    """

    config: Config
    setup: ExecutionSetup
    identity: Mapping[str, Any]
    group_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One valid combination.

    Attributes:
        values: parameter path -> value.
        shared: see `SharedSetup`.
        config: of a run of this combination.
        strategy: built from it.
        identity: of the run.
    """

    values: Mapping[str, Any]
    shared: SharedSetup
    config: Config
    strategy: Strategy
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """The valid combinations in order, how many were skipped for which reason, and the bars by interval."""

    combinations: list[Planned]
    skipped: Counter[str]
    loaded: Mapping[str, LoadedBars]


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Return every valid combination, in order; bars are loaded once for each interval.

    Raises:
        ConfigError: no combination is valid, or one would call a model.
    """
    shared_setups: dict[bytes, SharedSetup | str] = {}
    loaded: dict[str, LoadedBars] = {}
    hashes: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    planned: list[Planned] = []
    wanted = sweep.size if sweep.declared.search == "grid" else sweep.declared.samples
    for values in sweep.combinations():
        inner = {path.removeprefix(_INNER): value for path, value in values.items() if path.startswith(_INNER)}
        outside = {path: value for path, value in values.items() if not path.startswith(_INNER)}
        key = canonical(outside)
        if key not in shared_setups:
            shared_setups[key] = _shared_setup(sweep.config, outside, loaded, hashes)
        shared = shared_setups[key]
        if isinstance(shared, str):
            skipped[shared] += 1
            continue
        params = _params_with(shared.config.strategy.params, inner)
        _refuse_agents(shared.config.strategy.kind, params)
        try:
            strategy = make_strategy(shared.config.strategy.kind, params)
        except ConfigError as error:
            skipped[str(error)] += 1
            continue
        chosen = shared.config.strategy.model_copy(update={"params": params})
        config = shared.config.model_copy(update={"strategy": chosen})
        identity = _identity_of(shared, config, strategy, hashes)
        planned.append(Planned(values=values, shared=shared, config=config, strategy=strategy, identity=identity))
        if len(planned) == wanted:
            break
    if not planned:
        reason, count = skipped.most_common(1)[0]
        raise ConfigError(f"none of {sum(skipped.values()):,} combinations is valid; {count:,} times: {reason}")
    if sweep.declared.search == "random":
        planned.sort(key=lambda each: [sweep.params[path].index(value) for path, value in each.values.items()])
    return SweepPlan(combinations=planned, skipped=skipped, loaded=loaded)


def _shared_setup(
    base: Config, changes: Mapping[str, Any], loaded: dict[str, LoadedBars], hashes: dict[str, str]
) -> SharedSetup | str:
    """Return the shared part, or why it is not valid."""
    try:
        config = config_with(base, changes) if changes else base
        setup = build_execution(config)
    except ConfigError as error:
        return str(error)
    interval = config.market.interval
    if interval not in loaded:
        loaded[interval] = load_bars(config)
        hashes[interval] = data_hash(loaded[interval].bars)
    _refuse_agents(config.strategy.kind, {})
    comparable = config if ":" not in config.strategy.kind else config_with(config, {"strategy.kind": "stay_out"})
    parts = config.model_dump(include={"mode", "market", "pool", "rebalance"}, mode="json")
    return SharedSetup(
        config=config,
        setup=setup,
        identity=derive_identity(comparable, strategy=None, prompt=None, data=hashes[interval], limit=None),
        group_key=canonical([parts, config.strategy.every, int(setup.rules[0]["delay"])]),
    )


def _identity_of(
    shared: SharedSetup, config: Config, strategy: Strategy, hashes: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return the identity of a run of this combination; for a registered strategy without dumping the config again."""
    if ":" in config.strategy.kind:
        return derive_identity(config, strategy=strategy, prompt=None, data=hashes[config.market.interval], limit=None)
    return {**shared.identity, "strategy": {**shared.identity["strategy"], "params": config.strategy.params}}


def _params_with(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = dict(params)
    for path, value in changes.items():
        *above, last = path.split(".")
        into = changed
        for part in above:
            inside = into.get(part)
            into[part] = dict(inside) if isinstance(inside, Mapping) else {}
            into = into[part]
        into[last] = value
    return changed


def _refuse_agents(kind: str, params: Mapping[str, Any]) -> None:
    if asks_model(kind, params):
        raise ConfigError(
            f"strategy.kind {kind} calls a model; a sweep tries rules and rankers: set strategy.kind, such as "
            "ma_cross. Prompts and models are compared with `agent-bt ab run`"
        )
