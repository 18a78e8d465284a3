"""Random numbers as native code: the eager generator's stream, its state advanced in place.

Each operator is one function on one thread, since the stream is sequential: a block of words, which `mersenne` makes a
vector at a time, and the distribution on vectors. The numbers are those of `tensor/generator.py`, to the bit for what
float32 arithmetic alone gives. That needs fused multiply-add; hosts without it draw through NumPy.
"""

from __future__ import annotations

import dataclasses
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.lowering.cpu import transcendental
from graphtorch.lowering.cpu.assembly import Val, const
from graphtorch.lowering.cpu.calls import CallBuilder, Target, emitter
from graphtorch.lowering.cpu.elements import MEMORY, from_memory, to_memory
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import convert
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.schedule.indexing import product
from graphtorch.tensor import box_muller, dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.generator import (
    WIDE_RANDPERM,
    WIDE_RANGE,
    GeneratorState,
    closest_range,
    default_generator,
    largest_random,
)

CHUNK = 1024  # elements a call of the twister serves
_NARROW = (dtypes.float32, dtypes.float16, dtypes.bfloat16)
_FLOATS = (*_NARROW, dtypes.float64)

Sample = Callable[["_Draws", Val], Val]  # the values of one vector, from its words


Drawing = Callable[[ExternCall, Target], Function | None]


def draws(*names: str) -> Callable[[Drawing], Drawing]:
    """Register the emitter of random operators. A draw whose result nobody uses goes to scratch memory."""

    def register(function: Drawing) -> Drawing:
        @emitter(*names)
        def emit(call: ExternCall, target: Target) -> Function | list[Function] | None:
            if call.outputs[0] is not None:
                return function(call, target)
            value = call.nodes[0].results[0]
            if not all(type(s) is int for s in value.type.shape):
                return None
            unused = Buffer(f"{call.name}_unused", value.type.dtype, value.type.shape, SCRATCH, value)
            made = function(dataclasses.replace(call, outputs=(unused,)), target)
            return None if made is None else [made]

        return function

    return register


class _Draws(CallBuilder):
    """A function that draws words from a generator."""

    def __init__(self, call: ExternCall, target: Target, words: int) -> None:
        super().__init__(target)
        self.words = words  # an element
        self.lanes = target.register_bits // (32 * words)
        out = call.outputs[0]
        assert out is not None
        self.out = out
        self.result = self.pointer(out, MEMORY[out.dtype])
        self.generator = call.args[-1] or default_generator
        self.buffer = self.scratch(CHUNK * words, "i32")
        self.state = ""

    def start(self) -> Val:
        """The number of elements. To be called after all `pointer`s."""
        count = self.size(product(self.out.shape))
        address = self.size(GeneratorState(self.generator, "words"))
        self.state = self.emit(f"inttoptr {address.typed} to ptr", "ptr").text
        return count

    def draw(self, words: Val) -> None:
        """Fill the buffer."""
        lanes = self.target.register_bits // 32
        self.helpers.add(("mt19937", "i32", lanes))
        self.line(f"call void @mt19937.v{lanes}(ptr {self.state}, ptr {self.buffer}, {words.typed})")

    def word(self, at: Val) -> Val:
        """The words of a vector of elements, as integers of 32 or 64 bits; of two words the first is the high one."""
        if self.words == 1:
            return self.load(self.at(self.buffer, "i32", at), "i32", self.lanes)
        pair = self.load(self.at(self.buffer, "i64", at), "i64", self.lanes)
        return self.intrinsic("fshl", pair, pair, const(32, "i64", self.lanes))

    def put(self, x: Val, at: Val, mask: Val | None) -> None:
        kind = MEMORY[self.out.dtype]
        self.store(to_memory(self, x, self.out.dtype), self.at(self.result, kind, at), mask)

    def unit(self, at: Val) -> Val:
        """Uniform numbers in [0, 1): of 24 bits in float32, of 53 in float64."""
        if self.words == 1:
            whole = self.convert("sitofp", self.logic("and", self.word(at), 0xFFFFFF), "float")
            return self.product(whole, 2.0**-24)
        whole = self.convert("sitofp", self.logic("and", self.word(at), (1 << 53) - 1), "double")
        return self.product(whole, 2.0**-53)

    # Arithmetic that must not be fused: each operation rounds.

    def product(self, a: Val, b: Any) -> Val:
        return self.binary("fmul", a, b if isinstance(b, Val) else const(b, a.kind), "")

    def total(self, a: Val, b: Any) -> Val:
        return self.binary("fadd", a, b if isinstance(b, Val) else const(b, a.kind), "")

    def horner(self, coefficients: list[float], x: Val) -> Val:
        """A polynomial, its highest power first."""
        result = const(coefficients[0], x.kind, x.lanes)
        for c in coefficients[1:]:
            result = self.fma(result, x, c)
        return result

    def finish(self) -> Function:
        return self.function("draw", 1, 1, 0)


