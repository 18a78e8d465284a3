"""Source text as Python functions that `inspect` can show, which Triton reads them through."""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Mapping
from typing import Any


def load_source(source: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Execute a generated source; its namespace.

    overrides   names that stay as given, instead of what the source imports under them
    """
    given = dict(overrides or {})
    lines = source.splitlines(True)
    if given:  # blank lines keep the numbers in tracebacks
        lines = ["\n" if _imported(line) in given else line for line in lines]
    text = "".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    filename = f"<graphtorch triton {digest}>"
    linecache.cache[filename] = (len(text), None, lines, filename)
    namespace: dict[str, Any] = {"__name__": f"graphtorch_triton_{digest}", "__file__": filename, **given}
    exec(compile(text, filename, "exec"), namespace)
    return namespace


def _imported(line: str) -> str:
    """The name that an import line binds; "" for any other line."""
    words = line.split()
    if not line.startswith(("import ", "from ")):
        return ""
    return words[-1].partition(".")[0]
