"""Configuration: read, validated, frozen, explained. The only reader of configuration files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_bt.config.load import config_schema, config_to_yaml, load_config
    from agent_bt.config.model import Config

__all__ = ["Config", "config_schema", "config_to_yaml", "load_config"]

if not TYPE_CHECKING:
    from agent_bt.core.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "Config": "agent_bt.config.model",
            "config_schema": "agent_bt.config.load",
            "config_to_yaml": "agent_bt.config.load",
            "load_config": "agent_bt.config.load",
        },
    )
