"""Kinds of features: each module registers its own with `features.specs.register`."""
