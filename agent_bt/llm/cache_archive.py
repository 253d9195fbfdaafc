"""Export replies to one compact file that can be committed beside a config as evidence, and import them.

The file is xz-compressed JSON lines: a header, the results of format negotiations, then the entries, oldest first. The
same content gives the same lines, and with the same xz the same bytes. Every address is computed again on import.
"""

from __future__ import annotations

import json
import lzma
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Request
from agent_bt.llm.cache_entry import Entry, reply_from_plain, reply_to_plain
from agent_bt.llm.cache_store import ImportCounts, ReplyStore

_HEADER = {"format": "agent-bt/replies", "version": 1}
# Prompts of neighbouring bars share most of their text: the dictionary spans thousands of them.
_XZ: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 24}]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The result of an export.

    Attributes:
        replies: the number of exported replies.
        size_bytes: size of the file.
        missing: wanted addresses that the store does not have.
    """

    replies: int
    size_bytes: int
    missing: tuple[str, ...]


def export_replies(store: ReplyStore, path: Path, addresses: set[str] | None = None) -> ExportResult:
    """Write replies to a file, which appears complete or not at all.

    Args:
        store: where the replies are.
        path: the file.
        addresses: of the wanted replies; None: all.

    Raises:
        RecordError: the store is damaged, or the file cannot be written.
    """
    seen: set[str] = set()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                with lzma.open(file, "wb", format=lzma.FORMAT_XZ, filters=_XZ) as packed:
                    _write_line(packed, _HEADER)
                    for key, value in store.notes():
                        _write_line(packed, {"note": key, "value": value})
                    for entry in store.entries(addresses):
                        seen.add(entry.request.address)
                        _write_line(packed, _to_plain(entry))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        size = path.stat().st_size
    except OSError as error:
        raise RecordError(f"the export {path} cannot be written: {error}") from error
    return ExportResult(replies=len(seen), size_bytes=size, missing=tuple(sorted((addresses or set()) - seen)))


def import_replies(store: ReplyStore, path: Path) -> ImportCounts:
    """Add the replies of an export to the store: all of them or, where anything is wrong, none. Known ones are kept.

    Args:
        store: gets the replies.
        path: the export.

    Raises:
        RecordError: the file is not an export, is damaged, or holds a reply whose request does not hash to its address.
    """
    notes: list[tuple[Any, Any]] = []
    added = store.put_all(_read(path, notes))
    for key, value in notes:
        if store.recall(key) is None:
            store.remember(key, value)
    return added


def addresses_of_run(folder: Path) -> set[str]:
    """Return the addresses of the requests behind the decisions of a run folder, finished or not.

    Raises:
        RecordError: the folder holds no decisions, or they cannot be read.
    """
    table, journal = folder / "decisions.parquet", folder / "journal.jsonl"
    try:
        if table.is_file():
            return _addresses_in_table(table)
        if journal.is_file():
            with journal.open("rb") as lines:
                return {address for line in lines if line.endswith(b"\n") for address in _addresses_in_line(line)}
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise RecordError(f"the decisions of {folder} cannot be read: {error}") from error
    raise RecordError(f"{folder} is not a run folder: it has neither decisions.parquet nor journal.jsonl")


def _addresses_in_table(path: Path) -> set[str]:
    first = pl.scan_parquet(path).select(address=pl.col("request"))
    others = pl.scan_parquet(path).select(address=pl.col("others").list.explode().struct.field("request"))
    return set(pl.concat([first, others]).drop_nulls().unique().collect()["address"])


def _addresses_in_line(line: bytes) -> list[str]:
    content = orjson.loads(line)["content"]
    exchanges = [content, *(content["others"] or ())]
    return [exchange["request"] for exchange in exchanges if exchange["request"] is not None]


def _read(path: Path, notes: list[tuple[Any, Any]]) -> Iterator[Entry]:
    at = 0
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for at, line in enumerate(lines, start=1):
                plain = json.loads(line)
                if at == 1:
                    _check_header(plain, path)
                elif "note" in plain:
                    notes.append((plain["note"], plain["value"]))
                else:
                    yield _from_plain(plain)
    except FileNotFoundError:
        raise RecordError(f"there is no export at {path}") from None
    except (lzma.LZMAError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"the export {path} is damaged in line {at + 1}: {error}; nothing was imported") from error
    if at == 0:
        raise RecordError(f"the export {path} is empty; nothing was imported")


def _check_header(plain: Any, path: Path) -> None:
    if not isinstance(plain, dict) or plain.get("format") != _HEADER["format"]:
        raise RecordError(f"{path} is not an export of replies")
    if plain.get("version") != _HEADER["version"]:
        raise RecordError(f"{path} was exported by a newer agent-bt; update agent-bt to import it")


def _write_line(packed: IO[bytes], plain: Any) -> None:
    # ASCII, because a model may send half of a surrogate pair.
    packed.write(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def _to_plain(entry: Entry) -> dict[str, Any]:
    request = entry.request
    return {
        "address": request.address,
        "request": [request.provider, request.endpoint_id, request.body, request.replicate],
        "reply": reply_to_plain(entry.reply),
        "obtained_at": entry.obtained_at,
    }


def _from_plain(plain: dict[str, Any]) -> Entry:
    provider, endpoint_id, body, replicate = plain["request"]
    request = Request(provider=provider, endpoint_id=endpoint_id, body=body, replicate=replicate)
    if request.address != plain["address"]:
        raise ValueError(f"a request does not hash to its address {plain['address'][:12]}")
    return Entry(request=request, reply=reply_from_plain(plain["reply"]), obtained_at=int(plain["obtained_at"]))
