"""LLM strategies: prompt file -> request -> reply -> decision."""
