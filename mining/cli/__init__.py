"""The command line. Starts without torch, OpenCV or DuckDB: each command imports what it needs."""

from mining.cli import batch, keep, look, night
from mining.cli.base import cli, main

__all__ = ["batch", "cli", "keep", "look", "main", "night"]
