"""Read an experiment's YAML: arms that differ in anything, over the same market, with the question asked beforehand.

1. The file's own keys are validated                                          `experiments.spec.validate_spec`
2. Every arm is a config: base < `set` < environment < `--set` < the arm      `_arm_config`
3. What makes a comparison paired must be the same in all arms                `_check_paired`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import ErrorDetails

from agent_bt.config.explain import Complaint, Origins, raise_all
from agent_bt.config.load import Values, load_config, read_layer
from agent_bt.config.model import Config, Section
from agent_bt.config.values import Count, Duration
from agent_bt.core.clock import duration_us
from agent_bt.core.errors import ConfigError, UsageError
from agent_bt.core.frequency import longest_period
from agent_bt.evaluation.stats.metric import METRICS, find_metric
from agent_bt.experiments.spec import (
    Name,
    apply_override,
    key_of,
    not_one_of,
    origin_of,
    schema_of,
    split_overrides,
    validate_spec,
)

PAIRED = (
    "market.kind", "market.symbol", "market.symbols", "market.interval", "market.source", "market.start", "market.end",
    "market.gaps", "data.root", "data.exchange", "seed", "cache.path", "budget", "output",
)  # fmt: skip
"""What all arms share: the data that they are compared on, and what they spend and keep together."""


class WindowsConfig(Section):
    """The range cut into periods, each a run of its own that starts with fresh cash."""

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
    own, rest = split_overrides(overrides, ExperimentConfig)
    for override in own:
        apply_override(layer, override)
    declared = validate_spec(
        layer,
        path,
        ExperimentConfig,
        what="an experiment",
        sections={"windows": WindowsConfig},
        message=_message,
        check=lambda declared: _contradictions(declared, layer.origins, path),
    )
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
    """Return the JSON Schema (draft 2020-12) of an experiment's file, for editors."""
    metric = {"anyOf": [{"enum": METRICS.names()}, {"pattern": r"^[\w.]+:\w+$"}]}
    return schema_of(
        ExperimentConfig, title="agent-bt experiment", description="An A/B experiment of agent-bt.", metric=metric
    )


def _message(details: ErrorDetails, where: tuple[Any, ...], name: str) -> str | None:
    match details["type"]:
        case "missing":
            return f"{name} is missing; an experiment needs arms and a baseline"
        case "too_short":
            return "arms: give two or more, each with a name and what is different in it"
        case "string_pattern_mismatch":
            return f"{name} may hold letters, digits, `.`, `_`, `-`, at most 64, and begins with a letter or digit"
        case "dict_type" if where[0] in ("arms", "set"):
            return f"{name} must be settings by dotted path, such as {{llm.model: gpt-5-mini}}; {{}} for none"
        case _:
            return None


def _contradictions(declared: ExperimentConfig, origins: Origins, path: Path) -> list[Complaint]:
    complaints = []
    if declared.baseline not in declared.arms:
        complaints.append(not_one_of("baseline", declared.baseline, declared.arms, origins, path))
    try:
        find_metric(declared.metric)
    except ConfigError as error:
        complaints.append(Complaint(origin=origin_of(origins, ("metric",), str(path)), message=str(error)))
    return complaints


def _check_overrides(declared: ExperimentConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        key = key_of(override)
        for name, changes in declared.arms.items():
            for change in changes:
                own = tuple(change.split("."))
                if own[: len(key)] == key or key[: len(own)] == own:
                    raise UsageError(f"--set {'.'.join(key)}: arm {name} sets {change} itself; change it in the file")


def _arm_config(
    declared: ExperimentConfig, name: str, base: Path | None, overrides: Sequence[str], origins: Origins
) -> Config:
    changes = declared.arms[name]
    own = {key: f"{origin_of(origins, ('arms', name, key))}, arm {name}" for key in changes}
    every = {key: origin_of(origins, ("set", key)) for key in declared.set}
    return load_config(
        base,
        overrides,
        over_file=Values(values=declared.set, origins=every),
        over_all=Values(values=changes, origins=own),
    )


def _check_paired(experiment: Experiment, origins: Origins) -> None:
    declared, base = experiment.declared, experiment.shared
    complaints = []
    for name, config in experiment.arms.items():
        for key in PAIRED:
            one, other = _value(base, key), _value(config, key)
            if one != other:
                origin = origin_of(origins, ("arms", name, key))
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
            complaints.append(Complaint(origin=origin_of(origins, ("arms", name, "mode")), message=message))
        if fault := _unfit(declared.windows, config):
            message = f"windows.every {fault} (arm {name})"
            complaints.append(Complaint(origin=origin_of(origins, ("windows", "every")), message=message))
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
