"""`agent-bt doctor`: check that everything is there that a run needs; each finding says what to do."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_bt import __version__
from agent_bt.cli import common
from agent_bt.core.errors import AgentBtError, AuthenticationFailed, ConfigError
from agent_bt.core.finding import Finding

if TYPE_CHECKING:
    from agent_bt.backtest.model import Model
    from agent_bt.config.model import Config
    from agent_bt.core.types import Request
    from agent_bt.llm.provider import Provider
    from agent_bt.llm.repeatability import Repeatability

LIBRARIES = {"numba": "numba", "talib": "ta-lib", "polars": "polars", "pyarrow": "pyarrow", "httpx": "httpx"}
"""Libraries with compiled parts or many versions, by module and package name: these fail most often."""

FREE_BYTES_NEEDED = 200 * 2**20
FREE_BYTES_WANTED = 2 * 2**30


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="A config to check for; without one, the defaults.", show_default=False)
    ] = None,
    overrides: common.SetOption = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Send the model eight small requests; may cost a little.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Check environment, key, endpoint, store and disk; exit code 2 if a run is not possible."""
    common.show_findings(diagnose(config, overrides or [], probe=probe), as_json=as_json)


def diagnose(config_path: Path | None, overrides: list[str], *, probe: bool) -> list[Finding]:
    """Return all findings, from the machine to the endpoint; where the config is wrong, nothing that depends on it.

    Args:
        config_path: the config file; None: the defaults.
        overrides: `key=value` each, as with `--set`.
        probe: send the model eight small requests.
    """
    findings = [*check_environment(), *check_dotenv(Path(".env"))]
    try:
        from agent_bt.config.load import load_config

        config = load_config(config_path, overrides)
    except ConfigError as error:
        return [*findings, _error(f"config: {error}", "correct it; `agent-bt validate` checks it again")]
    findings.append(_ok(f"config: {config_path or 'defaults'}"))
    findings += check_prompt(config, config_path)
    key = list(check_key(config))
    ready = not any(finding.level == "error" for finding in [*findings, *key])
    return [
        *findings,
        *key,
        *check_endpoint(config, probe=probe and ready),
        *check_store(config),
        *check_disk(config),
    ]


def check_environment() -> Iterator[Finding]:
    """Check Python and the libraries that must load."""
    from importlib import import_module
    from importlib.metadata import version

    yield _ok(f"Python {sys.version.split()[0]}, agent-bt {__version__}, {os.cpu_count()} cores")
    for module, package in LIBRARIES.items():
        try:
            import_module(module)
        except ImportError as error:
            yield _error(f"{package} does not load: {error}", f"pip install --force-reinstall {package}")
        else:
            yield _ok(f"{package} {version(package)}")


def check_dotenv(path: Path) -> Iterator[Finding]:
    """Check that other users cannot read the keys."""
    if path.is_file() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) and os.name == "posix":
        yield _warning(f"{path} can be read by other users of this machine", f"chmod 600 {path}")


def check_prompt(config: Config, config_path: Path | None) -> Iterator[Finding]:
    """Check that the prompt of an agent can be read.

    Args:
        config: names the prompt.
        config_path: the config file; prompts beside it are found.
    """
    from agent_bt.strategies.registry import agent_kinds

    if not agent_kinds(config.strategy.kind, config.strategy.params):
        return
    from agent_bt.agents.prompt import load_prompt, prompt_roots

    try:
        prompt = load_prompt(config.strategy.prompt, prompt_roots(config_path))
    except AgentBtError as error:
        yield _error(f"prompt: {error}", "correct the file, or name another in strategy.prompt")
    else:
        yield _ok(f"prompt: {config.strategy.prompt} ({prompt.path})")


def check_key(config: Config) -> Iterator[Finding]:
    """Check that the API key is in the environment; its value is never shown."""
    provider = _provider(config)
    if provider is None:
        yield _ok(f"key: none needed ({config.llm.provider})")
        return
    try:
        yield _ok(f"key: {provider.check_access()}")
    except AuthenticationFailed as error:
        what = str(error).split("; ")[0]
        yield _error(f"key: {what}", f"export {config.llm.api_key_env}=..., or write it into .env")


def check_endpoint(config: Config, *, probe: bool) -> Iterator[Finding]:
    """Name the endpoint, and test it.

    Args:
        config: names the endpoint.
        probe: send small requests, to check that the model answers, which parameters it accepts, and whether it
            answers the same question the same, alone and beside others.
    """
    provider = _provider(config)
    if provider is None:
        yield _ok(f"endpoint: none needed ({config.llm.provider})")
        return
    where = f"{config.llm.model} at {provider.address}"
    try:
        provider.check_ready()
    except ConfigError as error:
        yield _error(f"endpoint: {error}", "")
        return
    if not probe:
        yield _ok(f"endpoint: {where}, not tested (--probe sends small requests)")
        return
    from agent_bt.backtest.model import open_model

    with tempfile.TemporaryDirectory() as folder:
        # A cache of its own: what was found out before, and replies of earlier probes, prove nothing today.
        cache = config.cache.model_copy(update={"path": str(Path(folder) / "cache.sqlite")})
        asked = config.model_copy(update={"cache": cache})
        try:
            model = open_model(asked)
        except ConfigError as error:
            yield _error(f"endpoint: {where}, not tested: {error}", "")
        except AgentBtError as error:
            yield _error(f"endpoint: {where}: {error}", "check llm.base_url, llm.model and the key")
        else:
            with closing(model):
                yield _ok(f"endpoint: {where} answers; it accepts {dict(model.negotiated or {})}")
                if model.probe_defect:
                    yield _warning(
                        f"validity: the answer to a test question is not valid ({model.probe_defect}); in a run it "
                        "would be a HOLD",
                        "try another llm.response_format, llm.strip, or another model",
                    )
                yield from check_repeatability(asked, model, prefetched=not provider.one_at_a_time)


