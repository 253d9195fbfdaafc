"""Strategies by name, and a user's own by import path `module:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from agent_bt.core.errors import AgentBtError, ConfigError
from agent_bt.core.extensions import import_object
from agent_bt.core.params import keys
from agent_bt.core.protocols import AgentStrategy, Strategy
from agent_bt.core.suggest import did_you_mean
from agent_bt.core.types import FeatureSpec
from agent_bt.core.view import BAR_COLUMNS
from agent_bt.strategies.registration import Build, registered
from agent_bt.strategies.technical import params_of

AGENTS = ("agent", "agent_ranker")
"""Kinds that ask a model; they are put together with prompt and model by the run, not here."""

Agent = AgentStrategy | Callable[[str, Mapping[str, Any]], AgentStrategy]
"""The agent that stands for members of the kinds `AGENTS`, or what makes it from kind and parameters."""


def create_strategy(kind: str, /, **params: Any) -> Strategy:
    """A strategy by its name: `create_strategy("momentum", lookback_col="return_20", top_n_long=10)`.

    Raises:
        ConfigError: there is no such strategy, or its parameters don't fit.
    """
    return make_strategy(kind, params)


def make_strategy(kind: str, params: Mapping[str, Any], agent: Agent | None = None) -> Strategy:
    """The strategy `kind`, constructed with `params` as keyword arguments.

    `kind` is a registered name, or `module:Class`, where the module is importable from the working directory. `agent`
    is what an ensemble's members of kind agent or agent_ranker become.

    Raises:
        ConfigError: there is no such strategy, it cannot be imported, or its parameters don't fit.
    """
    if kind in AGENTS:
        return _agent(kind, params, agent)
    build = _build_of(kind)
    if build is None:
        known = [*AGENTS, *registered()]
        raise ConfigError(
            f"strategy.kind: there is no strategy {kind!r}{did_you_mean(kind, known)} "
            f"({', '.join(known)}, or module:Class)"
        )
    try:
        if kind == "ensemble":
            params = _with_members(params, agent)
        _check_params(build, params)
        strategy = build(**params)
    except _Unfit as error:
        raise ConfigError(f"strategy.params do not fit {kind}: {error}") from None
    except AgentBtError as error:
        raise ConfigError(f"strategy {kind}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"strategy.params do not fit {kind}: {error}") from error
    except Exception as error:
        raise ConfigError(f"strategy {kind} cannot be made: {type(error).__name__}: {error}") from error
    _check_contract(kind, strategy)
    return strategy


def asks_model(kind: str, params: Mapping[str, Any]) -> bool:
    """Whether a strategy asks a model: an agent, or an ensemble with one among its members, however deep."""
    return bool(agent_kinds(kind, params))


def agent_kinds(kind: str, params: Mapping[str, Any]) -> set[str]:
    """The kinds of agents that a strategy is or has among its members, however deep; empty if it asks no model.

    An agent passed as an object counts as `agent`.
    """
    if kind in AGENTS:
        return {kind}
    members = params.get("members")
    if kind != "ensemble" or not isinstance(members, Sequence):
        return set()
    return {found for member in members for found in _kinds_in(member)}


def agent_params(kind: str, params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parameters of every agent that a strategy of a config is or has among its members."""
    if kind in AGENTS:
        return [params]
    members = params.get("members") if kind == "ensemble" else ()
    told = [member for member in members or () if isinstance(member, Mapping)]
    return [each for m in told for each in agent_params(str(m.get("kind")), m.get("params") or {})]


def _kinds_in(member: Any) -> set[str]:
    if isinstance(member, str):
        return {member} & set(AGENTS)
    if isinstance(member, Mapping):
        params = member.get("params")
        return agent_kinds(str(member.get("kind")), params if isinstance(params, Mapping) else {})
    return {"agent"} if isinstance(member, AgentStrategy) else set()


class _Unfit(Exception):
    """Parameters that a constructor does not take, or lacks."""


def _agent(kind: str, params: Mapping[str, Any], agent: Agent | None) -> Strategy:
    if agent is None:
        raise ConfigError(
            f"strategy {kind}: it needs a prompt and a model, which a run of a config puts together; in Python, make"
            f' the agent and pass it as a member itself: create_strategy("ensemble", members=[agent, ...])'
        )
    if isinstance(agent, AgentStrategy):
        if params:
            raise ConfigError(f"strategy {kind}: it takes no params here; what the model gets is set elsewhere")
        return agent
    return agent(kind, params)


