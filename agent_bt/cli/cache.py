"""`agent-bt cache`: show, export, import and prune the store of replies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_bt.cli import common

if TYPE_CHECKING:
    from agent_bt.llm.cache_store import ReplyStore

app = typer.Typer(
    name="cache",
    help="Show, export, import and prune the store of replies.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take cache.path from a config file.", show_default=False)
]
PathOption = Annotated[Path | None, typer.Option("--path", help="The store (default: cache.path).", show_default=False)]
RunOption = Annotated[
    list[Path] | None,
    typer.Option("--run", metavar="FOLDER", help="Only the replies of this run; repeatable.", show_default=False),
]


@app.command()
def stats(path: PathOption = None, config: ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Show what is stored, by model."""
    from agent_bt.core.clock import iso

    with _open(path, config, read_only=True) as store:
        rows = store.stats()
        size = store.path.stat().st_size
    if as_json:
        common.print_json({"path": str(store.path), "bytes": size, "models": rows})
        return
    from rich.table import Table

    table = Table("endpoint", "model", box=None)
    for name in ("replies", "tokens in", "tokens out", "cost"):
        table.add_column(name, justify="right")
    table.add_column("obtained")
    for row in rows:
        cost = "unpriced" if row.unpriced == row.replies else f"{row.cost_usd:.4f} USD"
        if 0 < row.unpriced < row.replies:
            cost += f" + {row.unpriced} unpriced"
        table.add_row(
            row.endpoint_id,
            row.model,
            f"{row.replies:,}",
            f"{row.prompt_tokens:,}",
            f"{row.completion_tokens:,}",
            cost,
            f"{iso(row.oldest)[:10]} to {iso(row.newest)[:10]}",
        )
    common.show(table)
    common.print_message(f"{store.path}: {sum(row.replies for row in rows):,} replies, {size / 1e6:.1f} MB")


@app.command("export")
def export_command(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Such as replies.jsonl.xz.", show_default=False)],
    run: RunOption = None,
    path: PathOption = None,
    config: ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Write replies to one compact file, to be committed beside a config as evidence."""
    from agent_bt.llm.cache_archive import addresses_of_run, export_replies

    wanted = {address for folder in run for address in addresses_of_run(folder)} if run else None
    with _open(path, config, read_only=True) as store:
        result = export_replies(store, target, wanted)
    if as_json:
        common.print_json(
            {"file": str(target), "replies": result.replies, "bytes": result.size_bytes, "missing": result.missing}
        )
        return
    common.print_message(f"{target}: {result.replies:,} replies, {result.size_bytes / 1e6:.2f} MB")
    if result.missing:
        common.print_message(
            f"{len(result.missing)} requests have no stored reply (failed calls, or replies that were pruned); the run"
            " folder itself still replays them"
        )


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An export.", show_default=False)],
    path: PathOption = None,
    config: ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Add the replies of an export; every one is verified, and replies that are known already are kept."""
    from agent_bt.llm.cache_archive import import_replies

    with _open(path, config) as store:
        added = import_replies(store, source)
    if as_json:
        common.print_json(
            {"path": str(store.path), "new": added.new, "known": added.known, "differing": added.differing}
        )
        return
    common.print_message(f"{store.path}: {added.new:,} new replies, {added.known:,} known already")
    if added.differing:
        common.print_message(f"{added.differing:,} of these differ from the export; the stored ones were kept")


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Obtained longer ago than this: 90d.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.", show_default=False)] = None,
    unused_by: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Used by no run in this folder, such as runs.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation.")] = False,
    path: PathOption = None,
    config: ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Remove replies permanently: those that meet all given conditions."""
    import time

    from agent_bt.core.clock import duration_us
    from agent_bt.core.errors import UsageError

    if older_than is None and model is None and unused_by is None:
        raise UsageError("give what to remove: --older-than, --model, --unused-by, or several of them")
    try:
        before = None if older_than is None else time.time_ns() // 1000 - duration_us(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from None
    used = set() if unused_by is None else _used_by_runs(unused_by)
    with _open(path, config, read_only=dry_run) as store:
        selected = store.addresses(model=model, obtained_before=before) - used
        kept = len(store) - len(selected)
        if selected and not dry_run and not yes:
            if as_json:
                raise UsageError("with --json, give --yes or --dry-run")
            typer.confirm(f"Remove {len(selected):,} replies permanently and keep {kept:,}?", abort=True, err=True)
        removed = 0 if dry_run or not selected else store.delete(selected)
    if as_json:
        common.print_json({"path": str(store.path), "selected": len(selected), "removed": removed, "kept": kept})
    elif dry_run:
        common.print_message(f"{store.path}: would remove {len(selected):,} replies and keep {kept:,}")
    else:
        common.print_message(f"{store.path}: removed {removed:,} replies, kept {kept:,}")


@app.command("forget-endpoint")
def forget_endpoint(
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="Its name in `agent-bt cache stats`.", show_default=False)
    ],
    model: Annotated[str | None, typer.Option(help="Only for this model.", show_default=False)] = None,
    path: PathOption = None,
    config: ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Forget which parameters an endpoint accepts: the next run finds it out again. Its replies are kept."""
    from agent_bt.core.errors import UsageError

    with _open(path, config) as store:
        known = [key for key, _ in store.notes() if isinstance(key, list) and len(key) > 3]
        chosen = [key for key in known if key[2] == endpoint and model in (None, key[3])]
        if not chosen:
            names = ", ".join(sorted({str(key[2]) for key in known})) or "none"
            raise UsageError(f"{store.path}: nothing is remembered of {endpoint}; remembered are: {names}")
        for key in chosen:
            store.forget(key)
        where = str(store.path)
    if as_json:
        common.print_json({"path": where, "endpoint": endpoint, "forgotten": len(chosen)})
    else:
        common.print_message(f"{where}: forgot what {endpoint} accepts ({len(chosen)} entries); its replies are kept")


def _used_by_runs(root: Path) -> set[str]:
    from agent_bt.core.errors import UsageError
    from agent_bt.llm.cache_archive import addresses_of_run

    files = [*root.rglob("decisions.parquet"), *root.rglob("journal.jsonl")]
    if not files:
        raise UsageError(f"--unused-by: there is no run in {root}")
    return {address for folder in {file.parent for file in files} for address in addresses_of_run(folder)}


def _open(path: Path | None, config: Path | None, *, read_only: bool = False) -> ReplyStore:
    from agent_bt.llm.cache_store import ReplyStore

    if path is None:
        from agent_bt.config.load import load_config

        path = Path(load_config(config).cache.path)
    return ReplyStore(path, read_only=read_only)
