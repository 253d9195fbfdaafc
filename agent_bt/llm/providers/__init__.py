"""Model providers, one module each, named as `llm.provider` names them; found by `agent_bt.llm.provider`."""
