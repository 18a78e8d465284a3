"""The `graphtorch` command: dump what a function compiles to, run and rewrite dumped graphs, list the operators.

`command.py` holds the argument parser; each subcommand has a module, loaded when it runs.
"""

from graphtorch.cli.command import main

__all__ = ["main"]
