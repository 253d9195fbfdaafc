"""Ours beside a peer: timed around it in the same run, checked to have computed the same, one row per comparison."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.peers.call import Answer, call
from benchmarks.peers.environment import PeersMissing

ROUNDS = 7


@dataclass(slots=True, kw_only=True)
class Versus:
    """One work: `run` does ours and returns its result, float64 (T,), with the same start as every peer's.

    Its time is the least of all rounds, some of them before the first peer and some after each one, so that a machine
    that slows down or speeds up favours neither. How far the results part is told with the figures: some peers mark the
    account a bar later, cannot spend all of the cash, or round prices.
    """

    work: str
    run: Callable[[], np.ndarray]
    rounds: int = ROUNDS
    seconds: float = float("inf")
    result: np.ndarray = field(default_factory=lambda: np.empty(0))
    theirs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run()
        self.time()

    def time(self) -> None:
        """More rounds of ours."""
        for _ in range(self.rounds):
            began = time.perf_counter()
            self.result = self.run()
            self.seconds = min(self.seconds, time.perf_counter() - began)

    def against(self, script: str, inputs: Mapping[str, Any], *, peers: str = "common") -> None:
        """Call a peer; of a peer that cannot be had the reason is kept instead of its figures."""
        try:
            answer: Answer = call(script, peers=peers, **inputs)
        except PeersMissing as error:
            print(f"{script}: {error}", file=sys.stderr)
            self.failed[script] = str(error)
            return
        self.time()
        package, version = next(iter(answer.facts["versions"].items()))
        for variant, facts in answer.facts["variants"].items():
            apart = np.abs(answer.arrays[variant] / self.result - 1.0)
            self.theirs[f"{package} {version} {variant}"] = {
                **facts,
                "apart": float(apart.max()),
                "apart_at_the_end": float(apart[-1]),
                "peak_mb": answer.facts["peak_mb"],
            }

    def best(self, words: str) -> tuple[str, float]:
        """Name and seconds of the quickest variant whose name has all the words.

        Raises:
            LookupError: no such peer was to be had.
        """
        found = {name: one["seconds"] for name, one in self.theirs.items() if set(words.split()) <= set(name.split())}
        if not found:
            raise LookupError(f"{self.work}: no figure of {words}: {self.failed}")
        name = min(found, key=found.__getitem__)
        return name, found[name]

    def details(self) -> dict[str, Any]:
        """Everything measured, for the JSON."""
        return {"ours_s": self.seconds, "peers": self.theirs, "missing": self.failed}

    def rows(self, peers: Mapping[str, float], *, unit: str = "ms", amount: float = 1e3, rate: bool = False) -> Any:
        """A row for the quickest variant of each of `peers` (words of its name -> least ratio wanted, 0: none).

        Figures are seconds x `amount`, or, as a `rate`, `amount` / seconds.
        """
        made = []
        for words, least in peers.items():
            try:
                name, theirs = self.best(words)
            except LookupError as error:
                made.append({"work": self.work, "ours": self._figure(self.seconds, amount, rate), "unit": unit,
                             "peer": f"{words}: missing ({error})"})  # fmt: skip
                continue
            ratio = theirs / self.seconds
            made.append(
                {
                    "work": self.work, "ours": self._figure(self.seconds, amount, rate), "unit": unit, "peer": name,
                    "theirs": self._figure(theirs, amount, rate), "ratio": ratio,
                    **({"target": f">= {least:g} x", "met": ratio >= least} if least else {}),
                }
            )  # fmt: skip
        return made

    @staticmethod
    def _figure(seconds: float, amount: float, rate: bool) -> float:
        return amount / seconds if rate else seconds * amount
