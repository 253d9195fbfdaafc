"""Is a verdict right as often as it says: simulated A/A and A/B comparisons whose truth is known.

Run `python -m benchmarks.calibration`; it writes `calibration.json` and `CALIBRATION.md`. Each cell is a generator, a
number of replicates and 1,000 pairs of arms over 90 days of hourly values, judged by `measure_effect` with everything
automatic. A against A must reject in about 5%; with an effect planted of the size that the method itself calls
detectable with 80% power, it must see it in about 80%, and its intervals must hold the truth in about 95%.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from agent_bt.evaluation.stats.two_level import Effect, measure_effect
from agent_bt.evaluation.verdict_metrics.sharpe import sharpe_values

HERE = Path(__file__).parent
SIMULATIONS = 1_000
REPLICATES = (1, 3, 5)
HOURS, DAYS = 2_160, 90
RESAMPLES = 999
ALPHA = 0.05
SEED = 20_240_701
_BATCH = 100

Arms = tuple[np.ndarray, np.ndarray]
"""Arm and baseline of many simulations, float64 (simulations, replicates, observations)."""


def iid(rng: np.random.Generator, sims: int, replicates: int, n: int) -> Arms:
    """A market that both arms share, and the model's own scatter: independent normal values."""
    market = rng.standard_normal((sims, 1, n))
    arm, baseline = (market + rng.standard_normal((sims, replicates, n)) for _ in range(2))
    return arm, baseline


def garch(rng: np.random.Generator, sims: int, replicates: int, n: int) -> Arms:
    """The same under a GARCH(1, 1) volatility (0.02, 0.1, 0.88) of the market that scales the scatter, too."""
    shocks = rng.standard_normal((sims, n))
    volatility = np.empty((sims, n))
    variance = np.ones(sims)
    for t in range(n):
        volatility[:, t] = np.sqrt(variance)
        variance = 0.02 + variance * (0.1 * shocks[:, t] ** 2 + 0.88)
    market = (volatility * shocks)[:, None]
    arm, baseline = (market + volatility[:, None] * rng.standard_normal((sims, replicates, n)) for _ in range(2))
    return arm, baseline


def sparse(rng: np.random.Generator, sims: int, replicates: int, n: int) -> Arms:
    """Long-or-flat arms that follow one rule, but each run departs from it now and then for some 6 hours.

    Departures begin in 0.5% of the hours, market returns have 4 degrees of freedom (Student): nearly all differences
    are 0, the others come in stretches with heavy tails.
    """
    market = rng.standard_t(4, size=(sims, 1, n))
    rule = np.sin(np.arange(n) / 40.0) > 0.0
    arms = []
    for _ in range(2):
        draws = rng.random((n, sims, replicates))
        departs = np.zeros((sims, replicates), bool)
        states = np.empty((sims, replicates, n), bool)
        for t in range(n):
            departs = np.where(departs, draws[t] > 1.0 / 6.0, draws[t] < 0.005)
            states[:, :, t] = departs
        arms.append(np.where(states ^ rule, market, 0.0))
    return arms[0], arms[1]


def drifting(rng: np.random.Generator, sims: int, replicates: int, n: int) -> Arms:
    """`iid`, but every run as a whole is better or worse by as much again as its scatter makes its mean vary."""
    arm, baseline = iid(rng, sims, replicates, n)
    drift = rng.standard_normal((2, sims, replicates, 1)) / math.sqrt(n)
    return arm + drift[0], baseline + drift[1]


