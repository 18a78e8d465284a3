"""Schedules and memory plans as text, JSON and Graphviz.

k0(i0: 64, r0: 10)  # softmax (train.py:12)
  %0 = max[r0] x[10*i0 + r0]
  %1 = sub x[10*i0 + r0], %0
  %2 = exp %1
  %3 = sum[r0] %2
  out0[10*i0 + r0] = div %2, %3
"""

from __future__ import annotations

from os.path import basename
from typing import Any

from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Compute,
    Constant,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Reduce,
    Schedule,
    View,
)
from graphtorch.schedule.memory import MemoryPlan


def print_schedule(schedule: Schedule, report: bool = True) -> str:
    """Every step, the outputs and (unless told not to) the fusion report."""
    lines = [f"inputs {', '.join(map(_declared, schedule.inputs)) or 'none'}", ""]
    for step in schedule.steps:
        lines += [print_kernel(step) if isinstance(step, Kernel) else print_call(step), ""]
    lines.append(f"outputs {', '.join(map(_view, schedule.outputs)) or 'none'}")
    kernels, calls = len(schedule.kernels), len(schedule.steps) - len(schedule.kernels)
    lines.append(f"{schedule.primitive_count} primitives in {kernels} kernels and {calls} calls")
    if report and schedule.report:
        lines += ["", *(f"# {line}" for line in schedule.report)]
    return "\n".join(lines) + "\n"


def print_kernel(kernel: Kernel) -> str:
    """A kernel's axes, expressions in order of evaluation, and stores."""
    text = _KernelText(kernel)
    axes = ", ".join(f"{a.name}: {a.size}" for a in kernel.axes)
    return "\n".join([f"{kernel.name}({axes}){_origin(kernel)}", *text.lines()])


def print_call(call: ExternCall) -> str:
    """An opaque operator with its operands' layouts."""
    outputs = ", ".join("_" if o is None else _declared(o) for o in call.outputs)
    sign = "+=" if call.accumulate else "="
    return f"{call.name}{_origin(call)}\n  {outputs} {sign} {call.op.name}({', '.join(map(_argument, call.args))})"


def print_plan(plan: MemoryPlan) -> str:
    """The arena, buffer by buffer in order of first use."""
    lines = [
        f"arena {plan.arena_bytes} bytes (at least {plan.peak_bytes} live at once; {plan.total_bytes} without reuse), "
        f"outputs {plan.output_bytes} bytes"
    ]
    width = max((len(b.name) for b in plan.offsets), default=0)
    for buffer in sorted(plan.offsets, key=lambda b: (plan.lifetimes[b], plan.offsets[b])):
        first, last = plan.lifetimes[buffer]
        start = plan.offsets[buffer]
        lines.append(
            f"  {buffer.name:<{width}}  {start:>10} .. {start + plan.sizes[buffer]:<10}  steps {first} to {last}  "
            f"{_type(buffer)}"
        )
    return "\n".join(lines) + "\n"


def schedule_json(schedule: Schedule) -> dict[str, Any]:
    """The schedule as plain data, for tools: sizes, strides and offsets as ints or as text."""
    return {
        "inputs": [_buffer_json(b) for b in schedule.inputs],
        "steps": [_step_json(s) for s in schedule.steps],
        "outputs": [
            {
                "buffer": v.buffer.name,
                "shape": _plain(v.shape),
                "strides": _plain(v.strides),
                "offset": _plain(v.offset),
            }
            for v in schedule.outputs
        ],
        "primitives": schedule.primitive_count,
        "report": list(schedule.report),
    }


def schedule_dot(schedule: Schedule) -> str:
    """Kernels (boxes) and calls (rounded) with the buffers between them, for Graphviz."""
    lines = ["digraph schedule {", "  node [fontname=monospace, shape=box];"]
    source: dict[Buffer, str] = {}
    for buffer in schedule.inputs:
        lines.append(f'  "{buffer.name}" [shape=ellipse];')
        source[buffer] = buffer.name
    for step in schedule.steps:
        rounded = "" if isinstance(step, Kernel) else ", style=rounded"
        what = ", ".join(dict.fromkeys(n.op.name for n in step.nodes))
        lines.append(f'  "{step.name}" [label="{step.name}\\n{what}"{rounded}];')
        for buffer in step.reads():
            lines.append(f'  "{source.get(buffer, buffer.name)}" -> "{step.name}" [label="{_declared(buffer)}"];')
        for buffer in step.writes():
            source[buffer] = step.name
    for index, view in enumerate(schedule.outputs):
        lines.append(f'  "output {index}" [shape=ellipse];')
        lines.append(f'  "{source.get(view.buffer, view.buffer.name)}" -> "output {index}" [label="{_view(view)}"];')
    return "\n".join([*lines, "}"]) + "\n"


# -- kernels ----------------------------------------------------------------------------------------------------------


