"""Causal functions of past bars, and the 7-day summary."""

from __future__ import annotations

import importlib
import pkgutil

from agent_bt.features import kinds


def load_kinds() -> None:
    """Import the modules of `features.kinds`; each registers its kinds of features."""
    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"agent_bt.features.kinds.{module.name}")


load_kinds()
