"""An experiment taken apart into cells: one arm, one replicate, one window, each an ordinary run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent_bt.config.model import Config
from agent_bt.core.clock import DAY, duration_us, iso, time_us
from agent_bt.core.frequency import instants
from agent_bt.experiments.ab.spec import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of an experiment; `window` counts from 0."""

    arm: str
    replicate: int
    window: int
    config: Config

    @property
    def place(self) -> str:
        """Folder of its run inside the experiment's: `v2/w0-r1`."""
        return f"{self.arm}/w{self.window}-r{self.replicate}"

    @property
    def expected_decisions(self) -> int:
        """Decisions in its window, the few that warm-up or outages take away included."""
        config, start, end = self.config, time_us(self.config.market.start), time_us(self.config.market.end)
        if config.mode == "cross_sectional":
            return len(instants(config.rebalance, start + 1, end))
        return (end - start) // duration_us(config.strategy.every)


def cells_of(experiment: Experiment) -> list[Cell]:
    """Every cell, arm by arm within a window, so that all arms of a window come to their end about together."""
    return [
        Cell(arm=arm, replicate=replicate, window=window, config=_config_of(config, arm, replicate, start, end))
        for window, (start, end) in enumerate(windows_of(experiment))
        for replicate in range(experiment.declared.replicates)
        for arm, config in experiment.arms.items()
    ]


def windows_of(experiment: Experiment) -> list[tuple[str, str]]:
    """Start (inclusive) and end (exclusive) of every window, as in a config."""
    market, windows = experiment.shared.market, experiment.declared.windows
    if windows is None:
        return [(market.start, market.end)]
    return list(_cut(time_us(market.start), time_us(market.end), duration_us(windows.every)))


def _cut(start: int, end: int, every: int) -> Iterator[tuple[str, str]]:
    for begin in range(start, end, every):
        yield _instant(begin), _instant(min(begin + every, end))


def _instant(us: int) -> str:
    """As a config writes it."""
    return iso(us)[:10] if us % DAY == 0 else iso(us)


def _config_of(config: Config, arm: str, replicate: int, start: str, end: str) -> Config:
    # Replicates of an arm that fixes llm.replicate itself go on from there.
    number = config.llm.replicate + replicate
    return config.model_copy(
        update={
            "name": arm,
            "llm": config.llm.model_copy(update={"replicate": number}),
            "market": config.market.model_copy(update={"start": start, "end": end}),
        }
    )
