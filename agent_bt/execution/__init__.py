"""Costs, sizing, risk limits and the simulated broker."""
