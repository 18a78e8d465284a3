"""A schedule's translation: the LLVM text of its steps and of the program that launches them, and where everything
lies in memory. What has no native code is a fallback, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from graphtorch.lowering.binding import symbolic_dims
from graphtorch.lowering.cpu import launch, stack
from graphtorch.lowering.cpu.blas import find_blas
from graphtorch.lowering.cpu.calls import Target, native_call
from graphtorch.lowering.cpu.chain import Chain, find_chains, private_buffers
from graphtorch.lowering.cpu.compiler import host, module_parts, module_text
from graphtorch.lowering.cpu.emissions import Emissions
from graphtorch.lowering.cpu.expansion import expand, vector_product
from graphtorch.lowering.cpu.function import Function
from graphtorch.lowering.cpu.instructions import RefusedError
from graphtorch.lowering.cpu.members import member_of
from graphtorch.lowering.cpu.partial_folds import split_folds
from graphtorch.lowering.cpu.pool import get_pool
from graphtorch.lowering.cpu.unfolding import unfold_symbolic
from graphtorch.lowering.cpu.widening import widen_halves
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Schedule
from graphtorch.schedule.accumulation import products_into_sums
from graphtorch.schedule.effects import updates_behind_products
from graphtorch.schedule.memory import MemoryPlan, plan


class Translation:
    """What a schedule becomes.

    schedule        as it runs here, which is not quite as it was given
    functions       the code of each step by name
    native          the steps that have code, by position
    fallbacks       one line a step that runs through NumPy
    chains          steps that run chunk by chunk
    plan            the memory plan, where all sizes are known
    program         the native functions that launch the steps
    stack_bytes     what the program needs of a thread's stack
    """

    def __init__(self, schedule: Schedule) -> None:
        schedule = widen_halves(schedule)
        if find_blas() is not None:
            schedule = unfold_symbolic(schedule)
        steps = updates_behind_products(schedule.steps)
        if find_blas() is not None:
            steps = products_into_sums(steps, {v.buffer for v in schedule.outputs}, launch.should_accumulate)
        schedule = dataclasses.replace(schedule, steps=steps)
        self.schedule: Schedule = schedule
        self.fallbacks: list[str] = []
        pool, blas = get_pool(), find_blas()
        self.functions: dict[str, Function] = {}
        self.emissions = Emissions(host().register_bits, host().fma)
        self.native: dict[int, launch.Native] = {}
        producers: dict[Buffer, ExternCall] = {}
        for i, step in enumerate(schedule.steps):
            try:
                code = self._code(step, producers, blas is not None)
            except RefusedError as error:
                self.fallbacks.append(f"{step.name} runs on NumPy: {error}")
                continue
            if code is not None:
                self.native[i] = code
        known = not symbolic_dims([b.value for b in schedule.inputs])
        self.chains: list[Chain] = self._find_chains(pool.threads) if known else []  # chunks are chosen by known sizes
        self.together: Sequence[Sequence[int]] = [chain.steps for chain in self.chains]
        self.private = {b for chain in self.chains for b in chain.private}
        for chain in self.chains:
            names = ", ".join(schedule.steps[i].name for i in chain.steps)
            schedule.report.append(f"{names} run chunk by chunk: what one hands to the next stays in cache")
        self.plan: MemoryPlan | None = plan(schedule, {}, self.together, self.private) if known else None
        self.program = launch.Writer(schedule, self.native, self.plan, pool.threads, blas, self.chains).run()
        self.stack_bytes = stack.needed([*(f.text for f in self.functions.values()), *self.program.chains])

    @property
    def llvm(self) -> str:
        """The LLVM text of everything as one module."""
        return module_text(self.functions.values(), self.program.text)

    def modules(self) -> list[str]:
        """The LLVM text as it is compiled: in several modules where it is long."""
        return module_parts(self.functions.values(), self.program.text)

    def _code(
        self, step: Kernel | ExternCall, producers: dict[Buffer, ExternCall], products: bool
    ) -> launch.Native | None:
        """The native code of a step, if there is any. Raises RefusedError."""
        if isinstance(step, Kernel):
            parts = split_folds(step, host().register_bits, get_pool().threads)
            if parts is None:
                return self._emit(step)
            return [self._emit(kernel, f"{step.name}_{n}") for n, kernel in enumerate(parts)]
        producers.update((b, step) for b in step.writes())
        product = launch.as_product(step) if products else None
        if product is not None:
            code = self.emissions.product(product)
            vector = None if code else vector_product(step)
            if vector is not None:
                return self._emit(vector[0])
            for n, function in enumerate(code if isinstance(code, list) else [code] if code else []):
                self.functions[f"{step.name}_{n}" if n else step.name] = function
            return code or product
        target = host()
        written = native_call(step, Target(target.register_bits, target.fma, get_pool().threads, products))
        if isinstance(written, Function):
            self.functions[step.name] = written
        if isinstance(written, list):
            self.functions.update((f"{step.name}_{n}", function) for n, function in enumerate(written))
        if written is not None:
            return written
        kernels = expand(step, producers)
        if kernels is None:
            raise RefusedError(f"{step.op.name} has no native code")
        return [self._emit(kernel, f"{step.name}_{n}") for n, kernel in enumerate(kernels)]

    def _find_chains(self, threads: int) -> list[Chain]:
        """Steps that run chunk by chunk."""
        if threads < 1:
            return []
        members = [member_of(i, self.native.get(i), threads) for i in range(len(self.schedule.steps))]
        users: dict[Buffer, set[int]] = {}
        for i, step in enumerate(self.schedule.steps):
            for buffer in (*step.reads(), *step.writes()):
                users.setdefault(buffer, set()).add(i)
        for view in self.schedule.outputs:
            users.setdefault(view.buffer, set()).add(-1)
        chains = find_chains(members, threads)
        for chain in chains:
            chain.private = private_buffers(chain, users)
        return chains

    def _emit(self, kernel: Kernel, name: str = "") -> Function:
        function = self.functions[name or kernel.name] = self.emissions.kernel(kernel)
        return function
