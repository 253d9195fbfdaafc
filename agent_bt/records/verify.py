"""Recomputes every hash and count of a run folder, and reports the differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agent_bt.config.load import load_config
from agent_bt.core.canonical import HashChain, canonical
from agent_bt.core.clock import interval_us, time_us
from agent_bt.core.errors import AgentBtError, RecordError
from agent_bt.engine.market import Market
from agent_bt.records import hashes
from agent_bt.records.decision_record import iterate_records
from agent_bt.records.exports import build_exports
from agent_bt.records.holdings import compute_holdings, summarise_holdings
from agent_bt.records.journal import JournalReader
from agent_bt.records.read import Run, load_run
from agent_bt.records.run_folder import RunFolder, config_file_hash, summary_hash
from agent_bt.records.schema import decision_schema
from agent_bt.records.summary import decision_counts, llm_usage
from agent_bt.records.tally import Tally

_OF_USED_CALLS = ("failed", "cached", "speculation_hits", "cost_saved_usd", "latency_ms_p50", "latency_ms_p95")
"""The keys of `summary.llm` that follow from the decisions alone; the others count wasted calls too."""

_ROUNDING = 1e-9

_TABLES: dict[str, Callable[[Run], str]] = {
    "data": lambda run: hashes.data_hash(run.market),
    "fills": lambda run: hashes.fills_hash(run.fills),
    "equity": lambda run: hashes.equity_hash(run.equity),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A value of a run folder that does not match what its tables give.

    Attributes:
        what: the value, by its key or file.
        recorded: what the folder holds.
        derived: what was recomputed.
    """

    what: str
    recorded: Any
    derived: Any

    def __str__(self) -> str:
        return f"{self.what}: recorded {_short(self.recorded)}, derived {_short(self.derived)}"


def verify(path: str | Path) -> list[Difference]:
    """Recompute what can be derived from the tables of a run; an empty list means that nothing was changed.

    For an unfinished run without a summary, the hash chain of the journal is checked.

    Raises:
        RecordError: it is not a run folder.
    """
    folder = RunFolder(Path(path))
    if folder.path.is_dir() and folder.journal.exists() and not folder.summary.exists():
        folder.read_manifest()
        return list(_attempt("journal.jsonl", partial(_check_journal, folder)))
    return list(_check_run(load_run(path)))


def _check_journal(folder: RunFolder) -> Iterator[Difference]:
    for _ in JournalReader(folder.journal).lines():
        pass
    yield from ()


def _check_run(run: Run) -> Iterator[Difference]:
    recorded, manifest, files = run.summary["hashes"], run.manifest.get("hashes", {}), run.manifest.get("files", {})
    for name, value in recorded.items():
        yield from _compare(f"manifest hashes.{name}", value, manifest.get(name))
    yield from _compare("hashes.config", recorded["config"], hashes.config_hash(run.manifest.get("identity", {})))
    sources = list(_attempt("decisions.parquet", partial(_check_decisions, run)))
    for name, derive in _TABLES.items():
        sources += _attempt(f"hashes.{name}", partial(_compare_table, run, name, derive))
    yield from sources
    # The holdings follow from these tables: derived from changed ones they would mean nothing.
    if run.multi_symbol and not sources:
        yield from _attempt("holdings", partial(_check_holdings, run))
    yield from _attempt("exports", partial(_check_exports, run))
    yield from _compare("summary.json", files.get("summary.json"), summary_hash(run.summary))
    yield from _attempt("config.yaml", partial(_compare_config, run, files.get("config.yaml")))


def _compare_table(run: Run, name: str, derive: Callable[[Run], str]) -> Iterator[Difference]:
    yield from _compare(f"hashes.{name}", run.summary["hashes"][name], derive(run))


def _compare_config(run: Run, recorded: str | None) -> Iterator[Difference]:
    yield from _compare("config.yaml", recorded, config_file_hash(run.config_text.encode()))


