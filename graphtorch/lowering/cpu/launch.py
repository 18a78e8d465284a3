"""The native program of a schedule: functions `segment<i>(context)` that walk the launch plan, and the entry that
Python calls. Steps without native code (operators that run through NumPy) separate the segments.

The context is a table of 8-byte words: a header, the addresses of inputs and outputs, and numbers that are known only
when sizes are (sizes, offsets into the arena, chunk sizes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphtorch.lowering.cpu import blas
from graphtorch.lowering.cpu.blas import Blas
from graphtorch.lowering.cpu.chain import Call, Chain, chain_text
from graphtorch.lowering.cpu.expansion import SCRATCH
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.kernel import Buffer, ExternCall, Schedule, View
from graphtorch.schedule.memory import MemoryPlan, aligned, nbytes
from graphtorch.tensor import dtypes
from graphtorch.tensor.generator import Generator, GeneratorState
from graphtorch.tensor.symint import evaluate

ARENA, POOL, IO_COUNT, EXPECTED, TRUE, FALSE, FAILURE, DETAIL, DETAIL2, HEADER = range(
    10
)  # words of the context's header
SERIAL_WORK = 60_000  # additions' worth that is not worth sharing
CHUNK_WORK = 30_000  # the least for one chunk
PIECE = 48  # steps of one function
GEMM_SERIAL = 400_000  # multiplications
ADDED_BYTES = 1 << 20  # of a result that any product is added to as it is made
SHORT_WORK = 20_000  # additions' worth that take less time than another thread would take to get the GIL

Number = Callable[[Mapping[str, int], MemoryPlan], int]


@dataclass(eq=False)
class Product:
    """A matrix product as BLAS takes it; sizes may be symbolic."""

    letter: str
    operands: tuple[View, View]
    output: Buffer
    batch: Any
    m: Any
    n: Any
    k: Any
    transposed: tuple[bool, bool]
    leading: tuple[Any, Any]
    accumulate: bool = False  # added to what `output` holds


Native = Function | Product | list[Function]  # the code of a step


def as_product(call: ExternCall) -> Product | None:
    """An `mm` or `bmm` whose operands BLAS can read in place; None for other calls."""
    if call.op.name not in ("mm", "bmm") or call.outputs[0] is None:
        return None
    a, b = call.args[0], call.args[1]
    letter = {dtypes.float32: "s", dtypes.float64: "d"}.get(a.buffer.dtype)
    if letter is None or b.buffer.dtype is not a.buffer.dtype:
        return None
    layouts = [_matrix(v) for v in (a, b)]
    if layouts[0] is None or layouts[1] is None:
        return None
    (ta, lda), (tb, ldb) = layouts[0], layouts[1]
    batch = a.shape[0] if len(a.shape) == 3 else 1
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    return Product(letter, (a, b), call.outputs[0], batch, m, n, k, (ta, tb), (lda, ldb), call.accumulate)


def should_accumulate(call: ExternCall) -> bool:
    """Whether a product is best added to what a buffer holds as it is made. A single row or column is a fold instead,
    and a large product of many rows a chain with the sum: that reads the buffer from its start to its end, which takes
    a twentieth less time than tile by tile."""
    product = as_product(call)
    if product is None or _is(product.m, 1) or _is(product.n, 1):
        return False
    m, n = product.m, product.n
    return type(m) is int and type(n) is int and (m < n or m * n * product.output.dtype.itemsize <= ADDED_BYTES)


def _matrix(view: View) -> tuple[bool, Any] | None:
    """(transposed, leading dimension) of a matrix in memory, if one of its strides is 1."""
    rows, columns = view.shape[-2], view.shape[-1]
    down, along = view.strides[-2], view.strides[-1]
    if any(type(s) is int and s < 0 for s in (down, along)):
        return None
    if _is(along, 1) or _is(columns, 1):
        if _is(rows, 1):
            return False, columns
        return (False, down) if _wide(down, columns) else None
    if _is(down, 1) or _is(rows, 1):
        return (True, along) if _wide(along, rows) else None
    return None


def _is(size: Any, number: int) -> bool:
    return type(size) is int and size == number


def _wide(stride: Any, size: Any) -> bool:
    """Whether rows do not overlap, as BLAS demands. A symbolic stride is a product with the size where it is not 0."""
    if type(stride) is int and type(size) is int:
        return stride >= max(size, 1)
    return not _is(stride, 0)


def ceil_divide(a: int, b: int) -> int:
    """The quotient of positive numbers, rounded up."""
    return -(-a // b)


def chunk_size(extent: int, grain: int, work: int, threads: int) -> int:
    """How many units one chunk has; all of them where sharing does not pay."""
    if threads <= 1 or work < SERIAL_WORK or extent <= grain:
        return max(extent, 1)
    chunks = min(threads * 8, max(work // CHUNK_WORK, 2), ceil_divide(extent, grain))
    return ceil_divide(ceil_divide(extent, chunks), grain) * grain


@dataclass(eq=False)
class Segment:
    """Consecutive native steps."""

    steps: list[int]
    name: str


@dataclass(eq=False)
class Program:
    """The native program.

    io          buffers whose addresses the caller gives, inputs first, in the order of the context's table
    numbers     what follows them in the context
    words       what each of these stands for
    scratch_bytes   memory behind the planned arena
    failures        exceptions and their messages, numbered from 1 in the context's word FAILURE
    generators      the random generators whose state the functions advance
    chains          the text of each chain's function
    """

    text: str
    io: list[Buffer]
    numbers: list[Number]
    segments: list[Segment]
    uses_blas: bool
    scratch_bytes: int
    words: list[Any] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)
    failures: list[tuple[type[Exception], str]] = field(default_factory=list)
    generators: list[Generator] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)


class Writer:
    """Writes the launch functions of one schedule."""

    def __init__(
        self,
        schedule: Schedule,
        native: Mapping[int, Native],
        plan: MemoryPlan | None,
        threads: int,
        library: Blas | None,
        chains: Sequence[Chain] = (),
    ) -> None:
        self.schedule = schedule
        self.native = native
        self.plan = plan  # of static sizes
        self.threads = threads
        self.library = library
        self.chains = {i: chain for chain in chains for i in chain.steps}
        self.chain_texts: list[str] = []
        self.private = {b for chain in chains for b in chain.private}
        self.shift = 0  # of the arguments' table that is being written
        self.io: list[Buffer] = list(schedule.inputs)
        self.io += dict.fromkeys(v.buffer for v in schedule.outputs if v.buffer.kind == "output")
        known = set(self.io)
        for step in schedule.steps:
            self.io += [
                b for b in dict.fromkeys((*step.reads(), *step.writes())) if b.kind != "temporary" and b not in known
            ]
            known.update(self.io)
        self.place = {b: i for i, b in enumerate(self.io)}
        self.numbers: list[Number] = []
        self.words: dict[Any, int] = {}
        self.failures: list[tuple[type[Exception], str]] = []
        self.generators: list[Generator] = []
        self.scratch: dict[Buffer, int] = {}
        self.scratch_bytes = 0
        ends: dict[int, int] = {}  # of the scratch memory that a chain's members have
        for i, code in native.items():
            if isinstance(code, list):
                first = self.chains[i].steps[0] if i in self.chains else i
                ends[first] = self._place_scratch(code, ends.get(first, 0))
        self.lines: list[str] = []
        self.count = 0
        self.arguments = 1
        self.total = 0

    def _place_scratch(self, functions: list[Function], end: int) -> int:
        for buffer in dict.fromkeys(b for f in functions for b in f.buffers if b.kind == SCRATCH):
            self.scratch[buffer] = end
            end += aligned(nbytes(buffer, {}))
        self.scratch_bytes = max(self.scratch_bytes, end)
        return end

    def run(self) -> Program:
        segments: list[Segment] = []
        parts: list[str] = []
        uses_blas = any(isinstance(n, Product) for n in self.native.values())
        steps = self.schedule.steps
        i = 0
        while i < len(steps):
            if i not in self.native:
                i += 1
                continue
            run: list[int] = []
            while i < len(steps) and i in self.native:
                run.append(i)
                i += 1
            segment = Segment(run, f"segment{len(segments)}")
            segments.append(segment)
            parts.append(self._segment(segment))
        parts += self.chain_texts
        if uses_blas:
            assert self.library is not None
            parts.append(blas.gemm_text(self.library.index))
            parts.append(blas.thread_text(self.library))
        parts.append("declare void @parallel_for(ptr, ptr, ptr, i64, i64)")
        first = segments[0].name if segments and segments[0].steps[0] == 0 else ""
        parts.append(entry_text(first, self.total >= SHORT_WORK))
        names = [*(s.name for s in segments), "entry"]
        text = "\n".join(parts)
        return Program(
            text,
            self.io,
            self.numbers,
            segments,
            uses_blas,
            self.scratch_bytes,
            list(self.words),
            names,
            self.failures,
            self.generators,
            self.chain_texts,
        )

    # -- values ------------------------------------------------------------------------------------------------------

    def _new(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"  %r{self.count} = {text}")
        return f"%r{self.count}"

    def _word(self, key: Any, compute: Number) -> str:
        """A number of the context."""
        at = self.words.get(key)
        if at is None:
            at = self.words[key] = HEADER + len(self.io) + len(self.numbers)
            self.numbers.append(compute)
        return self._new(f"load i64, ptr {self._new(f'getelementptr i64, ptr %context, i64 {at}')}")

    def _size(self, size: Any) -> str:
        if type(size) is int:
            return str(size)
        if isinstance(size, GeneratorState):
            if size.generator not in self.generators:
                self.generators.append(size.generator)
            return self._word(size, lambda bindings, plan: size.address)
        return self._word(size, lambda bindings, plan: evaluate(size, bindings))

    def _pointer(self, buffer: Buffer) -> str:
        if buffer.kind == SCRATCH:
            # Each call's scratch memory starts behind the planned arena, one buffer after another.
            behind = self.scratch[buffer]
            if self.plan is not None:
                return self._new(f"getelementptr i8, ptr %arena, i64 {aligned(self.plan.arena_bytes) + behind}")
            word = self._word((SCRATCH, behind), lambda bindings, plan: aligned(plan.arena_bytes) + behind)
            return self._new(f"getelementptr i8, ptr %arena, i64 {word}")
        if buffer.kind != "temporary":
            at = self._new(f"getelementptr i64, ptr %context, i64 {HEADER + self.place[buffer]}")
            return self._new(f"load ptr, ptr {at}")
        if buffer in self.private:
            return "null"  # the chain's function puts the address of a chunk's own memory here
        if self.plan is not None:
            offset = str(self.plan.offsets[buffer])
        else:
            offset = self._word(buffer, lambda bindings, plan: plan.offsets[buffer])
        return self._new(f"getelementptr i8, ptr %arena, i64 {offset}")

    def _argument(self, index: int, value: str, kind: str) -> None:
        index += self.shift
        self.arguments = max(self.arguments, index + 1)
        at = self._new(f"getelementptr i64, ptr %args, i64 {index}")
        self.lines.append(f"  store {kind} {value}, ptr {at}")

    def _table(self, place: int) -> str:
        """The address of arguments that stand further behind."""
        return self._new(f"getelementptr i64, ptr %args, i64 {place}")

    # -- launches ----------------------------------------------------------------------------------------------------

    def _segment(self, segment: Segment) -> str:
        """A function that calls one for each piece of a long segment: code generation takes time in the square of a
        function's length."""
        pieces = [segment.steps[i : i + PIECE] for i in range(0, len(segment.steps), PIECE)]
        texts: list[str] = []
        lines: list[str] = []
        if any(isinstance(self.native[i], Product) for i in segment.steps):
            lines += ["  %before = call i32 @blas_get_threads()", "  call void @blas_set_threads(i32 1)"]
        lines += [f"  %word = getelementptr i64, ptr %context, i64 {FAILURE}"]
        for n, steps in enumerate(pieces):
            known = len(self.failures)
            texts.append(self._piece(f"{segment.name}_{n}", steps))
            lines.append(f"  call void @{segment.name}_{n}(ptr %context)")
            if len(self.failures) > known and n + 1 < len(pieces):
                lines += [
                    f"  %found{n} = load i64, ptr %word",
                    f"  %bad{n} = icmp ne i64 %found{n}, 0",
                    f"  br i1 %bad{n}, label %out, label %fine{n}",
                    f"fine{n}:",
                ]
        lines += ["  br label %out", "out:"]
        if any(isinstance(self.native[i], Product) for i in segment.steps):
            lines.append("  call void @blas_set_threads(i32 %before)")
        whole = [f"define void @{segment.name}(ptr %context) #0 {{", "entry:", *lines, "  ret void", "}"]
        return "\n".join([*texts, *whole])

    def _piece(self, name: str, steps: Sequence[int]) -> str:
        self.lines, self.count, self.arguments = [], 0, 1
        for i in steps:
            chain = self.chains.get(i)
            if chain is not None:
                if i == chain.steps[0]:
                    self._chain(chain)
                continue
            code = self.native[i]
            if isinstance(code, Product):
                self._product(code)
                continue
            for function in code if isinstance(code, list) else [code]:
                self._kernel(function)
        self.lines += ["  br label %out", "out:"]
        head = [
            f"define internal void @{name}(ptr %context) #0 {{",
            "entry:",
            f"  %args = alloca [{self.arguments} x i64], align 16",
            "  %arena = load ptr, ptr %context",
            f"  %ppool = getelementptr i64, ptr %context, i64 {POOL}",
            "  %pool = load ptr, ptr %ppool",
        ]
        return "\n".join([*head, *self.lines, "  ret void", "}"])

    def _chain(self, chain: Chain) -> None:
        """One launch of several members: their arguments' tables stand one behind another, behind the addresses of
        the tables."""
        tables: list[int] = []
        calls: list[Call] = []
        place = len(chain.members)
        work = 0
        for member in chain.members:
            code = self.native[member.step]
            if isinstance(code, list):
                for function in code[:-1]:
                    self._kernel(function)
        for member in chain.members:
            code = self.native[member.step]
            code = code[-1] if isinstance(code, list) else code
            self.shift = place
            tables.append(place)
            if isinstance(code, Product):
                name = self._product_arguments(code, "rows")
                size = code.output.dtype.itemsize
                pointers = [*((v.buffer, v.offset * size) for v in code.operands), (code.output, 0)]
                words = blas.COUNT
            else:
                assert isinstance(code, Function)
                name = code.name
                self._kernel_arguments(code)
                pointers, words = [(b, 0) for b in code.buffers], len(code.buffers) + len(code.sizes)
            private = {n: pointer for n, pointer in enumerate(pointers) if pointer[0] in chain.private}
            calls.append(Call(name, member.extent // chain.groups, words, private))
            place += words
            work += member.work
        self.shift = 0
        for i, table in enumerate(tables):
            self._argument(i, self._table(table), "ptr")
        self.total += work
        name = f"chain{len(self.chain_texts)}"
        self.chain_texts.append(chain_text(name, calls, chain.private, chain.chunk))
        if chain.chunk >= chain.groups:
            self.lines.append(f"  call void @{name}(ptr %args, i64 0, i64 {chain.groups})")
            return
        self.lines.append(
            f"  call void @parallel_for(ptr %pool, ptr @{name}, ptr %args, i64 {chain.groups}, i64 {chain.chunk})"
        )

    def _kernel_arguments(self, function: Function) -> None:
        for i, buffer in enumerate(function.buffers):
            self._argument(i, self._pointer(buffer), "ptr")
        for i, size in enumerate(function.sizes):
            self._argument(len(function.buffers) + i, self._size(size), "i64")

    def _kernel(self, function: Function) -> None:
        self._kernel_arguments(function)
        if not function.failures:
            self._call(function.name, function.extent, function.grain, function.work)
            return
        failed = self._new(f"getelementptr i64, ptr %context, i64 {FAILURE}")
        self._argument(len(function.buffers) + len(function.sizes), failed, "ptr")
        self._call(function.name, function.extent, function.grain, function.work)
        self._stop_on_failure(failed, function.error, function.failures)

    def _stop_on_failure(self, failed: str, error: type[Exception], messages: tuple[str, ...]) -> None:
        """Leave the segment, with the message's number among all of them, if the word is not 0."""
        before = len(self.failures)
        self.failures += [(error, message) for message in messages]
        number = len(self.failures)
        found = self._new(f"load i64, ptr {failed}")
        bad = self._new(f"icmp ne i64 {found}, 0")
        own = self._new(f"add i64 {found}, {before}")
        self.lines += [
            f"  br i1 {bad}, label %failed{number}, label %fine{number}",
            f"failed{number}:",
            f"  store i64 {own}, ptr {failed}",
            "  br label %out",
            f"fine{number}:",
        ]

    def _call(self, name: str, extent: Any, grain: int, work: Any) -> None:
        threads = self.threads
        self.total += work if type(work) is int else SHORT_WORK
        if type(extent) is int and type(work) is int:
            chunk = chunk_size(extent, grain, work, threads)
            if chunk >= extent:
                self.lines.append(f"  call void @{name}(ptr %args, i64 0, i64 {extent})")
                return
            count, size = str(extent), str(chunk)
        else:
            count = self._size(extent)
            size = self._word(
                (name, str(extent), str(work), "chunk"),
                lambda bindings, plan: chunk_size(evaluate(extent, bindings), grain, evaluate(work, bindings), threads),
            )
        self.lines.append(f"  call void @parallel_for(ptr %pool, ptr @{name}, ptr %args, i64 {count}, i64 {size})")

    def _product_arguments(self, product: Product, form: str) -> str:
        """Write the arguments of a product that is split along `form`; the name of its function."""
        a, b = product.operands
        for i, (view, size) in enumerate(((a, a.buffer.dtype.itemsize), (b, b.buffer.dtype.itemsize))):
            pointer = self._pointer(view.buffer)
            if not _is(view.offset, 0):
                element = "float" if size == 4 else "double"
                pointer = self._new(f"getelementptr {element}, ptr {pointer}, i64 {self._size(view.offset)}")
            self._argument(i, pointer, "ptr")
        self._argument(blas.C, self._pointer(product.output), "ptr")
        for at, size in zip((blas.M, blas.N, blas.K), (product.m, product.n, product.k), strict=True):
            self._argument(at, self._size(size), "i64")
        for at, size in zip((blas.LDA, blas.LDB), product.leading, strict=True):
            self._argument(at, self._size(size), "i64")
        self._argument(blas.LDC, self._size(product.n), "i64")
        for at, transposed in zip((blas.TRANSPOSE_A, blas.TRANSPOSE_B), product.transposed, strict=True):
            self._argument(at, "112" if transposed else "111", "i64")
        self._argument(blas.BETA, "1" if product.accumulate else "0", "i64")
        if form == "batch":
            steps = (a.strides[0], b.strides[0], product.m * product.n)
            for at, step in zip((blas.STEP_A, blas.STEP_B, blas.STEP_C), steps, strict=True):
                self._argument(at, self._size(step), "i64")
            return product.letter + "gemm_batch"
        # Along rows op(A) moves by its leading dimension, or by one element where it is transposed.
        self._argument(blas.STEP_A, "1" if product.transposed[0] else self._size(product.leading[0]), "i64")
        self._argument(blas.STEP_B, self._size(product.leading[1]) if product.transposed[1] else "1", "i64")
        return f"{product.letter}gemm_{form}"

    def _product(self, product: Product) -> None:
        matrix = product.m * product.n * product.k
        if not _is(product.batch, 1):
            self._shared(self._product_arguments(product, "batch"), product.batch, 1, product.batch * matrix)
        elif _likely(product.n) > _likely(product.m):
            self._shared(self._product_arguments(product, "columns"), product.n, 16, matrix)
        else:
            self._shared(self._product_arguments(product, "rows"), product.m, 16, matrix)

    def _shared(self, name: str, extent: Any, grain: int, work: Any) -> None:
        """A product over the pool, in few parts, for BLAS prefers large matrices."""
        threads = self.threads
        self.total += work if type(work) is int else SHORT_WORK

        def parts(n: int, work: int) -> int:
            if threads <= 1 or work < GEMM_SERIAL or n < 2 * grain:
                return max(n, 1)
            # BLAS packs the operand that is not split anew for each part: two parts a thread, where there is enough
            # work, let one that comes late hold up little; four cost a tenth of the rate.
            count = threads * 2 if work > 16 * GEMM_SERIAL * threads else threads
            return ceil_divide(ceil_divide(n, count), grain) * grain

        if type(extent) is int and type(work) is int:
            chunk = parts(extent, work)
            if chunk >= extent:
                self.lines.append(f"  call void @{name}(ptr %args, i64 0, i64 {extent})")
                return
            count, size = str(extent), str(chunk)
        else:
            count = self._size(extent)
            size = self._word(
                (name, str(extent), str(work), "parts"),
                lambda bindings, plan: parts(evaluate(extent, bindings), evaluate(work, bindings)),
            )
        self.lines.append(f"  call void @parallel_for(ptr %pool, ptr @{name}, ptr %args, i64 {count}, i64 {size})")


def _likely(size: Any) -> int:
    return size if type(size) is int else (size.hint or 1024)


# Where CPython and NumPy keep what the entry reads; `executable.layout_is_known` checks it on live objects.
TYPE, ITEMS, DATA, RANK, DIMS, DESCR, FLAGS = 8, 24, 16, 24, 32, 56, 64
CONTIGUOUS_ALIGNED = 0x101


def entry_text(first: str, long: bool) -> str:
    """`entry(self, (arrays, context, check), 3)` with METH_FASTCALL: takes the arrays' addresses into the context,
    runs the first segment, without the GIL if that is `long`, and returns True; or False without running, if `check`
    is 1 and an array is not as expected.

    `arrays` is a list; the table of what is expected has for each of them its type, dtype, rank and sizes.
    """
    run = ""
    if first:
        run = f"  call void @{first}(ptr %context)\n"
    if first and long:
        save, restore = "  %state = call ptr @PyEval_SaveThread()\n", "  call void @PyEval_RestoreThread(ptr %state)\n"
        run = f"{save}{run}{restore}"
    return f"""
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @Py_IncRef(ptr)
define ptr @entry(ptr %self, ptr %arguments, i64 %n) #0 {{
entry:
  %list = load ptr, ptr %arguments
  %a1 = getelementptr ptr, ptr %arguments, i64 1
  %o1 = load ptr, ptr %a1
  %address = call i64 @PyLong_AsLongLong(ptr %o1)
  %context = inttoptr i64 %address to ptr
  %a2 = getelementptr ptr, ptr %arguments, i64 2
  %o2 = load ptr, ptr %a2
  %flag = call i64 @PyLong_AsLongLong(ptr %o2)
  %check = icmp ne i64 %flag, 0
  %pcount = getelementptr i64, ptr %context, i64 {IO_COUNT}
  %count = load i64, ptr %pcount
  %pexpected = getelementptr i64, ptr %context, i64 {EXPECTED}
  %expected = load ptr, ptr %pexpected
  %table = getelementptr i64, ptr %context, i64 {HEADER}
  %pitems = getelementptr i8, ptr %list, i64 {ITEMS}
  %items = load ptr, ptr %pitems
  br label %each
each:
  %i = phi i64 [0, %entry], [%i1, %stored]
  %e = phi ptr [%expected, %entry], [%e1, %stored]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %run
one:
  %pitem = getelementptr ptr, ptr %items, i64 %i
  %array = load ptr, ptr %pitem
  %perank = getelementptr i64, ptr %e, i64 2
  %rank = load i64, ptr %perank
  br i1 %check, label %checked, label %take
checked:
  %ptype = getelementptr i8, ptr %array, i64 {TYPE}
  %type = load i64, ptr %ptype
  %etype = load i64, ptr %e
  %sametype = icmp eq i64 %type, %etype
  br i1 %sametype, label %fields, label %bad
fields:
  %pdescr = getelementptr i8, ptr %array, i64 {DESCR}
  %descr = load i64, ptr %pdescr
  %pedescr = getelementptr i64, ptr %e, i64 1
  %edescr = load i64, ptr %pedescr
  %samedescr = icmp eq i64 %descr, %edescr
  %prank = getelementptr i8, ptr %array, i64 {RANK}
  %rank32 = load i32, ptr %prank
  %rank64 = sext i32 %rank32 to i64
  %samerank = icmp eq i64 %rank64, %rank
  %pflags = getelementptr i8, ptr %array, i64 {FLAGS}
  %flags = load i32, ptr %pflags
  %own = and i32 %flags, {CONTIGUOUS_ALIGNED}
  %plain = icmp eq i32 %own, {CONTIGUOUS_ALIGNED}
  %both = and i1 %samedescr, %samerank
  %fine = and i1 %both, %plain
  %pdims = getelementptr i8, ptr %array, i64 {DIMS}
  %dims = load ptr, ptr %pdims
  br i1 %fine, label %sizes, label %bad
sizes:
  %d = phi i64 [0, %fields], [%d1, %size]
  %moresizes = icmp ult i64 %d, %rank
  br i1 %moresizes, label %size, label %take
size:
  %pd = getelementptr i64, ptr %dims, i64 %d
  %vd = load i64, ptr %pd
  %d3 = add i64 %d, 3
  %ped = getelementptr i64, ptr %e, i64 %d3
  %ved = load i64, ptr %ped
  %samesize = icmp eq i64 %vd, %ved
  %d1 = add i64 %d, 1
  br i1 %samesize, label %sizes, label %bad
take:
  %pdata = getelementptr i8, ptr %array, i64 {DATA}
  %data = load i64, ptr %pdata
  %slot = getelementptr i64, ptr %table, i64 %i
  store i64 %data, ptr %slot
  br label %stored
stored:
  %i1 = add i64 %i, 1
  %used = add i64 %rank, 3
  %e1 = getelementptr i64, ptr %e, i64 %used
  br label %each
run:
{run}  br label %end
bad:
  br label %end
end:
  %which = phi i64 [{TRUE}, %run], [{FALSE}, %bad]
  %presult = getelementptr i64, ptr %context, i64 %which
  %result = load ptr, ptr %presult
  call void @Py_IncRef(ptr %result)
  ret ptr %result
}}
"""


def context_words(program: Program, bindings: Mapping[str, int], plan: MemoryPlan) -> Sequence[int]:
    """The numbers of the context for given sizes."""
    return [compute(bindings, plan) for compute in program.numbers]