def _applies(call: ExternCall, target: Target, accepted: tuple[dtype, ...], numbers: tuple[Any, ...]) -> bool:
    out = call.outputs[0]
    return (
        target.fma
        and out is not None
        and out.dtype in accepted
        and out.dtype in MEMORY
        and not any(isinstance(n, View) or not isinstance(n, int | float) for n in numbers)
    )


def _each(call: ExternCall, target: Target, words: int, sample: Sample) -> Function:
    """Every element from words of its own."""
    b = _Draws(call, target, words)
    _over(b, b.start(), lambda at, place, mask: sample(b, at))
    return b.finish()


def _over(b: _Draws, count: Val, sample: Callable[[Val, Val, Val], Val]) -> None:
    """Store `sample(place in the buffer, place in the result, mask)` in every element."""

    def chunk(start: Val) -> list[Val]:
        n = b.minimum(b.sub(count, start), CHUNK)
        b.draw(b.mul(n, b.words))

        def vector(at: Val) -> list[Val]:
            mask = b.compare("slt", b.iota("i64", b.lanes), b.splat(b.sub(n, at), b.lanes))
            place = b.add(start, at)
            b.put(sample(at, place, mask), place, mask)
            return []

        b.loop(const(0, "i64"), n, b.lanes, lambda at, _: vector(at))
        return []

    b.loop(const(0, "i64"), count, CHUNK, lambda start, _: chunk(start))


def _words_of(d: dtype) -> int:
    return 2 if d is dtypes.float64 else 1


def _value(number: float, of: dtype) -> float:
    return float(np.array(number).astype(of.numpy))


# -- continuous -------------------------------------------------------------------------------------------------------


def _uniform(call: ExternCall, target: Target, low: Any, high: Any) -> Function | None:
    if not _applies(call, target, _FLOATS, (low, high)):
        return None
    out: Buffer = call.outputs[0]  # type: ignore[assignment]
    of = out.dtype
    start, width = float(low), float(high) - float(low)
    if of is not dtypes.float64:
        start = float(np.float32(low))
        width = float(np.float32(high) - np.float32(low))

    def sample(b: _Draws, at: Val) -> Val:
        x = convert(b, b.fma(b.unit(at), width, start), dtypes.float64 if b.words == 2 else dtypes.float32, of)
        # Rounding can reach the bound that is excluded.
        return b.select(b.compare("oeq", x, _value(high, of)), _value(low, of), x)

    return _each(call, target, _words_of(of), sample)


@draws("rand")
def rand(call: ExternCall, target: Target) -> Function | None:
    return _uniform(call, target, 0.0, 1.0)


@draws("uniform")
def uniform(call: ExternCall, target: Target) -> Function | None:
    return _uniform(call, target, *call.args[1:3])


