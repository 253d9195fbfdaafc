"""The run folder: journal, tables, manifest, reading and verifying; the registry that counts trials."""
