"""Archives of the exchanges, the month-partitioned Parquet store, the sample market."""