def check_repeatability(config: Config, model: Model, *, prefetched: bool) -> Iterator[Finding]:
    """Send the same question several times, alone and together, and compare the answers and the time they take.

    Args:
        config: of a run that asks the model.
        model: opened with it.
        prefetched: whether a run would send requests ahead, so that it matters how long calls together take.
    """
    from agent_bt.agents.rank_reply import RANK_SCHEMA
    from agent_bt.backtest.model import reply_schema
    from agent_bt.llm import repeatability

    ranks = reply_schema(config.strategy) is RANK_SCHEMA
    question = repeatability.RANK_QUESTION if ranks else repeatability.QUESTION

    def request(number: int) -> Request:
        return replace(model.form.request(question), replicate=number)

    try:
        together = min(repeatability.TOGETHER, config.llm.max_in_flight)
        found = repeatability.measure_repeatability(model.llm, request, together=together)
    except AgentBtError as error:
        yield _error(f"replies: {error}", "")
        return
    if found is None:
        yield _warning("replies: the same question several times had no answer", "try again later")
        return
    yield _about_answers(config, found)
    if not prefetched:
        return
    if found.queues:
        yield _warning(
            f"time: {len(found.together)} calls together take {found.together_ms / found.alone_ms:,.1f} times as long "
            "as one alone: the server answers one after another",
            "set prefetch.depth: 0; sending requests ahead saves no time here, and wrong guesses cost some",
        )
    elif found.together:
        yield _ok(f"time: {len(found.together)} calls together take {found.together_ms / found.alone_ms:,.1f} times as "
                  "long as one alone")  # fmt: skip


def _about_answers(config: Config, found: Repeatability) -> Finding:
    times = f"{len(found.alone)} times alone and {len(found.together)} times together"
    if found.same_alone and found.same_together:
        return _ok(f"replies: the same question, {times}, has the same answer")
    if not found.same_alone:
        drawn = config.llm.temperature is None or config.llm.temperature > 0
        advice = (
            "set llm.temperature: 0 and a seed where the model takes them" if drawn else "compare replicates, not runs"
        )
        what = f"replies: the same question, {times}, has different answers, even alone"
        return _warning(f"{what}; a replay is exact all the same", advice)
    return _warning(
        f"replies: the same question, {times}, has other answers together than alone: the server batches calls or "
        "caches prompts, so that a run with prefetch may decide otherwise than one without; a replay is exact all the "
        "same",
        "set prefetch.depth: 0 and llm.max_in_flight: 1, or one slot and no prompt cache at the server "
        "(llama-server -np 1 --no-cache-prompt)",
    )


def _provider(config: Config) -> Provider | None:
    """The provider that the run sends requests to; None where it sends none."""
    from agent_bt.llm.provider import get_provider
    from agent_bt.strategies.registry import asks_model

    if not asks_model(config.strategy.kind, config.strategy.params):
        return None
    provider = get_provider(config.llm)
    return None if provider.embedded else provider


def check_store(config: Config) -> Iterator[Finding]:
    """Check that the bars of the run are there."""
    market = config.market
    if market.source == "sample":
        yield _ok("market data: the sample market, generated")
        return
    from agent_bt.backtest.bars import open_source
    from agent_bt.core.clock import duration_us, time_us

    start, end = time_us(market.start) - duration_us(market.warmup), time_us(market.end)
    try:
        bars = open_source(config).fetch_ohlcv(market.interval, start, end)
    except AgentBtError as error:
        yield _error(f"market data: {error}", "" if market.source == "store" else "check market.source")
    else:
        yield _ok(f"market data: {bars.height:,} bars of {market.interval}, {market.start} to {market.end}")


def check_disk(config: Config) -> Iterator[Finding]:
    """Check that runs and replies can be written, and the free space."""
    for name, folder in (("output", Path(config.output)), ("cache", Path(config.cache.path).parent)):
        there = _nearest_folder(folder)
        if not os.access(there, os.W_OK | os.X_OK):
            yield _error(f"{name}: {there} cannot be written", f"make it writable, or set {name} elsewhere")
            continue
        free = shutil.disk_usage(there).free
        room = f"{name}: {folder}, {free / 2**30:,.1f} GiB free"
        if free < FREE_BYTES_NEEDED:
            yield _error(room, "free some space, or write to another disk")
        elif free < FREE_BYTES_WANTED:
            yield _warning(room, "long runs with many replies may fill it")
        else:
            yield _ok(room)


def _nearest_folder(folder: Path) -> Path:
    """Return the folder itself, or the one it would be created in."""
    folder = folder.absolute()
    return next((there for there in (folder, *folder.parents) if there.is_dir()), Path("/"))


def _ok(what: str) -> Finding:
    return Finding(level="ok", what=what)


def _warning(what: str, advice: str) -> Finding:
    return Finding(level="warning", what=what, advice=advice)


def _error(what: str, advice: str) -> Finding:
    return Finding(level="error", what=what, advice=advice)
