"""Choosing block sizes by measurement: `@compile(mode="max-autotune")`.

Each template offers a few candidates, its default first. All that a program's steps need is compiled at once, in
parallel: first one of each family (the same blocks and warps), and the others of a family only if that one does not
spill. Those that do not compile, do not fit the device, or spill many registers where others do not, are dropped; the
rest is timed on the device with the launches that the plan would have. The winner is kept, on disk too, under the
default's code, the sizes and the device, so that nothing else is generated the next time. How time is measured is given
from outside, so that the choice can be tested without a device.

Each candidate's results are compared with the default's (or the first's that runs), on the same operands: one that
differs by more than rounding does can't win, however fast it is.

A candidate that is refused costs itself only. One that ends the process, or makes the device unusable for it, is noted
on disk while it is measured, and left out by the next process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphtorch.lowering import cache
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, Kernel
from graphtorch.lowering.triton import attention
from graphtorch.lowering.triton.agreement import Result, difference, results_of, tolerance
from graphtorch.lowering.triton.codegen import Generated, generate
from graphtorch.lowering.triton.compiler import BACKEND, Compiled, cache_key, compile_each, resources, target
from graphtorch.lowering.triton.errors import ResourceError, UnsupportedError
from graphtorch.lowering.triton.fused import ATTENTION
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.launch import Launch, launches_of
from graphtorch.lowering.triton.shapes import Config
from graphtorch.lowering.triton.templates import Choice, generate_call, product_candidates
from graphtorch.lowering.triton.tiling import Limits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """The time that launches take, one after another, and what they write, or parts of it."""

    seconds: float
    results: Sequence[np.ndarray[Any, Any]] = ()


# Of launches, on operands that are always the same. Raises ResourceError or UnsupportedError where they can't run.
Measure = Callable[[Sequence[Launch], Mapping[str, int], Sequence[Result]], Measured]

# For kernels of the scheduler: other blocks than the default ones.
LIMITS = (
    Limits(),
    Limits(pointwise=512, looped=1024, thread=8),
    Limits(pointwise=2048, rows=4096, looped=4096),
    Limits(pointwise=4096, persistent=4096, rows=8192, looped=8192),
    Limits(persistent=64, looped=4096, thread=16),
)


FEW_SPILLED = 128  # bytes of spilled registers a thread that may still be fastest: they lie in the first-level cache


@dataclass(frozen=True)
class Candidate:
    """One way to run a step; those of a family have the same blocks and warps."""

    label: str
    functions: tuple[Generated, ...]
    family: Any = None


@dataclass(frozen=True)
class Decision:
    """Which candidate of a step won; by label, the seconds of those that were measured, and why the others were not.
    Both are empty where the choice was read from disk."""

    step: str
    label: str
    seconds: Mapping[str, float]
    dropped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.seconds and not self.dropped:
            return f"{self.step} | {self.label}, as measured before"
        times = ", ".join(f"{label}: {1e6 * s:.1f} us" for label, s in sorted(self.seconds.items(), key=lambda t: t[1]))
        why = "".join(f"; without {label}: {reason}" for label, reason in self.dropped.items())
        return f"{self.step} | {self.label} of {len(self.seconds)} measured ({times}){why}"


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
        self._known: dict[str, str] = {}  # labels by key
        self._outcomes: dict[str, int | str] = {}  # of each function: bytes that it spills, or why it can't run

    def functions(self, step: Kernel | ExternCall, bindings: Mapping[str, int]) -> list[Generated]:
        """The functions of a step's fastest candidate. Raises UnsupportedError for a step without a Triton form."""
        (found,) = self.choose([step], bindings)
        if isinstance(found, UnsupportedError):
            raise found
        return found

    def choose(
        self, steps: Sequence[Kernel | ExternCall], bindings: Mapping[str, int]
    ) -> list[list[Generated] | UnsupportedError]:
        """Of each step the functions of its fastest candidate; the error for a step without a Triton form."""
        entered = [self._enter(step, bindings) for step in steps]
        races: dict[str, _Entry] = {}
        for entry in entered:
            if isinstance(entry, _Entry) and entry.key not in self._known:
                races.setdefault(entry.key, entry)
        found = {key: candidates(entry.step, bindings) for key, entry in races.items()}
        if self.fitting == self._compiled:
            self._compile([c for several in found.values() for c in several])
        for key, entry in races.items():
            self._known[key] = self._race(key, entry.step, found[key], bindings).label
        return [e.functions(self._known[e.key]) if isinstance(e, _Entry) else e for e in entered]

    def _enter(
        self, step: Kernel | ExternCall, bindings: Mapping[str, int]
    ) -> _Entry | list[Generated] | UnsupportedError:
        """A step with its ways, if there is anything to choose; what was chosen by another process is known then."""
        ways = _ways(step, bindings)
        try:
            default = list(ways[0].make())
        except UnsupportedError as error:
            return error
        if len(ways) == 1:
            return default
        entry = _Entry(step, ways, default, self._key(default, ways, bindings))
        if entry.key not in self._known:
            label = _read(entry.key).get("winner")
            if isinstance(label, str) and any(way.label == label for way in ways):
                self._known[entry.key] = label
                self.decisions.append(Decision(step.name, label, {}))
        return entry

    def _race(
        self, key: str, step: Kernel | ExternCall, found: Sequence[Candidate], bindings: Mapping[str, int]
    ) -> Candidate:
        if len(found) == 1:
            _write(key, {"winner": found[0].label})
            return found[0]
        seconds: dict[str, float] = {}
        fitting = self.fitting(found)
        dropped = {c.label: self._why(c) for c in found if c not in fitting}
        fatal = _fatal(_read(key))
        results = results_of(step)
        first: tuple[Candidate, Sequence[np.ndarray[Any, Any]]] | None = None
        for candidate in fitting:
            if candidate.label in fatal:
                dropped[candidate.label] = "an earlier process did not survive it"
                continue
            _write(key, {"measuring": candidate.label, "process": os.getpid(), "fatal": fatal})
            try:
                launches = launches_of(step.name, candidate.functions, bindings)
                measured = self.measure(launches, bindings, results)
            except (ResourceError, UnsupportedError) as error:
                dropped[candidate.label] = str(error)
                continue
            except KeyboardInterrupt:
                _write(key, {"fatal": fatal})
                raise
            first = first or (candidate, measured.results)
            allowed = tolerance(step, [*first[0].functions, *candidate.functions], bindings)
            pairs = zip(measured.results, first[1], strict=True)
            why = next(filter(None, (difference(own, expected, allowed) for own, expected in pairs)), "")
            if why:
                dropped[candidate.label] = f"its results are not those of {first[0].label}: {why}"
                logger.warning("%s: %s is left out, %s", step.name, candidate.label, dropped[candidate.label])
            else:
                seconds[candidate.label] = measured.seconds
        best = min(found, key=lambda c: seconds.get(c.label, float("inf")))  # the first of equal ones: the default
        self.decisions.append(Decision(step.name, best.label, seconds, dropped))
        logger.info("%s", self.decisions[-1])
        # What nothing was found out about, for example because memory did not suffice, is measured the next time.
        _write(key, {"winner": best.label} if seconds else {"fatal": fatal})
        return best

    def _compiled(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Those that the target has room for, without those that spill much, if others do not."""
        self._compile(found)
        outcomes = {c.label: [self._outcomes.get(cache_key(f, self.target), "") for f in c.functions] for c in found}
        fitting = [c for c in found if all(isinstance(o, int) for o in outcomes[c.label])]
        return [c for c in fitting if all(o <= FEW_SPILLED for o in outcomes[c.label])] or fitting  # type: ignore[operator]

    def _compile(self, found: Sequence[Candidate]) -> None:
        """Compile candidates in parallel, the first of each family and then the others of those that do not spill."""
        first: dict[Any, Candidate] = {}
        for candidate in found:
            first.setdefault(candidate.family or id(candidate), candidate)
        self._try([f for c in first.values() for f in c.functions])
        others = [c for c in found if c not in first.values() and not self._spills(first[c.family])]
        self._try([f for c in others for f in c.functions])

    def _spills(self, candidate: Candidate) -> bool:
        outcomes = [self._outcomes[cache_key(f, self.target)] for f in candidate.functions]
        return any(isinstance(o, int) and o > FEW_SPILLED for o in outcomes)

    def _try(self, functions: Sequence[Generated]) -> None:
        """Note of functions what they spill, or why they can't run."""
        missing = {key: f for f in functions if (key := cache_key(f, self.target)) not in self._outcomes}
        if not missing:
            return
        made = compile_each(missing.values(), self.target.name, may_fail=True)

        def outcome(compiled: Compiled | ResourceError) -> int | str:
            if isinstance(compiled, ResourceError):
                return str(compiled)
            try:
                return resources(compiled).spilled
            except (OSError, subprocess.SubprocessError) as error:
                logger.warning("%s: what it spills is not known (%s); the times will tell", compiled.name, error)
                return 0

        with ThreadPoolExecutor(min(len(made), os.cpu_count() or 1)) as pool:
            self._outcomes.update(zip(missing, pool.map(outcome, made), strict=True))

    def _why(self, candidate: Candidate) -> str:
        """Why a candidate is not measured."""
        outcomes = [self._outcomes.get(cache_key(f, self.target)) for f in candidate.functions]
        for outcome in outcomes:
            if isinstance(outcome, str):
                return outcome
        if None in outcomes:
            return "what has the same blocks spills registers"
        return f"{max(o for o in outcomes if isinstance(o, int))} bytes of registers are spilled"

    def _key(self, default: Sequence[Generated], ways: Sequence[_Way], bindings: Mapping[str, int]) -> str:
        """A digest of the default's code, the ways that there are, the sizes and the device."""
        parts: list[Any] = [_FORMAT, self.device, [way.label for way in ways]]
        for f in default:
            sizes = [concrete(size, bindings) for _, size in f.integers]
            parts.append((cache_key(f, self.target), sizes, f.grid(bindings)))
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


@dataclass(frozen=True)
class _Way:
    """A candidate that is not generated yet."""

    label: str
    make: Callable[[], Sequence[Generated]]
    family: Any = None


@dataclass(frozen=True)
class _Entry:
    """A step that has several ways, generated by default."""

    step: Kernel | ExternCall
    ways: Sequence[_Way]
    default: list[Generated]
    key: str

    def functions(self, label: str) -> list[Generated]:
        if label == self.ways[0].label:
            return self.default
        return list(next(way for way in self.ways if way.label == label).make())


def candidates(step: Kernel | ExternCall, bindings: Mapping[str, int]) -> list[Candidate]:
    """The ways to run a step, the default first; those that come out equal once.

    Raises UnsupportedError for a step without a Triton form.
    """
    found: list[Candidate] = []
    seen: set[Any] = set()
    for way in _ways(step, bindings):
        try:
            functions = tuple(way.make())
        except UnsupportedError:
            if not found:
                raise
            continue
        text = tuple(
            (f.source, tuple(sorted(f.constants.items())), f.num_warps, f.num_stages, f.programs) for f in functions
        )
        if text not in seen:
            seen.add(text)
            found.append(Candidate(way.label, functions, way.family))
    return found


def _ways(step: Kernel | ExternCall, bindings: Mapping[str, int]) -> list[_Way]:
    if isinstance(step, GroupedKernel):
        return [_Way("default", lambda: [generate(step, bindings)])]
    if isinstance(step, Kernel):
        return [_Way(_label(limits), lambda limits=limits: [generate(step, bindings, limits)]) for limits in LIMITS]  # type: ignore[misc]
    choices: Sequence[Choice | None] = product_candidates(step, bindings)
    if step.op.name in ATTENTION:
        choices = attention.candidates(step, bindings)
    return [
        _Way(
            _named(choice),
            lambda choice=choice: generate_call(step, bindings, None, choice),  # type: ignore[misc]
            _family(choice),
        )
        for choice in choices or [None]
    ]


def _named(choice: Choice | None) -> str:
    if isinstance(choice, tuple):
        return " and ".join(map(str, choice))
    return "default" if choice is None else str(choice)


def _family(choice: Choice | None) -> Any:
    if isinstance(choice, Config):
        return choice.block_m, choice.block_n, choice.block_k, choice.num_warps, choice.specialized
    return choice and tuple((s.m, s.n, s.num_warps) for s in choice)


def _label(limits: Limits) -> str:
    return f"blocks of {limits.pointwise}, {limits.rows} and {limits.looped}"


# -- winners on disk --------------------------------------------------------------------------------------------------

_FORMAT = "3"  # of keys


def _path(key: str) -> Path | None:
    folder = cache.folder(BACKEND)
    return None if folder is None else folder / "tuned" / f"{key}.json"


def _read(key: str) -> dict[str, Any]:
    """What is noted under a key: a `winner`; or what is `measuring` in a `process`, and labels that were `fatal`. Empty
    where nothing is known, or what is there can't be read."""
    path = _path(key)
    if path is None:
        return {}
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _fatal(noted: Mapping[str, Any]) -> list[str]:
    """The labels of candidates that a process did not survive: those known as such, and the one that was measured when
    the process ended. One that still runs, another than this, may be measuring."""
    fatal = list(noted.get("fatal") or [])
    label, process = noted.get("measuring"), noted.get("process")
    if isinstance(label, str) and (process == os.getpid() or not _runs(process)):
        fatal.append(label)
    return fatal


def _runs(process: Any) -> bool:
    try:
        os.kill(process, 0)
    except (OSError, TypeError):
        return isinstance(process, int) and Path(f"/proc/{process}").exists()
    return True


def _write(key: str, noted: Mapping[str, Any]) -> None:
    path = _path(key)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump(noted, file)
        os.replace(name, path)
    except OSError as error:
        logger.warning("what autotuning found can't be kept: %s", error)
