"""What the command reports without a traceback."""

from __future__ import annotations

USAGE = 2  # the command line names something that does not exist
FAILED = 1  # the command line was right, the work failed


class CommandError(Exception):
    """Ends the command with a message on standard error and an exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def near_misses(name: str, known: list[str]) -> str:
    """`; did you mean a, b?` with the closest of the known names, or nothing."""
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""
