"""The provider `scripted`: replies that the config lists, one a decision."""

from __future__ import annotations

from agent_bt.core.errors import ConfigError
from agent_bt.core.protocols import LLM
from agent_bt.llm.provider import Provider, provider


@provider("scripted")
class ScriptedProvider(Provider):
    """The replies of `llm.params.replies`, in their order."""

    embedded = True
    banner = "SCRIPTED MODEL: the replies were given beforehand"

    def check(self) -> None:
        """Check that the replies are a list of texts."""
        super().check()
        self._replies()

    def open(self) -> LLM:
        """Make the model."""
        from agent_bt.llm.scripted import ScriptedLLM

        return ScriptedLLM(self._replies())

    def _replies(self) -> list[str]:
        replies = self.config.params.get("replies")
        if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
            raise ConfigError("llm.provider scripted needs llm.params.replies: a list of reply texts, one a decision")
        return replies
