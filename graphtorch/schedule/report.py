"""The fusion report: which of the user's operators landed in which kernel, and why two neighbours were not fused."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import basename

from graphtorch.ir.graph import Node
from graphtorch.lowering.kernel import ExternCall, Kernel
from graphtorch.schedule.fusion import Fusion


def describe(node: Node) -> str:
    """`sub (train.py:12, decomposed from softmax)`."""
    notes = [f"{basename(node.location.file)}:{node.location.line}"] if node.location.file else []
    if node.origin:
        notes.append(node.origin)
    return f"{node.op.name} ({', '.join(notes)})" if notes else node.op.name


def kernel_lines(steps: Sequence[Kernel | ExternCall], fusion: Fusion) -> list[str]:
    """One line a step, and one for each pair of neighbours in different kernels."""
    lines: list[str] = []
    step_of: dict[Node, str] = {}
    for step in steps:
        for node in step.nodes:
            step_of[node] = step.name
        reads = ", ".join(b.name for b in step.reads()) or "nothing"
        writes = ", ".join(b.name for b in step.writes()) or "nothing"
        what = ", ".join(map(describe, step.nodes))
        lines.append(f"{step.name} | {what} | reads {reads} | writes {writes}")
    seen: set[str] = set()
    for refusal in fusion.refusals:
        mine, theirs = step_of.get(refusal.node), step_of.get(refusal.producer)
        if mine is None or theirs is None or mine == theirs:
            continue  # inlined, or brought together later
        line = (
            f"{mine} | {describe(refusal.node)} not fused with {describe(refusal.producer)} of {theirs}: {refusal.why}"
        )
        if line not in seen:
            seen.add(line)
            lines.append(line)
    return lines
