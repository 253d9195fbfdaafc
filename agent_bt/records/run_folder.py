"""The folder of one run: created at its start, filled at its end; a journal in it marks an unfinished run.

1. `create` creates the folder with `config.yaml` and `manifest.json` (status `running`)
2. the journal grows during the run
3. `write_tables` writes the Parquet tables and returns their hashes
4. `finish` writes `summary.json` and the final manifest, then removes the journal unless the run can be continued
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl

from agent_bt.core.canonical import content_hash, tagged_hash
from agent_bt.core.errors import RecordError
from agent_bt.core.files import sync_folder
from agent_bt.core.types import Fill
from agent_bt.records import hashes, tables
from agent_bt.records.files import write_whole
from agent_bt.records.journal import JournalWriter
from agent_bt.records.manifest import start_manifest

Status = Literal["done", "failed", "interrupted", "budget"]

RESUMABLE = ("interrupted", "budget")
"""Statuses of runs that can be continued."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run: their paths, and how they are written.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Hashes, identity and versions."""
        return self.path / "manifest.json"

    @property
    def journal(self) -> Path:
        """The records of an unfinished run."""
        return self.path / "journal.jsonl"

    @property
    def ledger(self) -> Path:
        """What the run has spent, one line per call."""
        return self.path / "ledger.jsonl"

    @property
    def decisions(self) -> Path:
        """One row per decision."""
        return self.path / "decisions.parquet"

    @property
    def fills(self) -> Path:
        """One row per fill."""
        return self.path / "fills.parquet"

    @property
    def equity(self) -> Path:
        """One row per bar."""
        return self.path / "equity.parquet"

    @property
    def market(self) -> Path:
        """The bars of the run, including warm-up, so that the folder alone can be replayed."""
        return self.path / "market.parquet"

    @property
    def legs(self) -> Path:
        """One row per bar: long and short legs; only in runs over several symbols, like the next three."""
        return self.path / "legs.parquet"

    @property
    def snapshots(self) -> Path:
        """One row per decision and symbol held after it."""
        return self.path / "snapshots.parquet"

    @property
    def rebalances(self) -> Path:
        """One row per decision: turnover, and exposure after it."""
        return self.path / "rebalances.parquet"

    @property
    def attribution(self) -> Path:
        """One row per symbol: its PnL and costs."""
        return self.path / "attribution.parquet"

    @property
    def summary(self) -> Path:
        """The results."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def unfinished(self) -> bool:
        """Whether the run can be continued: it still has a journal, or it has no summary yet."""
        return self.journal.exists() or not self.summary.exists()

    def read_manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            RecordError: it is missing or damaged.
        """
        return read_json(self.manifest)

    def update_manifest(self, **entries: Any) -> None:
        """Replace top-level entries of the manifest.

        Raises:
            RecordError: it is damaged or cannot be written.
        """
        write_json(self.manifest, {**self.read_manifest(), **entries})

    def write_tables(
        self, *, journal: JournalWriter, fills: Sequence[Fill], equity: pl.DataFrame, market: pl.DataFrame
    ) -> dict[str, str]:
        """Close the journal, write the tables of every run, and return their hashes.

        Args:
            journal: of the run.
            fills: in order.
            equity: as built by `tables.equity_frame`.
            market: in `BAR_SCHEMA`, with `symbol` for several symbols.

        Returns:
            The hashes `data`, `decisions`, `fills`, `equity`.

        Raises:
            RecordError: a file cannot be written.
        """
        journal.close()
        filled = tables.fills_frame(fills)
        tables.write_table(self.fills, filled)
        tables.write_table(self.equity, equity)
        tables.write_table(self.market, market)
        return {
            "data": hashes.data_hash(market),
            "decisions": journal.head,
            "fills": hashes.fills_hash(filled),
            "equity": hashes.equity_hash(equity),
        }

    def write_holdings(self, holdings: Mapping[str, pl.DataFrame]) -> None:
        """Write the tables of a run over several symbols, by name as in `holdings.Holdings.tables`.

        Raises:
            RecordError: a file cannot be written.
        """
        for name, table in holdings.items():
            tables.write_table(self.path / f"{name}.parquet", table)

    def write_exports(self, files: Mapping[str, bytes]) -> None:
        """Write the results for other programs, by file name as in `exports.build_exports`.

        Raises:
            RecordError: a file cannot be written.
        """
        for name, data in files.items():
            write_whole(self.path / name, data)

    def finish(self, *, summary: Mapping[str, Any], telemetry: str, finished: str) -> None:
        """Write the summary and the final manifest, then remove the journal unless the run can be continued.

        Args:
            summary: as built by `records.summary`.
            telemetry: the journal's `telemetry_head`.
            finished: ISO 8601, UTC.

        Raises:
            RecordError: a file cannot be written.
        """
        status = summary["status"]
        write_json(self.summary, summary)
        self.update_manifest(
            status=status,
            finished=finished,
            hashes={**summary["hashes"], "telemetry": telemetry},
            files={
                "config.yaml": config_file_hash(self.config.read_bytes()),
                "summary.json": summary_hash(read_json(self.summary)),
            },
        )
        if status not in RESUMABLE:
            self.journal.unlink(missing_ok=True)
            sync_folder(self.path)


