"""The provider `stand_in`: a small embedded policy in place of a language model, free and offline."""

from __future__ import annotations

from agent_bt.core.protocols import LLM
from agent_bt.llm.provider import Provider, provider


@provider("stand_in")
class StandInProvider(Provider):
    """The stand-in model; `llm.params` are the fields of `StandInParams`."""

    embedded = True
    banner = "STAND-IN MODEL: an embedded small policy answered, not a language model"
    notice = (
        "llm.provider is stand_in: an embedded small policy answers, not a language model",
        "set llm.provider: openai and llm.model; see configs/providers",
    )

    def check(self) -> None:
        """Check the model's name and the parameters."""
        super().check()
        self.open()

    def open(self) -> LLM:
        """Make the model."""
        from agent_bt.llm.stand_in import StandInLLM

        return StandInLLM(model=self.config.model, params=self.config.params)
