"""The folder of one run: created at its start, filled at its end; a journal in it says that it is unfinished.

1. `create` makes the folder with `config.yaml` and `manifest.json` (status `running`)
2. the journal grows while the run runs
3. `write_tables` writes the Parquet tables and returns their hashes
4. `finish` writes `summary.json` and the final manifest, then removes the journal unless the run is to be continued
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


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run's files, and what writes them."""

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
        """What the run was made of."""
        return self.path / "manifest.json"

    @property
    def journal(self) -> Path:
        """The records of an unfinished run."""
        return self.path / "journal.jsonl"

    @property
    def ledger(self) -> Path:
        """What the run has spent, call by call."""
        return self.path / "ledger.jsonl"

    @property
    def decisions(self) -> Path:
        """One row a decision."""
        return self.path / "decisions.parquet"

    @property
    def fills(self) -> Path:
        """One row a fill."""
        return self.path / "fills.parquet"

    @property
    def equity(self) -> Path:
        """One row a bar."""
        return self.path / "equity.parquet"

    @property
    def market(self) -> Path:
        """The bars the run walked over, warm-up included, so that the folder alone can be replayed."""
        return self.path / "market.parquet"

    @property
    def legs(self) -> Path:
        """One row a bar of what was held long and short; runs over many symbols only, like the next three."""
        return self.path / "legs.parquet"

    @property
    def snapshots(self) -> Path:
        """One row a decision and symbol held after it."""
        return self.path / "snapshots.parquet"

    @property
    def rebalances(self) -> Path:
        """One row a decision: turnover, and what was held after it."""
        return self.path / "rebalances.parquet"

    @property
    def attribution(self) -> Path:
        """One row a symbol: what it brought."""
        return self.path / "attribution.parquet"

    @property
    def summary(self) -> Path:
        """What came out."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The report for readers."""
        return self.path / "report.html"

    @property
    def unfinished(self) -> bool:
        """Whether the run can be continued: its journal is still there, or nothing but the start was written."""
        return self.journal.exists() or not self.summary.exists()

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            RecordError: there is none, or it is damaged.
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
        """Close the journal and write every table; returns the hashes `data`, `decisions`, `fills`, `equity`.

        `equity` as made by `tables.equity_frame`, `market` in `BAR_SCHEMA`.

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
        """Write the tables of a run over many symbols, by name as in `holdings.Holdings.tables`.

        Raises:
            RecordError: a file cannot be written.
        """
        for name, table in holdings.items():
            tables.write_table(self.path / f"{name}.parquet", table)

    def write_exports(self, files: Mapping[str, bytes]) -> None:
        """Write the result for other programs, by file name as in `exports.exports_of`.

        Raises:
            RecordError: a file cannot be written.
        """
        for name, data in files.items():
            write_whole(self.path / name, data)

    def finish(self, *, summary: Mapping[str, Any], telemetry: str, finished: str) -> None:
        """Write the summary and the final manifest; the journal goes last, and stays if the run can be continued.

        `summary` as made by `records.summary`, `telemetry` the journal's `telemetry_head`, `finished` ISO 8601 UTC.

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
    """Make `root/<utc>-<name>-<random>/` with its config and manifest; arguments as in `manifest.start_manifest`.

    Raises:
        RecordError: the folder cannot be made.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"
    folder = RunFolder(root / run_id)
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        raise RecordError(
            f"{folder.path} cannot be made: {error.strerror or error}; choose another `output`, or make room"
        ) from error
    started = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    manifest = start_manifest(
        run_id=run_id, name=name, started=started, identity=identity, config_file=config_file, prompt=prompt, llm=llm
    )
    try:
        write_whole(folder.config, config_text.encode())
        write_json(folder.manifest, manifest)
    except BaseException:
        # Without a manifest nothing would ever find it again.
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder


def find_unfinished(root: Path, config_hash: str) -> RunFolder | None:
    """The newest unfinished run of this identity (`hashes.config_hash`) under `root`, if there is one."""
    for path in sorted(root.glob("*/manifest.json"), reverse=True):
        folder = RunFolder(path.parent)
        try:
            manifest = folder.read_manifest()
        except RecordError:
            continue  # a damaged folder is nothing to continue; `runs list` shows it
        if folder.unfinished and manifest.get("hashes", {}).get("config") == config_hash:
            return folder
    return None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write indented JSON; the file appears whole.

    Raises:
        RecordError: the file cannot be written.
    """
    write_whole(path, orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        RecordError: the file is missing or holds something else.
    """
    try:
        data = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(
            f"{path.parent} has no {path.name}; it is no run folder, or the run did not get far"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RecordError(f"{path} holds no JSON object")
    return data


def summary_hash(summary: Mapping[str, Any]) -> str:
    """Hash of a summary as it stands in its file."""
    return content_hash("agent-bt/summary/v1", summary)


def config_file_hash(text: bytes) -> str:
    """Hash of the text of `config.yaml`."""
    return tagged_hash("agent-bt/config-file/v1", text)
