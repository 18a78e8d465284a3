"""`GRAPHTORCH_LOG=guards,fusion,...`: what the compiler did, topic by topic, as it happens.

Each topic is a logger, `graphtorch.<topic>`; naming it in GRAPHTORCH_LOG (or in `graphtorch.compiler.set_logs`) sends
it to stderr. Without the variable the loggers belong to the application, as any others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from graphtorch.frontend.explain import describe_specialization

# Topic -> what it shows of a new specialisation, as text.
TOPICS: dict[str, Callable[[Any], str]] = {
    "recompiles": lambda s: f"because: {s.reason}",
    "guards": lambda s: "\n".join(g.meaning for g in s.guards.guards.values()),
    "graph": lambda s: str(s.compiled.stages.captured),
    "joint": lambda s: str(s.compiled.stages.joint),
    "optimized": lambda s: str(s.compiled.stages.optimized),
    "passes": lambda s: "\n".join(str(r) for r in s.compiled.rewrites),
    "fusion": lambda s: "\n".join(describe_specialization(s, s.backend).fusion),
    "kernels": lambda s: str(s.compiled.executable.schedule),
    "memory": lambda s: f"{describe_specialization(s, s.backend).planned_bytes} bytes for temporaries",
    "time": lambda s: f"{s.compile_seconds * 1e3:.1f} ms to compile",
}

_level = logging.INFO
_wanted: frozenset[str] | None = None
_handler: logging.Handler | None = None


def set_logs(topics: str | None) -> None:
    """Show these topics (separated by commas; "all" for every one), and no others.

    Raises ValueError for an unknown topic.
    """
    global _wanted, _handler
    names = frozenset(t.strip() for t in (topics or "").split(",") if t.strip())
    if "all" in names:
        names = frozenset(TOPICS)
    unknown = sorted(names - TOPICS.keys())
    if unknown:
        raise ValueError(f"GRAPHTORCH_LOG: no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}, all")
    _wanted = names
    if _handler is None and names:
        _handler = logging.StreamHandler()
        _handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
    for topic in TOPICS:
        logger = logging.getLogger(f"graphtorch.{topic}")
        if _handler is not None:
            logger.removeHandler(_handler)
        if topic in names:
            assert _handler is not None
            logger.addHandler(_handler)
            logger.setLevel(_level)


def log_specialization(made: Any) -> None:
    """Write what is wanted about a new specialisation."""
    if _wanted is None:
        set_logs(os.environ.get("GRAPHTORCH_LOG"))
    for topic, show in TOPICS.items():
        logger = logging.getLogger(f"graphtorch.{topic}")
        if logger.isEnabledFor(_level):
            logger.log(_level, "%s: %s", made.name, show(made))
