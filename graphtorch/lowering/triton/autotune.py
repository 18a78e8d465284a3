"""Choosing block sizes by measurement: `@compile(mode="max-autotune")`.

Each template offers a few candidates, its default first. Those that do not fit the device, or spill many registers
where others do not, are dropped; the rest is timed on the device with the launches that the plan would have. The winner
is kept, on disk too, under everything that the candidates' code depends on, the sizes and the device. How time is
measured is given from outside, so that the choice can be tested without a device.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, Kernel
from graphtorch.lowering.triton import attention
from graphtorch.lowering.triton.codegen import Generated, generate
from graphtorch.lowering.triton.compiler import (
    Compiled,
    cache_folder,
    cache_key,
    compile_each,
    compile_one,
    resources,
    target,
)
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.fused import ATTENTION
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.launch import Launch, launches_of
from graphtorch.lowering.triton.templates import Choice, generate_call, product_candidates
from graphtorch.lowering.triton.tiling import Limits

logger = logging.getLogger(__name__)

# Seconds that launches take, one after another. Raises ResourceError or UnsupportedError where they can't run.
Measure = Callable[[Sequence[Launch], Mapping[str, int]], float]

# For kernels of the scheduler: other blocks than the default ones.
LIMITS = (
    Limits(),
    Limits(pointwise=512, looped=1024),
    Limits(pointwise=2048, rows=4096, looped=4096),
    Limits(pointwise=4096, persistent=4096, rows=8192, looped=8192),
    Limits(persistent=64, looped=4096),
)


FEW_SPILLED = 128  # bytes of spilled registers a thread that may still be fastest: they lie in the first-level cache


@dataclass(frozen=True)
class Candidate:
    """One way to run a step."""

    label: str
    functions: tuple[Generated, ...]


@dataclass(frozen=True)
class Decision:
    """Which candidate of a step won; seconds by label, empty where the choice was read from disk."""

    step: str
    label: str
    seconds: Mapping[str, float]

    def __str__(self) -> str:
        if not self.seconds:
            return f"{self.step} | {self.label}, as measured before"
        times = ", ".join(f"{label}: {1e6 * s:.1f} us" for label, s in sorted(self.seconds.items(), key=lambda t: t[1]))
        return f"{self.step} | {self.label} of {len(self.seconds)} measured ({times})"


class Tuner:
    """Chooses candidates for one kind of device.

    to        the target that is compiled for
    device    the device's name: other devices of the target make choices of their own
    measure   see `Measure`
    fitting   which candidates to measure; by default those that compile within the target's resources

    `decisions` are what was chosen, in order.
    """

    def __init__(
        self,
        to: str,
        device: str,
        measure: Measure,
        fitting: Callable[[Sequence[Candidate]], list[Candidate]] | None = None,
    ) -> None:
        self.target = target(to)
        self.device = device
        self.measure = measure
        self.fitting = fitting or self._compiled
        self.decisions: list[Decision] = []
        self._known: dict[str, str] = {}

    def functions(self, step: Kernel | ExternCall, bindings: Mapping[str, int]) -> list[Generated]:
        """The functions of a step's fastest candidate. Raises UnsupportedError for a step without a Triton form."""
        found = candidates(step, bindings)
        if len(found) == 1:
            return list(found[0].functions)
        key = self._key(found, bindings)
        label = self._known.get(key) or _read(key)
        chosen = next((c for c in found if c.label == label), None)
        if chosen is None:
            chosen = self._race(step, found, bindings)
            _write(key, chosen.label)
        elif key not in self._known:
            self.decisions.append(Decision(step.name, chosen.label, {}))
        self._known[key] = chosen.label
        return list(chosen.functions)

    def _race(self, step: Kernel | ExternCall, found: Sequence[Candidate], bindings: Mapping[str, int]) -> Candidate:
        seconds: dict[str, float] = {}
        for candidate in self.fitting(found):
            try:
                launches = launches_of(step.name, candidate.functions, bindings)
                seconds[candidate.label] = self.measure(launches, bindings)
            except (ResourceError, UnsupportedError) as error:
                logger.info("%s as %s can't be measured: %s", step.name, candidate.label, error)
        best = min(found, key=lambda c: seconds.get(c.label, float("inf")))  # the first of equal ones: the default
        self.decisions.append(Decision(step.name, best.label, seconds))
        logger.info("%s", self.decisions[-1])
        return best

    def _compiled(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Those that the target has shared memory for, compiled in parallel; without those that spill much, if others
        do not."""
        functions = [f for c in found for f in c.functions]
        made = dict(zip(map(id, functions), self._each(functions), strict=True))
        fitting = [c for c in found if all(isinstance(made[id(f)], Compiled) for f in c.functions)]
        if self.target.binary != "cubin":
            return fitting

        def stack(f: Generated) -> int:
            return resources(compile_one(f, self.target.name)).stack

        return [c for c in fitting if all(stack(f) <= FEW_SPILLED for f in c.functions)] or fitting

    def _each(self, functions: Sequence[Generated]) -> list[Compiled | ResourceError]:
        """`compile_each`, with an error for what Triton's passes give up on (3.6: specialised warps for sm_100)."""
        try:
            return compile_each(functions, self.target.name)
        except RuntimeError:
            made: list[Compiled | ResourceError] = []
            for function in functions:
                try:
                    made += compile_each([function], self.target.name)
                except RuntimeError as error:
                    made.append(ResourceError(str(error)))
            return made

    def _key(self, found: Sequence[Candidate], bindings: Mapping[str, int]) -> str:
        parts: list[Any] = [self.device]
        for candidate in found:
            for f in candidate.functions:
                sizes = [concrete(size, bindings) for _, size in f.integers]
                parts.append((cache_key(f, self.target), sizes, f.grid(bindings)))
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


def candidates(step: Kernel | ExternCall, bindings: Mapping[str, int]) -> list[Candidate]:
    """The ways to run a step, the default first; those that come out equal once.

    Raises UnsupportedError for a step without a Triton form.
    """
    found: list[Candidate] = []
    seen: set[Any] = set()
    for label, make in _makers(step, bindings):
        try:
            functions = tuple(make())
        except UnsupportedError:
            if not found:
                raise
            continue
        text = tuple(
            (f.source, tuple(sorted(f.constants.items())), f.num_warps, f.num_stages, f.programs) for f in functions
        )
        if text not in seen:
            seen.add(text)
            found.append(Candidate(label, functions))
    return found


def _makers(
    step: Kernel | ExternCall, bindings: Mapping[str, int]
) -> list[tuple[str, Callable[[], Sequence[Generated]]]]:
    if isinstance(step, GroupedKernel):
        return [("default", lambda: [generate(step, bindings)])]
    if isinstance(step, Kernel):
        return [(_label(limits), lambda limits=limits: [generate(step, bindings, limits)]) for limits in LIMITS]  # type: ignore[misc]
    choices: Sequence[Choice | None] = product_candidates(step, bindings)
    if step.op.name in ATTENTION:
        choices = attention.candidates(step)
    named = [(str(c), c) for c in choices] or [("default", None)]
    return [
        (label, lambda choice=choice: generate_call(step, bindings, None, choice))  # type: ignore[misc]
        for label, choice in named
    ]


def _label(limits: Limits) -> str:
    return f"blocks of {limits.pointwise}, {limits.rows} and {limits.looped}"


# -- winners on disk --------------------------------------------------------------------------------------------------


def _path(key: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "tuned" / f"{key}.json"


def _read(key: str) -> str | None:
    """The label that won; None where nothing is known, or what is there can't be read."""
    path = _path(key)
    if path is None:
        return None
    try:
        label = json.loads(path.read_text())["winner"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return label if isinstance(label, str) else None


def _write(key: str, label: str) -> None:
    path = _path(key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump({"winner": label}, file)
        os.replace(name, path)
    except OSError as error:
        logger.warning("what autotuning found can't be kept: %s", error)
