"""Compilation ahead of launch, for any target and without a GPU, and its cache on disk.

Triton's compiler is called with the source as text, argument types, hints and a target. What comes out (machine code,
assembly, what a launch needs to know) is one file of the cache, keyed by everything that it depends on, so that a
warm start imports no Triton. Entries carry a checksum and are renamed into place whole: a damaged one is compiled
again, a cache that can't be written costs only the time.

Triton accepts options it does not know and resources a target does not have; both are checked here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

from graphtorch.lowering import cache
from graphtorch.lowering.triton import processes
from graphtorch.lowering.triton.codegen import Generated, without_comments
from graphtorch.lowering.triton.errors import ResourceError
from graphtorch.lowering.triton.interpreter import LOCK
from graphtorch.lowering.triton.loading import load_source
from graphtorch.lowering.triton.processes import Job

logger = logging.getLogger(__name__)

_FORMAT = "1"  # of cache entries
BACKEND = "triton"  # whose part of the cache is ours


@dataclass(frozen=True)
class Target:
    """A kind of GPU.

    backend, architecture, warp     as Triton's GPUTarget
    shared_memory                   bytes that one program may have
    binary, assembly                what Triton calls the forms of its code
    """

    name: str
    backend: str
    architecture: int | str
    warp: int
    shared_memory: int
    binary: str = "cubin"
    assembly: str = "ptx"


# Shared memory: CUDA C++ programming guide, "technical specifications per compute capability"; AMD CDNA 3 ISA.
TARGETS = {
    t.name: t
    for t in (
        Target("sm_80", "cuda", 80, 32, 163 * 1024),
        Target("sm_90", "cuda", 90, 32, 227 * 1024),
        Target("sm_100", "cuda", 100, 32, 227 * 1024),
        Target("gfx942", "hip", "gfx942", 64, 64 * 1024, "hsaco", "amdgcn"),
    )
}
# Further GPUs that a machine may have. Machine code from sm_90 on runs on exactly the capability that it is for.
FURTHER_TARGETS = {
    f"sm_{n}": Target(f"sm_{n}", "cuda", n, 32, size * 1024)
    for n, size in ((86, 99), (87, 163), (89, 99), (103, 227), (120, 99), (121, 99))
}
DEFAULT_TARGET = "sm_90"
THREADS = 1024  # that one program may have, on every target
PATIENCE = 60.0  # seconds for a kernel that may fail; most take less than one


def target(name: str) -> Target:
    """The target of that name. Raises ValueError for an unknown one."""
    found = TARGETS.get(name) or FURTHER_TARGETS.get(name)
    if found is None:
        raise ValueError(f"unknown target {name!r}; known are {', '.join(TARGETS)}")
    return found


@dataclass(frozen=True)
class Compiled:
    """A kernel in machine code.

    shared          bytes of dynamic shared memory a program needs
    global_scratch  bytes of scratch memory a program needs through the first of the two trailing pointers
    assembly        PTX or AMD assembly
    """

    name: str
    target: str
    binary: bytes
    assembly: str
    shared: int
    num_warps: int
    num_ctas: int
    global_scratch: int

    @property
    def threads(self) -> int:
        return self.num_warps * target(self.target).warp


@once
def version() -> str:
    """The version of Triton, found without importing it. Raises ImportError where there is none."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("Triton is not installed: pip install 'graphtorch[gpu]'") from None


def compile_all(functions: Iterable[Generated], to: str = DEFAULT_TARGET) -> list[Compiled]:
    """Compile functions for a target, each different one once, those that are not in the cache in parallel.

    Raises ResourceError where one needs more shared memory or threads than the target has.
    """
    made: list[Compiled] = []
    for compiled in compile_each(functions, to):
        if isinstance(compiled, ResourceError):
            raise compiled
        made.append(compiled)
    return made


