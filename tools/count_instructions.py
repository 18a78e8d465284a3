"""Counts what the kernels of benchmarks/gpu.py execute, against what they move and multiply, without a GPU.

    python tools/count_instructions.py [CASE ...]

Each case (all, or those whose name begins so: "softmax", "gpt") is captured at its real sizes on a device that runs
nothing, in the default mode. Its kernels are compiled for sm_90 and read as machine code: the instructions of a warp
from the first to the exit, those of loops as often as these go round, without the slow paths of divisions. A
multiprocessor of an H200 issues four a cycle, one from each of its schedulers. Printed are, most time first,

- of a kernel without products: the time that its memory takes at 90 % of the bandwidth of a copy, the share of it that
  issuing takes. From about 0.6 on a kernel is likely to wait for its arithmetic, not for memory;
- of a product's loop: the cycles that its tensor cores take for a step, and the share of them that issuing takes.

What it can't see: latencies, barriers, banks, the caches, the clock under load. Loops whose bounds are not in the text
(symbolic sizes, groups of tensors) count once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

MULTIPROCESSORS, CLOCK, SCHEDULERS = 132, 1.755e9, 4
BANDWIDTH = 0.9 * 4.3e12  # bytes a second; 4.3e12 is what a copy of large tensors is expected to reach
TENSOR = {"16": 2048, "8": 1024}  # products a cycle of a multiprocessor, by the K of an instruction (bfloat16, tf32)
BLOCK = re.compile(r"/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;")
JUMP = re.compile(r"BRA(?:\.\w+)? (?:!?U?P\d, )?0x([0-9a-f]+)")


@dataclass(frozen=True)
class Counted:
    """Instructions of a warp: all of them once, and of each loop; per step of a loop, the tensor cores' cycles."""

    once: int
    loops: tuple[int, ...]
    cycles: tuple[float, ...]
    registers: int
    spilled: int


_known: dict[Any, Counted] = {}


def _kind(function: Any) -> Any:
    """What equal functions have in common."""
    from graphtorch.lowering.triton.codegen import without_comments

    source = without_comments(function.source)
    return source, tuple(function.constants.items()), function.num_warps, function.num_stages


def count(function: Any) -> Counted:
    """Read a function's machine code."""
    key = _kind(function)
    if key not in _known:
        _known[key] = _count(function)
    return _known[key]


def _count(function: Any) -> Counted:
    from graphtorch.lowering.triton.compiler import compile_one, disassemble, resources

    compiled = compile_one(function, "sm_90")
    used = resources(compiled)
    lines = BLOCK.findall(disassemble(compiled))
    exits = (i for i, (_, text) in enumerate(lines) if "EXIT" in text and not text.startswith("@"))
    end = next(exits, len(lines))
    at = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    loops, cycles = [], []
    for i, (address, text) in enumerate(lines[:end]):
        jump = JUMP.search(text)
        if jump and int(jump[1], 16) < int(address, 16):
            body = [t for _, t in lines[at[int(jump[1], 16)] : i + 1]]
            loops.append(len(body) - _skipped(body))
            cycles.append(sum(_cycles(t) for t in body) * function.num_warps / 4)
    whole = [text for _, text in lines[:end]]
    return Counted(end - _skipped(whole), tuple(loops), tuple(cycles), used.registers, used.spilled)


def _skipped(lines: list[str]) -> int:
    """Instructions around calls of slow paths, which hardly any operand takes."""
    return 3 * sum("CALL" in text for text in lines)


def _cycles(text: str) -> float:
    """What an instruction of four warps on tensor cores takes."""
    shape = re.search(r"HGMMA\.(\d+)x(\d+)x(\d+)", text)
    if shape is None:
        return 0.0
    m, n, k = (int(x) for x in shape.groups())
    return m * n * k / TENSOR.get(str(k), 2048)


