"""Every command and Python block of the documents works: run where that needs no network, else parsed."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import typer.main
from chat_server import ChatServer, stand_in_answer
from small_run import cli

from agent_bt.cli import main as command
from agent_bt.config.load import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

SHORT = "--set market.end=2024-07-05 --limit 8 -q"
RUN = {
    "agent-bt init my-agent": "--yes",
    "agent-bt doctor configs/providers/openai.yaml": "",
    "agent-bt run configs/providers/openai.yaml --dry-run": "--set market.end=2024-07-05 --limit 8",
    "agent-bt prompts render --at 2024-08-05T12:00 --config configs/backtest.yaml": "--set market.start=2024-08-05",
    "agent-bt prompts lock my_trader/v1": "",
    "agent-bt run configs/backtest.yaml --set strategy.kind=dip:Dip --set strategy.every=15m": SHORT,
    "agent-bt run configs/backtest.yaml --set strategy.every=4h": SHORT,
    "agent-bt run configs/backtest.yaml": SHORT,
    "agent-bt run my.yaml --offline": SHORT,
    "agent-bt run configs/agent_ranker.yaml": "--set market.end=2024-07-10 -q",
    "agent-bt prompts render --config configs/agent_ranker.yaml": "",
    "agent-bt backtest ma_cross --fast 24 --slow 96": "--end 2024-07-10 -q",
    "agent-bt backtest momentum --lookback-col return_168 --top-n-long 3 --rebalance W-MON --warmup 10d": (
        "--end 2024-07-10 -q"
    ),
    "agent-bt backtest momentum --source panel.parquet --start 2024-02-01 --end 2024-09-01 --top-n-long 3": (
        "--start 2024-07-01 --end 2024-07-10 --warmup 2d -q"
    ),
    "agent-bt backtest calm:Calm --limit 0.02": "--end 2024-07-10 -q",
    "agent-bt backtest dipping:Dipping": "--end 2024-07-10 -q",
    "agent-bt sweep configs/sweep.yaml": "--set market.end=2024-08-25 -q",
    "agent-bt sweep configs/sweep.yaml --set metric=sortino": "--set market.end=2024-08-25 --top 3",
    "agent-bt audit configs/rules/ma_cross.yaml": "--set market.end=2024-07-10 --cuts 2",
    "agent-bt replay latest": "-q",
    "agent-bt audit configs/backtest.yaml": "--set market.end=2024-07-03 --cuts 2",
    "agent-bt leakcheck configs/backtest.yaml": "--set market.end=2024-07-03 --samples 3 --replicates 1 -q",
    "agent-bt schema -o schema.json": "",
    "agent-bt schema --sweep -o sweep-schema.json": "",
}
"""What is run, in this order, and the options that keep it short."""

NEEDS_MARKET = {
    "agent-bt data backfill --symbol BTCUSDT --start 2024-07-01 --end 2024-10-01": "--no-rest --progress none",
    "agent-bt run configs/real_months.yaml": "--limit 8 -q",
}
"""What is run on real months, and the options for that."""

REPLAY_PAGE = [
    ("agent-bt run my.yaml --dry-run", "", 0),
    ("agent-bt run my.yaml --set budget.calls=120", "--set budget.calls=20", 4),
    ("agent-bt runs list", "", 0),
    ("agent-bt resume latest --set strategy.every=4h", "", 2),
    ("agent-bt run my.yaml", "-q", 0),
    ("agent-bt replay latest", "-q", 0),
    ("agent-bt run my.yaml --offline", "-q", 0),
    ("agent-bt run my.yaml --offline --set strategy.prompt=mine/v2 -q", "", 5),
    ("agent-bt run my.yaml --set strategy.prompt=mine/v2 --set prefetch.depth=0", "-q", 0),
    ("agent-bt cache stats", "", 0),
    ("agent-bt cache export evidence.jsonl.xz --run runs/20261127T144522Z-mine-585c01", "", 0),
    ("agent-bt cache import evidence.jsonl.xz", "--path elsewhere.sqlite", 0),
    ("agent-bt run my.yaml --offline", "--set cache.path=elsewhere.sqlite -q", 0),
]
"""docs/replay.md from top to bottom, what keeps it short, and the exit code it tells of."""

PARSED = {
    "agent-bt run configs/providers/openai.yaml --set budget.usd=2": "asks a model",
    "agent-bt run configs/providers/ollama.yaml": "asks a model",
    "agent-bt doctor configs/providers/ollama.yaml --probe": "asks a model: tests/cli/test_doctor.py",
    "agent-bt run configs/providers/llama_server.yaml": "asks a model",
    "agent-bt run configs/providers/local_gguf.yaml --limit 50": "tests/test_local_model.py runs it",
    "agent-bt resume latest": "needs an interrupted run: tests/resume",
    "agent-bt cache export evidence.jsonl.xz --run runs/<run>": "run with the page on replay",
    "agent-bt ab run configs/ab.yaml": "six runs of three months: tests/experiments",
    "agent-bt ab run configs/ab_rule.yaml": "tests/experiments/ab/test_ab_kinds.py runs it",
    "agent-bt ab run configs/ab_rule.yaml --set market.source=store": "the same on stored data",
    "agent-bt ab run configs/ab_rankers.yaml": "tests/experiments/ab/test_ab_kinds.py runs it",
    "agent-bt data backfill --symbol BTCUSDT --months 3": "needs the network: tests/data",
    "agent-bt data backfill --kind um": "needs the network: tests/data",
    "agent-bt aggregate BTCUSDT trades.parquet --bar-type dollar_bar --threshold 1e6": "tests/bars runs it",
    "agent-bt ab report": "needs an experiment: tests/experiments",
    "agent-bt ab list": "needs an experiment: tests/experiments",
    "agent-bt compare RUN_A RUN_B": "needs two long runs: tests/experiments",
}
"""What is only parsed, and why."""

for kind in ("rules", "rankers"):
    for config in sorted((ROOT / "configs" / kind).glob("*.yaml")):
        PARSED[f"agent-bt run configs/{kind}/{config.name}"] = "tests/backtest/test_in_memory.py runs it"

KNOWN = {*RUN, *NEEDS_MARKET, *PARSED, *(line for line, _, _ in REPLAY_PAGE)}


def written_commands() -> set[str]:
    """Every command that stands alone on a line of a page, or behind `#` in a config."""
    lines = [line for page in PAGES for line in lines_of(page)]
    lines += [line for config in CONFIGS for line in re.findall(r"(?m)^#.*?(agent-bt \w.*)", config.read_text())]
    lines += [span for span in inline_commands() if re.search(r" -|/", span)]
    return {without_comment(line) for line in lines}


def lines_of(page: Path) -> list[str]:
    """The lines of a page that are a command, indented or between fences, in their order."""
    text = re.sub(r"(?ms)^```\w*\n(.*?)^```", lambda found: re.sub(r"(?m)^", "    ", found[1]), page.read_text())
    return re.findall(r"(?m)^    (?:\$ )?(agent-bt .*)", text)


def without_comment(line: str) -> str:
    return re.split(r"\s+#|\s{2,}", line)[0].rstrip()


def inline_commands() -> Iterator[str]:
    """Every command in backticks; `runs list | show` is two of them."""
    for page in PAGES:
        for span in re.findall(r"(?<!`)`(agent-bt\s[^`]+)`", page.read_text()):
            first, *others = " ".join(span.split()).split(" | ")
            yield first
            yield from (f"{first.rpartition(' ')[0]} {other}" for other in others)


def python_blocks(page: Path) -> list[str]:
    """Fenced Python, and indented Python that begins with an import."""
    text = page.read_text()
    indented = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", text)]
    fenced = re.findall(r"(?ms)^```python\n(.*?)^```", text)
    return fenced + [block for block in indented if re.match(r"import |from \w+ import ", block)]


def parse(words: list[str]) -> None:
    """Let the command line parse a command without running it; a wrong command or option raises."""
    group = typer.main.get_command(command.app)
    context = group.make_context("agent-bt", list(words))
    while hasattr(group, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, rest, parent=context)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as a reader has it: the shipped configs and prompts, `dip.py` from the README, a key."""
    for name in ("configs", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "configs" / "backtest.yaml", tmp_path / "my.yaml")
    shutil.copytree(ROOT / "prompts" / "btcusdt_trader", tmp_path / "prompts" / "my_trader")
    for prompt in (tmp_path / "prompts" / "my_trader").iterdir():
        prompt.write_text(prompt.read_text().replace("name: btcusdt_trader", "name: my_trader"))
    (strategy,) = (block for block in python_blocks(ROOT / "README.md") if "class Dip" in block)
    (tmp_path / "dip.py").write_text(strategy)
    for block in python_blocks(ROOT / "docs" / "strategies.md"):
        if named := re.match(r"# (\w+)\.py\n", block):
            (tmp_path / f"{named[1]}.py").write_text(block)
            monkeypatch.delitem(sys.modules, named[1], raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "no-real-key")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dip", raising=False)
    write_prices(tmp_path / "csv")
    runpy.run_path(str(tmp_path / "panel.py"))
    return tmp_path


