"""Rules, signals, rankers and ensembles behind the one Strategy protocol."""
