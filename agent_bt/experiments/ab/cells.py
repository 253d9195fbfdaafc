"""Splits an experiment into cells, each an ordinary run of one arm, one replicate and one window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent_bt.config.model import Config
from agent_bt.core.clock import date_or_time, duration_us, time_us
from agent_bt.core.frequency import instants
from agent_bt.experiments.ab.spec import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of an experiment.

    Attributes:
        arm: its name.
        replicate: from 0.
        window: from 0.
        config: the run's.
    """

    arm: str
    replicate: int
    window: int
    config: Config

    @property
    def relative_path(self) -> str:
        """Folder of its run below `runs` of the experiment: `v2/w0-r1`."""
        return f"{self.arm}/w{self.window}-r{self.replicate}"

    @property
    def expected_decisions(self) -> int:
        """Scheduled decisions in its window, including the few that warm-up or outages remove."""
        config, start, end = self.config, time_us(self.config.market.start), time_us(self.config.market.end)
        if config.mode == "cross_sectional":
            return len(instants(config.rebalance, start + 1, end))
        return (end - start) // duration_us(config.strategy.every)


def cells_of(experiment: Experiment) -> list[Cell]:
    """Return every cell, window by window; the arms of a window come together, so that they finish together."""
    return [
        Cell(arm=arm, replicate=replicate, window=window, config=_config_of(config, arm, replicate, start, end))
        for window, (start, end) in enumerate(windows_of(experiment))
        for replicate in range(experiment.declared.replicates)
        for arm, config in experiment.arms.items()
    ]


def windows_of(experiment: Experiment) -> list[tuple[str, str]]:
    """Return the start (inclusive) and end (exclusive) of every window, as a configuration writes them."""
    market, windows = experiment.shared.market, experiment.declared.windows
    if windows is None:
        return [(market.start, market.end)]
    return list(_cut(time_us(market.start), time_us(market.end), duration_us(windows.every)))


def _cut(start: int, end: int, every: int) -> Iterator[tuple[str, str]]:
    for begin in range(start, end, every):
        yield date_or_time(begin), date_or_time(min(begin + every, end))


def _config_of(config: Config, arm: str, replicate: int, start: str, end: str) -> Config:
    # An arm may set llm.replicate itself: its replicates count from there.
    number = config.llm.replicate + replicate
    return config.model_copy(
        update={
            "name": arm,
            "llm": config.llm.model_copy(update={"replicate": number}),
            "market": config.market.model_copy(update={"start": start, "end": end}),
        }
    )
