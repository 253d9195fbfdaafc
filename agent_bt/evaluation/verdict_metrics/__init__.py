"""The metrics that a verdict can be about: each module registers the one of its name."""
