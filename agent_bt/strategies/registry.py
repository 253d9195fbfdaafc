"""Create strategies by name, and user strategies by import path `module:Class`."""

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
"""Kinds that ask a model; a run creates them with prompt and model."""

Agent = AgentStrategy | Callable[[str, Mapping[str, Any]], AgentStrategy]
"""The agent used for members of the kinds `AGENTS`, or a function that creates it from kind and parameters."""


def create_strategy(kind: str, /, **params: Any) -> Strategy:
    """Create a strategy by name: `create_strategy("momentum", lookback_col="return_20", top_n_long=10)`.

    Args:
        kind: a registered name, or `module:Class`.
        params: keyword arguments of its constructor.

    Raises:
        ConfigError: the strategy is unknown, or its parameters are not valid.
    """
    return make_strategy(kind, params)


def make_strategy(kind: str, params: Mapping[str, Any], agent: Agent | None = None) -> Strategy:
    """Create the strategy `kind` with `params` as keyword arguments.

    Args:
        kind: a registered name, or `module:Class`, where the module is importable from the working directory.
        params: keyword arguments of its constructor.
        agent: used for `kind` agent or agent_ranker, also among the members of an ensemble; default None: an error.

    Raises:
        ConfigError: the strategy is unknown, it cannot be imported, or its parameters are not valid.
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
        raise ConfigError(f"strategy {kind} cannot be created: {type(error).__name__}: {error}") from error
    _check_contract(kind, strategy)
    return strategy


def asks_model(kind: str, params: Mapping[str, Any]) -> bool:
    """Return whether a strategy asks a model: an agent, or an ensemble with one among its members, however deep.

    Args:
        kind: value of `strategy.kind`.
        params: value of `strategy.params`.
    """
    return bool(agent_kinds(kind, params))


def agent_kinds(kind: str, params: Mapping[str, Any]) -> set[str]:
    """Return the kinds of agents that a strategy is or has among its members, however deep; empty if it asks no model.

    An agent passed as an object counts as `agent`.

    Args:
        kind: value of `strategy.kind`.
        params: value of `strategy.params`.
    """
    if kind in AGENTS:
        return {kind}
    members = params.get("members")
    if kind != "ensemble" or not isinstance(members, Sequence):
        return set()
    return {found for member in members for found in _kinds_in(member)}


def agent_params(kind: str, params: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parameters of every agent that a strategy is or has among its members.

    Args:
        kind: value of `strategy.kind`.
        params: value of `strategy.params`.
    """
    if kind in AGENTS:
        return [params]
    members = params.get("members") if kind == "ensemble" else ()
    listed = [member for member in members or () if isinstance(member, Mapping)]
    return [each for m in listed for each in agent_params(str(m.get("kind")), m.get("params") or {})]


def _kinds_in(member: Any) -> set[str]:
    if isinstance(member, str):
        return {member} & set(AGENTS)
    if isinstance(member, Mapping):
        params = member.get("params")
        return agent_kinds(str(member.get("kind")), params if isinstance(params, Mapping) else {})
    return {"agent"} if isinstance(member, AgentStrategy) else set()


class _Unfit(Exception):
    """Unknown or missing parameters of a constructor."""


def _agent(kind: str, params: Mapping[str, Any], agent: Agent | None) -> Strategy:
    if agent is None:
        raise ConfigError(
            f"strategy {kind}: it needs a prompt and a model, which a run of a config creates; in Python, create"
            f' the agent and pass it as a member itself: create_strategy("ensemble", members=[agent, ...])'
        )
    if isinstance(agent, AgentStrategy):
        if params:
            raise ConfigError(
                f"strategy {kind}: params must be empty when the agent is passed as an object; set them on the agent"
            )
        return agent
    return agent(kind, params)


def _with_members(params: Mapping[str, Any], agent: Agent | None) -> dict[str, Any]:
    """Return the parameters of an ensemble with its members created, and their weights."""
    members = params.get("members")
    if not isinstance(members, Sequence) or isinstance(members, str) or not members:
        raise ConfigError(
            "members must be a list of {kind, params, weight}, such as [{kind: rsi}, {kind: macd, weight: 2}]"
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
            raise ConfigError("weights must not be given beside the weight of a member; give one of them")
        return {**params, "members": made, "weights": weights}
    return {**params, "members": made}


def parameters_of(kind: str) -> tuple[str, ...] | None:
    """Return the names of the parameters of a strategy; None where they are not known before it is created.

    Raises:
        ConfigError: `module:Class` cannot be imported.
    """
    build = _build_of(kind)
    if isinstance(build, partial):
        return params_of(*build.args)
    named = None if build is None else _named(build)
    return None if named is None else tuple(each.name for each in named)


def _named(build: Callable[..., Strategy]) -> list[inspect.Parameter] | None:
    """Return the parameters of a constructor that can be given by name; None if it takes any keyword."""
    try:
        taken = inspect.signature(build).parameters.values()
    except ValueError:
        return None
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return None
    return [each for each in taken if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def _check_params(build: Callable[..., Strategy], params: Mapping[str, Any]) -> None:
    """Raise an error for an unknown or missing parameter, with the nearest name, if the signature lists parameters."""
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
    """Raise an error for an object that would fail in the middle of a run."""
    missing = [name for name in ("name", "lookback", "features", "summary", "decide") if not hasattr(strategy, name)]
    if missing:
        raise ConfigError(f"{kind} is not a strategy: it lacks {', '.join(missing)}; derive it from agent_bt.Strategy")
    if not isinstance(strategy.lookback, int) or strategy.lookback < 1:
        raise ConfigError(f"{kind}: lookback must be an integer of at least 1 (bars), got {strategy.lookback!r}")
    if strategy.summary not in (None, "calendar", "rolling"):
        raise ConfigError(f"{kind}: summary must be None, 'calendar' or 'rolling', got {strategy.summary!r}")
    if not all(isinstance(spec, FeatureSpec) for spec in strategy.features):
        raise ConfigError(f"{kind}: features must be a sequence of agent_bt.FeatureSpec, got {strategy.features!r}")
    columns = [*BAR_COLUMNS, *(spec.column for spec in strategy.features)]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(
            f"{kind}: column names must be unique, got {', '.join(twice)} twice; bars have {', '.join(BAR_COLUMNS)}"
        )


def is_cross_sectional(kind: str) -> bool:
    """Return whether a named strategy weighs symbols against each other; False for an import path."""
    if kind == "agent_ranker":
        return True
    found = registered().get(kind)
    return found is not None and found.cross_sectional


def _build_of(kind: str) -> Build | None:
    """Return the constructor of a kind of strategy; None if the name is unknown."""
    if ":" not in kind:
        found = registered().get(kind)
        return None if found is None else found.build
    build = import_object(kind, "strategy.kind")
    if not callable(build):
        raise ConfigError(f"strategy.kind {kind}: must name a class or function, got {build!r}")
    made: Build = build
    return made
