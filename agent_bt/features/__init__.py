"""Causal functions of past bars, and the 7-day summary."""