def write_prices(folder: Path) -> None:
    """One CSV file of hourly bars for each of four symbols, as a reader of the page on strategies has them."""
    folder.mkdir()
    first, last = datetime(2024, 6, 25, tzinfo=UTC), datetime(2024, 7, 11, tzinfo=UTC)
    hours = pl.datetime_range(first, last, "1h", eager=True)
    for at, name in enumerate(("AUSDT", "BUSDT", "CUSDT", "DUSDT")):
        price = (pl.int_range(len(hours)) * (at + 1) / 50).sin() + 10
        prices = dict.fromkeys(("open", "high", "low", "close"), price)
        pl.DataFrame({"open_time": hours}).with_columns(**prices, volume=pl.lit(1e4)).write_csv(folder / f"{name}.csv")


def test_every_written_command_is_run_or_parsed_here() -> None:
    assert written_commands() == KNOWN


@pytest.mark.parametrize("line", sorted(KNOWN))
def test_every_written_command_is_understood(line: str) -> None:
    parse(shlex.split(line)[1:])


def test_a_wrong_option_or_command_in_a_page_would_be_noticed() -> None:
    for line in ("run c.yaml --limits 3", "data backfil", "runs verify --nothing", "prompts lock --chek"):
        with pytest.raises(Exception, match=r"(?i)no such (option|command)"):
            parse(line.split())


