"""Causal functions of past bars, and the 7-day summary."""

from __future__ import annotations

import importlib
import pkgutil

from agent_bt.features import kinds

for _module in pkgutil.iter_modules(kinds.__path__):
    importlib.import_module(f"agent_bt.features.kinds.{_module.name}")