class _KernelText:
    """Names intermediate results and writes one line for each."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.names: dict[int, str] = {}
        self.written: list[str] = []
        self.count = 0

    def lines(self) -> list[str]:
        for store in self.kernel.stores:
            target = self._access(store.access)
            named = self.names.get(id(store.value))
            if named is None and isinstance(store.value, Compute | Reduce):
                self._operands(store.value)
                self.written.append(f"  {target} = {self._right(store.value)}")
                self.names[id(store.value)] = target
            else:
                self.written.append(f"  {target} = {self._name(store.value)}")
        return self.written

    def _operands(self, expr: Expr) -> None:
        """Write what `expr` needs, operands first, without recursion: chains are long."""
        stack: list[tuple[Expr, bool]] = [(o, False) for o in reversed(expr.operands())]
        while stack:
            at, ready = stack.pop()
            if id(at) in self.names or not isinstance(at, Compute | Reduce):
                continue
            if ready:
                right = self._right(at)
                self.names[id(at)] = name = f"%{self.count}"
                self.count += 1
                self.written.append(f"  {name} = {right}")
            else:
                stack.append((at, True))
                stack.extend((o, False) for o in reversed(at.operands()))

    def _right(self, expr: Expr) -> str:
        if isinstance(expr, Reduce):
            axes = ", ".join(self.kernel.axes[a].name for a in expr.axes)
            return f"{expr.combine}[{axes}] {self._name(expr.operand)}"
        assert isinstance(expr, Compute)
        name = f"cast.{expr.dtype.abbreviation}" if expr.instruction == "cast" else expr.instruction
        return f"{name} {', '.join(map(self._name, expr.arguments))}"

    def _name(self, expr: Expr) -> str:
        found = self.names.get(id(expr))
        if found is not None:
            return found
        if isinstance(expr, Load):
            return self._access(expr.access)
        if isinstance(expr, Constant):
            return f"{expr.value}"
        assert isinstance(expr, Index)
        return f"index({_affine(expr.offset, expr.strides, self.kernel.axes)})"

    def _access(self, access: Access) -> str:
        return f"{access.buffer.name}[{_affine(access.offset, access.strides, self.kernel.axes)}]"


def _affine(offset: Any, strides: tuple[Any, ...], axes: tuple[Axis, ...]) -> str:
    """`10*i0 + r0 + 3`."""
    terms: list[str] = []
    for stride, axis in zip(strides, axes, strict=True):
        if type(stride) is int and stride == 0:
            continue
        if type(stride) is int:
            terms.append(axis.name if stride == 1 else f"-{axis.name}" if stride == -1 else f"{stride}*{axis.name}")
        else:
            terms.append(f"({stride})*{axis.name}")
    if not terms or not (type(offset) is int and offset == 0):
        terms.append(str(offset))
    return " + ".join(terms).replace("+ -", "- ")


def _origin(step: Kernel | ExternCall) -> str:
    """The user's lines that a step comes from, each once."""
    found: dict[str, None] = {}
    for node in step.nodes:
        name = node.origin.removeprefix("decomposed from ") if node.origin.startswith("decomposed") else node.op.name
        where = f" ({basename(node.location.file)}:{node.location.line})" if node.location.file else ""
        back = f" {node.origin}" if node.origin.startswith("backward") else ""
        found.setdefault(f"{name}{back}{where}")
    return f"  # {', '.join(found)}" if found else ""


# -- buffers ----------------------------------------------------------------------------------------------------------


def _type(buffer: Buffer) -> str:
    return f"{buffer.dtype.abbreviation}[{', '.join(map(str, buffer.shape))}]"


def _declared(buffer: Buffer) -> str:
    return f"{buffer.name}: {_type(buffer)}"


def _view(view: View) -> str:
    """A buffer's name, and how the view lies in it if it is not the whole of it."""
    shape = ", ".join(map(str, view.shape))
    strides = ", ".join(map(str, view.strides))
    start = "" if type(view.offset) is int and view.offset == 0 else f" from {view.offset}"
    return f"{view.buffer.name}[{shape}; {strides}]{start}"


def _argument(arg: Any) -> str:
    if isinstance(arg, View):
        return _view(arg)
    if type(arg) is tuple and any(isinstance(a, View) for a in arg):
        return f"[{', '.join(map(_argument, arg))}]"
    return repr(arg)


# -- plain data -------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if type(value) is tuple:
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | None) else str(value)


def _buffer_json(buffer: Buffer) -> dict[str, Any]:
    return {"name": buffer.name, "dtype": buffer.dtype.name, "shape": _plain(buffer.shape), "kind": buffer.kind}


def _step_json(step: Kernel | ExternCall) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": step.name,
        "kind": "kernel" if isinstance(step, Kernel) else "call",
        "nodes": [
            {"op": n.op.name, "file": n.location.file, "line": n.location.line, "origin": n.origin} for n in step.nodes
        ],
        "reads": [_buffer_json(b) for b in step.reads()],
        "writes": [_buffer_json(b) for b in step.writes()],
    }
    if isinstance(step, Kernel):
        made["axes"] = [{"name": a.name, "size": _plain(a.size), "reduction": a.reduction} for a in step.axes]
        made["text"] = _KernelText(step).lines()
    else:
        made["op"] = step.op.name
    return made
