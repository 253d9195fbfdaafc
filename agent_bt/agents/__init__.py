"""The LLM strategy: prompt file -> request -> reply -> decision."""
