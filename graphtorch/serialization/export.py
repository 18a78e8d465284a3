"""`export`: capture a function once, ahead of time, as a program that runs without its code."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.autodiff.gradient import ExpandGradients
from graphtorch.frontend.compiler import CompiledFunction
from graphtorch.frontend.descriptions import Constant, Output
from graphtorch.frontend.recorded import Recorded
from graphtorch.frontend.sources import ArgumentSource, NumberSource
from graphtorch.frontend.tree import LEAF, flatten, unflatten
from graphtorch.ir.passes import default_pipeline
from graphtorch.serialization.program import FORMAT, VERSION, ExportedProgram, ExportError, _check_program
from graphtorch.tensor.generator import Generator
from graphtorch.tensor.remote import readable
from graphtorch.tensor.tensor import Tensor


def export(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    path: str | os.PathLike[str] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    detached: bool = True,
) -> ExportedProgram:
    """Capture `f(*args, **kwargs)` (a function or module) as a program, and write it to a folder or .zip file.

    Tensors that the function reaches by itself become the program's weights; what it changes of them, a call of the
    program changes in its own copy. Other arguments than tensors are constants of the program. Sizes are those of the
    arguments, except those that `graphtorch.compiler.mark_dynamic` named. Gradients that a backward pass leaves in
    `.grad` are not part of the result. Without `detached`, the graph keeps its results' histories, for who runs its
    operators on tensors (`torch.export`).

    Raises ExportError for results and arguments that have no form in the file, and what `compile(fullgraph=True)`
    raises for functions that one graph can't express.
    """
    compiled = CompiledFunction(_with_own_results(f, detached), fullgraph=True, backend="interpreter")
    leaves: list[Any] = []
    tree = flatten((tuple(args), dict(kwargs or {})), leaves)
    captured, _, sizes = compiled.capture(tree, leaves, compiled._changed_sizes(tree, leaves))
    graph = default_pipeline().run(ExpandGradients().run(captured.graph), [])
    graph.name = "".join(c if c.isalnum() else "_" for c in getattr(f, "__name__", type(f).__name__)).strip("_") or "f"
    for node in graph.nodes:
        if any(isinstance(a, Generator) for a in node.args):
            raise ExportError(f"{node.op.name} at {node.location} draws from a generator object of its own")
    weights: dict[str, np.ndarray[Any, Any]] = {}
    inputs: list[dict[str, Any]] = []
    for source in captured.sources:
        if isinstance(source, ArgumentSource):
            inputs.append({"argument": source.index, "name": source.name})
        elif isinstance(source, NumberSource):
            inputs.append({"number": source.fetch(leaves), "name": source.name})
        else:
            value = source.fetch(leaves)
            weights[source.name] = np.array(readable(value._data))
            inputs.append({"weight": source.name})
    results = iter([_result(spec) for spec in captured.results])
    from graphtorch.version import __version__

    numbers = iter(range(len(leaves)))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "graphtorch": __version__,
        "arguments": _tree(tree, lambda: _argument(leaves, next(numbers))),
        "inputs": inputs,
        "result": _tree(captured.tree, lambda: next(results)),
        "written": [[position, output] for position, output in captured.written],
        "guards": [[str(g.expression), g.relation if g.truth else _OPPOSITE[g.relation]] for g in sizes.scope.guards],
        "sha256": {},
    }
    program = ExportedProgram(graph, manifest, weights)
    _check_program(program)
    if path is not None:
        program.save(path)
    return program


_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _with_own_results(f: Callable[..., Any], detached: bool) -> Callable[..., Any]:
    """`f`, except that no result shows memory that was there before or that another result shows."""

    def traced(*args: Any, **kwargs: Any) -> Any:
        leaves: list[Any] = []
        tree = flatten(f(*args, **kwargs), leaves)
        return unflatten(tree, iter([_own(leaf, detached) for leaf in leaves]))

    traced.__name__ = getattr(f, "__name__", type(f).__name__)
    traced.__wrapped__ = f  # type: ignore[attr-defined]
    with contextlib.suppress(TypeError, ValueError):
        traced.__signature__ = inspect.signature(getattr(f, "forward", f))  # type: ignore[attr-defined]
    return traced


def _own(value: Any, detached: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    data = value._data
    shared = not isinstance(data, Recorded) or data.steps or data.storage.source is not None
    own = value.detach() if detached else value
    return own.clone() if shared else own


def _argument(leaves: list[Any], number: int) -> dict[str, Any]:
    value = leaves[number]
    if isinstance(value, Tensor):
        return {"argument": number}
    if type(value) in (bool, int, float, str, type(None)):
        return {"value": value}
    raise ExportError(f"an argument of class {type(value).__name__} has no form in the file")


def _result(spec: Any) -> dict[str, Any]:
    if type(spec) is Output:
        return {"number" if spec.number else "output": spec.index}
    if type(spec) is Constant and type(spec.value) in (bool, int, float, str, type(None)):
        return {"value": spec.value}
    name = type(spec.value).__name__ if type(spec) is Constant else type(spec).__name__
    raise ExportError(f"a result of class {name} has no form in the file; return tensors")


def _tree(tree: Any, leaf: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A structure as JSON."""
    if tree is LEAF or not hasattr(tree, "children"):
        return leaf()
    if tree.keys is not None and issubclass(tree.type, dict):
        if not all(type(k) is str for k in tree.keys):
            raise ExportError("dictionaries need text as keys")
        return {"dict": {k: _tree(c, leaf) for k, c in zip(tree.keys, tree.children, strict=True)}}
    if tree.type in (list, tuple):
        return {tree.type.__name__: [_tree(c, leaf) for c in tree.children]}
    raise ExportError(f"a {tree.type.__name__} has no form in the file; use lists, tuples and dictionaries")