@pytest.mark.parametrize("line", sorted(set(inline_commands())))
def test_every_command_named_in_a_sentence_is_there(line: str) -> None:
    try:
        parse(shlex.split(line)[1:])
    except Exception as error:
        # A sentence may name a command without its arguments.
        assert type(error).__name__ == "MissingParameter", error


@pytest.mark.parametrize("line", sorted(PARSED))
def test_the_settings_of_a_command_that_is_not_run_are_valid(line: str, folder: Path) -> None:
    words = shlex.split(line)
    configs = [word for word in words if word.endswith(".yaml") and not Path(word).name.startswith(("ab", "sweep"))]
    overrides = [after for word, after in pairwise(words) if word == "--set"]
    for config in configs:
        load_config(config, overrides)


def test_the_commands_of_the_documents_run(folder: Path) -> None:
    for line, options in RUN.items():
        done = cli(*shlex.split(f"{line} {options}")[1:])
        assert done.code == 0, f"{line}\n{done.err}"
    assert (folder / "my-agent" / "backtest.yaml").is_file()
    assert (folder / "prompts" / "lock.json").is_file()
    assert len([*folder.glob("runs/*/report.html")]) >= 4


def test_the_page_on_replay_can_be_followed_to_its_end(folder: Path) -> None:
    page = ROOT / "docs" / "replay.md"
    assert [line for line, _, _ in REPLAY_PAGE] == [without_comment(line) for line in lines_of(page)]
    (shown,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", page.read_text())
    shipped = (ROOT / "prompts" / "btcusdt_trader" / "v1.prompty").read_text()
    (folder / "prompts" / "mine").mkdir()
    mine = shipped.replace("name: btcusdt_trader", "name: mine")
    (folder / "prompts" / "mine" / "v1.prompty").write_text(mine)
    (folder / "prompts" / "mine" / "v2.prompty").write_text(mine.replace("% of equity", "% of the equity"))
    with ChatServer(stand_in_answer(eagerness=0.5)) as server:
        config = shown.replace("http://127.0.0.1:8377/v1", server.url).replace("end: 2024-07-15", "end: 2024-07-03")
        (folder / "my.yaml").write_text(config)
        for line, options, code in REPLAY_PAGE:
            made = sorted(folder.glob("runs/2*"))
            words = shlex.split(re.sub(r"runs/\w+Z-\S+", f"runs/{made[0].name if made else ''}", f"{line} {options}"))
            done = cli(*words[1:])
            assert done.code == code, f"{line}\n{done.err}"


@pytest.mark.market
def test_the_commands_for_real_months_run(folder: Path, market_data: Path) -> None:
    mirror = f"--archive-url {(market_data / 'archive' / 'data').as_uri()}"
    for line, options in NEEDS_MARKET.items():
        done = cli(*shlex.split(f"{line} {options} {mirror if 'backfill' in line else ''}")[1:])
        assert done.code == 0, f"{line}\n{done.err}"
    assert len([*folder.glob("data/spot/BTCUSDT/klines_1m/*.parquet")]) == 3


def test_the_python_of_the_documents_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 decisions are in the notebook of the README; a shorter market makes them fewer.
    monkeypatch.setenv("AGENT_BT_MARKET__END", "2024-07-03")
    blocks = [block for page in PAGES for block in python_blocks(page)]
    assert any("load_config" in block for block in blocks)
    for block in blocks:
        made = sorted(folder.glob("runs/2*"))
        exec(
            compile(block.replace("<run>", made[-1].name if made else "<run>"), "a page", "exec"), {"__name__": "page"}
        )
    assert [*folder.glob("runs/*/decisions.parquet")]


def test_the_settings_shown_in_the_documents_are_valid(tmp_path: Path) -> None:
    shown = [
        line
        for page in PAGES
        for line in re.findall(r"(?m)^(?:    )?((?:llm|market|prefetch): \{.*\})", page.read_text())
    ]
    assert len(shown) >= 3
    for number, line in enumerate(shown):
        (tmp_path / f"{number}.yaml").write_text(line)
        load_config(tmp_path / f"{number}.yaml", env={})


def test_every_file_that_a_document_names_is_there() -> None:
    for page in [*PAGES, *CONFIGS]:
        text = page.read_text()
        links = [page.parent / link for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text)]
        named = [
            ROOT / name for name in re.findall(r"\b((?:docs|configs|benchmarks)/[\w/.-]+\.(?:md|yaml|json))\b", text)
        ]
        missing = [path for path in links + named if not path.exists()]
        assert not missing, f"{page.name} names {missing[0].relative_to(ROOT)}"
