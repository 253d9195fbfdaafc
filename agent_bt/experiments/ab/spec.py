"""Reads an experiment's YAML: arms that differ in anything, over the same market, with the question asked beforehand.

1. The file's own keys are validated                                          `_validated`
2. Every arm is a config: base < `set` < environment < `--set` < the arm      `_arm_config`
3. What makes a comparison paired must be the same in all arms                `_check_paired`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from agent_bt.config.explain import Complaint, Origins, nearest, raise_all
from agent_bt.config.load import Layer, Values, load_config, read_layer
from agent_bt.config.model import Config, Count, Duration, Section
from agent_bt.config.yaml import dotted, parse_yaml
from agent_bt.core.clock import duration_us
from agent_bt.core.errors import ConfigError, UsageError
from agent_bt.core.frequency import longest_period
from agent_bt.evaluation.stats.measures import METRICS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

PAIRED = (
    "market.kind", "market.symbol", "market.symbols", "market.interval", "market.source", "market.start", "market.end",
    "market.gaps", "data.root", "seed", "cache.path", "budget", "output",
)  # fmt: skip
"""What all arms share: the data that they are compared on, and what they spend and keep together."""


class WindowsConfig(Section):
    """The range cut into stretches, each a run of its own that starts with fresh cash."""

    every: Duration = Field(description="Length of a window; the last one may be shorter.")


class ExperimentConfig(Section):
    """An experiment: what is compared, on what, and by which measure."""

    name: Name = Field("ab", description="Part of the experiment folder's name.")
    base: str | None = Field(None, description="Config that the arms change, beside this file; null: the defaults.")
    set: dict[str, Any] = Field(default_factory=dict, description="For every arm: dotted path -> value.")
    arms: dict[Name, dict[str, Any]] = Field(min_length=2, description="Name -> dotted path -> value.")
    baseline: str = Field(description="The arm that the others are compared with.")
    replicates: Count = Field(1, description="Repetitions of every arm; the number enters the cache key.")
    windows: WindowsConfig | None = Field(None, description="{every: 14d}; null: the whole range is one.")
    metric: str = Field("mean_return", description="What the verdict is about.")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(0.05, description="Chance of any false verdict.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A validated experiment: its declaration, the config of every arm, and the files it was read from."""

    declared: ExperimentConfig
    arms: Mapping[str, Config]
    path: Path
    base: Path | None

    @property
    def shared(self) -> Config:
        """The baseline's config, for what all arms share."""
        return self.arms[self.declared.baseline]


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment.

    Args:
        path: the YAML file.
        overrides: `--set` values; keys of the experiment itself (`replicates=5`), else of every arm's config.

    Raises:
        ConfigError: something is wrong; the message lists every error with file, line and arm.
        UsageError: `--set` gives what the arms differ in.
    """
    path = Path(path)
    layer = read_layer(path)
    own = [text for text in overrides if _key_of(text)[0] in ExperimentConfig.model_fields]
    rest = [text for text in overrides if text not in own]
    for override in own:
        _put(layer, override)
    declared = _validated(layer, path)
    _check_overrides(declared, rest)
    base = None if declared.base is None else path.parent / declared.base
    arms: dict[str, Config] = {}
    complaints = []
    for name in declared.arms:
        try:
            arms[name] = _arm_config(declared, name, base, rest, layer.origins)
        except ConfigError as error:
            complaints += [Complaint(origin="", message=line) for line in str(error).splitlines()]
    raise_all(complaints)
    experiment = Experiment(declared=declared, arms=arms, path=path, base=base)
    _check_paired(experiment, layer.origins)
    return experiment


def experiment_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an experiment's file, for editors."""
    schema = ExperimentConfig.model_json_schema()
    schema["properties"]["metric"]["enum"] = list(METRICS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "agent-bt experiment",
        "description": "An A/B experiment of agent-bt.",
    }


def _key_of(override: str) -> tuple[str, ...]:
    return tuple(override.partition("=")[0].strip().split("."))


def _put(layer: Layer, override: str) -> None:
    origin = f"--set {'.'.join(_key_of(override))}"
    document = parse_yaml(override.partition("=")[2].strip())
    if document.problems:
        layer.complain(origin, f"the value cannot be read: {document.problems[0].message}")
    else:
        layer.put(_key_of(override), document.data, origin)


def _validated(layer: Layer, path: Path) -> ExperimentConfig:
    complaints = list(layer.complaints)
    declared = None
    try:
        declared = ExperimentConfig.model_validate(layer.data)
    except ValidationError as error:
        complaints += [_explain(details, layer.origins, path) for details in error.errors(include_url=False)]
    if declared is not None:
        complaints += _contradictions(declared, layer.origins)
    raise_all(complaints)
    assert declared is not None
    return declared


