"""agent-bt: a backtester for the decisions of LLM agents."""

__version__ = "0.1.0"
