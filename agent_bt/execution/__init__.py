"""Costs, sizing, risk limits, the simulated broker."""
