"""Reads run folders: one run, all of them, or the one that a reference names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agent_bt.core.errors import RecordError, UsageError
from agent_bt.records.run_folder import RESUMABLE, RunFolder, read_json


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has a summary; its tables are read on first access.

    Attributes:
        path: the run folder.
        summary: see `records.summary`.
        manifest: see `records.manifest`.
    """

    path: Path
    summary: dict[str, Any] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def folder(self) -> RunFolder:
        """The paths of its files."""
        return RunFolder(self.path)

    @property
    def status(self) -> str:
        """done, failed, interrupted or budget."""
        status: str = self.summary["status"]
        return status

    @cached_property
    def config_text(self) -> str:
        """The resolved configuration, YAML."""
        try:
            return self.folder.config.read_bytes().decode()
        except OSError as error:
            raise RecordError(f"{self.folder.config} cannot be read: {error.strerror or error}") from error

    @cached_property
    def decisions(self) -> pl.DataFrame:
        """One row per decision; columns of `schema.decision_schema`."""
        return read_table(self.folder.decisions)

    @property
    def decision_count(self) -> int:
        """Rows of `decisions`, without reading it."""
        with _as_record_errors(self.folder.decisions):
            return int(pq.read_metadata(self.folder.decisions).num_rows)

    def decision_slices(self, rows: int = 512) -> Iterator[pl.DataFrame]:
        """Yield `decisions` in slices of `rows` rows, in memory that does not grow with the run."""
        with _as_record_errors(self.folder.decisions), pq.ParquetFile(self.folder.decisions) as file:
            for batch in file.iter_batches(batch_size=rows):
                yield pl.DataFrame(batch)

    @cached_property
    def fills(self) -> pl.DataFrame:
        """One row per fill; columns of `tables.FILL_SCHEMA`."""
        return read_table(self.folder.fills)

    @cached_property
    def equity(self) -> pl.DataFrame:
        """One row per bar; columns of `tables.EQUITY_SCHEMA`."""
        return read_table(self.folder.equity)

    @cached_property
    def market(self) -> pl.DataFrame:
        """The bars used, including warm-up; columns of `BAR_SCHEMA`, and `symbol` in a run over several symbols."""
        return read_table(self.folder.market)

    @property
    def multi_symbol(self) -> bool:
        """Whether one account holds several symbols; only such runs have the four tables below."""
        return self.summary.get("portfolio") is not None

    @cached_property
    def snapshots(self) -> pl.DataFrame:
        """One row per decision and symbol held after it; columns of `holdings_schema.SNAPSHOT_SCHEMA`."""
        return self._portfolio_table(self.folder.snapshots)

    @cached_property
    def rebalances(self) -> pl.DataFrame:
        """One row per decision; columns of `holdings_schema.REBALANCE_SCHEMA`."""
        return self._portfolio_table(self.folder.rebalances)

    @cached_property
    def attribution(self) -> pl.DataFrame:
        """One row per symbol; columns of `holdings_schema.ATTRIBUTION_SCHEMA`."""
        return self._portfolio_table(self.folder.attribution)

    @cached_property
    def legs(self) -> pl.DataFrame:
        """One row per bar; columns of `holdings_schema.LEGS_SCHEMA`."""
        return self._portfolio_table(self.folder.legs)

    def _portfolio_table(self, path: Path) -> pl.DataFrame:
        if not self.multi_symbol:
            raise RecordError(f"{self.run_id} has one symbol; only a run over several has {path.stem}")
        return read_table(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """A run in a list of runs.

    Attributes:
        run_id: name of the run folder.
        path: the run folder.
        name: of the config.
        status: of the run; `unfinished` without a summary, `damaged` if its files cannot be read.
        started: ISO 8601, UTC.
        decisions: recorded decisions; None without a summary.
        total_return: a fraction; None without a summary.
    """

    run_id: str
    path: Path
    name: str
    status: str
    started: str
    decisions: int | None
    total_return: float | None

    @property
    def resumable(self) -> bool:
        """Whether the command that started the run continues it."""
        return self.status in (*RESUMABLE, "unfinished")


def load_run(path: str | Path) -> Run:
    """Load a run from its folder.

    Example:
        >>> from tempfile import mkdtemp
        >>> from agent_bt import load_config, load_run, run
        >>> settings = [f"output={mkdtemp()}", "strategy.kind=rsi", "market.interval=1h", "market.end=2024-07-05"]
        >>> path = run(load_config(None, settings)).path
        >>> loaded = load_run(path)
        >>> loaded.status, len(loaded.equity)
        ('done', 96)

    Raises:
        RecordError: it is not a run folder, or the run has no summary yet.
    """
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        raise RecordError(f"there is no run folder {folder.path}; see `agent-bt runs list`")
    manifest = folder.read_manifest()
    if not folder.summary.exists():
        raise RecordError(f"{folder.run_id} is not finished; continue it with the command that started it")
    return Run(path=folder.path, summary=read_json(folder.summary), manifest=manifest)


def list_runs(root: str | Path) -> list[RunEntry]:
    """List all runs in a folder of runs, oldest first; none if the folder does not exist."""
    return [_entry(path.parent) for path in sorted(Path(root).glob("*/manifest.json"))]


def resolve_run(root: str | Path, reference: str) -> Path:
    """Find the folder of the run that a reference names.

    Args:
        root: the folder of runs.
        reference: `latest` (the newest with a summary), the id of a run, the start or end of an id, the `name` of a run
            (the newest of that name), or a path.

    Raises:
        UsageError: no run or more than one run matches.
    """
    if (Path(reference) / "manifest.json").is_file():
        return Path(reference)
    runs = list_runs(root)
    if reference == "latest":
        finished = [run for run in runs if run.decisions is not None]
        if not finished:
            raise UsageError(f"there is no run with a result in {root}; start one: agent-bt run CONFIG")
        return finished[-1].path
    for run in reversed(runs):
        if reference in (run.run_id, run.name):
            return run.path
    fitting = [run for run in runs if run.run_id.startswith(reference) or run.run_id.endswith(reference)]
    if len(fitting) == 1:
        return fitting[0].path
    if fitting:
        raise UsageError(f"{reference!r} matches {len(fitting)} runs: {', '.join(run.run_id for run in fitting)}")
    raise UsageError(f"there is no run {reference!r} in {root}; `agent-bt runs list` lists the runs")


def read_table(path: Path) -> pl.DataFrame:
    """Read a table of a run folder.

    Raises:
        RecordError: it is missing or damaged.
    """
    with _as_record_errors(path):
        return pl.read_parquet(path)


@contextmanager
def _as_record_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise RecordError(f"{path.parent.name} has no {path.name}; the run is incomplete") from None
    except (OSError, pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def _entry(path: Path) -> RunEntry:
    folder = RunFolder(path)
    try:
        manifest = folder.read_manifest()
        summary = read_json(folder.summary) if folder.summary.exists() else None
        status = "unfinished" if summary is None else summary["status"]
        if folder.unfinished and status not in RESUMABLE:
            status = "unfinished"
        return RunEntry(
            run_id=folder.run_id,
            path=path,
            name=manifest["name"],
            status=status,
            started=manifest["started"],
            decisions=None if summary is None else summary["decisions"]["total"],
            total_return=None if summary is None else summary["performance"]["total_return"],
        )
    except (RecordError, KeyError, TypeError):
        return RunEntry(
            run_id=folder.run_id,
            path=path,
            name="",
            status="damaged",
            started="",
            decisions=None,
            total_return=None,
        )