def daily_sharpe(rng: np.random.Generator, sims: int, replicates: int, n: int) -> Arms:
    """The Sharpe metric on days: `garch` returns of 2% a day around 0.1%, as `verdict_metrics.sharpe`."""
    arm, baseline = (0.001 + 0.02 * side for side in garch(rng, sims, replicates, n))
    shape = (-1, n)
    return sharpe_values(arm.reshape(shape)).reshape(arm.shape), sharpe_values(baseline.reshape(shape)).reshape(
        arm.shape
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A named process, its length, and whether its figures are a promise (`bound`) or for information."""

    name: str
    draw: Callable[[np.random.Generator, int, int, int], Arms]
    observations: int
    bound: bool


GENERATORS = (
    Generator(name="iid", draw=iid, observations=HOURS, bound=True),
    Generator(name="garch", draw=garch, observations=HOURS, bound=True),
    Generator(name="sparse", draw=sparse, observations=HOURS, bound=True),
    Generator(name="iid, 90 values", draw=iid, observations=DAYS, bound=True),
    Generator(name="Sharpe of 90 days", draw=daily_sharpe, observations=DAYS, bound=True),
    Generator(name="drifting runs", draw=drifting, observations=HOURS, bound=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one generator and number of replicates gave; shares of the simulations.

    `rejected`: A against A at 5%. `power`: with `planted` added, the median smallest detectable effect of the A/A
    runs. `covered`: intervals that held the planted effect. `drift_seen`: A/A runs with a drift of whole runs found.
    """

    generator: str
    observations: int
    replicates: int
    simulations: int
    rejected: float
    planted: float
    power: float
    covered: float
    drift_seen: float
    no_interval: float
    bound: bool


def study(generator: Generator, replicates: int, simulations: int, *, seed: int = SEED) -> Cell:
    """Run one cell; equal seeds give equal cells."""
    null = list(_effects(generator, replicates, simulations, seed, planted=0.0))
    detectable = [size for effect in null if (size := effect.smallest_detectable(ALPHA)) is not None]
    planted = float(np.median(detectable))
    effects = list(_effects(generator, replicates, simulations, seed + 1, planted=planted))
    intervals = [effect.interval(ALPHA) for effect in effects]
    return Cell(
        generator=generator.name,
        observations=generator.observations,
        replicates=replicates,
        simulations=simulations,
        rejected=float(np.mean([effect.p_value() <= ALPHA for effect in null])),
        planted=planted,
        power=float(np.mean([effect.p_value() <= ALPHA and effect.value > 0.0 for effect in effects])),
        covered=float(np.mean([limits is None or limits[0] <= planted <= limits[1] for limits in intervals])),
        drift_seen=float(np.mean([e.model_noise is not None and e.model_noise.drift for e in null])),
        no_interval=float(np.mean([effect.interval(ALPHA) is None for effect in null])),
        bound=generator.bound,
    )


def _effects(generator: Generator, replicates: int, simulations: int, seed: int, *, planted: float) -> Iterator[Effect]:
    for first in range(0, simulations, _BATCH):
        rng = np.random.default_rng([seed, replicates, first])
        sims = min(_BATCH, simulations - first)
        arms, baselines = generator.draw(rng, sims, replicates, generator.observations)
        # Only where arms differ, so that a sparse difference stays one; how often they do varies with the market.
        differs = np.any(arms != baselines[:, :1], axis=1, keepdims=True)
        arms = arms + planted * differs / np.mean(differs)
        for sim in range(sims):
            yield measure_effect(arms[sim], baselines[sim], resamples=RESAMPLES, seed=seed + first + sim)


def main() -> None:
    """Run every cell and write the figures."""
    began = time.perf_counter()
    cells = []
    for generator in GENERATORS:
        for replicates in REPLICATES:
            cells.append(study(generator, replicates, SIMULATIONS))
            print(cells[-1], flush=True)
    seconds = round(time.perf_counter() - began)
    content = {"alpha": ALPHA, "resamples": RESAMPLES, "seed": SEED, "cells": [asdict(cell) for cell in cells]}
    (HERE / "calibration.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (HERE / "CALIBRATION.md").write_text(render(cells), encoding="utf-8")
    print(f"{seconds} s")


def render(cells: list[Cell]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Calibration of the verdicts",
        "",
        f"Written by `python -m benchmarks.calibration`; {SIMULATIONS:,} simulated comparisons a row, level 5%, "
        f"{RESAMPLES} resamples each,",
        "block length chosen from the data, fixed seed. What the generators are stands in `calibration.py`.",
        "",
        "- *A/A rejected*: equal arms that got a verdict; 5% is right, `make verify` holds it to at most 7% (and iid",
        "  to at least 3%). Sparse differences of a single run reject less: there are few of them.",
        "- *power*: arms that got the right verdict with an effect planted of the size that the A/A runs called",
        "  detectable with 80% power. It is lower for sparse differences: an effect that is only there where arms",
        "  differ scatters with the number of such hours, which A/A runs cannot know.",
        "- *covered*: 95% intervals that held the planted effect.",
        "- *drift seen*: A/A runs in which whole runs seemed to drift; 10% where there is none, by choice.",
        "- *drifting runs* is for information: what happens when whole runs of the same model differ as much again as",
        "  their bars explain. One run cannot show it, and three show it in less than half of the cases: equal arms",
        "  get a verdict too often. That is why the report warns of a single replicate.",
        "",
        "| generator | values | replicates | A/A rejected | power | covered | drift seen |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in cells:
        shares = (cell.rejected, cell.power, cell.covered, cell.drift_seen)
        figures = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(f"| {cell.generator} | {cell.observations:,} | {cell.replicates} | {figures} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
