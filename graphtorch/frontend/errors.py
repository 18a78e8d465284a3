"""What capture refuses, said at the user's line."""

from __future__ import annotations

from graphtorch.ops.dispatch import user_location


class CaptureError(RuntimeError):
    """The compiled function does something that has no place in one graph. The message says what to do instead."""


def refuse(what: str, instead: str) -> CaptureError:
    """A CaptureError that names the user's line."""
    return CaptureError(f"{what}\n  at {user_location()}\n  what to do: {instead}")
