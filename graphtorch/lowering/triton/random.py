"""Random numbers inside kernels: a rewrite of the schedule, and the text of a draw.

A call that draws becomes a kernel that loads from `Draws`, a buffer whose elements are not in memory but are computed
where they are read: element n is a function of n and of the stream's seed and offset (Philox). Kernels that read such
numbers compute them themselves, so that a dropout's mask is never stored. Seed and offset are read from device memory,
which the host writes before each run, also one that replays a recorded graph.

The streams are those of PyTorch's CUDA samplers on a GPU of `philox.THREADS` threads: see `tensor/philox.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Kernel,
    Load,
    Schedule,
    Store,
    View,
)
from graphtorch.lowering.triton.instructions import convert
from graphtorch.lowering.triton.memory import RandomState
from graphtorch.lowering.triton.splitting import copy_expressions
from graphtorch.schedule.indexing import estimate, product, row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.cuda_generator import generator_for
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.generator import WIDE_RANGE, closest_range, largest_random
from graphtorch.tensor.philox import THREADS, advance_of, threads_of

READERS = 3  # kernels that may compute the same numbers again


@dataclass(frozen=True)
class Sample:
    """What an element is made of.

    layout      "words": one word of 32 bits an element, four a call; "pairs": two of them, two a call; "quads": one
                word, a call for four neighbouring elements; "neighbours": the same with a thread for each four;
                "fours": "quads" where so many are drawn that four divides their number, else "words"
    text        the value as source, in terms of a word `{0}` or of the uniform or normal number made of it
    source      what `{0}` is: "word", "unit" (uniform in (0, 1]) or "normal"
    of          the dtype of the text
    """

    layout: str
    source: str
    text: str
    of: dtype


class Draws(Buffer):
    """Random numbers as if they lay in memory, in row-major order."""

    __slots__ = ("call", "position", "sample", "state")

    def __init__(self, call: ExternCall, of: dtype, shape: tuple[Any, ...], sample: Sample, state: RandomState) -> None:
        super().__init__(call.name, of, shape, "random", call.nodes[0].results[0])
        self.call = call
        self.sample = sample
        self.state = state
        self.position = len(state.draws)
        state.draws.append(self.advance)

    def advance(self, bindings: Mapping[str, int]) -> int:
        """By how much the offset moves on."""
        if self.sample.layout == "neighbours":
            return 12
        count = concrete(product(self.shape), bindings)
        return advance_of(count, 2 if self.sample.layout == "pairs" else 4) if count else 0

    def base(self, bindings: Mapping[str, int]) -> int:
        """The offset from that with which a run begins."""
        return self.state.before(self.position, bindings)

    @property
    def single(self) -> bool:
        """Whether every element is known to be a thread's first."""
        count = product(self.shape)
        return type(count) is int and count <= THREADS

    def threads(self, bindings: Mapping[str, int]) -> int:
        """How many threads share the draw."""
        return threads_of(concrete(product(self.shape), bindings))

    def layout(self, bindings: Mapping[str, int]) -> str:
        """The sample's layout for given sizes."""
        if self.sample.layout != "fours":
            return self.sample.layout
        return "words" if concrete(product(self.shape), bindings) % 4 else "quads"

    def element(self, at: str, state: str, base: str, threads: str, bindings: Mapping[str, int]) -> str:
        """The element at a position as source, in its register type."""
        wide = self.sample.layout == "pairs"
        name = {"unit": "_unit", "normal": "_normal", "word": "_word"}[self.sample.source] + ("_wide" if wide else "")
        layout = self.layout(bindings)
        if layout == "neighbours":
            drawn = f"_unit_of_neighbours({state}, {base}, {at})"
        elif layout == "quads":
            drawn = f"_unit_of_quads({state}, {base}, {at}, {threads})"
        else:
            drawn = f"{name}({state}, {base}, {at}, {threads}, {self.single})"
        return self.made_of(drawn)

    def elements_of(self, group: str, state: str, base: str, threads: str) -> str:
        """The elements of groups of four as source, in order."""
        count = product(self.shape)
        single = type(count) is int and count // 4 <= self.threads({})
        return self.made_of(f"_units_of_quads({state}, {base}, {group}, {threads}, {single})")

    def made_of(self, drawn: str) -> str:
        """The element as source, in its register type, from the word or number that it is made of."""
        return convert(f"({self.sample.text.format(drawn)})", self.sample.of, self.dtype)


# -- distributions ----------------------------------------------------------------------------------------------------


def _text(number: float, of: dtype) -> str:
    with np.errstate(over="ignore"):
        text = repr(float(np.array(number).astype(of.numpy)))
    return text if text[-1].isdigit() else f'float("{text}")'


