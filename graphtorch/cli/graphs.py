"""Reading graphs that `graphtorch dump` wrote."""

from __future__ import annotations

import sys
from pathlib import Path

from graphtorch.cli.errors import USAGE, CommandError
from graphtorch.ir.graph import Graph


def load_records() -> None:
    """Register every operator: those of the API load with it, those that only graphs contain with the compiler."""
    import graphtorch.autodiff.gradient
    import graphtorch.frontend.number  # noqa: F401


def load_graph(file: str) -> Graph:
    """Parse a graph from a file of text or JSON ("-": standard input).

    Raises CommandError if it can't be read or is no graph; the message shows the place.
    """
    load_records()
    from graphtorch.ir.export import from_json
    from graphtorch.ir.parser import parse_graph

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", USAGE) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is no text: {error}", USAGE) from error
    try:
        return from_json(text) if text.lstrip().startswith("{") else parse_graph(text)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        # RuntimeError and the like come from the type rules of operators, for text without types.
        raise CommandError(f"{file} is no graph: {error}") from error
