"""The model of a run as its agent refers to it: known when the agent is built, opened later."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

from agent_bt.agents.agent import RequestForm
from agent_bt.backtest.model import build_form
from agent_bt.config.model import Config
from agent_bt.core.protocols import LLM
from agent_bt.core.types import Reply, Request


class ModelReference:
    """The model that an agent sends its requests to, which is opened after the agent is built.

    So an agent is built once, before data is loaded and before anything is paid; its requests can be built and read
    without a model.

    Attributes:
        form: what all requests have in common: as configured and, once the model is open, as negotiated with it.
    """

    def __init__(self, config: Config) -> None:
        configured = build_form(config, None)
        self._body = configured.body
        self._llm: LLM | None = None
        self.form = replace(configured, body=lambda messages: self._body(messages))

    def open(self, llm: LLM, form: RequestForm) -> None:
        """Send every request to `llm` from now on, in the form that it accepts.

        Args:
            llm: the opened model.
            form: what its requests have in common, as negotiated with it.
        """
        self._llm, self._body = llm, form.body

    def submit(self, request: Request) -> Future[Reply]:
        """Send the request and return at once."""
        return self._opened().submit(request)

    def complete(self, request: Request) -> Reply:
        """Send the request and wait for its reply."""
        return self._opened().complete(request)

    def close(self) -> None:
        """Do nothing: what opened the model closes it."""

    def _opened(self) -> LLM:
        if self._llm is None:
            raise RuntimeError("the model of this run is not open: open it before the agent decides")
        return self._llm
