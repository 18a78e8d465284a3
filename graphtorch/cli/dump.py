"""`graphtorch dump`: a stage of what one call of a function compiles to."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from graphtorch.cli.arrays import save_arrays
from graphtorch.cli.errors import USAGE, CommandError
from graphtorch.cli.intercept import Interception, user_frames
from graphtorch.frontend import CaptureError, CompiledFunction
from graphtorch.frontend.compiler import Specialization
from graphtorch.frontend.effects import Raised, RunEagerly
from graphtorch.frontend.pipeline import forward_part
from graphtorch.frontend.program import Captured
from graphtorch.frontend.tree import flatten
from graphtorch.ir.graph import Graph
from graphtorch.ir.printer import print_graph
from graphtorch.lowering.kernel import Schedule
from graphtorch.tensor.remote import readable
from graphtorch.tensor.symint import UndecidedError
from graphtorch.tensor.tensor import Tensor

# These need no schedule: a fault in scheduling must not hide them.
GRAPH_STAGES = ("joint", "optimized", "primitives")
GPU_STAGES = ("triton", "ptx", "sass")
NATIVE_STAGES = ("llvm", "asm")
TEXT_STAGES = ("plan", "code", *NATIVE_STAGES, *GPU_STAGES)


def dump(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    file, colon, function = arguments.target.rpartition(":")
    if not colon or not function.replace(".", "_").isidentifier():
        file, function = arguments.target, ""  # without a function; a drive letter has a colon too
    texts: list[str] = []

    def reached(compiled: CompiledFunction, args: Any, kwargs: Any) -> None:
        texts.append(_dump_call(compiled, args, kwargs, arguments))

    Interception(function or None, arguments.call, reached).run(file, arguments.arguments)
    write(texts[0], arguments.output)
    return 0


def write(text: str, output: str | None) -> None:
    """To a file, or to standard output; ends in one newline."""
    text = text.rstrip("\n") + "\n"
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}") from error


def render(graph: Graph, arguments: argparse.Namespace) -> str:
    """A graph as text, JSON or Graphviz."""
    form = arguments.format
    if form == "text":
        return print_graph(graph, provenance=not arguments.no_source)
    from graphtorch.ir.export import to_dot, to_json

    return to_json(graph) if form == "json" else to_dot(graph)


def _dump_call(compiled: CompiledFunction, args: Any, kwargs: Any, arguments: argparse.Namespace) -> str:
    name = getattr(compiled.function, "__qualname__", repr(compiled.function))
    stage = arguments.stage
    if arguments.backend is not None:
        compiled.backend = arguments.backend
    if stage in GRAPH_STAGES:
        compiled.backend = "interpreter"
    if stage in NATIVE_STAGES:
        compiled.backend = "cpu"
    leaves: list[Any] = []
    tree = flatten((args, kwargs), leaves)
    try:
        if stage in ("captured", "forward"):
            captured = _capture(compiled, tree, leaves)
            result = render(captured.graph if stage == "captured" else forward_part(captured.graph), arguments)
        else:
            specialization = compiled.specialize(tree, leaves)
            captured = specialization.captured
            result = _render_stage(specialization, arguments)
    except CommandError:
        raise
    except (Exception, RunEagerly) as error:
        if isinstance(error, Raised):
            error = error.error
        kind = "" if isinstance(error, CaptureError | RunEagerly) else f"{type(error).__name__}: "
        place = "" if "\n  at " in str(error) else _user_line(error)
        raise CommandError(f"cannot compile {name}: {kind}{error}{place}") from error
    if arguments.inputs is not None:
        found = [source.fetch(leaves) for source in captured.sources]
        values = {
            v.name: readable(t._data) if isinstance(t, Tensor) else t
            for v, t in zip(captured.graph.inputs, found, strict=True)
        }
        save_arrays(arguments.inputs, values)
    return result


def _user_line(error: BaseException) -> str:
    """Where in the user's code an error was raised, as the operators' own errors say it."""
    frames = user_frames(traceback.extract_tb(error.__traceback__))
    return f"\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _capture(compiled: CompiledFunction, tree: Any, leaves: list[Any]) -> Captured:
    """As `CompiledFunction.specialize` captures, without compiling."""
    try:
        return compiled.capture(tree, leaves, compiled._changed_sizes(tree, leaves))[0]
    except UndecidedError:
        return compiled.capture(tree, leaves, {})[0]


def _render_stage(made: Specialization, arguments: argparse.Namespace) -> str:
    from graphtorch.lowering.printer import print_plan, print_schedule, schedule_dot, schedule_json

    stage = arguments.stage
    if arguments.format != "text" and stage in TEXT_STAGES:
        raise CommandError(f"--stage {stage} prints as text only", USAGE)
    if made.joint is None and arguments.backward:
        raise CommandError("no backward pass starts outside this function: leave out --backward")
    if stage == "joint" and made.joint is not None:
        return render(made.joint.joint, arguments)
    compiled = made.compiled
    if arguments.backward and made.joint is not None:
        compiled = made.joint.backward
    if stage == "joint":
        return render(compiled.stages.joint, arguments)
    if stage == "optimized":
        return render(compiled.stages.optimized, arguments)
    if stage == "primitives":
        from graphtorch.schedule.primitives import lower_to_primitives

        return render(lower_to_primitives(compiled.stages.optimized), arguments)
    executable = compiled.executable
    if stage == "code":
        sources = executable.sources()
        if not sources:
            raise CommandError("this backend generates no code: choose another --backend, such as numpy", USAGE)
        return "\n".join(f"# {name}\n{source.rstrip()}\n" for name, source in sources.items())
    if stage in NATIVE_STAGES:
        from graphtorch.lowering.cpu import CpuExecutable

        if not isinstance(executable, CpuExecutable):
            raise CommandError(f"no native code: {'; '.join(executable.fallbacks)}")
        return executable.llvm if stage == "llvm" else executable.asm()
    if executable.schedule is None:
        raise CommandError("this backend has no schedule: choose another --backend, such as numpy", USAGE)
    if stage in GPU_STAGES:
        return _gpu_code(executable.schedule, stage, arguments.gpu)
    if stage == "plan":
        return print_plan(executable.plan)
    if arguments.format == "text":
        return print_schedule(executable.schedule)
    if arguments.format == "json":
        return json.dumps(schedule_json(executable.schedule), indent=1)
    return schedule_dot(executable.schedule)


def _gpu_code(schedule: Schedule, stage: str, target: str) -> str:
    from graphtorch.lowering.triton.listing import list_schedule

    try:
        return list_schedule(schedule, stage, target)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    except ImportError as error:
        raise CommandError(str(error)) from error
