"""`graphtorch opt`: runs passes on a graph."""

from __future__ import annotations

import argparse
import inspect
import sys

from graphtorch.cli.dump import render, write
from graphtorch.cli.errors import FAILED, USAGE, CommandError
from graphtorch.cli.graphs import load_graph


def rewrite(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    from graphtorch.ir.passes import PassPipeline, default_pipeline
    from graphtorch.ir.rewrite import RewriteLog
    from graphtorch.ir.verifier import VerificationError

    if arguments.list:
        print(list_passes())
        return 0
    if arguments.graph is None:
        raise CommandError("which graph? give a file that `dump` wrote, or - for standard input", USAGE)
    try:
        pipeline = default_pipeline() if arguments.passes is None else PassPipeline.parse(arguments.passes)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from error
    pipeline.check = True
    log: RewriteLog = []
    graph = load_graph(arguments.graph)
    try:
        result = pipeline.run(graph, log)
    except VerificationError as error:
        raise CommandError(f"{arguments.graph}: {error}", FAILED) from error
    write(render(result, arguments), arguments.output)
    if arguments.report:
        for firing in log:
            print(firing, file=sys.stderr)
        print(f"{len(log)} rewrites, {len(graph.nodes)} -> {len(result.nodes)} nodes", file=sys.stderr)
    return 0


def list_passes() -> str:
    """Name, options and contract of every pass."""
    from dataclasses import fields

    from graphtorch.ir.passes import PASSES, default_pipeline

    lines: list[str] = []
    for name in sorted(PASSES):
        options = ", ".join(f"{f.name}={f.default}" for f in fields(PASSES[name]))  # type: ignore[arg-type]
        lines.append(name + (f"{{{options}}}" if options else ""))
        lines += [f"  {line}".rstrip() for line in (inspect.getdoc(PASSES[name]) or "").splitlines()]
    return "\n".join([*lines, f"the default pipeline: {default_pipeline()}"])
