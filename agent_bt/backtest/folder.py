"""Find or create the folder of a run, and read what an earlier part of the run left in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_bt.agents.prompt import Prompt
from agent_bt.backtest.model import Model
from agent_bt.config.load import config_to_yaml
from agent_bt.config.model import Config
from agent_bt.core.types import Reply
from agent_bt.llm.ledger import Ledger
from agent_bt.records import run_folder
from agent_bt.records.decision_record import extract_replies
from agent_bt.records.hashes import config_hash
from agent_bt.records.journal import JournalReader
from agent_bt.records.run_folder import RunFolder


def find_folder(root: Path, identity: Mapping[str, Any], *, fresh: bool) -> RunFolder | None:
    """Find the unfinished run of an identity.

    Args:
        root: folder of the run folders.
        identity: of the run.
        fresh: return None, so that a new run begins.
    """
    return None if fresh else run_folder.find_unfinished(root, config_hash(identity))


def make_folder(
    root: Path, config: Config, identity: Mapping[str, Any], prompt: Prompt | None, config_path: Path | None
) -> RunFolder:
    """Create the folder of a run.

    Args:
        root: folder of the run folders.
        config: of the run; written to `config.yaml`.
        identity: of the run.
        prompt: of an agent; None for a strategy that asks no model.
        config_path: file the config was read from; None: it was not.
    """
    return run_folder.create(
        root,
        config.name,
        config_text=config_to_yaml(config),
        identity=identity,
        config_file=None if config_path is None else str(config_path),
        prompt=None if prompt is None else {"name": prompt.reference, "hash": prompt.hash, "text": prompt.text},
    )


def note_model(folder: RunFolder, model: Model) -> None:
    """Write to the manifest what was negotiated with the model, so that a resumed run does not negotiate again.

    Args:
        folder: of the run.
        model: as opened.
    """
    before = folder.read_manifest().get("llm") or {}
    folder.update_manifest(
        llm={
            "requested": dict(model.requested),
            "effective": model.negotiated,
            "prices": model.prices,
            "probes": before.get("probes", 0) + model.probes,
        }
    )


def is_blank(folder: RunFolder) -> bool:
    """Return whether no decision was recorded and nothing was paid, so that there is nothing to keep."""
    recorded = folder.journal.exists() and folder.journal.stat().st_size > 0
    if recorded or folder.summary.exists():
        return False
    if not folder.ledger.exists():
        return True
    with Ledger(folder.ledger) as ledger:
        return not ledger.spent.tokens


def read_replies(folder: RunFolder) -> dict[str, Reply]:
    """Read the replies in the journal by the address of their request; an incomplete last line is ignored."""
    if not folder.journal.exists():
        return {}
    return {
        address: reply
        for content, telemetry in JournalReader(folder.journal)
        for address, reply in extract_replies(content, telemetry)
    }
