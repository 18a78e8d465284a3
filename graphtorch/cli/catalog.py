"""`graphtorch ops`: the operator records."""

from __future__ import annotations

import argparse

from graphtorch.cli.errors import USAGE, CommandError, near_misses
from graphtorch.cli.graphs import load_records


def catalog(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    load_records()
    from graphtorch.ops.record import REGISTRY

    if arguments.name is not None:
        if arguments.name not in REGISTRY:
            hint = near_misses(arguments.name, list(REGISTRY))
            raise CommandError(f"there is no operator record {arguments.name!r}{hint}", USAGE)
        print(describe(arguments.name))
        return 0
    width = max(len(name) for name in REGISTRY)
    print(f"{'operator':{width}}  {'kind':9}  derivative  decomposed")
    for name in sorted(REGISTRY):
        op = REGISTRY[name]
        derivative = "yes" if op.derivative else "-"
        print(f"{name:{width}}  {op.kind:9}  {derivative:10}  {'yes' if op.decompose else '-'}")
    print(f"{len(REGISTRY)} operators")
    return 0


def describe(name: str) -> str:
    """All that a record says, as text."""
    from graphtorch.ops.record import REGISTRY

    op = REGISTRY[name]
    lines = [op.signature(), f"  kind         {op.kind}{', random' if op.random else ''}"]
    if op.scalar is not None:
        lines.append(f"  scalar       {op.scalar}")
    if op.derivative:
        lines.append(f"  derivative   of {', '.join(op.derivative)}, as {op.grad_name}")
        lines += [f"                 {operand}: from {', '.join(f.needs)}" for operand, f in op.derivative.items()]
    else:
        lines.append("  derivative   none")
    how = "into simpler operators" if op.decompose else "no: a primitive or a call of its own"
    lines.append(f"  decomposed   {how}")
    lines.append(f"  samples      {'yes' if op.samples else 'none'}")
    if op.doc:
        lines += ["", *(f"  {line}" for line in op.doc.splitlines())]
    return "\n".join(lines)