@draws("exponential")
def exponential(call: ExternCall, target: Target) -> Function | None:
    rate = call.args[1]
    if not _applies(call, target, _FLOATS, (rate,)):
        return None
    of = call.outputs[0].dtype  # type: ignore[union-attr]

    def sample(b: _Draws, at: Val) -> Val:
        x = b.product(b.helper("lib_log1p", b.neg(b.unit(at))), -1.0 / float(rate))
        return _rounded(b, x, of)

    return _each(call, target, 2, sample)


def _rounded(b: _Draws, x: Val, of: dtype) -> Val:
    """float64 as another dtype; to half precision by way of float32, as PyTorch converts."""
    return convert(b, convert(b, x, dtypes.float64, dtypes.float32), dtypes.float32, of) if of in _NARROW else x


# -- discrete ---------------------------------------------------------------------------------------------------------


def _integers(call: ExternCall, target: Target, count: int, low: int, wide: bool) -> Function | None:
    """`low` and a remainder of a division by `count`; all 64 bits if that is 2**64."""
    out: Buffer = call.outputs[0]  # type: ignore[assignment]

    def sample(b: _Draws, at: Val) -> Val:
        word = b.word(at)
        if count != 1 << 64:
            word = b.binary("urem", word, const(count, word.kind), "")
        whole = b.add(word if word.kind == "i64" else b.convert("zext", word, "i64"), low)
        if out.dtype in (dtypes.float16, dtypes.bfloat16):
            return convert(b, convert(b, whole, dtypes.int64, dtypes.float32), dtypes.float32, out.dtype)
        return convert(b, whole, dtypes.int64, out.dtype)

    return _each(call, target, 2 if wide else 1, sample)


def _range(call: ExternCall, target: Target, low: Any, high: Any) -> Function | None:
    if not _applies(call, target, tuple(MEMORY), (low, high)) or type(low) is not int or type(high) is not int:
        return None
    out: Buffer = call.outputs[0]  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, last = closest_range(low, high, out.dtype.numpy)
    except (RuntimeError, NotImplementedError, UserWarning):
        return None  # NumPy says so at each call
    count = last - first + 1
    return _integers(call, target, count, first, count >= WIDE_RANGE)


@draws("randint")
def randint(call: ExternCall, target: Target) -> Function | None:
    return _range(call, target, *call.args[:2])


@draws("random_range")
def random_range(call: ExternCall, target: Target) -> Function | None:
    return _range(call, target, *call.args[1:3])


@draws("random_full")
def random_full(call: ExternCall, target: Target) -> Function | None:
    if not _applies(call, target, tuple(MEMORY), ()):
        return None
    of = call.outputs[0].dtype  # type: ignore[union-attr]
    return _integers(call, target, largest_random(of.numpy) + 1, 0, of in (dtypes.float64, dtypes.int64))


@draws("bernoulli_fill")
def bernoulli_fill(call: ExternCall, target: Target) -> Function | None:
    """The mask of dropout."""
    p = call.args[1]
    if not _applies(call, target, tuple(MEMORY), (p,)):
        return None
    of = call.outputs[0].dtype  # type: ignore[union-attr]
    return _each(call, target, 2, lambda b, at: convert(b, b.compare("olt", b.unit(at), float(p)), dtypes.bool_, of))


