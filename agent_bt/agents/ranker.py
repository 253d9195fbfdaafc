"""The LLM as a ranker: one prompt shows the cross-section of all symbols, one reply gives each a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent_bt.agents.agent import RequestForm, ask
from agent_bt.agents.panel_context import RESERVED, panel_context
from agent_bt.agents.prompt import Prompt
from agent_bt.agents.rank_reply import parse_weights
from agent_bt.agents.reply import Strip
from agent_bt.core.errors import ConfigError
from agent_bt.core.frequency import WEEKDAYS
from agent_bt.core.params import flag, names, whole
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Decision, FeatureSpec, ModelCall, Portfolio, Request
from agent_bt.core.view import MarketView
from agent_bt.features.names import spec_of, specs_of

COLUMNS = ("return_24", "return_168", "volatility_168")
VOLUME = "quote_volume_168"
"""Column that symbols are chosen by where not all are shown: mean quote volume of a bar, over a week of hours."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class RankerAgent:
    """An agent with one prompt, one model and all symbols: a weight for each at every decision.

    decide = interpret(requests), both pure. A valid reply gives the weights of the symbols it names, and 0 to every
    other; a reply that is not exactly valid changes nothing. Where nothing may be bought, no request is sent.

    Args:
        prompt: rendered at each decision.
        form: what all requests have in common.
        llm: the model.
        frequency: when decisions are made, as in a config: `W-MON`, `D`, `4h`.
        columns: of the table, beside symbol and price: features by name (`return_24`), or columns of the bars.
        allow_short: whether weights may be negative.
        max_symbols: show only this number of symbols, those of the largest quote volume; None: all that may be bought.
        strip: declared repairs of a reply.

    Raises:
        ConfigError: a parameter is not valid.
        StrategyError: a column does not exist.
    """

    lookback = 1
    summary: str | None = None

    def __init__(
        self,
        *,
        prompt: Prompt,
        form: RequestForm,
        llm: LLM,
        frequency: str,
        columns: Sequence[str] = COLUMNS,
        allow_short: bool = False,
        max_symbols: int | None = None,
        strip: Strip = "none",
    ) -> None:
        given = names("columns", columns)
        if taken := [name for name in given if name in RESERVED]:
            raise ConfigError(f"columns must not name {', '.join(taken)}: every table has it already; remove it")
        self.name = f"ranker:{prompt.reference}"
        self.llm = llm
        self.prompt = prompt
        self.allow_short = flag("allow_short", allow_short)
        self.max_symbols = None if max_symbols is None else whole("max_symbols", max_symbols, 1)
        self._columns = {name: spec_of(name) for name in given}
        wanted = [*given, VOLUME] if self.max_symbols is not None else given
        self.features: Sequence[FeatureSpec] = specs_of(wanted)
        self._form = form
        self._frequency = describe_frequency(frequency)
        self._strip: Strip = strip

    def requests(self, view: MarketView, portfolio: Portfolio) -> tuple[Request, ...]:
        """Return the one request of this decision; none where there is nothing to choose from.

        Args:
            view: the market up to now.
            portfolio: the account before the decision.
        """
        shown = self.shown(view)
        if not shown:
            return ()
        context = panel_context(
            view,
            portfolio,
            shown=shown,
            columns=self._columns,
            frequency=self._frequency,
            allow_short=self.allow_short,
        )
        return (self._form.request(self.prompt.render(context)),)

    def interpret(self, view: MarketView, portfolio: Portfolio, calls: Sequence[ModelCall]) -> Decision:  # noqa: ARG002
        """Return the weights of the reply as targets; a hold where it is not valid.

        Args:
            view: as for `requests`.
            portfolio: as for `requests`.
            calls: the request with its reply; empty where none was sent.
        """
        if not calls:
            return Decision.to(dict.fromkeys(view.symbols, 0.0), note="nothing may be bought")
        parsed = parse_weights(
            calls[0].reply, symbols=self.shown(view), allow_short=self.allow_short, strip=self._strip
        )
        if parsed.weights is None:
            return Decision(provenance=parsed.provenance, detail=parsed.detail, calls=tuple(calls))
        return Decision(
            targets={symbol: parsed.weights.get(symbol, 0.0) for symbol in view.symbols},
            action="TARGETS",
            note=parsed.note,
            provenance=parsed.provenance,
            calls=tuple(calls),
        )

    def decide(self, view: MarketView, portfolio: Portfolio) -> Decision:
        """Send the request, wait for the reply, and return the decision.

        Args:
            view: the market up to now.
            portfolio: the account before the decision.
        """
        return self.interpret(view, portfolio, ask(self.llm, self.requests(view, portfolio)))

    def shown(self, view: MarketView) -> tuple[str, ...]:
        """Return the symbols of the table, in the order of the view."""
        there = np.flatnonzero(view.eligible & np.isfinite(view.cross_section("close")))
        if self.max_symbols is not None and len(there) > self.max_symbols:
            volume = view.cross_section(VOLUME)[there]
            largest = np.argsort(np.where(np.isfinite(volume), -volume, np.inf), kind="stable")
            there = np.sort(there[largest[: self.max_symbols]])
        return tuple(view.symbols[at] for at in there.tolist())


def describe_frequency(frequency: str) -> str:
    """Return a frequency in words, as prompts show it: "every Monday", "every 4h"."""
    text = frequency.strip()
    if text.startswith("W-"):
        return f"every {_DAYS[WEEKDAYS.index(text.removeprefix('W-'))]}"
    known = {"D": "every day", "MS": "on the first day of every month", "QS": "on the first day of every quarter"}
    return known.get(text, f"every {text}")
