"""The loop, the market view, the schedule of decisions."""