@draws("bernoulli")
def bernoulli(call: ExternCall, target: Target) -> Function | None:
    """With a probability an element. All are checked before any word is drawn."""
    given = call.args[0]
    if not _applies(call, target, tuple(MEMORY), ()) or given.buffer.dtype not in _FLOATS or not _dense(given):
        return None
    of = given.buffer.dtype
    b = _Draws(call, target, _words_of(of))
    source, kind = b.pointer(given, MEMORY[of]), MEMORY[of]
    count = b.start()
    failure = b.failure()
    wide = dtypes.float64 if b.words == 2 else dtypes.float32

    def probability(at: Val, mask: Val) -> Val:
        return convert(b, from_memory(b, b.load(b.at(source, kind, at), kind, b.lanes, mask), of), of, wide)

    def check(at: Val, bad: list[Val]) -> list[Val]:
        p = probability(at, b.compare("slt", b.iota("i64", b.lanes), b.splat(b.sub(count, at), b.lanes)))
        fine = b.logic("and", b.compare("oge", p, 0.0), b.compare("ole", p, 1.0))
        wrong = b.logic("xor", fine, const(True, "i1", b.lanes))
        return [b.logic("or", bad[0], wrong)]

    (found,) = b.loop(const(0, "i64"), count, b.lanes, lambda at, v: check(at, v), [const(False, "i1", b.lanes)])
    (any_bad,) = b.fold_lanes([found], lambda x, y: [b.logic("or", x[0], y[0])])
    b.when(any_bad, lambda: b.store(const(1, "i64"), failure))

    def draw() -> None:
        def sample(at: Val, place: Val, mask: Val) -> Val:
            return convert(b, b.compare("olt", b.unit(at), probability(place, mask)), dtypes.bool_, of)

        _over(b, count, sample)

    b.when(b.logic("xor", any_bad, True), draw)
    function = b.finish()
    function.failures = ("Expected p_in >= 0 && p_in <= 1 to be true, but got false.",)
    function.error = RuntimeError
    return function


def _dense(view: View) -> bool:
    step: Any = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if type(size) is int and size == 1:
            continue
        if type(stride) is not int or stride != step:
            return False
        step = step * size
    return True


@draws("randperm")
def randperm(call: ExternCall, target: Target) -> Function | None:
    """Fisher and Yates's shuffle: element i is exchanged with one of those from i on. Of very many elements, as the
    generator does it: inside out, with two words an element."""
    n = call.args[0]
    out = call.outputs[0]
    if out is None or out.dtype not in (dtypes.int64, dtypes.int32):
        return None
    b = _Draws(call, target, 2)
    count = b.start()
    if type(n) is int:
        (_inside_out if n >= WIDE_RANDPERM else _forward)(b, count)
        return b.finish()
    wide = b.compare("sge", count, WIDE_RANDPERM)
    b.when(wide, lambda: _inside_out(b, count))
    b.when(b.logic("xor", wide, True), lambda: _forward(b, count))
    return b.finish()


def _places(b: _Draws, words: int, steps: Val, each: Callable[[Val, Val], None]) -> None:
    """Call `each(i, word)` for a number of steps in turn, each with words of its own."""
    lanes, b.lanes = b.lanes, 1
    before, b.words = b.words, words

    def chunk(start: Val) -> list[Val]:
        size = b.minimum(b.sub(steps, start), CHUNK)
        b.draw(b.mul(size, words))

        def one(at: Val) -> list[Val]:
            word = b.word(at)
            each(b.add(start, at), word if words == 2 else b.convert("zext", word, "i64"))
            return []

        b.loop(const(0, "i64"), size, 1, lambda at, _: one(at))
        return []

    b.loop(const(0, "i64"), steps, CHUNK, lambda start, _: chunk(start))
    b.lanes, b.words = lanes, before


def _forward(b: _Draws, count: Val) -> None:
    kind = MEMORY[b.out.dtype]

    def fill(i: Val) -> list[Val]:
        b.store(i if kind == "i64" else b.convert("trunc", i, kind), b.at(b.result, kind, i))
        return []

    def exchange(i: Val, word: Val) -> None:
        # Of 32 bits both, which a division takes half the time for.
        left = b.convert("trunc", b.sub(count, i), "i32")
        other = b.convert("zext", b.binary("urem", b.convert("trunc", word, "i32"), left, ""), "i64")
        here, there = b.at(b.result, kind, i), b.at(b.result, kind, b.add(i, other))
        x, y = b.load(here, kind), b.load(there, kind)
        b.store(y, here)
        b.store(x, there)

    b.loop(const(0, "i64"), count, 1, lambda i, _: fill(i))
    _places(b, 1, b.sub(count, 1), exchange)


