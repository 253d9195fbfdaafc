"""The folder of an experiment: `runs/ab/<id>/` with `experiment.json`, the ledger, and the runs of its cells."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent_bt.core.errors import RecordError, UsageError
from agent_bt.records.files import unwritable
from agent_bt.records.read import Run, load_run
from agent_bt.records.run_folder import RunFolder, read_json, write_json

FINISHED = "done"


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    """Paths of one experiment."""

    path: Path

    @property
    def experiment_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def record(self) -> Path:
        """What was asked and what came out."""
        return self.path / "experiment.json"

    @property
    def ledger(self) -> Path:
        """What all its runs have spent together."""
        return self.path / "ledger.jsonl"

    def cell(self, place: str) -> Path:
        """Folder that the run of a cell is made in."""
        return self.path / "runs" / place

    def finished_run(self, place: str) -> Run | None:
        """The run of a cell, once it is finished."""
        for manifest in sorted(self.cell(place).glob("*/manifest.json")):
            folder = RunFolder(manifest.parent)
            if not folder.unfinished:
                return load_run(folder.path)
        return None

    def read(self) -> dict[str, Any]:
        """`experiment.json`.

        Raises:
            RecordError: there is none, or it is damaged.
        """
        return read_json(self.record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace `experiment.json`.

        Raises:
            RecordError: it cannot be written.
        """
        write_json(self.record, record)


def home(root: Path) -> Path:
    """Where experiments lie under a folder of runs."""
    return root / "ab"


def find_unfinished(root: Path, identity: str) -> ExperimentFolder | None:
    """The newest unfinished experiment of this identity, if there is one."""
    for folder in reversed(all_experiments(root)):
        try:
            record = folder.read()
        except RecordError:
            continue  # a damaged one is nothing to continue; `ab list` shows it
        if record.get("status") != FINISHED and record.get("identity") == identity:
            return folder
    return None


def create(root: Path, name: str) -> ExperimentFolder:
    """Make `root/ab/<utc>-<name>-<random>/`.

    Raises:
        RecordError: it cannot be made.
    """
    path = home(root) / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return ExperimentFolder(path)


def all_experiments(root: Path) -> list[ExperimentFolder]:
    """Every experiment under a folder of runs, oldest first."""
    return [ExperimentFolder(path.parent) for path in sorted(home(root).glob("*/experiment.json"))]


def resolve(root: Path, reference: str) -> ExperimentFolder:
    """The experiment somebody means: `latest`, an id, the start or end of one, a name, or its folder.

    Raises:
        UsageError: none or several fit.
    """
    if (Path(reference) / "experiment.json").is_file():
        return ExperimentFolder(Path(reference))
    there = all_experiments(root)
    if reference == "latest" and there:
        return there[-1]
    fitting = [each for each in there if each.experiment_id.startswith(reference)]
    fitting = fitting or [each for each in there if each.experiment_id.endswith(reference)]
    fitting = fitting or [each for each in there if f"-{reference}-" in each.experiment_id][-1:]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{reference!r} fits {', '.join(each.experiment_id for each in fitting)}; give more of the id")
    raise UsageError(f"there is no experiment {reference!r} in {home(root)}; `agent-bt ab list` shows what there is")


def summary_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a list of experiments."""
    verdicts = {name: arm["verdict"] for name, arm in record.get("arms", {}).items()}
    keys = ("experiment_id", "name", "status", "started", "baseline", "metric")
    return {**{key: record.get(key) for key in keys}, "verdicts": verdicts}
