"""`Function`: what every emitter makes, and the launch plan calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphtorch.lowering.kernel import Buffer


class Span(NamedTuple):
    """Group g of a launch's units touches elements [g * stride + low, g * stride + high) of a buffer."""

    stride: int
    low: int
    high: int


@dataclass(frozen=True)
class Level:
    """What groups of `units` units touch; None: no such range is known."""

    units: int
    reads: Mapping[Buffer, Span | None]
    writes: Mapping[Buffer, Span | None]


@dataclass(eq=False)
class Function:
    """An emitted kernel.

    name        made of the text's hash: kernels with the same code share one function
    buffers     what the first arguments point to
    sizes       what follows them: symbolic sizes, and states of random generators (their addresses)
    extent      how many units [low, high) counts; `grain` is a divisor that chunk boundaries should have
    work        estimated cost of all of it, in additions
    levels      what groups of units read and write, the smallest groups first; empty: unknown (see chain.py)
    failures    messages of the `error` with which it may fail; then the address behind the sizes is where it says so,
                by the message's number from 1. Each {} of the message stands for a number in the words behind
    """

    name: str
    text: str
    buffers: list[Buffer]
    sizes: list[Any]
    extent: Any
    grain: int
    work: Any
    declarations: set[str] = field(default_factory=set)
    helpers: set[tuple[str, str, int]] = field(default_factory=set)
    levels: Sequence[Level] = ()
    failures: tuple[str, ...] = ()
    error: type[Exception] = IndexError
