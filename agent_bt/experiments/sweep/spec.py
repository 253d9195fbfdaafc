"""Read a sweep's YAML: one config, the parameters that vary in it, and how the best is chosen.

1. The file's own keys are validated                                   `experiments.spec.validate_spec`
2. Every parameter becomes its values: a list, or a range              `_values_of`
3. Grid or random: the combinations, in a fixed order                  `Sweep.combinations`
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from agent_bt.config.explain import Complaint, Origins, explain, raise_all, unknown_key
from agent_bt.config.load import Values, load_config, read_layer
from agent_bt.config.model import Config, Section
from agent_bt.config.values import Count, Duration
from agent_bt.core.canonical import canonical
from agent_bt.core.clock import duration_us, time_us
from agent_bt.core.errors import ConfigError, UsageError
from agent_bt.experiments.spec import (
    Name,
    apply_override,
    key_of,
    not_one_of,
    schema_of,
    split_overrides,
    validate_spec,
)
from agent_bt.experiments.sweep.measures import CHOOSABLE

MOST = 50_000
"""Largest number of combinations of one sweep."""

VARIABLE = ("strategy.", "execution.", "risk.", "pool.", "rebalance", "market.interval")
"""Keys that may vary: the strategy and its execution. The rest is shared, so that results can be compared."""

_DRAWS = 20
"""Random search stops after this number of draws for each sample wanted."""


class WalkForwardConfig(Section):
    """The range cut into windows: chosen in a training period, reported in the test period after it."""

    train: Duration = Field(description="Length of the training period, in which a combination is chosen.")
    test: Duration = Field(description="Length of the test period after it, in which the choice is reported.")
    anchored: bool = Field(False, description="Every training period begins at the start of the range, so it grows.")


class SweepConfig(Section):
    """A sweep: what varies, over what, and by which measure the best is chosen."""

    name: Name = Field("sweep", description="Part of the sweep folder's name.")
    base: str | None = Field(None, description="Config that is varied, beside this file; null: the defaults.")
    set: dict[str, Any] = Field(default_factory=dict, description="For every combination: dotted path -> value.")
    params: dict[str, Any] = Field(
        min_length=1, description="Dotted path -> list of values, or {from: 10, to: 100, step: 10}, both ends included."
    )
    search: Literal["grid", "random"] = Field("grid", description="Every combination, or a sample of them.")
    samples: Count = Field(200, description="How many combinations `search: random` tries.")
    metric: str = Field("sharpe", description="What the best is chosen by.")
    walk_forward: WalkForwardConfig | None = Field(None, description="null: no selection out of sample.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(7, description="Seed of the random search.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A validated sweep: its declaration, the values of every parameter, and the config that is varied."""

    declared: SweepConfig
    params: Mapping[str, tuple[Any, ...]]
    config: Config
    path: Path

    @property
    def size(self) -> int:
        """Number of combinations of the grid."""
        return math.prod(len(values) for values in self.params.values())

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the combinations to try, path -> value; the last parameter varies fastest.

        A random search yields more than it needs, in the order drawn: some may not be valid.
        """
        if self.declared.search == "grid":
            return map(self.combination, range(self.size))
        most = min(self.size, _DRAWS * self.declared.samples)
        return map(self.combination, random.Random(self.declared.seed).sample(range(self.size), most))

    def combination(self, number: int) -> dict[str, Any]:
        """Return the combination of a number, 0 to size - 1."""
        found = {}
        for path, values in reversed(list(self.params.items())):
            number, at = divmod(number, len(values))
            found[path] = values[at]
        return {path: found[path] for path in self.params}


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and validate a sweep.

    Args:
        path: the YAML file.
        overrides: `--set` values; keys of the sweep itself (`metric=sortino`), else of the config that is varied.

    Raises:
        ConfigError: something is wrong; the message lists every error with file and line.
        UsageError: `--set` gives what the sweep varies.
    """
    path = Path(path)
    layer = read_layer(path)
    own, rest = split_overrides(overrides, SweepConfig)
    for override in own:
        apply_override(layer, override, by_dotted_path=("params", "set"))
    declared = validate_spec(
        layer,
        path,
        SweepConfig,
        what="a sweep",
        sections={"walk_forward": WalkForwardConfig},
        message=_message,
        check=lambda declared: (
            []
            if declared.metric in CHOOSABLE
            else [not_one_of("metric", declared.metric, CHOOSABLE, layer.origins, path)]
        ),
    )
    complaints: list[Complaint] = []
    params = {}
    for name, written in declared.params.items():
        origin = layer.origins.get(("params", name), str(path))
        try:
            _check_path(name)
            params[name] = _values_of(name, written)
        except ValueError as error:
            complaints.append(Complaint(origin=origin, message=f"params: {error}"))
    raise_all(complaints)
    for override in rest:
        key = ".".join(key_of(override))
        if any(name == key or name.startswith(f"{key}.") for name in params):
            raise UsageError(f"--set {key}: the sweep varies it; change params in {path}")
    origins = {key: layer.origins.get(("set", key), str(path)) for key in declared.set}
    base = None if declared.base is None else path.parent / declared.base
    config = load_config(base, rest, over_file=Values(values=declared.set, origins=origins))
    sweep = Sweep(declared=declared, params=params, config=config, path=path)
    _check_size(sweep, layer.origins)
    _check_windows(sweep, layer.origins)
    return sweep


