"""Counts trials: the more variants are tested on the same data, the better the best of them looks by chance.

A trial is a distinct identity (market, features, strategy, prompt, model, account, execution, risk) on a period of
data. Repetitions are not counted again: a run continued or replayed, another replicate, another window.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_bt.core.clock import time_us
from agent_bt.core.errors import RecordError
from agent_bt.records.hashes import config_hash

FILE = "registry.sqlite"

_TABLE = """
CREATE TABLE IF NOT EXISTS trial (
    hash TEXT NOT NULL, series TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
    name TEXT NOT NULL, run_id TEXT NOT NULL, seen TEXT NOT NULL,
    PRIMARY KEY (hash, series, start, end)
) WITHOUT ROWID
"""
_NO_VARIANT = ("seed", "data", "limit")
_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A variant that was tested on a series of prices.

    Attributes:
        hash: of the variant.
        series: kind, symbols and source of the prices.
        start, end: the period, UTC us, the end exclusive.
    """

    hash: str
    series: str
    start: int
    end: int


def identify_trial(identity: Mapping[str, Any]) -> Trial:
    """Derive the trial that a run of this identity counts as."""
    market = dict(identity["market"])
    start, end = time_us(market.pop("start")), time_us(market.pop("end"))
    market.pop("warmup", None)
    source = f"sample:{identity['seed']}" if market["source"] == "sample" else market["source"]
    variant = {key: value for key, value in identity.items() if key not in _NO_VARIANT}
    variant["market"] = market
    if "llm" in variant:
        variant["llm"] = {key: value for key, value in variant["llm"].items() if key != "replicate"}
    symbols = market.get("symbols")
    whole = "all" if identity.get("mode") == "cross_sectional" else market["symbol"]
    series = "/".join((market["kind"], "+".join(sorted(symbols)) if symbols else whole, source))
    return Trial(hash=config_hash(variant), series=series, start=start, end=end)


class Registry:
    """The trials of a folder of runs, in one SQLite file that processes share.

    Raises:
        RecordError: from every method, if the file cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    def add(self, identity: Mapping[str, Any], *, name: str, run_id: str) -> None:
        """Record that a run of this identity has shown its result; a known trial stays as it is.

        Args:
            identity: of the run, plain data.
            name: of the config.
            run_id: the run.
        """
        self.add_many([identity], name=name, run_id=run_id)

    def add_many(self, identities: Iterable[Mapping[str, Any]], *, name: str, run_id: str) -> None:
        """Record several trials in one transaction.

        Args:
            identities: of the runs, plain data.
            name: of the experiment.
            run_id: its id.
        """
        seen = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        trials = map(identify_trial, identities)
        rows = [(trial.hash, trial.series, trial.start, trial.end, name, run_id, seen) for trial in trials]
        with self._open() as db:
            db.executemany("INSERT OR IGNORE INTO trial VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def count(self, series: str, start: int, end: int) -> int:
        """Count the distinct trials whose data overlap a period.

        Args:
            series: as in `Trial`.
            start: start of the period, UTC us.
            end: end of the period, UTC us, exclusive.
        """
        if not self.path.exists():
            return 0
        query = "SELECT count(DISTINCT hash) FROM trial WHERE series = ? AND start < ? AND end > ?"
        with self._open() as db:
            return int(db.execute(query, (series, end, start)).fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as db, db:
                db.execute(_TABLE)
                yield db
        except (sqlite3.Error, OSError) as error:
            raise RecordError(
                f"the registry of trials {self.path} cannot be used: {error}; move it away to start a new count"
            ) from error
