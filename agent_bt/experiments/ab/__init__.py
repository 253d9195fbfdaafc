"""A/B experiments: arms, replicates and windows, and their verdicts."""
