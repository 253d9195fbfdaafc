"""Run the cells of an experiment on a few threads: one progress display, and one end for all of them.

The first cell that cannot go on, or an interrupt, stops every other at its next decision. All of them are resumable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass

from agent_bt.core.errors import AgentBtError, Interrupted
from agent_bt.core.progress import Progress
from agent_bt.llm.ledger import Ledger, Spend

INTERRUPTED = "interrupted; the same command continues the experiment"

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One cell: its key, the decisions expected of it, and what runs it and returns the error that ended it early."""

    key: str
    expected: int
    run: Callable[[Progress], AgentBtError | None]


def run_tasks(
    tasks: Sequence[Task],
    *,
    threads: int,
    progress: Progress,
    label: str,
    done: int,
    stop: Callable[[], None],
    ledger: Ledger | None = None,
) -> None:
    """Run all tasks.

    Args:
        tasks: what is left to do.
        threads: how many at once.
        progress: shows all decisions together.
        label: shown beside them.
        done: decisions that were made before.
        stop: called when the rest shall end early, so that whoever waits for a reply stops waiting.
        ledger: what all cells together have spent; None: each has its own, or nothing is paid.

    Raises:
        AgentBtError: the first error; every other task was stopped for it.
        Interrupted: the user stopped it.
    """
    display = _Display(progress, {task.key: task.expected for task in tasks}, done, label, ledger)
    errors: list[AgentBtError] = []
    failing = threading.Lock()

    def end_all() -> None:
        display.stopping.set()
        stop()

    def run(task: Task) -> None:
        if display.stopping.is_set():
            return
        error = None
        try:
            error = task.run(_Part(display, task.key))
        except AgentBtError as raised:
            error = raised
        finally:
            display.finish(task.key)
        if error is not None:
            with failing:
                # What the stop itself brings about is no error of its own.
                if display.stopping.is_set():
                    return
                errors.append(error)
                end_all()

    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="experiment") as pool:
        futures = {pool.submit(run, task) for task in tasks}
        try:
            while futures:
                finished, futures = wait(futures, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
        except BaseException as error:
            end_all()
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(INTERRUPTED) from None
            raise
        finally:
            display.close()
    if errors:
        raise errors[0]


@dataclass(slots=True, kw_only=True)
class _State:
    done: int = 0
    invalid: int = 0
    calls: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0


class _Display:
    """Adds up what the cells report; safe for threads."""

    def __init__(
        self, progress: Progress, expected: Mapping[str, int], before: int, label: str, ledger: Ledger | None
    ) -> None:
        self.stopping = threading.Event()
        self._progress = progress
        self._expected = expected
        self._before = before
        self._ledger = ledger
        self._states = {key: _State() for key in expected}
        self._lock = threading.Lock()
        self._progress.start(before + sum(expected.values()), label)

    def update(self, key: str, state: _State) -> None:
        with self._lock:
            self._states[key] = state
            self._show()

    def finish(self, key: str) -> None:
        """Count a cell as complete: its warm-up held no decision."""
        with self._lock:
            if not self.stopping.is_set():
                self._states[key].done = self._expected[key]
                self._show()

    def note(self, text: str) -> None:
        with self._lock:
            self._progress.note(text)

    def close(self) -> None:
        with self._lock:
            self._progress.stop()

    def _show(self) -> None:
        states = self._states.values()
        # Cells that share a ledger report what all of them have spent, not what each has.
        parts = [_paid(self._ledger.spent)] if self._ledger is not None else list(states)
        costs = [part.cost_usd for part in parts]
        self._progress.update(
            self._before + sum(state.done for state in states),
            invalid=sum(state.invalid for state in states),
            calls=sum(part.calls for part in parts),
            tokens=sum(part.tokens for part in parts),
            cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        )


def _paid(spent: Spend) -> _State:
    return _State(calls=spent.calls, tokens=spent.tokens, cost_usd=None if spent.unpriced else spent.usd or 0.0)


class _Part:
    """The progress of one cell; where it reports a decision, it also hears that it shall stop."""

    def __init__(self, display: _Display, key: str) -> None:
        self._display = display
        self._key = key

    def start(self, total: int, label: str) -> None:
        """Do nothing: the display knows already."""

    def update(
        self, done: int, *, invalid: int = 0, calls: int = 0, tokens: int = 0, cost_usd: float | None = None
    ) -> None:
        """Add it up.

        Raises:
            KeyboardInterrupt: the experiment is stopped; a run ends on it as on the user's own.
        """
        self._display.update(
            self._key, _State(done=done, invalid=invalid, calls=calls, tokens=tokens, cost_usd=cost_usd)
        )
        if self._display.stopping.is_set():
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        """Pass it on."""
        self._display.note(text)

    def stop(self) -> None:
        """Do nothing: the display stops when all have ended."""
