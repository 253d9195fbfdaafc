"""Parameter sweeps and walk-forward."""
