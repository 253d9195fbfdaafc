"""Causal functions of past bars, and the 7-day summary."""

from __future__ import annotations

from agent_bt.features import indicators as indicators
from agent_bt.features import windows as windows
