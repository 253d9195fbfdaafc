"""The folder of a sweep: `runs/sweeps/<id>/` with `sweep.json`, `results.parquet`, `curves.parquet` and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from agent_bt.core.errors import RecordError
from agent_bt.records.files import unwritable, whole_file
from agent_bt.records.run_folder import read_json, write_json


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """Paths of one sweep; the same sweep has the same folder, and overwrites it."""

    path: Path

    @property
    def record(self) -> Path:
        """The declaration and the results."""
        return self.path / "sweep.json"

    @property
    def results(self) -> Path:
        """One row for each combination tried."""
        return self.path / "results.parquet"

    @property
    def curves(self) -> Path:
        """Equity at the end of each UTC day: of the best, of the walk-forward, of buy and hold."""
        return self.path / "curves.parquet"

    def read(self) -> dict[str, Any]:
        """Return the content of `sweep.json`.

        Raises:
            RecordError: the file is missing or damaged.
        """
        return read_json(self.record)

    def write(self, record: Mapping[str, Any], results: pl.DataFrame, curves: pl.DataFrame) -> None:
        """Write all three files, the record last: where it exists, so do the tables.

        Args:
            record: content of `sweep.json`.
            results: see `tables.results_frame`.
            curves: see `tables.curves_frame`.

        Raises:
            RecordError: a file cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        for path, frame in ((self.results, results), (self.curves, curves)):
            with whole_file(path) as temporary:
                frame.write_parquet(temporary)
        write_json(self.record, record)

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return results and curves.

        Raises:
            RecordError: a table cannot be read.
        """
        try:
            return pl.read_parquet(self.results), pl.read_parquet(self.curves)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RecordError(f"{self.path} is damaged: {error}; run the sweep again") from error


def folder_of(root: Path, sweep_id: str) -> SweepFolder:
    """Return the folder of a sweep.

    Args:
        root: the folder of runs.
        sweep_id: name of the sweep's folder.
    """
    return SweepFolder(root / "sweeps" / sweep_id)
