"""The argument parser and the entry point."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from graphtorch.cli.errors import CommandError

STAGES = (
    *("captured", "forward", "joint", "optimized", "primitives", "kernels", "plan", "code"),
    *("llvm", "asm", "triton", "ptx", "sass"),
)

DUMP = """Runs FILE as `python FILE` would, up to the first call of FUNCTION (with --call, the N-th), and prints what
the call compiles to. The script's own output goes to standard error. FUNCTION may be `step`, `Model.forward` or the
name of a nested function, with or without @compile; without it, the first call of any compiled function is dumped."""

REDUCE = """Runs FILE, compiles every call of FUNCTION (any compiled function, if none is named), and compares with the
interpreter, until a call crashes the compiler or gives another value. Writes a script of a few lines that fails in the
same way: operators that do not matter are left out, what they computed becomes an input."""

STAGE = """captured: the user's operators, a backward pass as one node;
forward: of that, what computes what the first backward pass differentiates;
joint: forward and backward, every gradient expanded;
optimized: after the passes (the default);
primitives: decomposed;
kernels: the fused kernels and library calls;
plan: buffers and their places in memory;
code: what the backend generates for each kernel;
llvm, asm: the whole step as the cpu backend compiles it: LLVM's text, this machine's assembly;
triton: the kernels as Triton source, on any machine;
ptx, sass: compiled for --target: assembly, machine code"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    import graphtorch

    top = argparse.ArgumentParser(prog="graphtorch", description="A compiler for training steps, stage by stage.")
    top.add_argument("--version", action="version", version=f"graphtorch {graphtorch.__version__}")
    top.add_argument("--traceback", action="store_true", help="show the Python traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    dump = commands.add_parser("dump", help="print a stage of what a function compiles to", description=DUMP)
    dump.add_argument("target", metavar="FILE[:FUNCTION]")
    dump.add_argument("--stage", choices=STAGES, default="optimized", help=STAGE)
    dump.add_argument(
        "--backward", action="store_true", help="the graph of a backward pass that is started outside the function"
    )
    dump.add_argument("--format", choices=("text", "json", "dot"), default="text")
    dump.add_argument("--no-source", action="store_true", help="leave out the source lines that nodes come from")
    dump.add_argument("--backend", help="compile for this backend instead of the function's own")
    dump.add_argument(
        "--target",
        dest="gpu",
        default="sm_90",
        help="the GPU to compile for: sm_80, sm_90 (the default), sm_100, gfx942",
    )
    dump.add_argument("--call", type=_positive, default=1, metavar="N", help="the N-th call instead of the first")
    dump.add_argument("--inputs", metavar="FILE.npz", help="save the inputs of the call, for `graphtorch run --inputs`")
    dump.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    dump.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="the script's own arguments")

    run = commands.add_parser(
        "run",
        help="execute a dumped graph or an exported program",
        description="Executes a graph (text or JSON), or what `export` wrote, and summarises each output.",
    )
    run.add_argument(
        "graph", metavar="GRAPH", help="a file that `dump` wrote, - for standard input, or an exported program"
    )
    run.add_argument("--inputs", metavar="FILE.npz", help="input values by name; the others are drawn at random")
    run.add_argument("--size", action="append", default=[], metavar="s0=8", help="the value of a symbolic size")
    run.add_argument("--seed", type=int, default=0, help="of random inputs and operators (default: 0)")
    run.add_argument("--backend", default="interpreter", help="interpreter (the default), numpy, ...")
    run.add_argument("-o", "--output", metavar="FILE.npz", help="save the outputs by name")

    opt = commands.add_parser(
        "opt", help="run passes on a graph", description="Rewrites a graph and prints the result."
    )
    opt.add_argument("graph", nargs="?", metavar="GRAPH", help="a file that `dump` wrote, or - for standard input")
    opt.add_argument("--passes", metavar="dce,cse,...", help="the passes, in order; without it, the default pipeline")
    opt.add_argument("--list", action="store_true", help="list the passes instead")
    opt.add_argument("--report", action="store_true", help="list every rewrite on standard error")
    opt.add_argument("--no-source", action="store_true", help="leave out the source lines that nodes come from")
    opt.add_argument("--format", choices=("text", "json", "dot"), default="text")
    opt.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")

    small = commands.add_parser("reduce", help="shrink a step that compiles wrongly", description=REDUCE)
    small.add_argument("target", metavar="FILE[:FUNCTION]")
    small.add_argument("--backend", help="the backend that fails, if it is not the function's own")
    small.add_argument("-o", "--output", metavar="FILE.py", help="write the script to FILE.py")
    small.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="the script's own arguments")

    python = commands.add_parser(
        "python",
        help="run a program that imports torch with this library in its place",
        description="Runs SCRIPT as `python SCRIPT` would; `import torch` and `import torchvision` give graphtorch.",
    )
    python.add_argument("script", metavar="SCRIPT")
    python.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="the script's own arguments")

    ops = commands.add_parser("ops", help="list the operators", description="Lists the operator records, or shows one.")
    ops.add_argument("name", nargs="?", metavar="NAME")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for failed work, 2 for a wrong command line.

    Does not return for a command line that does not parse: argparse exits with status 2.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    if given[:1] != ["python"] and ("dump" in given or "reduce" in given) and "--" in given:
        # Everything after it belongs to the script, options included.
        place = given.index("--")
        given, rest = given[:place], given[place + 1 :]
    arguments = parser().parse_args(given)
    if rest:
        arguments.arguments = [*arguments.arguments, *rest]
    try:
        return _dispatch(arguments)
    except CommandError as error:
        if arguments.traceback and error.__cause__ is not None:
            raise error.__cause__ from None
        print(f"graphtorch {arguments.command}: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # The reader (a pager, `head`) has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "dump":
        from graphtorch.cli.dump import dump

        return dump(arguments)
    if arguments.command == "run":
        from graphtorch.cli.execute import execute

        return execute(arguments)
    if arguments.command == "opt":
        from graphtorch.cli.rewrite import rewrite

        return rewrite(arguments)
    if arguments.command == "reduce":
        from graphtorch.cli.reduce import reduce

        return reduce(arguments)
    if arguments.command == "python":
        from graphtorch.cli.instead import instead

        return instead(arguments)
    from graphtorch.cli.catalog import catalog

    return catalog(arguments)


def _positive(text: str) -> int:
    """An argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)
