"""Thin commands over `agent_bt.app`."""
