"""The configuration: read, validated, frozen, explained. The only reader of configuration files."""