def compile_each(
    functions: Iterable[Generated], to: str = DEFAULT_TARGET, may_fail: bool = False
) -> list[Compiled | ResourceError]:
    """`compile_all`, with the error in the place of what the target can't run.

    may_fail    an error is in the place of what the compiler gives up on, too: where it raises something, takes longer
                than `PATIENCE` or ends its process (the last two only where it has processes of its own)
    """
    wanted = list(functions)
    made = target(to)
    keys = [cache_key(f, made) for f in wanted]
    found: dict[str, Compiled] = {}
    checked: dict[str, Compiled | ResourceError] = {}
    missing: dict[str, Generated] = {}
    for key, function in zip(keys, wanted, strict=True):
        if key in found or key in missing:
            continue
        entry = _read(key)
        if entry is None:
            missing[key] = function
        else:
            found[key] = entry
    if missing:
        for key, outcome in zip(missing, _compile(list(missing.values()), made, may_fail), strict=True):
            if isinstance(outcome, ResourceError):
                checked[key] = outcome
            else:
                _write(key, outcome)
                found[key] = outcome
    for key, compiled in found.items():
        try:
            check_resources(compiled)
            checked[key] = compiled
        except ResourceError as error:
            checked[key] = error
    return [checked[key] for key in keys]


def compile_one(function: Generated, to: str = DEFAULT_TARGET) -> Compiled:
    """`compile_all` of a single function."""
    return compile_all([function], to)[0]


def check_resources(compiled: Compiled) -> None:
    """Raise ResourceError where the target can't run the kernel."""
    made = target(compiled.target)
    if compiled.shared > made.shared_memory:
        raise ResourceError(
            f"{compiled.name} needs {compiled.shared} bytes of shared memory, {made.name} has {made.shared_memory}"
        )
    if compiled.threads > THREADS:
        raise ResourceError(f"{compiled.name} needs {compiled.threads} threads a program, {made.name} has {THREADS}")


def _compile(functions: Sequence[Generated], to: Target, may_fail: bool) -> list[Compiled | ResourceError]:
    count = processes.wanted(len(functions))
    if not count:
        return _compile_in_threads(functions, to, may_fail)

    def apart(function: Generated) -> Compiled | ResourceError:
        made = processes.compile_apart(_job(function), to.name, PATIENCE if may_fail else None)
        if isinstance(made, Compiled):
            return made
        if may_fail:
            why = made or f"the compiler ended, or took longer than {PATIENCE:.0f} s"
            return ResourceError(f"{function.name} does not compile for {to.name}: {why}")
        return _compile_in_threads([function], to, False)[0]

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(apart, functions))


def _job(function: Generated) -> Job:
    return Job(
        function.source,
        function.name,
        function.signature(),
        dict(function.constants),
        list(function.hints()),
        function.num_warps,
        function.num_stages,
    )


def _compile_in_threads(functions: Sequence[Generated], to: Target, may_fail: bool) -> list[Compiled | ResourceError]:
    import triton

    def attempt(function: Generated) -> Compiled | ResourceError:
        try:
            return compile_here(function, to)
        except Exception as error:
            if not may_fail or _miscounted(error):
                raise
            return ResourceError(f"{function.name} does not compile for {to.name}: {type(error).__name__}: {error}")

    def beside_others(function: Generated) -> Compiled | ResourceError | None:
        # None where it has to be done again, alone.
        try:
            return attempt(function)
        except Exception as error:
            if not _miscounted(error):
                raise
            return None

    # Triton keeps a cache of its own, which would hold everything a second time.
    with LOCK, tempfile.TemporaryDirectory(prefix="graphtorch-triton-") as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        if len(functions) == 1:
            return [attempt(functions[0])]
        with ThreadPoolExecutor(min(len(functions), os.cpu_count() or 1)) as pool:
            made = list(pool.map(beside_others, functions))
        return [attempt(f) if done is None else done for f, done in zip(functions, made, strict=True)]


def _miscounted(error: BaseException | None) -> bool:
    """Whether it comes from Python's parser, which counts its depth for all threads together, and sometimes stops at a
    wrong count (seen in 3.11.7). Triton wraps it where it parses a function that another one calls."""
    while error is not None:
        if isinstance(error, SystemError):
            return True
        error = error.__cause__ or error.__context__
    return False


def compile_here(function: Generated | Job, to: Target) -> Compiled:
    """Compile in this process and thread, with as many pipeline stages as asked for, or as fit into shared memory with
    their buffers."""
    stages = function.num_stages
    compiled = _compile_staged(function, to, stages)
    while compiled.shared > to.shared_memory and stages > 1:
        stages -= 1
        compiled = _compile_staged(function, to, stages)
    return compiled


