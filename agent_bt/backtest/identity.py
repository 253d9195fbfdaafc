"""Derive the identity of a run, by which it is resumed, and compare two identities."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_bt.agents.prompt import Prompt
from agent_bt.config.model import Config
from agent_bt.core.canonical import tagged_hash
from agent_bt.core.protocols import Strategy
from agent_bt.llm.provider import get_provider

_SHAPING_LLM = {
    "provider",
    "model",
    "temperature",
    "seed",
    "max_tokens",
    "response_format",
    "strip",
    "replicate",
    "params",
}


_OPERATIONAL_RISK = {"max_failed_share", "max_failures_in_a_row"}


def derive_identity(
    config: Config, *, strategy: Strategy | None, prompt: Prompt | None, data: str, limit: int | None
) -> dict[str, Any]:
    """Derive the identity of a run, as plain data; everything that is not in it may change when it is resumed.

    Args:
        config: of the run.
        strategy: as built from the config; its source counts where `strategy.kind` is `module:Class`, and nothing of
            it where it is a registered name, so that None will do.
        prompt: of an agent; None for a strategy that asks no model.
        data: hash of the bars.
        limit: number of decisions after which the run stops; None: all.
    """
    dump = config.model_dump(mode="json")
    identity: dict[str, Any] = {
        key: dump[key] for key in ("mode", "market", "features", "strategy", "account", "execution", "seed")
    }
    # A key that was added later is part of an identity only where it says something.
    if config.strategy.sizes is None:
        identity["strategy"] = {key: value for key, value in dump["strategy"].items() if key != "sizes"}
    if config.multi_symbol:
        identity["rebalance"], identity["pool"] = dump["rebalance"], dump["pool"]
    identity["risk"] = {key: value for key, value in dump["risk"].items() if key not in _OPERATIONAL_RISK}
    if config.market.source not in ("sample", "store"):
        # The bars count, not the path of their file: moved or on another machine it is the same run.
        identity["market"] = {**dump["market"], "source": "file"}
    identity["data"] = data
    identity["limit"] = limit
    if prompt is not None:
        shaping = {key: value for key, value in dump["llm"].items() if key in _SHAPING_LLM}
        provider = get_provider(config.llm)
        if config.llm.stream:
            shaping["stream"] = True
        # A model file may be moved: it is called what its requests call it.
        shaping["model"] = provider.parameters()["model"]
        identity["llm"] = {**shaping, "endpoint_id": provider.endpoint_id}
        identity["prompt"] = prompt.hash
    elif ":" in config.strategy.kind:
        assert strategy is not None, "the source of a strategy of one's own is part of the identity"
        identity["source"] = _source_hash(strategy)
    return identity


def keep_endpoint(config: Config, identity: Mapping[str, Any]) -> Config:
    """Return a config whose endpoint is called as when a run began; earlier versions called some otherwise.

    Args:
        config: of the run.
        identity: of the run, as recorded.
    """
    recorded = (identity.get("llm") or {}).get("endpoint_id")
    if recorded is None or recorded not in get_provider(config.llm).earlier_endpoint_ids:
        return config
    return config.model_copy(update={"llm": config.llm.model_copy(update={"endpoint_id": recorded})})


def compare_identities(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """List what differs between two identities, one line a value: `market.start: 2024-07-01 -> 2024-08-01`.

    Args:
        before: the identity that was recorded.
        now: the identity to compare with it.
        path: put before every key, with its dot.
    """
    changes = []
    for key in sorted(before.keys() | now.keys()):
        one, other, name = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            changes += compare_identities(one, other, f"{name}.")
        elif one != other:
            changes.append(_CHANGED.get(name) or f"{name}: {one} -> {other}")
    return changes


_CHANGED = {
    "data": "the bars in that range are not the same any more",
    "prompt": "the text of the prompt file has changed",
    "source": "the source of the strategy has changed",
}


def _source_hash(strategy: Strategy) -> str:
    return tagged_hash("agent-bt/strategy-source/v1", Path(inspect.getfile(type(strategy))).read_bytes())
