"""Progress on stderr: a live line on a terminal, a plain line every few seconds elsewhere, or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TextIO

from agent_bt.core.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.live import Live

Mode = Literal["auto", "plain", "none"]

_PLAIN_EVERY_S = 5.0
_LIVE_EVERY_S = 0.1


def make_progress(mode: Mode, stream: TextIO | None = None) -> Progress:
    """Make the progress display of a mode.

    Args:
        mode: `auto` is live on a terminal, plain elsewhere; `plain`; `none`.
        stream: where to write; default stderr.
    """
    stream = stream if stream is not None else sys.stderr
    if mode == "none":
        return SilentProgress()
    if mode == "auto" and stream.isatty():
        return LiveProgress(stream)
    return PlainProgress(stream)


class PlainProgress:
    """A progress display of plain lines: at the start, every few seconds, and at the end."""

    def __init__(
        self, stream: TextIO, *, every_s: float = _PLAIN_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to a stream.

        Args:
            stream: where to write.
            every_s: minimum seconds between lines.
            clock: returns monotonic seconds.
        """
        self._stream = stream
        self._every_s = every_s
        self._clock = clock
        self._running = False
        self._total = 0
        self._label = ""
        self._began = self._shown_at = 0.0
        self._line = self._last_shown = ""

    def start(self, total: int, label: str) -> None:
        """Start work.

        Args:
            total: decisions; 0 if unknown.
            label: name of the work.
        """
        self._total, self._label = total, label
        self._began = self._shown_at = self._clock()
        self._running = True
        self._line = self._last_shown = ""
        self._write(f"{label}: {total:,} decisions" if total else label)

    def update(
        self, done: int, *, invalid: int = 0, calls: int = 0, tokens: int = 0, cost_usd: float | None = None
    ) -> None:
        """Show the state, if the last line is old enough.

        Args:
            done: decisions so far.
            invalid: how many of them failed.
            calls: requests sent so far, each attempt counted.
            tokens: used so far.
            cost_usd: spent so far, US dollars; None: unpriced.
        """
        now = self._clock()
        if self._running and (now - self._shown_at >= self._every_s or done == self._total):
            self._shown_at = now
            self._line = progress_line(
                self._label,
                done,
                self._total,
                now - self._began,
                invalid=invalid,
                calls=calls,
                tokens=tokens,
                cost_usd=cost_usd,
            )
            self._show()

    def note(self, text: str) -> None:
        """Show a separate line."""
        self._write(text)

    def stop(self) -> None:
        """Stop showing progress."""
        self._running = False

    def _show(self) -> None:
        if self._line != self._last_shown:
            self._last_shown = self._line
            self._write(self._line)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class LiveProgress(PlainProgress):
    """A progress display of one terminal line that is kept up to date."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, every_s=_LIVE_EVERY_S)
        self._live: Live | None = None

    def start(self, total: int, label: str) -> None:
        """Start work.

        Args:
            total: decisions; 0 if unknown.
            label: name of the work.
        """
        from rich.console import Console
        from rich.live import Live

        self.stop()
        self._live = Live(console=Console(file=self._stream), auto_refresh=False, transient=True)
        self._live.start()
        super().start(total, label)

    def stop(self) -> None:
        """Keep the last line, and release the terminal."""
        super().stop()
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._line:
                self._stream.write(self._line + "\n")
                self._stream.flush()

    def note(self, text: str) -> None:
        """Show a line above the live one."""
        if self._live is None:
            super()._write(text)
        else:
            self._live.console.print(text, markup=False, highlight=False)

    def _write(self, line: str) -> None:
        from rich.text import Text

        if self._live is not None:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


def progress_line(
    label: str,
    done: int,
    total: int,
    elapsed_s: float,
    *,
    invalid: int,
    tokens: int,
    cost_usd: float | None,
    calls: int = 0,
) -> str:
    """Format `label 120/2,208 (5%), 1:02 left, 0.8% invalid, 121 calls, $0.0123, 61,200 tokens`.

    Unknown parts are left out; what a narrow terminal cuts off is the least important.

    Args:
        label: name of the work.
        done: decisions so far.
        total: decisions in all; 0 if unknown.
        elapsed_s: seconds since the start.
        invalid: failed decisions.
        tokens: used so far.
        cost_usd: US dollars; None: unpriced.
        calls: requests sent so far, each attempt counted.
    """
    parts = [f"{label} {done:,}/{total:,} ({done / total:.0%})" if total else f"{label} {done:,}"]
    if 0 < done < total:
        parts.append(f"{_clock_text(elapsed_s * (total - done) / done)} left")
    # A rule calls no model: it has no tokens and no invalid replies.
    if done and (tokens or invalid):
        parts.append(f"{invalid / done:.1%} invalid")
    if calls:
        parts.append(f"{calls:,} calls")
    if cost_usd is not None and cost_usd > 0:
        parts.append(f"${cost_usd:,.4f}")
    elif cost_usd is None and tokens:
        parts.append("unpriced")
    if tokens:
        parts.append(f"{tokens:,} tokens")
    return ", ".join(parts)


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
