"""Running counts over the records of a run, in constant memory."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_bt.llm.ledger import Spend
from agent_bt.llm.prices import read_tier
from agent_bt.records.direction import direction
from agent_bt.records.served import ServedModels

_NEVER_SENT = ("budget", "offline_miss")

MAX_DETAILS = 50
"""Maximum number of different details counted per reason; memory does not grow with the replies of a model."""

OTHER_DETAILS = "other details"
"""The count of all further details of a reason."""

_PLACE = re.compile(r" at character \d+")

_BINS_PER_E = 100
"""Latencies are counted in logarithmic bins, each 1 % wide: quantiles are accurate to 1 %."""


@dataclass(slots=True)
class Tally:
    """Running counts over the records of a run.

    Attributes:
        total: decisions.
        provenance, action, risk: decisions by each of these.
        cuts: orders that were clipped or rejected, by the limit that cut them.
        reasons: failed decisions (all but `model`) by `kind: reason`.
        details: invalid decisions by `kind: reason`, then by validation message without its position in the text.
        calls: requests that were sent for decisions, each attempt counted.
        failed: requests without a reply, after all attempts.
        cached: replies from the cache.
        speculation_hits: used replies to prefetched requests.
        unpriced: calls without a known price.
        served: who answered, and prompts that were cut.
        unpriced_tiers: calls of `unpriced` by the service tier that the endpoint names.
        saved_unpriced: cached replies without a known price.
        prompt_tokens, completion_tokens: of the calls.
        cost_usd: what the priced calls cost, US dollars.
        cost_saved_usd: what the cached replies cost when they were requested, US dollars.
    """

    total: int = 0
    provenance: Counter[str] = field(default_factory=Counter)
    action: Counter[str] = field(default_factory=Counter)
    risk: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    details: dict[str, Counter[str]] = field(default_factory=dict)
    calls: int = 0
    failed: int = 0
    cached: int = 0
    speculation_hits: int = 0
    unpriced: int = 0
    served: ServedModels = field(default_factory=ServedModels)
    unpriced_tiers: Counter[str] = field(default_factory=Counter)
    saved_unpriced: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    cost_saved_usd: float = 0.0
    _latencies: Counter[int] = field(default_factory=Counter)

    def add(self, content: Mapping[str, Any], telemetry: Mapping[str, Any]) -> None:
        """Count one record.

        Args:
            content: as built by `decision_record.build_content`.
            telemetry: as built by `decision_record.build_telemetry`.
        """
        self.total += 1
        kind = content["provenance"]
        self.provenance[kind] += 1
        self.action[direction(content)] += 1
        self.risk[content["risk"]] += 1
        self.cuts.update(cut["reason"] for cut in content["risk_cuts"])
        if kind != "model":
            self.reasons[f"{kind}: {content['reason']}"] += 1
        if kind == "invalid" and telemetry["detail"]:
            self._add_detail(f"{kind}: {content['reason']}", telemetry["detail"])
        if content["request"] is not None and kind != "budget":
            self._add_call(telemetry, content["failure"])
            self.served.add(content["time"], content["messages"], telemetry)
            for call, other in zip(telemetry["others"], content["others"], strict=True):
                self._add_call(call, other["failure"])
                self.served.add(content["time"], other["messages"], call)

    @property
    def failed_share(self) -> float:
        """Fraction of decisions that failed (all but `model`), in [0, 1]."""
        return 1.0 - self.provenance["model"] / self.total if self.total else 0.0

    @property
    def spent(self) -> Spend:
        """What the calls of the decisions have cost."""
        return Spend(
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            usd=self.cost_usd,
            unpriced=self.unpriced,
        )

    def latency_ms(self, quantile: float) -> float | None:
        """Return a quantile of the latency of the calls that got a reply, in ms; None without any."""
        rank = math.ceil(quantile * self._latencies.total())
        for bin_, count in sorted(self._latencies.items()):
            rank -= count
            if rank <= 0:
                return round(math.exp((bin_ + 0.5) / _BINS_PER_E), 3)
        return None

    def _add_detail(self, reason: str, detail: str) -> None:
        counted = self.details.setdefault(reason, Counter())
        detail = _PLACE.sub("", detail)
        counted[detail if detail in counted or len(counted) < MAX_DETAILS else OTHER_DETAILS] += 1

    def _add_tier(self, body: str) -> None:
        tier = read_tier(body) if '"service_tier"' in body else None
        if tier is not None:
            self.unpriced_tiers[tier] += 1

    def _add_call(self, call: Mapping[str, Any], failure: str | None) -> None:
        self.speculation_hits += bool(call["speculated"])
        cost = call["cost_usd"]
        if call["cached"]:
            self.cached += 1
            self.cost_saved_usd += cost or 0.0
            self.saved_unpriced += cost is None
            return
        if failure in _NEVER_SENT:
            return
        self.calls += call["attempts"]
        self.prompt_tokens += call["prompt_tokens"] or 0
        self.completion_tokens += call["completion_tokens"] or 0
        self.cost_usd += cost or 0.0
        if failure is not None:
            self.failed += 1
            return
        if cost is None:
            self.unpriced += 1
            self._add_tier(call["body"] or "")
        self._latencies[math.floor(math.log(max(call["latency_ms"], 1e-3)) * _BINS_PER_E)] += 1
