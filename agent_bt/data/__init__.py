"""Download archives of exchanges, keep a Parquet store by month, and generate the sample market."""