def _with_members(params: Mapping[str, Any], agent: Agent | None) -> dict[str, Any]:
    """Parameters of an ensemble with its members made, and their weights beside them."""
    members = params.get("members")
    if not isinstance(members, Sequence) or isinstance(members, str) or not members:
        raise ConfigError(
            "members: wants a list of {kind, params, weight}, such as [{kind: rsi}, {kind: macd, weight: 2}]"
        )
    made, weights = [], []
    for at, member in enumerate(members):
        where = f"members[{at}]"
        if isinstance(member, str):
            member = {"kind": member}
        if isinstance(member, Mapping):
            keys(where, member, needed=("kind",), allowed=("kind", "params", "weight"))
            weights.append(member.get("weight", 1.0))
            try:
                member = make_strategy(str(member["kind"]), member.get("params") or {}, agent)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
        else:
            _check_contract(where, member)
            weights.append(1.0)
        made.append(member)
    if any(isinstance(member, Mapping) and "weight" in member for member in members):
        if params.get("weights") is not None:
            raise ConfigError("weights: members have weights of their own; give either")
        return {**params, "members": made, "weights": weights}
    return {**params, "members": made}


def parameters_of(kind: str) -> tuple[str, ...] | None:
    """Names of the parameters that a strategy takes; None where that is not known before it is made.

    Raises:
        ConfigError: `module:Class` cannot be imported.
    """
    build = _build_of(kind)
    if isinstance(build, partial):
        return params_of(*build.args)
    named = None if build is None else _named(build)
    return None if named is None else tuple(each.name for each in named)


def _named(build: Callable[..., Strategy]) -> list[inspect.Parameter] | None:
    """What a constructor can be given by name; None if it does not say."""
    try:
        taken = inspect.signature(build).parameters.values()
    except ValueError:
        return None
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return None
    return [each for each in taken if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def _check_params(build: Callable[..., Strategy], params: Mapping[str, Any]) -> None:
    """Refuse parameters by name, with the nearest one there is, where the constructor says what it takes."""
    named = _named(build)
    if named is None:
        return
    try:
        keys(
            "params",
            params,
            needed=[each.name for each in named if each.default is each.empty],
            allowed=[each.name for each in named],
        )
    except ConfigError as error:
        raise _Unfit(str(error).removeprefix("params: ")) from None


def _check_contract(kind: str, strategy: Strategy) -> None:
    """Refuse what would fail in the middle of a run."""
    missing = [name for name in ("name", "lookback", "features", "summary", "decide") if not hasattr(strategy, name)]
    if missing:
        raise ConfigError(f"{kind} is no strategy: it lacks {', '.join(missing)}; derive it from agent_bt.Strategy")
    if not isinstance(strategy.lookback, int) or strategy.lookback < 1:
        raise ConfigError(f"{kind}: lookback is a whole number of bars, at least 1, not {strategy.lookback!r}")
    if strategy.summary not in (None, "calendar", "rolling"):
        raise ConfigError(f"{kind}: summary is None, 'calendar' or 'rolling', not {strategy.summary!r}")
    if not all(isinstance(spec, FeatureSpec) for spec in strategy.features):
        raise ConfigError(f"{kind}: features is a sequence of agent_bt.FeatureSpec, not {strategy.features!r}")
    columns = [*BAR_COLUMNS, *(spec.column for spec in strategy.features)]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(f"{kind}: {', '.join(twice)} names two columns; bars have {', '.join(BAR_COLUMNS)} already")


def is_cross_sectional(kind: str) -> bool:
    """Return whether a named strategy weighs symbols against each other; False for an import path."""
    if kind == "agent_ranker":
        return True
    found = registered().get(kind)
    return found is not None and found.cross_sectional


def _build_of(kind: str) -> Build | None:
    """Return what makes a strategy of this kind; None where there is none of that name."""
    if ":" not in kind:
        found = registered().get(kind)
        return None if found is None else found.build
    build = import_object(kind, "strategy.kind")
    if not callable(build):
        raise ConfigError(f"strategy.kind {kind}: the module has no class of this name, it is {build!r}")
    made: Build = build
    return made