def steps(names: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Each case's name, and the launches of its step."""
    from gpu_worker import Runner
    from gpu_workloads import BUILDERS, CORE, MORE

    from graphtorch.lowering.triton import compiler, execution
    from graphtorch.lowering.triton.compiler import Compiled

    os.environ["GRAPHTORCH_CACHE"] = ""
    plans: list[Any] = []
    made, compiled = execution.make_plan, compiler.compile_here

    def noted(*args: Any, **options: Any) -> Any:
        plans.append(made(*args, **options))
        return plans[-1]

    def nothing(function: Any, to: Any) -> Compiled:
        return Compiled(function.name, to.name, b"", "", 0, function.num_warps, 1, 0)

    execution.make_plan = noted
    runner = Runner("graphtorch", "dry")
    for name, sizes in (*CORE, *MORE):
        case = f"{name} {' '.join(map(str, sizes))}"
        if names and not any(case.startswith(n) for n in names):
            continue
        compiler.compile_here = nothing
        plans.clear()
        runner.step(BUILDERS[name](runner.torch, runner.device, *sizes), "default")()
        compiler.compile_here = compiled
        yield case, [step for step in plans[-1].steps if hasattr(step, "function")]


def trips(launch: Any) -> int:
    """How often a kernel's loop goes round."""
    source, constants = launch.function.source, launch.function.constants
    along = {name: int(size) for name, size in re.findall(r"\b([xr])_size = (\d+)$", source, re.M)}
    if "for x_start in" in source and "x" in along:
        return -(-along["x"] // (launch.grid[0] * constants["X_BLOCK"]))
    if "for r_start in" in source and "r" in along:
        return -(-along["r"] // constants["R_BLOCK"])
    return 1


def moved(launch: Any) -> int:
    """Bytes of all that a launch reads and writes, each once."""
    total = 0
    for buffer in {b for b in launch.arguments if not isinstance(b, int)}:
        size = buffer.dtype.itemsize
        for n in buffer.shape:
            size *= int(n)
        total += size
    return total


def report(case: str, launches: list[Any]) -> None:
    print(f"\n{case}\n")
    groups: dict[Any, list[Any]] = {}
    for launch in launches:
        groups.setdefault((launch.grid, _kind(launch.function)), []).append(launch)
    memory: list[tuple[float, str]] = []
    products: list[tuple[float, str]] = []
    for alike in groups.values():
        launch, f = alike[0], alike[0].function
        found = count(f)
        shape = f"{len(alike)} x {launch.step} {f.name}, {dict(f.constants)}, {f.num_warps} warps"
        kept = f"{found.registers} registers" + (f", {found.spilled} bytes spilled" if found.spilled else "")
        programs = launch.grid[0] * launch.grid[1] * launch.grid[2]
        if any(found.cycles):
            for body, cycles in zip(found.loops, found.cycles, strict=True):
                issued = body * f.num_warps / SCHEDULERS
                line = f"| {shape} | {cycles:.0f} | {issued / max(cycles, 1e-9):.2f} | {body} | {found.once} | {kept} |"
                products.append((cycles * programs * len(alike), line))
        elif "table" not in f.source:
            instructions = found.once + sum(found.loops) * (trips(launch) - 1)
            issue = len(alike) * programs * f.num_warps * instructions / SCHEDULERS / MULTIPROCESSORS / CLOCK
            seconds = len(alike) * moved(launch) / BANDWIDTH
            line = f"| {shape} | {seconds * 1e6:.1f} | {issue / max(seconds, 1e-9):.2f} | {instructions} | {kept} |"
            memory.append((max(seconds, issue), line))
    if memory:
        print("| kernel | memory, us | share of issuing | instructions of a warp | |\n|---|---|---|---|---|")
        print("\n".join(line for _, line in sorted(memory, reverse=True)))
    if products:
        print(
            ("\n" if memory else "")
            + "| product | cycles of a step | share of issuing | instructions of a step | of all, once | |"
        )
        print("|---|---|---|---|---|---|")
        print("\n".join(line for _, line in sorted(products, reverse=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    for case, launches in steps(parser.parse_args().cases):
        report(case, launches)
    return 0


if __name__ == "__main__":
    sys.exit(main())