def sweep_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a sweep's file, for editors."""
    metric = {"enum": list(CHOOSABLE)}
    return schema_of(SweepConfig, title="agent-bt sweep", description="A parameter sweep of agent-bt.", metric=metric)


def config_with(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the config with other values at dotted paths.

    Args:
        config: the base.
        changes: dotted path -> value.

    Raises:
        ConfigError: the config is not valid with them.
    """
    data = config.model_dump()
    for name, value in changes.items():
        *above, last = name.split(".")
        into = data
        for part in above:
            into = into.setdefault(part, {})
        into[last] = value
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("; ".join(str(complaint) for complaint in explain(error, {}))) from None


def _message(details: ErrorDetails, where: tuple[Any, ...], name: str) -> str | None:
    example = "{strategy.params.fast: [5, 10, 20]}"
    match details["type"]:
        case "missing" if where == ("params",):
            return f"params is missing; name what varies, such as params: {example}"
        case "missing":
            return f"{name} is missing"
        case "too_short":
            return f"params must name what varies, such as {example}"
        case "dict_type":
            return f"{name} must be settings by dotted path, such as {example}"
        case _:
            return None


def _check_path(name: str) -> None:
    path = tuple(name.split("."))
    if path[:2] != ("strategy", "params") and (wrong := unknown_key(path)):
        raise ValueError(wrong)
    free = path[:2] == ("strategy", "params") and len(path) > 2 and all(path)
    if not free and (not name.startswith(VARIABLE) or path in (("strategy", "params"), ("strategy", "prompt"))):
        named = ", ".join(each + "..." if each.endswith(".") else each for each in VARIABLE)
        raise ValueError(
            f"{name} cannot vary: it must be equal in all combinations, or rules do not use it; put it into `set`"
            f" or the base (what may vary: {named}, strategy.params.NAME)"
        )


def _values_of(name: str, written: Any) -> tuple[Any, ...]:
    values = _range_of(name, written) if isinstance(written, Mapping) else written
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} must be a list, [5, 10, 20], or {{from: 5, to: 20, step: 5}}, got {written!r}")
    if not values:
        raise ValueError(f"{name} must have at least one value, got an empty list")
    seen = set()
    for value in values:
        if (key := canonical(value)) in seen:
            raise ValueError(f"{name} must list every value once, got {value!r} twice")
        seen.add(key)
    return tuple(values)


def _range_of(name: str, written: Mapping[str, Any]) -> list[Any]:
    if set(written) != {"from", "to", "step"}:
        raise ValueError(f"{name}: a range must have from, to and step, as in {{from: 20, to: 200, step: 10}}")
    for key, value in written.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}: {key} must be a number, got {value!r}")
    low, high, step = (Decimal(repr(written[key])) for key in ("from", "to", "step"))
    if step <= 0 or high < low:
        raise ValueError(
            f"{name}: the range from {low} to {high} by {step} is empty; step must be above 0, and to not below from"
        )
    count = int((high - low) / step) + 1
    if count > MOST:
        raise ValueError(f"{name} must have at most {MOST:,} values, got {count:,}")
    whole = all(isinstance(value, int) for value in written.values())
    # Decimal steps: 0.1 + 0.1 + 0.1 is 0.3 here.
    return [int(low + at * step) if whole else float(low + at * step) for at in range(count)]


def _check_size(sweep: Sweep, origins: Origins) -> None:
    tried = sweep.size if sweep.declared.search == "grid" else min(sweep.size, sweep.declared.samples)
    if tried > MOST:
        message = f"params must have at most {MOST:,} combinations, got {tried:,}; use coarser steps, or search: random"
        raise_all([Complaint(origin=origins.get(("params",), str(sweep.path)), message=message)])


def _check_windows(sweep: Sweep, origins: Origins) -> None:
    windows = sweep.declared.walk_forward
    if windows is None:
        return
    market = sweep.config.market
    span = time_us(market.end) - time_us(market.start)
    train, test = duration_us(windows.train), duration_us(windows.test)
    wrong = None
    if train < duration_us("2d") or test < duration_us("1d"):
        wrong = f"train must be at least 2d and test at least 1d, got {windows.train} and {windows.test}"
    elif train + test > span:
        wrong = (
            f"train ({windows.train}) and test ({windows.test}) are longer than the data, {market.start} to "
            f"{market.end}; shorten them"
        )
    if wrong:
        origin = origins.get(("walk_forward",), str(sweep.path))
        raise_all([Complaint(origin=origin, message=f"walk_forward: {wrong}")])
