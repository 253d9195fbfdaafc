"""Progress lines: their content, their timing, and that they go to stderr."""

from __future__ import annotations

import io

import pytest

from agent_bt.cli.progress import LiveProgress, PlainProgress, make_progress, progress_line
from agent_bt.core.progress import SilentProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_shows_progress_remaining_time_failures_and_cost() -> None:
    line = progress_line("btcusdt", 552, 2208, 60.0, invalid=3, calls=561, tokens=61_200, cost_usd=0.01234)
    assert line == "btcusdt 552/2,208 (25%), 3:00 left, 0.5% invalid, 561 calls, $0.0123, 61,200 tokens"


@pytest.mark.parametrize(
    ("cost_usd", "tokens", "end"), [(None, 9, "unpriced, 9 tokens"), (0.0, 9, "9 tokens"), (None, 0, "(100%)")]
)
def test_an_unknown_price_is_unpriced_and_never_zero(cost_usd: float | None, tokens: int, end: str) -> None:
    assert progress_line("a", 4, 4, 1.0, invalid=0, tokens=tokens, cost_usd=cost_usd).endswith(end)


def test_work_of_unknown_length_has_no_percentage_and_no_remaining_time() -> None:
    assert progress_line("a", 7, 0, 1.0, invalid=0, tokens=0, cost_usd=None) == "a 7"
    assert progress_line("a", 4, 0, 1.0, invalid=1, tokens=0, cost_usd=None) == "a 4, 25.0% invalid"
    assert progress_line("a", 0, 0, 0.0, invalid=0, tokens=0, cost_usd=None) == "a 0"


def test_plain_lines_are_written_every_few_seconds_and_at_the_end() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, every_s=5.0, clock=lambda: now[0])
    progress.start(100, "run")
    for done in range(1, 101):
        now[0] = done * 0.12
        progress.update(done, invalid=0, tokens=0, cost_usd=None)
    progress.note("something")
    progress.stop()
    progress.update(100)
    assert stream.getvalue().splitlines() == [
        "run: 100 decisions",
        "run 42/100 (42%), 0:07 left",
        "run 84/100 (84%), 0:02 left",
        "run 100/100 (100%)",
        "something",
    ]


def test_a_terminal_has_one_live_line_and_keeps_the_last() -> None:
    stream = Terminal()
    progress = make_progress("auto", stream)
    assert isinstance(progress, LiveProgress)
    progress.start(2, "run")
    progress.note("a note")
    progress.update(2, tokens=5, cost_usd=0.5)
    progress.stop()
    progress.stop()
    assert stream.getvalue().endswith("run 2/2 (100%), 0.0% invalid, $0.5000, 5 tokens\n")
    assert "a note" in stream.getvalue()


def test_the_mode_selects_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(make_progress("none"), SilentProgress)
    assert type(make_progress("auto", io.StringIO())) is PlainProgress
    assert type(make_progress("plain", Terminal())) is PlainProgress
    make_progress("auto").start(1, "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "run: 1 decisions\n"