def create(
    root: Path,
    name: str,
    *,
    config_text: str,
    identity: Mapping[str, Any],
    config_file: str | None = None,
    prompt: Mapping[str, Any] | None = None,
    llm: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> RunFolder:
    """Create `root/<utc>-<name>-<random>/` with its config and manifest.

    Args:
        root: the folder of runs.
        name: of the config; part of the folder's name.
        config_text: the resolved config, YAML.
        identity: the part of the config that determines the result; plain data.
        config_file: the file that the config was read from, as it was named; default: none.
        prompt: name/version, hash and text of the prompt, for an agent; default: none.
        llm: `requested` and `effective` (negotiated) model parameters, version of the price table; default: none.
        now: when the run starts; default: the current time.

    Raises:
        RecordError: the folder cannot be created.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"
    folder = RunFolder(root / run_id)
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        raise RecordError(
            f"{folder.path} cannot be created: {error.strerror or error}; choose another `output`, or free disk space"
        ) from error
    started = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    manifest = start_manifest(
        run_id=run_id, name=name, started=started, identity=identity, config_file=config_file, prompt=prompt, llm=llm
    )
    try:
        write_whole(folder.config, config_text.encode())
        write_json(folder.manifest, manifest)
    except BaseException:
        # A folder without a manifest would never be found again.
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def find_unfinished(root: Path, config_hash: str) -> RunFolder | None:
    """Find the newest unfinished run of an identity; None if there is none.

    Args:
        root: the folder of runs.
        config_hash: of the identity (`hashes.config_hash`).
    """
    for path in sorted(root.glob("*/manifest.json"), reverse=True):
        folder = RunFolder(path.parent)
        try:
            manifest = folder.read_manifest()
        except RecordError:
            continue  # a damaged folder cannot be continued; `runs list` shows it
        if folder.unfinished and manifest.get("hashes", {}).get("config") == config_hash:
            return folder
    return None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write indented JSON; the file is complete or unchanged.

    Args:
        path: the file to create or replace.
        data: what it holds.

    Raises:
        RecordError: the file cannot be written.
    """
    write_whole(path, orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        RecordError: the file is missing or holds something else.
    """
    try:
        data = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(
            f"{path.parent} has no {path.name}; it is not a run folder, or the run ended too early"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RecordError(f"{path} does not hold a JSON object")
    return data


def summary_hash(summary: Mapping[str, Any]) -> str:
    """Hash a summary as it is in its file."""
    return content_hash("agent-bt/summary/v1", summary)


def config_file_hash(text: bytes) -> str:
    """Hash the text of `config.yaml`."""
    return tagged_hash("agent-bt/config-file/v1", text)
