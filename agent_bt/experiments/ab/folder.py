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
        """The declaration and the results."""
        return self.path / "experiment.json"

    @property
    def ledger(self) -> Path:
        """What all its runs have spent so far."""
        return self.path / "ledger.jsonl"

    def cell(self, relative_path: str) -> Path:
        """Return the folder that holds the run of a cell; `relative_path` as of `Cell`."""
        return self.path / "runs" / relative_path

    def finished_run(self, relative_path: str) -> Run | None:
        """Return the run of a cell, None while it is not finished."""
        for manifest in sorted(self.cell(relative_path).glob("*/manifest.json")):
            folder = RunFolder(manifest.parent)
            if not folder.unfinished:
                return load_run(folder.path)
        return None

    def read(self) -> dict[str, Any]:
        """Return the content of `experiment.json`.

        Raises:
            RecordError: the file is missing or damaged.
        """
        return read_json(self.record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace `experiment.json` with `record`.

        Raises:
            RecordError: it cannot be written.
        """
        write_json(self.record, record)


def home(root: Path) -> Path:
    """Return the folder of all experiments below a folder of runs."""
    return root / "ab"


def find_unfinished(root: Path, identity: str) -> ExperimentFolder | None:
    """Return the newest unfinished experiment of an identity, None if there is none.

    Args:
        root: the folder of runs.
        identity: the hash in `experiment.json`.
    """
    for folder in reversed(all_experiments(root)):
        try:
            record = folder.read()
        except RecordError:
            continue  # a damaged one cannot be continued; `ab list` shows it
        if record.get("status") != FINISHED and record.get("identity") == identity:
            return folder
    return None


def create(root: Path, name: str) -> ExperimentFolder:
    """Create `root/ab/<utc>-<name>-<random>/`.

    Args:
        root: the folder of runs.
        name: of the experiment.

    Raises:
        RecordError: the folder cannot be created.
    """
    path = home(root) / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return ExperimentFolder(path)


def all_experiments(root: Path) -> list[ExperimentFolder]:
    """Return every experiment below a folder of runs, oldest first."""
    return [ExperimentFolder(path.parent) for path in sorted(home(root).glob("*/experiment.json"))]


def resolve(root: Path, reference: str) -> ExperimentFolder:
    """Return the experiment that a reference names.

    Args:
        root: the folder of runs.
        reference: `latest`, an id, the start or end of an id, a name, or the experiment's folder.

    Raises:
        UsageError: none or several match.
    """
    if (Path(reference) / "experiment.json").is_file():
        return ExperimentFolder(Path(reference))
    there = all_experiments(root)
    if reference == "latest" and there:
        return there[-1]
    matching = [each for each in there if each.experiment_id.startswith(reference)]
    matching = matching or [each for each in there if each.experiment_id.endswith(reference)]
    matching = matching or [each for each in there if f"-{reference}-" in each.experiment_id][-1:]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(
            f"{reference!r} matches {', '.join(each.experiment_id for each in matching)}; give more of the id"
        )
    raise UsageError(f"there is no experiment {reference!r} in {home(root)}; `agent-bt ab list` shows what there is")


def summary_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `experiment.json` that a list of experiments shows."""
    verdicts = {name: arm["verdict"] for name, arm in record.get("arms", {}).items()}
    keys = ("experiment_id", "name", "status", "started", "baseline", "metric")
    return {**{key: record.get(key) for key in keys}, "verdicts": verdicts}
