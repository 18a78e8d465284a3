"""Passes and pipelines.

A pass is a small dataclass: its docstring is its contract, its fields are its options, `run` maps a graph to a new one
and leaves its argument as it was. A pipeline is written as text: `fold,simplify{max_rounds=2},cse,dce`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from graphtorch.ir.graph import Graph
from graphtorch.ir.rewrite import RewriteLog
from graphtorch.ir.verifier import verify


class Pass(ABC):
    """A transformation of graphs that keeps their meaning. Subclasses are dataclasses."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """The transformed graph (`graph` itself if there was nothing to do); `log` collects what was rewritten."""

    def __str__(self) -> str:
        """The pass as pipeline text, with the options that are not the defaults."""
        options = [
            f"{f.name}={_option_text(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) != f.default
        ]
        return self.name + (f"{{{', '.join(options)}}}" if options else "")


PASSES: dict[str, type[Pass]] = {}

PassClass = TypeVar("PassClass", bound=type[Pass])


def register(cls: PassClass) -> PassClass:
    """Make a pass known to pipelines by its `name`."""
    if cls.name in PASSES:
        raise ValueError(f"the pass {cls.name!r} is defined twice")
    PASSES[cls.name] = cls
    return cls


def verify_by_default() -> bool:
    """Whether `GRAPHTORCH_VERIFY` asks for verification after every pass."""
    return os.environ.get("GRAPHTORCH_VERIFY", "0") not in ("", "0")


@dataclass
class PassPipeline:
    """Passes in order.

    check    verify the graph before the first pass and after each; None: as GRAPHTORCH_VERIFY says.
    """

    passes: tuple[Pass, ...] = field(default=())
    check: bool | None = None

    @classmethod
    def parse(cls, text: str, check: bool | None = None) -> PassPipeline:
        """A pipeline from text such as `fold,simplify{max_rounds=2},dce`.

        Raises ValueError that names the unknown pass or option, or the malformed part.
        """
        return cls(tuple(_parse(text)), check)

    def run(self, graph: Graph, log: RewriteLog | None = None) -> Graph:
        """Apply the passes one after the other."""
        check = verify_by_default() if self.check is None else self.check
        if check:
            verify(graph)
        for each in self.passes:
            graph = each.run(graph, log)
            if check:
                verify(graph, after=f"pass '{each}'")
        return graph

    def __str__(self) -> str:
        return ",".join(str(p) for p in self.passes)


_PASS = re.compile(r"\s*([\w-]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")


def _parse(text: str) -> Iterable[Pass]:
    position = 0
    while position < len(text.rstrip()):
        match = _PASS.match(text, position)
        if match is None:
            raise ValueError(f"malformed pipeline at column {position + 1}: {text!r}")
        name, options = match.groups()
        if name not in PASSES:
            raise ValueError(f"unknown pass '{name}'; there are {', '.join(sorted(PASSES))}")
        yield PASSES[name](**_options(PASSES[name], options or ""))
        position = match.end()


def _options(cls: type[Pass], text: str) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls)
    known = {f.name: kinds[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (p.strip() for p in part.partition("="))
        if name not in known:
            raise ValueError(f"the pass '{cls.name}' has no option '{name}'; it has {', '.join(known) or 'none'}")
        found[name] = _option(cls, name, known[name], value if equals else "true")
    return found


def _option(cls: type[Pass], name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text in ("true", "false"):
            return text == "true"
    elif kind is int or kind is float:
        try:
            return kind(text)
        except ValueError:
            pass
    elif kind is str:
        return text
    raise ValueError(f"the option '{name}' of pass '{cls.name}' takes {kind.__name__}, not '{text}'")


def _option_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