def _compile_staged(function: Generated | Job, to: Target, stages: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = function.signature()
    names = list(signature)
    source = ASTSource(
        load_source(function.source)[function.name],
        signature=signature,
        constexprs={(names.index(name),): value for name, value in function.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in function.hints()},
    )
    made = triton.compile(
        source,
        target=GPUTarget(to.backend, to.architecture, to.warp),
        options={"num_warps": function.num_warps, "num_stages": stages, "enable_fp_fusion": True},
    )
    data = made.metadata
    return Compiled(
        data.name,
        to.name,
        made.asm[to.binary],
        made.asm[to.assembly],
        data.shared,
        data.num_warps,
        data.num_ctas,
        getattr(data, "global_scratch_size", 0) or 0,  # Triton 3.6 has none for AMD
    )


# -- what came out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resources:
    """What a kernel takes of a multiprocessor.

    registers   a thread, vector registers on AMD GPUs
    stack       bytes of local memory a thread
    shared      bytes of static shared memory a program
    spilled     bytes of the stack that hold registers; the rest are arrays of library functions (the digits of a large
                argument of a sine, which are indexed)
    """

    registers: int
    stack: int
    shared: int
    spilled: int


def resources(compiled: Compiled) -> Resources:
    """Read from the machine code, of NVIDIA GPUs with the tool that comes with Triton."""
    if target(compiled.target).binary != "cubin":
        keys = ("vgpr_count", "private_segment_fixed_size", "group_segment_fixed_size", "vgpr_spill_count")
        found = dict(re.findall(r"^ +\.(\w+): +(\d+)$", compiled.assembly, re.MULTILINE))
        registers, stack, shared, spills = (int(found[key]) for key in keys)
        return Resources(registers, stack, shared, 4 * spills)
    output = _tool("cuobjdump", ["--dump-resource-usage"], compiled)
    numbers = {k: int(v) for k, v in re.findall(r"\b(REG|STACK|SHARED):(\d+)", output)}
    arrays = sum(-(-int(n) // 8) * 8 for n in re.findall(r"\.local \.align \d+ \.b8\s+\w+\[(\d+)\]", compiled.assembly))
    return Resources(numbers["REG"], numbers["STACK"], numbers["SHARED"], max(numbers["STACK"] - arrays, 0))


def disassemble(compiled: Compiled) -> str:
    """The machine code as text (SASS). Raises ValueError for AMD code, whose assembly Triton gives already."""
    return _tool("cuobjdump", ["--dump-sass"], compiled)


def _tool(name: str, options: list[str], compiled: Compiled) -> str:
    if target(compiled.target).binary != "cubin":
        raise ValueError(f"{name} reads code for NVIDIA GPUs, not for {compiled.target}")
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    tool = bundled if bundled.exists() else shutil.which(name)
    if tool is None:
        raise FileNotFoundError(f"{name} is neither part of Triton nor on the path")
    with tempfile.TemporaryDirectory(prefix="graphtorch-triton-") as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.binary)
        return subprocess.run([tool, *options, file], check=True, capture_output=True, text=True).stdout


# -- the cache --------------------------------------------------------------------------------------------------------


def cache_key(function: Generated, to: Target) -> str:
    """A digest of everything that the machine code depends on."""
    parts = (
        _FORMAT,
        version(),
        to.name,
        without_comments(function.source),
        function.name,
        sorted(function.signature().items()),
        sorted(function.constants.items()),
        sorted(function.hints()),
        function.num_warps,
        function.num_stages,
    )
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


def _path(key: str) -> Path | None:
    return cache.place(BACKEND, key, ".kernel")


def _read(key: str) -> Compiled | None:
    """An entry; None where there is none or it is damaged."""
    path = _path(key)
    body = None if path is None else cache.read(path)
    if body is None:
        return None
    head, _, code = body.partition(b"\n")
    data: dict[str, Any] = json.loads(head)
    size = data.pop("binary_size")
    return Compiled(binary=code[:size], assembly=code[size:].decode(), **data)


def _write(key: str, compiled: Compiled) -> None:
    path = _path(key)
    if path is None:
        return
    data = {k: getattr(compiled, k) for k in ("name", "target", "shared", "num_warps", "num_ctas", "global_scratch")}
    head = json.dumps({**data, "binary_size": len(compiled.binary)}).encode()
    cache.write(path, head + b"\n" + compiled.binary + compiled.assembly.encode())