def _continuous(source: str, of: dtype, text: str) -> Sample:
    wide = of is dtypes.float64
    return Sample("pairs" if wide else "words", source, text, dtypes.float64 if wide else dtypes.float32)


def _uniform(of: dtype, low: float, high: float) -> Sample:
    wide = dtypes.float64 if of is dtypes.float64 else dtypes.float32
    first, last = float(_text(low, of)), float(_text(high, of))
    half = "tl.bfloat16" if of is dtypes.bfloat16 else "tl.float16" if of is dtypes.float16 else ""
    value = "{0}" if (low, high) == (0, 1) else f"{{0}} * {_text(last - first, wide)} + {_text(first, wide)}"
    # Rounding can reach the bound that is excluded; the one that is included is not reached otherwise.
    kept = f"({value}).to({half}).to(tl.float32)" if half else f"({value})"
    return _continuous("unit", of, f"_below({kept}, {_text(first, wide)}, {_text(last, wide)})")


def _normal(of: dtype, mean: float, std: float) -> Sample:
    wide = dtypes.float64 if of is dtypes.float64 else dtypes.float32
    text = "{0}" if (mean, std) == (0, 1) else f"{{0}} * {_text(std, wide)} + {_text(mean, wide)}"
    return _continuous("normal", of, text)


def _log_normal(of: dtype, mean: float, std: float) -> Sample:
    return replace(inner := _normal(of, mean, std), text=f"_exponential({inner.text})")


def _bernoulli(of: dtype, p: float) -> Sample:
    return Sample("words", "unit", f"{{0}} < {_text(p, dtypes.float32)}", dtypes.bool_)


def _exponential(of: dtype, rate: float) -> Sample:
    eps = 2.0**-53 if of is dtypes.float64 else 2.0**-24  # half the spacing of numbers at 1
    return _continuous("unit", of, f"_logarithm({{0}}, {eps!r}) * {_text(-1.0 / rate, of)}")


def _cauchy(of: dtype, median: float, sigma: float) -> Sample:
    eps = 2.0**-52 if of is dtypes.float64 else 2.0**-23
    return _continuous("unit", of, f"_tangent({{0}}, {eps!r}) * {_text(sigma, of)} + {_text(median, of)}")


def _geometric(of: dtype, p: float) -> Sample:
    return _continuous("unit", of, f"_trials({{0}}, {_text(float(np.log1p(-p)), of)})")


def _whole(count: int, low: int, wide: bool) -> Sample:
    """`low` and a remainder by `count`; all 64 bits where that is 2**64."""
    text = "{0}" if count == 1 << 64 else f"_modulo({{0}}, {count})"
    return Sample("pairs" if wide else "words", "word", f"{text}.to(tl.int64) + {low}", dtypes.int64)


def _integers(of: dtype, low: int, high: int) -> Sample | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, last = closest_range(low, high, of.numpy)
    except (RuntimeError, NotImplementedError, UserWarning):
        return None
    return _whole(last - first + 1, first, last - first + 1 >= WIDE_RANGE)


def _full_range(of: dtype) -> Sample:
    return _whole(largest_random(of.numpy) + 1, 0, of in (dtypes.float64, dtypes.int64))


# Operator -> the sample for a dtype and parameters, and where among the call's arguments these are.
_SAMPLES: dict[str, tuple[Callable[..., Sample | None], int, int]] = {
    "rand": (lambda of: _uniform(of, 0.0, 1.0), 0, 0),
    "randn": (lambda of: _normal(of, 0.0, 1.0), 0, 0),
    "uniform": (_uniform, 1, 3),
    "normal": (_normal, 1, 3),
    "log_normal": (_log_normal, 1, 3),
    "bernoulli_fill": (_bernoulli, 1, 2),
    "exponential": (_exponential, 1, 2),
    "cauchy": (_cauchy, 1, 3),
    "geometric": (_geometric, 1, 2),
    "randint": (_integers, 0, 2),
    "random_range": (_integers, 1, 3),
    "random_full": (_full_range, 0, 0),
}


def _sample(call: ExternCall, of: dtype) -> Sample | None:
    found = _SAMPLES.get(call.op.name)
    if found is None or of.is_complex:
        return None
    make, first, last = found
    parameters = call.args[first:last]
    if not all(type(p) in (int, float) for p in parameters):
        return None
    made = make(of, *parameters)
    if call.op.name == "bernoulli_fill" and made is not None:
        # As PyTorch's dropout, which goes through memory four elements at a time where it can.
        made = replace(made, layout="fours")
    return made


# -- the schedule -----------------------------------------------------------------------------------------------------


