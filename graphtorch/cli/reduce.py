"""`graphtorch reduce`: finds a call of a script's function that compiles to something wrong, and writes a script of a
few lines that fails in the same way."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.cli.errors import CommandError
from graphtorch.cli.intercept import Interception, Reached
from graphtorch.frontend import CaptureError, CompiledFunction
from graphtorch.frontend.effects import RunEagerly
from graphtorch.frontend.reduction import Reduced, reduce_graph
from graphtorch.frontend.tree import flatten
from graphtorch.ir.python_source import input_names, print_python
from graphtorch.tensor.remote import readable
from graphtorch.tensor.tensor import Tensor

SMALL = 16  # elements that are written out


class _Search(Interception):
    """Looks at every call until one fails; those that do not run eagerly."""

    def __init__(self, wanted: str | None, reached: Any) -> None:
        super().__init__(wanted, 1, lambda compiled, args, kwargs: None)
        self.look = reached

    def _called(self, compiled: CompiledFunction, args: Any, kwargs: Any) -> Any:
        self.calls += 1
        try:
            found = self.look(compiled, args, kwargs)
        except CommandError as error:
            self.error, found = error, True
        if found:
            self.finished = True
            raise Reached
        return compiled.function(*args, **kwargs)


def reduce(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    file, colon, function = arguments.target.rpartition(":")
    if not colon or not function.replace(".", "_").isidentifier():
        file, function = arguments.target, ""
    found: list[tuple[Reduced, int, str]] = []

    def look(compiled: CompiledFunction, args: Any, kwargs: Any) -> bool:
        backend = arguments.backend or compiled.backend
        reduced, before = _reduce_call(compiled, args, kwargs, backend)
        if reduced is not None:
            found.append((reduced, before, backend))
        return reduced is not None

    search = _Search(function or None, look)
    try:
        search.run(file, arguments.arguments)
    except CommandError as error:
        if search.calls and not search.finished and error.__cause__ is None:
            raise CommandError(
                f"all {search.calls} calls compile to what they do eagerly; if the results differ all the same, the "
                "function reads something that a capture can't see: compile(..., check=True) names the line"
            ) from None
        raise
    reduced, before, backend = found[0]
    text = script(reduced, backend, arguments.target, before, arguments.output)
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        try:
            Path(arguments.output).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write {arguments.output}: {error.strerror}") from error
    print(f"{before} operators, reduced to {len(reduced.graph.nodes)}: {reduced.details}", file=sys.stderr)
    if not reproduces(text):
        print("the script itself does not fail here: what fails depends on how the call was captured", file=sys.stderr)
    return 0


def _reduce_call(compiled: CompiledFunction, args: Any, kwargs: Any, backend: str) -> tuple[Reduced | None, int]:
    leaves: list[Any] = []
    tree = flatten((args, kwargs), leaves)
    try:
        captured, _, _ = compiled.capture(tree, leaves, {})
    except (CaptureError, RunEagerly) as error:
        raise CommandError(f"the call can't be captured, so there is nothing to reduce:\n{error}") from error
    graph = ExpandGradients().run(captured.graph)
    values = [source.fetch(leaves) for source in captured.sources]
    inputs = [np.array(readable(v._data)) if isinstance(v, Tensor) else v for v in values]
    return reduce_graph(graph, inputs, backend, lambda line: print(line, file=sys.stderr)), len(graph.nodes)


def script(reduced: Reduced, backend: str, target: str, before: int, output: str | None) -> str:
    """A script that fails as the graph does. Arrays that it can't write down go to a .npz file beside `output`."""
    function = print_python(reduced.graph, "step")
    lines = [
        f'"""{target}: {before} operators, reduced to {len(reduced.graph.nodes)}.',
        "",
        f"Fails with {reduced.kind}: {reduced.details}",
        '"""',
        "",
        "import numpy as np",
        "",
        "import graphtorch as torch",
        "",
    ]
    stored: dict[str, Any] = {}
    names = input_names(reduced.graph, function)
    for name, value in zip(names, reduced.inputs, strict=True):
        text = _source_of(value)
        if text is None:
            stored[name] = value.astype(np.float32) if value.dtype.name == "bfloat16" else value
            text = f'torch.from_numpy(np.load("{Path(output or "reduced.py").stem}.npz")["{name}"])'
            if value.dtype.name == "bfloat16":
                text += ".bfloat16()"
        lines.append(f"{name} = {text}")
    if stored:
        np.savez(str(Path(output or "reduced.py").with_suffix(".npz")), **stored)
    lines += ["", "", function, "", ""]
    lines.append(f'print(torch.compile(step, backend="{backend}", check=True)({", ".join(names)}))')
    return "\n".join(lines) + "\n"


def _source_of(value: Any) -> str | None:
    """A short expression for an input; None if there is none."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    shape, kind = value.shape, f"dtype=torch.{'bool' if value.dtype.kind == 'b' else value.dtype.name}"
    wide = value.astype(np.float32) if value.dtype.name == "bfloat16" else value
    if value.size and value.dtype.kind != "c" and np.all(wide == wide.flat[0]):
        return f"torch.full({tuple(shape)}, {wide.flat[0].item()!r}, {kind})"
    if value.dtype.kind in "fiu" and np.array_equal(wide, np.arange(value.size).reshape(shape).astype(value.dtype)):
        return f"torch.arange({value.size}, {kind}).reshape({tuple(shape)})"
    if value.size <= SMALL:
        return f"torch.tensor({wide.tolist()!r}, {kind})".replace("nan", "float('nan')").replace("inf", "float('inf')")
    if value.dtype.kind == "f":
        drawn = np.asarray(np.random.default_rng(0).normal(size=shape), value.dtype)
        if np.array_equal(drawn, value):
            return f"torch.from_numpy(np.random.default_rng(0).normal(size={tuple(shape)}).astype('{value.dtype}'))"
    return None


def reproduces(text: str) -> bool:
    """Whether a script raises."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, "<reduced>", "exec"), {"__name__": "__main__"})
    except Exception:
        return True
    return False