def _check_decisions(run: Run) -> Iterator[Difference]:
    """Check the hash chains over content and telemetry, and the counts that follow, in slices of the table."""
    content_chain, telemetry_chain = HashChain(hashes.DECISION_TAG), HashChain(hashes.TELEMETRY_TAG)
    tally = Tally()
    for rows in run.decision_slices():
        _check_schema(rows)
        for content, telemetry in iterate_records(rows):
            content_chain.link(hashes.content_bytes(content))
            telemetry_chain.link(canonical(telemetry))
            tally.add(content, telemetry)
    yield from _compare("hashes.decisions", run.summary["hashes"]["decisions"], content_chain.head)
    yield from _compare("hashes.telemetry", run.manifest.get("hashes", {}).get("telemetry"), telemetry_chain.head)
    counts, usage = run.summary["decisions"], run.summary["llm"]
    for name, value in decision_counts(tally).items():
        if name == "details" and name not in counts:
            continue  # earlier versions did not count them
        yield from _compare(f"decisions.{name}", counts.get(name), value)
    derived = llm_usage(tally)
    for name in _OF_USED_CALLS:
        yield from _compare(f"llm.{name}", usage.get(name), derived[name])


def _check_holdings(run: Run) -> Iterator[Difference]:
    """Check the tables of a run over several symbols, recomputed from fills and market, to within rounding."""
    config = load_config(run.folder.config, env={})
    market = Market(
        symbols=run.market["symbol"].unique(maintain_order=True).to_list(),
        bars=run.market,
        interval=interval_us(config.market.interval),
        start=time_us(config.market.start),
        features=np.empty((len(run.market), 0)),
        feature_names=(),
        lookback=1,
    )
    market = market.head(market.first + run.summary["bars"])
    holdings = compute_holdings(
        market=market,
        fills=run.fills,
        equity=run.equity["equity"].to_numpy(),
        decisions=run.decisions["bar"].to_numpy(),
        execution=config.execution,
    )
    for name, derived in holdings.tables.items():
        if (differs := _first_difference(getattr(run, name), derived)) is not None:
            yield Difference(what=f"{name}.parquet", recorded=f"another {differs}", derived=f"the original {differs}")
    for key, value in summarise_holdings(market, holdings, run.fills).items():
        if not _close(run.summary["portfolio"].get(key), value):
            yield Difference(what=f"portfolio.{key}", recorded=run.summary["portfolio"].get(key), derived=value)


def _first_difference(recorded: pl.DataFrame, derived: pl.DataFrame) -> str | None:
    """Return what differs between two tables: the shape, or the first column; None if they are equal."""
    if recorded.schema != derived.schema or len(recorded) != len(derived):
        return f"shape ({len(recorded)} rows of {', '.join(recorded.columns)})"
    return next((f"column {c.name}" for c in derived if not _same(recorded[c.name], c)), None)


def _same(one: pl.Series, other: pl.Series) -> bool:
    if not other.dtype.is_float():
        return one.equals(other)
    a, b = one.to_numpy(), other.to_numpy()
    scale = float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING * scale, equal_nan=True))


def _close(one: Any, other: Any) -> bool:
    if isinstance(other, float) and isinstance(one, float):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    if isinstance(other, list) and isinstance(one, list) and len(one) == len(other):
        return all(_close(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(other, dict) and isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[key], value) for key, value in other.items())
    return bool(one == other)


def _check_exports(run: Run) -> Iterator[Difference]:
    for name, data in build_exports(run.summary, run.equity, run.fills).items():
        path = run.path / name
        if not path.exists():
            yield Difference(what=name, recorded="no such file", derived=f"{len(data):,} bytes")
        elif path.read_bytes() != data:
            yield Difference(what=name, recorded="a different text", derived="the original text")


def _check_schema(decisions: pl.DataFrame) -> None:
    window = decisions.schema.get("window")
    columns = [field.name for field in window.fields] if isinstance(window, pl.Struct) else []
    if decisions.schema != decision_schema([name for name in columns if name != "close_time"]):
        raise RecordError("its columns are not those of this version of agent-bt")


def _compare(what: str, recorded: Any, derived: Any) -> Iterator[Difference]:
    if recorded != derived:
        yield Difference(what=what, recorded=recorded, derived=derived)


def _attempt(what: str, check: Callable[[], Iterator[Difference]]) -> Iterator[Difference]:
    """Run a check; a file that is missing, damaged or of another format counts as a difference."""
    try:
        yield from check()
    except (AgentBtError, pl.exceptions.PolarsError, TypeError, ValueError) as error:
        yield Difference(what=what, recorded="a readable file", derived=str(error))


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text