def draw_in_kernels(schedule: Schedule) -> Schedule:
    """The schedule with kernels in the place of calls that draw, and numbers drawn where they are read."""
    states: dict[int, RandomState] = {}
    steps: list[Kernel | ExternCall] = []
    draws: dict[Buffer, Draws] = {}
    for step in schedule.steps:
        made = _as_kernel(step, states) if isinstance(step, ExternCall) and step.op.random else step
        if made is None:
            continue
        steps.append(made)
        value = made.stores[0].value if made is not step and isinstance(made, Kernel) else None
        if isinstance(value, Load) and isinstance(value.access.buffer, Draws):
            draws[step.writes()[0]] = value.access.buffer
    schedule = replace(schedule, states=tuple(states.values()))
    if not draws:
        return replace(schedule, steps=steps)
    kept = {v.buffer for v in schedule.outputs}
    readers: dict[Buffer, list[Kernel | ExternCall]] = {}
    for step in steps:
        for buffer in step.reads():
            readers.setdefault(buffer, []).append(step)
    fused = {
        b: d for b, d in draws.items() if b.kind == "temporary" and b not in kept and _may_redraw(b, readers.get(b, []))
    }
    result: list[Kernel | ExternCall] = []
    for step in steps:
        if isinstance(step, Kernel):
            if len(step.stores) == 1 and step.stores[0].access.buffer in fused:
                continue
            step = _redraw(step, fused)
        result.append(step)
    return replace(schedule, steps=result)


def _as_kernel(call: ExternCall, states: dict[int, RandomState]) -> Kernel | ExternCall | None:
    """The kernel of a call; the call itself where it has none; None if nobody uses what it draws."""
    result = call.nodes[0].results[0].type
    generator = call.args[-1] or generator_for(result.device)
    if call.op.name in ("bernoulli", "rrelu_slopes"):
        sample: Sample | None = Sample("neighbours", "unit", "{0}", dtypes.float32)
        if call.op.name == "rrelu_slopes":
            sample = _uniform(result.dtype, *call.args[1:3])
    else:
        sample = _sample(call, result.dtype)
    if sample is None:
        return call
    state = states.setdefault(id(generator), RandomState("random_state", generator))
    of = dtypes.float32 if sample.layout == "neighbours" else result.dtype
    drawn = Draws(call, of, result.shape, sample, state)
    if call.outputs[0] is None:
        return None
    axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(result.shape))
    place = Access(call.outputs[0], 0, row_major(result.shape))
    value: Expr = Load(Access(drawn, 0, row_major(result.shape)))
    if call.op.name in ("bernoulli", "rrelu_slopes"):
        value = _with_operand(call, value, result.dtype)
    return Kernel(call.name, axes, [Store(place, value)], call.nodes, call.reasons)


def _with_operand(call: ExternCall, drawn: Expr, of: dtype) -> Expr:
    """What depends on an operand beside the draw."""
    given: View = call.args[0]
    operand: Expr = Load(Access(given.buffer, given.offset, given.strides))
    (node,) = call.nodes
    if call.op.name == "rrelu_slopes":
        below = Compute("le", (operand, Constant(0, of)), dtypes.bool_, node)
        return Compute("where", (below, drawn, Constant(1, of)), of, node)
    if of is not dtypes.float64:
        operand = operand if of is dtypes.float32 else Compute("cast", (operand,), dtypes.float32, node)
    else:
        drawn = Compute("cast", (drawn,), dtypes.float64, node)
    return Compute("cast", (Compute("le", (drawn, operand), dtypes.bool_, node),), of, node)


def _may_redraw(buffer: Buffer, readers: list[Kernel | ExternCall]) -> bool:
    """Whether drawing in the readers costs less than memory: few of them, each reading about every element once."""
    count = _estimated(buffer.shape)
    return len(readers) <= READERS and all(
        isinstance(r, Kernel)
        and _estimated([a.size for a in r.axes]) <= 2 * count
        and not any(e.dtype.is_complex for e in r.exprs())
        for r in readers
    )


def _estimated(sizes: Any) -> int:
    total = 1
    for size in sizes:
        total *= estimate(size)
    return total


def _redraw(kernel: Kernel, fused: Mapping[Buffer, Draws]) -> Kernel:
    """The kernel with loads of drawn numbers replaced by draws."""
    replaced: dict[int, Expr] = {}
    nodes = list(kernel.nodes)
    for expr in kernel.exprs():
        if isinstance(expr, Load) and expr.access.buffer in fused:
            drawn = fused[expr.access.buffer]
            replaced[id(expr)] = Load(Access(drawn, expr.access.offset, expr.access.strides))
            nodes[:0] = [n for n in drawn.call.nodes if n not in nodes]
    if not replaced:
        return kernel
    values = copy_expressions([s.value for s in kernel.stores], replaced, lambda s: s, lambda a: a)
    stores = [Store(s.access, v) for s, v in zip(kernel.stores, values, strict=True)]
    return Kernel(kernel.name, kernel.axes, stores, nodes, kernel.reasons)
