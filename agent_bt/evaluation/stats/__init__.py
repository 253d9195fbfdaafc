"""The statistics behind A/B verdicts: pure functions over arrays, randomness only through a seed."""
