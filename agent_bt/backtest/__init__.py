"""One backtest: config to objects to a run, and what can be done with it again."""
