"""The command line: `mechint scan`, `steer`, `run`, `plot`, `verify` and `models`."""

from mechint.cli.commands import main as main
