"""Reads the configuration: YAML with positions, the environment and ``--set``, into the declared options."""
