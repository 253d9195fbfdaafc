"""The decisions of a run for the page: a packed index of all, and full records in chunks that are decoded on demand.

The index holds what markers, the table and its filters need. A chunk holds the rest of `CHUNK` decisions: messages,
replies, accounts, orders, telemetry, and the features at the decision bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from agent_bt.core.view import BAR_COLUMNS
from agent_bt.records.direction import BY_TARGETS, buys, direction_column, sells
from agent_bt.records.schema import json_schema
from agent_bt.reports.html_pack import Column, decimals_of, deflated, pack_columns, pack_json, quantise, to_floats

CHUNK = 64
"""Decisions in one chunk."""
_ROWS_AT_ONCE = 8 * CHUNK
_LISTED = 6

SIDES = ("HOLD", "BUY", "SELL")
SOURCES = ("model", "invalid", "transport", "budget")
VERDICTS = ("none", "clipped", "rejected")
FLAGS = ("bought", "sold", "cached", "speculated", "by_target")
"""Properties of a decision: the bits of its flags, lowest first."""

_MAX_REASONING_CHARS = 20_000
_IN_INDEX_ONLY = ("index", "bar", "window", "note")


class Decisions:
    """The decisions in `decisions.parquet`, read in parts, in memory that does not grow with the run."""

    def __init__(self, path: Path) -> None:
        self._table = pl.scan_parquet(path)
        self._schema = self._table.collect_schema()
        self.count = int(self._table.select(pl.len()).collect().item())

    def index(self, short: Mapping[str, str] | None = None) -> dict[str, str]:
        """Pack the blocks `index` (numbers) and `texts` (notes, reasons, cuts, targets) of all decisions.

        Args:
            short: symbol -> its name in texts, for a run over several symbols.
        """
        call = pl.col("telemetry").struct
        lots = pl.col("orders").list.eval(pl.element().struct.field("lots"))
        target = pl.col("targets").list.first().struct.field("share")
        frame = self._table.select(
            "time",
            "provenance",
            "reason",
            "note",
            "risk",
            pl.col("prices").list.first().struct.field("price"),
            pl.col("account").struct.field("equity"),
            side=direction_column(),
            by_target=pl.col("action") == BY_TARGETS,
            size=pl.when(pl.col("action") == BY_TARGETS).then(target).otherwise(pl.col("size")),
            bought=buys(),
            sold=sells(),
            buys=_where(lots, pl.element() > 0).list.len(),
            sells=_where(lots, pl.element() < 0).list.len(),
            cuts=_cuts(short),
            targets=pl.lit("") if short is None else _targets(short),
            quantity=pl.col("positions").list.first().struct.field("quantity").fill_null(0.0),
            latency=pl.when(call.field("cached")).then(None).otherwise(call.field("latency_ms")),
            cached=call.field("cached").fill_null(False),
            speculated=call.field("speculated").fill_null(False),
            tokens=call.field("prompt_tokens") + call.field("completion_tokens"),
        ).collect()
        flags = sum(frame[name].to_numpy() * (1 << bit) for bit, name in enumerate(FLAGS))
        price, equity = to_floats(frame["price"]), to_floats(frame["equity"])
        weight = np.divide(to_floats(frame["quantity"]) * price, equity, out=np.zeros(len(frame)), where=equity != 0)
        numbers = [
            Column(name="time", codes=frame["time"].to_physical().to_numpy() // 1000, delta=True),
            quantise("price", price, decimals_of(price)),
            quantise("equity", equity, 2),
            quantise("share", weight, 4),
            Column(name="side", codes=_codes(frame["side"], SIDES)),
            Column(name="source", codes=_codes(frame["provenance"], SOURCES)),
            Column(name="risk", codes=_codes(frame["risk"], VERDICTS)),
            Column(name="flags", codes=np.asarray(flags, np.int64)),
            quantise("size", to_floats(frame["size"]), 4),
            quantise("latency", to_floats(frame["latency"]), 1),
            quantise("tokens", to_floats(frame["tokens"]), 0),
        ]
        if short is not None:
            numbers += [Column(name=name, codes=frame[name].cast(pl.Int64).to_numpy()) for name in ("buys", "sells")]
        texts = {name: frame[name].fill_null("").to_list() for name in ("note", "reason", "cuts", "targets")}
        return {"index": pack_columns(numbers), "texts": pack_json(texts)}

    def chunks(self) -> Iterator[str]:
        """Yield packed JSON of `CHUNK` decisions each, in order."""
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, self.count, _ROWS_AT_ONCE):
                yield from pool.map(deflated, self._details(start))

    def calls(self) -> pl.DataFrame:
        """Return latency and tokens of every decision's first call; null without a call."""
        names = ("latency_ms", "cached", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
        return self._table.select(pl.col("telemetry").struct.field(name) for name in names).collect()

    def failures(self) -> pl.DataFrame:
        """Return the failed decisions: index, time, provenance, reason, detail, start of the reply."""
        return (
            self._table.filter(pl.col("provenance") != "model")
            .select(
                "index",
                "time",
                "provenance",
                "reason",
                pl.coalesce(
                    pl.col("telemetry").struct.field("error"), pl.col("telemetry").struct.field("detail")
                ).alias("detail"),
                pl.col("reply").str.slice(0, 200),
            )
            .collect()
        )

    def _details(self, start: int) -> Iterator[bytes]:
        rows = self._table.slice(start, _ROWS_AT_ONCE).select(self._columns()).collect()
        rows = rows.cast(json_schema(rows.schema))
        for at in range(0, len(rows), CHUNK):
            lines = BytesIO()
            rows[at : at + CHUNK].write_ndjson(lines)
            yield b"[" + lines.getvalue().rstrip(b"\n").replace(b"\n", b",") + b"]"

    def _columns(self) -> list[pl.Expr]:
        schema = self._schema
        columns = [pl.col(name) for name in schema if name not in (*_IN_INDEX_ONLY, "telemetry")]
        call = pl.col("telemetry").struct
        fields = [field.name for field in schema["telemetry"].fields]  # type: ignore[attr-defined]
        # Reply and tokens have what the body of a valid response has; of a failure there is only the body.
        failed = pl.col("provenance") != "model"
        telemetry = [call.field(name) for name in fields if name != "body"]
        telemetry.append(_reasoning(call.field("body"), failed).alias("reasoning"))
        columns.append(pl.struct(*telemetry, pl.when(failed).then(call.field("body")).alias("body")).alias("telemetry"))
        if "window" in schema:
            names = [field.name for field in schema["window"].fields]  # type: ignore[attr-defined]
            window = pl.col("window").struct
            features = [
                window.field(name).list.last().round_sig_figs(8)
                for name in names
                if name not in (*BAR_COLUMNS, "close_time")
            ]
            columns.append(window.field("close_time").list.len().alias("window_rows"))
            if features:
                columns.append(pl.struct(features).alias("features"))
        return columns


def _reasoning(body: pl.Expr, failed: pl.Expr) -> pl.Expr:
    """Extract the text that a model wrote apart from its answer; null where there is none."""
    holds = ~failed & body.str.starts_with("{") & body.str.contains('"reasoning', literal=True)
    found = pl.when(holds).then(body)
    names = ("reasoning_content", "reasoning")
    texts = [found.str.json_path_match(f"$.choices[0].message.{name}") for name in names]
    return pl.coalesce(pl.when(text != "").then(text) for text in texts).str.slice(0, _MAX_REASONING_CHARS)


def _targets(short: Mapping[str, str]) -> pl.Expr:
    """Format target weights: `+BTC 20%, ETH 20% / \u2212DOGE 10%`, the largest first."""
    long, shorted = _side(short, 1.0, "+"), _side(short, -1.0, "\u2212")
    both = pl.concat_str(
        long, pl.when((long != "") & (shorted != "")).then(pl.lit(" / ")).otherwise(pl.lit("")), shorted
    )
    return (
        pl.when(pl.col("targets").is_null())
        .then(pl.lit(""))
        .when(both == "")
        .then(pl.lit("no positions"))
        .otherwise(both)
    )


def _side(short: Mapping[str, str], sign: float, mark: str) -> pl.Expr:
    weight = sign * pl.element().struct.field("share")
    percent = (100.0 * weight).round(1).cast(pl.String).str.strip_suffix(".0")
    named = pl.format("{} {}%", pl.element().struct.field("symbol").replace(short), percent)
    held = weight > 0
    wanted = pl.col("targets").list.eval(
        named.filter(held).sort_by(weight.filter(held), descending=True, maintain_order=True)
    )
    return pl.when(wanted.list.len() > 0).then(pl.lit(mark) + _first(wanted)).otherwise(pl.lit(""))


def _cuts(short: Mapping[str, str] | None) -> pl.Expr:
    """Format what the risk limits changed, with the reason of each cut."""
    cut = pl.element().struct
    symbol = pl.lit("") if short is None else cut.field("symbol").replace(short) + " "
    return _first(
        pl.col("risk_cuts").list.eval(pl.format("{}{}: {}", symbol, cut.field("verdict"), cut.field("reason"))), "; "
    )


def _first(texts: pl.Expr, between: str = ", ") -> pl.Expr:
    """Join the first few of a list of texts, and add how many more there are."""
    more = texts.list.len().cast(pl.Int64) - _LISTED
    rest = pl.when(more > 0).then(pl.format("{}{} more", pl.lit(between), more)).otherwise(pl.lit(""))
    return texts.list.head(_LISTED).list.join(between) + rest


def _where(values: pl.Expr, condition: pl.Expr) -> pl.Expr:
    return values.list.eval(pl.element().filter(condition))


def _codes(values: pl.Series, names: tuple[str, ...]) -> np.ndarray:
    """Return the position of each text in `names`; 0 for any other text."""
    codes = values.replace_strict(names, range(len(names)), default=0, return_dtype=pl.Int64)
    return codes.to_numpy()
