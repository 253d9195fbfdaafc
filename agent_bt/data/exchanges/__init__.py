"""Exchanges whose history can be downloaded: each module registers the one of its name."""
