"""`python -m agent_bt` is `agent-bt`."""

from agent_bt.cli.main import main

main()
