"""Comparisons of several variants over the same market, and the registry that counts how many were tried."""