def _inside_out(b: _Draws, count: Val) -> None:
    kind = MEMORY[b.out.dtype]

    def place(i: Val, word: Val) -> None:
        there = b.at(b.result, kind, b.binary("urem", word, b.add(i, 1), ""))
        here = b.at(b.result, kind, i)
        b.store(b.load(there, kind), here)
        b.store(i if kind == "i64" else b.convert("trunc", i, kind), there)

    _places(b, 2, count, place)


# -- normal -----------------------------------------------------------------------------------------------------------


def _log32(b: _Draws, x: Val) -> Val:
    """Cephes' logf for normal positive numbers, each step rounded as `tensor/box_muller.py` rounds it."""
    bits = b.convert("bitcast", x, "i32")
    mantissa = b.convert("bitcast", b.logic("or", b.logic("and", bits, 0x7FFFFF), 0x3F000000), "float")
    small = b.compare("olt", mantissa, float(box_muller._SQRT_HALF))
    exponent = b.sub(b.sub(b.logic("lshr", bits, 23), 126), b.convert("zext", small, "i32"))
    e = b.convert("sitofp", exponent, "float")
    m = b.total(b.total(mantissa, b.select(small, mantissa, 0.0)), -1.0)
    z = b.product(m, m)
    y = b.product(b.horner(box_muller._LOG, m), m)
    y = b.fma(y, z, b.product(e, box_muller._LN2_LOW))
    y = b.fma(z, -0.5, y)
    return b.fma(e, box_muller._LN2_HIGH, b.total(m, y))


def _sincos32(b: _Draws, x: Val) -> tuple[Val, Val]:
    """Cephes' sinf and cosf for numbers in [0, 2 pi]."""
    whole = b.freeze(b.convert("fptosi", b.product(x, float(box_muller._4_PI)), "i32"))
    octant = b.logic("and", b.add(whole, 1), -2)
    j = b.convert("sitofp", octant, "float")
    r = x
    for part in box_muller._PI_4:
        r = b.fma(j, -part, r)
    z = b.product(r, r)
    cosine = b.total(b.fma(b.product(b.horner(box_muller._COS, z), z), z, b.product(z, -0.5)), 1.0)
    sine = b.fma(b.product(b.horner(box_muller._SIN, z), z), r, r)
    swap = b.compare("ne", b.logic("and", octant, 2), 0)

    def signed(value: Val, octants: Val) -> Val:
        sign = b.logic("shl", b.logic("and", octants, 4), 29)
        return b.convert("bitcast", b.logic("xor", b.convert("bitcast", value, "i32"), sign), "float")

    return signed(b.select(swap, cosine, sine), octant), signed(b.select(swap, sine, cosine), b.add(octant, 2))


def _polar(b: _Draws, radial: Val, turn: Val) -> tuple[Val, Val, Val]:
    """(radius, cosine, sine) of the Box-Muller transform."""
    if b.words == 1:
        sine, cosine = _sincos32(b, b.product(turn, float(box_muller._TWO_PI)))
        return b.intrinsic("sqrt", b.product(_log32(b, radial), -2.0)), cosine, sine
    theta = b.product(turn, 2 * np.pi)
    radius = b.intrinsic("sqrt", b.product(transcendental.log(b, radial), -2.0))
    return radius, b.helper("lib_cos", theta), b.helper("lib_sin", theta)


def _normal(call: ExternCall, target: Target, mean: Any, std: Any) -> Function | None:
    """Blocks of 16: the first 8 uniform numbers give radii, the last 8 angles; then 8 cosines and 8 sines."""
    if not _applies(call, target, _FLOATS, (mean, std)):
        return None
    out: Buffer = call.outputs[0]  # type: ignore[assignment]
    of = out.dtype
    b = _Draws(call, target, _words_of(of))
    total = product(out.shape)
    count = b.start()
    if type(total) is int:
        (_few if total < 16 else _blocks)(b, count, float(mean), float(std))
        return b.finish()
    kept = b.size(GeneratorState(b.generator, "normal"))
    small = b.compare("slt", count, 16)
    b.when(small, lambda: _few(b, count, float(mean), float(std), kept))
    b.when(b.logic("xor", small, True), lambda: _blocks(b, count, float(mean), float(std)))
    return b.finish()


