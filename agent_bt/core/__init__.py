"""Value types, the exception tree, intervals and clocks, the accounting step. Imports nothing of ours."""
