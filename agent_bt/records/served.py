"""What the responses of a run say about who answered: the served model, its fingerprint, and prompts that were cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from agent_bt.core.clock import iso

MAX_CHARS_PER_TOKEN = 8.0
"""Characters of a prompt for each token that the endpoint counts, above which it cannot have read all of it.

Tokenizers make one token of about 2 (tables of numbers) to 5 (English text) characters.
"""

MAX_SERVED = 50
"""Maximum number of changes that are kept; as many changes of the model again, so that fingerprints displace none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Who answered, from a decision on.

    Attributes:
        model: the name in the responses.
        system_fingerprint: of the backend; None where there is none.
        since: time of the decision, UTC us.
    """

    model: str
    system_fingerprint: str | None
    since: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"model": self.model, "system_fingerprint": self.system_fingerprint, "since": iso(self.since)}


@dataclass(slots=True)
class ServedModels:
    """Running notes on the responses of a run, in constant memory.

    Attributes:
        served: who answered, in the order of the decisions; one entry for each change that is kept.
        changes: number of changes, of the model or of its fingerprint.
        cut: number of prompts that the endpoint did not read as a whole.
        first_cut: the first of them in words; empty without any.
    """

    served: list[Served] = field(default_factory=list)
    changes: int = 0
    cut: int = 0
    first_cut: str = ""
    _last: Served | None = None

    def add(self, time: int, messages: Sequence[Mapping[str, Any]], call: Mapping[str, Any]) -> None:
        """Note what one response says.

        Args:
            time: of the decision, UTC us.
            messages: of the request.
            call: telemetry of the call, as built by `decision_record.build_telemetry`.
        """
        tokens = call["prompt_tokens"]
        length = sum(len(message["content"] or "") for message in messages)
        if tokens and length > MAX_CHARS_PER_TOKEN * tokens:
            self.cut += 1
            if not self.first_cut:
                self.first_cut = f"{tokens:,} prompt tokens for {length:,} characters at {iso(time)}"
        try:
            body = orjson.loads(call["body"] or "null")
        except orjson.JSONDecodeError:
            return
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(model, str) or not model:
            return
        fingerprint = body.get("system_fingerprint")
        now = Served(model=model, system_fingerprint=fingerprint if isinstance(fingerprint, str) else None, since=time)
        last, self._last = self._last, now
        if last is not None and (last.model, last.system_fingerprint) == (now.model, now.system_fingerprint):
            return
        self.changes += last is not None
        room = 2 * MAX_SERVED if last is not None and last.model != now.model else MAX_SERVED
        if len(self.served) < room:
            self.served.append(now)

    def warnings(self) -> list[str]:
        """Return what a reader of the results has to know, in sentences."""
        found = []
        models = [one for at, one in enumerate(self.served) if at == 0 or one.model != self.served[at - 1].model]
        if len(models) > 1:
            listed = ", ".join(f"{one.model} from {iso(one.since)}" for one in models[1:4])
            found.append(f"The endpoint changed the model within the run: {models[0].model} at first, {listed}")
        prints = [one for one in self.served if one.system_fingerprint is not None]
        if len({one.system_fingerprint for one in prints}) > 1 and len(models) == 1:
            found.append(
                f"The endpoint changed its system_fingerprint {self.changes:,} times within the run, first at "
                f"{iso(prints[1].since)}: another version of the model may have answered"
            )
        if self.cut:
            found.append(
                f"{self.cut:,} prompts were cut by the server, the first with {self.first_cut}: raise its context "
                "length"
            )
        return found