def _few(b: _Draws, count: Val, mean: float, std: float, kept: Val | None = None) -> None:
    """Pair by pair in float64, from two numbers of 53 bits; the second of a pair may wait for the next call."""
    address = kept or b.size(GeneratorState(b.generator, "normal"))
    memory = b.emit(f"inttoptr {address.typed} to ptr", "ptr").text
    valid = b.offset(memory, const(1, "i64"), "double")
    first = b.scratch(1, "double")
    lanes, words = b.lanes, b.words
    b.lanes, b.words = 1, 2

    def pair() -> None:
        b.draw(const(4, "i64"))
        angle, radial = (b.unit(const(n, "i64")) for n in (0, 1))
        radius = b.intrinsic("sqrt", b.product(b.helper("lib_log1p", b.neg(radial)), -2.0))
        theta = b.product(angle, 2 * np.pi)
        b.store(b.product(radius, b.helper("lib_cos", theta)), first)
        b.store(b.product(radius, b.helper("lib_sin", theta)), memory)

    def one(i: Val) -> list[Val]:
        waiting = b.compare("une", b.load(valid, "double"), 0.0)
        taken = b.load(memory, "double")
        b.when(b.logic("xor", waiting, True), pair)
        b.store(b.select(waiting, 0.0, const(1.0, "double")), valid)
        x = b.fma(b.select(waiting, taken, b.load(first, "double")), std, mean)
        b.put(_rounded(b, x, b.out.dtype), i, None)
        return []

    b.loop(const(0, "i64"), count, 1, lambda i, _: one(i))
    b.lanes, b.words = lanes, words


def _blocks(b: _Draws, count: Val, mean: float, std: float) -> None:
    """At least 16 numbers, in blocks of 16."""
    of = b.out.dtype
    lanes, b.lanes = b.lanes, 8
    wide = dtypes.float64 if b.words == 2 else dtypes.float32
    shift, scale = (mean, std) if b.words == 2 else (_single(mean), _single(std))

    def block(at: Val, place: Val) -> None:
        radial = b.total(b.neg(b.unit(at)), 1.0)
        radius, cosine, sine = _polar(b, radial, b.unit(b.add(at, 8)))
        for part, n in ((cosine, 0), (sine, 8)):
            x = convert(b, b.fma(b.product(radius, part), scale, shift), wide, of)
            b.put(x, b.add(place, n), None)

    whole = b.logic("and", count, -16)

    def chunk(start: Val) -> list[Val]:
        size = b.minimum(b.sub(whole, start), CHUNK)
        b.draw(b.mul(size, b.words))

        def one(at: Val) -> list[Val]:
            block(at, b.add(start, at))
            return []

        b.loop(const(0, "i64"), size, 16, lambda at, _: one(at))
        return []

    def last() -> None:
        # The last 16 are drawn anew. Full precision has drawn the incomplete block first.
        if of in (dtypes.float32, dtypes.float64):
            b.draw(b.mul(b.sub(count, whole), b.words))
        b.draw(const(16 * b.words, "i64"))
        block(const(0, "i64"), b.sub(count, 16))

    b.loop(const(0, "i64"), whole, CHUNK, lambda start, _: chunk(start))
    b.when(b.compare("slt", whole, count), last)
    b.lanes = lanes


def _single(x: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    return rounded


@draws("randn")
def randn(call: ExternCall, target: Target) -> Function | None:
    return _normal(call, target, 0.0, 1.0)


@draws("normal")
def normal(call: ExternCall, target: Target) -> Function | None:
    return _normal(call, target, *call.args[1:3])
