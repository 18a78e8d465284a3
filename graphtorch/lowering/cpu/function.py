"""`Function`: what every emitter makes, and the launch plan calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphtorch.lowering.kernel import Buffer


@dataclass(eq=False)
class Function:
    """An emitted kernel.

    name        made of the text's hash: kernels with the same code share one function
    buffers     what the first arguments point to
    sizes       what follows them: symbolic sizes, and random generators (the address of a generator's state)
    extent      how many units [low, high) counts; `grain` is a divisor that chunk boundaries should have
    work        estimated cost of all of it, in additions
    failure     the message of the `error` if it fails; then the address behind the sizes is where it says so, by a 1.
                The message's {} stands for the number in the next word
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
    failure: str = ""
    error: type[Exception] = IndexError
