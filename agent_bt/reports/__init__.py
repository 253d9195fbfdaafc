"""The HTML report of a run, its terminal summary, and the parts that all pages share."""
