"""Exchanges whose history can be downloaded; each module registers the exchange of its name."""