def _explain(details: ErrorDetails, origins: Origins, path: Path) -> Complaint:
    where = tuple(part for part in details["loc"] if part != "[key]")
    origin = next((origins[where[:n]] for n in range(len(where), 0, -1) if where[:n] in origins), str(path))
    name = dotted(where)
    match details["type"]:
        case "extra_forbidden":
            fields = WindowsConfig.model_fields if where[0] == "windows" else ExperimentConfig.model_fields
            guess = nearest(str(where[-1]), fields)
            hint = f"; did you mean {dotted((*where[:-1], guess))}?" if guess else ""
            message = f"{name} is no key of an experiment{hint} (keys: {', '.join(fields)})"
        case "missing":
            message = f"{name} is missing; an experiment needs arms and a baseline"
        case "too_short":
            message = "arms: give two or more, each with a name and what is different in it"
        case "string_pattern_mismatch":
            message = f"{name} may hold letters, digits, `.`, `_`, `-`, at most 64, and begins with a letter or digit"
        case "dict_type" if where[0] in ("arms", "set"):
            message = f"{name} wants settings by dotted path, such as {{llm.model: gpt-5-mini}}; {{}} for none"
        case "value_error":
            message = f"{name}: {details['ctx']['error']}"
        case _:
            message = f"{name}: {details['msg']}"
    return Complaint(origin=origin, message=message)


def _contradictions(declared: ExperimentConfig, origins: Origins) -> list[Complaint]:
    complaints = []
    for key, value, among in (("baseline", declared.baseline, declared.arms), ("metric", declared.metric, METRICS)):
        if value not in among:
            guess = nearest(value, among)
            hint = f"; did you mean {guess}?" if guess else ""
            message = f"{key}: {value!r} is not one of {', '.join(among)}{hint}"
            complaints.append(Complaint(origin=origins.get((key,), ""), message=message))
    return complaints


def _check_overrides(declared: ExperimentConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        key = _key_of(override)
        for name, changes in declared.arms.items():
            for change in changes:
                own = tuple(change.split("."))
                if own[: len(key)] == key or key[: len(own)] == own:
                    raise UsageError(f"--set {'.'.join(key)}: arm {name} sets {change} itself; change it in the file")


def _arm_config(
    declared: ExperimentConfig, name: str, base: Path | None, overrides: Sequence[str], origins: Origins
) -> Config:
    changes = declared.arms[name]
    own = {key: f"{_origin(origins, ('arms', name, key))}, arm {name}" for key in changes}
    every = {key: _origin(origins, ("set", key)) for key in declared.set}
    return load_config(
        base,
        overrides,
        over_file=Values(values=declared.set, origins=every),
        over_all=Values(values=changes, origins=own),
    )


def _origin(origins: Origins, path: tuple[str, ...]) -> str:
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), "")


def _check_paired(experiment: Experiment, origins: Origins) -> None:
    declared, base = experiment.declared, experiment.shared
    complaints = []
    for name, config in experiment.arms.items():
        for key in PAIRED:
            one, other = _value(base, key), _value(config, key)
            if one != other:
                origin = _origin(origins, ("arms", name, key))
                message = (
                    f"arm {name}: {key} is {other}, but {one} in arm {declared.baseline}; all arms share it: `set`"
                )
                complaints.append(Complaint(origin=origin, message=message))
        if config.multi_symbol != base.multi_symbol:
            counts = {True: "several symbols", False: "one symbol"}
            message = (
                f"arm {name} trades {counts[config.multi_symbol]}, and arm "
                f"{declared.baseline} {counts[base.multi_symbol]}: "
                "there is nothing to compare; give all arms the same mode and market.symbols, with `set`"
            )
            complaints.append(Complaint(origin=_origin(origins, ("arms", name, "mode")), message=message))
        if fault := _unfit(declared.windows, config):
            message = f"windows.every {fault} (arm {name})"
            complaints.append(Complaint(origin=_origin(origins, ("windows", "every")), message=message))
    raise_all(complaints)


def _unfit(windows: WindowsConfig | None, config: Config) -> str | None:
    """Why decisions and windows do not fit; None: they do."""
    if windows is None:
        return None
    length = duration_us(windows.every)
    if config.mode == "time_series":
        every = config.strategy.every
        fits = length % duration_us(every) == 0
        return None if fits else f"({windows.every}) must be a multiple of strategy.every, here {every}"
    if length >= longest_period(config.rebalance):
        return None
    return f"({windows.every}) is too short for a rebalance in every window, here {config.rebalance}"


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
