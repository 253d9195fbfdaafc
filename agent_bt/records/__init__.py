"""The run folder: journal, tables, manifest, reading and verifying."""
