"""The ledger of a run: what its calls have cost, and, separately, what cached replies have saved.

With a path every reservation and every settlement is a line of a file, written before the call is sent and after its
reply has come. A run that was killed reads it again and continues with what it had spent; a call that was in flight
then counts with its worst case, because it is not known whether it was billed.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from agent_bt.core.errors import RecordError
from agent_bt.core.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Calls with their tokens and cost.

    Attributes:
        calls: their number.
        prompt_tokens, completion_tokens: sums.
        usd: US dollars of the priced calls. None where no call is priced, and never 0 for an unknown price.
        unpriced: the number of calls whose price is unknown.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            usd=other.usd if self.usd is None else self.usd + (other.usd or 0.0),
            unpriced=self.unpriced + other.unpriced,
        )


def compute_spend(reply: Reply) -> Spend:
    """Return what an answered call has cost, by its usage and price; tokens of a reply without usage count 0."""
    usage = reply.usage
    return Spend(
        calls=1,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
        usd=reply.cost_usd,
        unpriced=reply.cost_usd is None,
    )


NOTHING = Spend()


def read_spent(path: Path) -> Spend:
    """Return the sum of the ledger at `path`: settled calls, and the worst case of those that were never settled.

    Raises:
        RecordError: the file holds something else.
    """
    settled, reserved, _ = _sum(path, path.read_text(encoding="utf-8").split("\n")[:-1])
    return sum(reserved.values(), settled)


class Ledger:
    """Spent, reserved and saved amounts of a run; safe for threads.

    Args:
        path: file that outlives the process; None: the ledger is kept in memory.

    Raises:
        RecordError: the file holds something else, or cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: dict[int, Spend] = {}
        self._next = 0
        self._spent = NOTHING
        self._saved = NOTHING
        self._file = None
        if path is not None:
            try:
                if path.exists():
                    self._read(path)
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise RecordError(f"the ledger {path} cannot be used: {error}") from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def spent(self) -> Spend:
        """What settled calls have cost."""
        with self._lock:
            return self._spent

    @property
    def reserved(self) -> Spend:
        """Worst case of the calls in flight."""
        with self._lock:
            return sum(self._open.values(), NOTHING)

    @property
    def saved(self) -> Spend:
        """What cached replies would have cost."""
        with self._lock:
            return self._saved

    def reserve(self, worst: Spend) -> int:
        """Reserve the worst case of a call before it is sent; return the number to settle it by."""
        with self._lock:
            number = self._next
            self._next += 1
            self._append("reserve", number, worst)
            self._open[number] = worst
        return number

    def settle(self, number: int, actual: Spend) -> None:
        """Replace a reservation with the actual cost of the call.

        Args:
            number: from `reserve`.
            actual: what the call has cost.
        """
        with self._lock:
            del self._open[number]
            self._spent += actual
            self._append("settle", number, actual)

    def save(self, reply: Reply) -> None:
        """Count a reply that came from the cache instead of a call."""
        with self._lock:
            self._saved += compute_spend(reply)

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _append(self, kind: str, number: int, spend: Spend) -> None:
        if self._file is None:
            return
        amounts = [spend.calls, spend.prompt_tokens, spend.completion_tokens, spend.usd, spend.unpriced]
        try:
            self._file.write(json.dumps([kind, number, *amounts]) + "\n")
            self._file.flush()
        except OSError as error:
            raise RecordError(f"the ledger {self._path} cannot be written: {error}") from error

    def _read(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")
        settled, left, self._next = _sum(path, lines[:-1])
        if lines[-1]:
            # The last line was cut off by a kill: its reservation stays, or its call was never sent.
            path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
        self._spent = sum(left.values(), settled)


def _sum(path: Path, lines: list[str]) -> tuple[Spend, dict[int, Spend], int]:
    """Return what was settled, what is still reserved by number, and the next number."""
    settled, reserved, following = NOTHING, {}, 0
    for at, line in enumerate(lines, start=1):
        kind, number, spend = _parse(line, f"{path}, line {at}")
        if kind == "reserve":
            reserved[number] = spend
        else:
            reserved.pop(number, None)
            settled += spend
        following = max(following, number + 1)
    return settled, reserved, following


def _parse(line: str, place: str) -> tuple[str, int, Spend]:
    try:
        fields: list[Any] = json.loads(line)
        kind, number, calls, prompt, completion, usd, unpriced = fields
        spend = Spend(calls=calls, prompt_tokens=prompt, completion_tokens=completion, usd=usd, unpriced=unpriced)
    except ValueError as error:
        raise RecordError(
            f"{place}: not a line of a ledger; move the file away to start counting again from zero"
        ) from error
    if kind not in ("reserve", "settle"):
        raise RecordError(f"{place}: not a line of a ledger; move the file away to start counting again from zero")
    return kind, number, spend
