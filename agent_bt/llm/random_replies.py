"""A model with pseudo-random replies, derived from the address of each request, for the look-ahead audit."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import Future

from agent_bt.core.futures import completed
from agent_bt.core.types import Reply, Request
from agent_bt.llm.stand_in_panel import read_panel


class RandomReplyLLM:
    """A model whose reply is a pseudo-random function of the request: any change of a prompt shows in the account.

    It buys and sells often, so that an audit meets many states of the account; a ranker gets random symbols.
    """

    def submit(self, request: Request) -> Future[Reply]:
        """Return a future that holds the reply already."""
        return completed(self.complete(request))

    def complete(self, request: Request) -> Reply:
        """Return BUY or SELL of one half in a quarter of the cases each, else HOLD; of a panel, half of the symbols."""
        digest = hashlib.sha256(request.address.encode()).digest()
        panel = read_panel(request.messages[-1]["content"])
        if panel is not None:
            drawn = [symbol for at, symbol in enumerate(panel.symbols) if digest[at % len(digest)] % 2]
            weights = [{"symbol": symbol, "weight": 1.0 / len(drawn)} for symbol in drawn]
            return Reply(text=json.dumps({"weights": weights}), finish_reason="stop")
        draw = digest[0] % 4
        action = ("BUY", "SELL", "HOLD", "HOLD")[draw]
        text = f'{{"action": "{action}", "size_pct": 0.5}}'
        return Reply(text=text, finish_reason="stop")

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
