"""`graphtorch run FOLDER`: executes an exported program on given or random arguments."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from graphtorch.cli.arrays import load_arrays, save_arrays
from graphtorch.cli.errors import CommandError
from graphtorch.cli.execute import bind_sizes, convert, parse_sizes, random_input, summarize
from graphtorch.serialization.program import ExportedProgram, ExportError, load_exported
from graphtorch.tensor.generator import default_generator
from graphtorch.tensor.symint import evaluate
from graphtorch.tensor.tensor import Tensor


def run_exported(arguments: argparse.Namespace) -> int:
    """The subcommand, for a folder or zip file that `export` wrote."""
    try:
        program = load_exported(arguments.graph, arguments.backend)
    except (ExportError, ValueError) as error:
        raise CommandError(str(error)) from error
    given = {} if arguments.inputs is None else load_arrays(arguments.inputs)
    graph = program.graph
    places = {
        str(entry["name"]): (value, entry["argument"])
        for value, entry in zip(graph.inputs, program.manifest["inputs"], strict=True)
        if "argument" in entry
    }
    by_name = {name: value for name, (value, _) in places.items()}
    sizes = bind_sizes(graph, by_name, given, parse_sizes(arguments.size, graph))
    generator = np.random.default_rng(arguments.seed)
    values: dict[int, Any] = {}
    for name, (value, number) in places.items():
        shape = tuple(evaluate(size, sizes) for size in value.shape)
        known = given.get(name)
        made = (
            random_input(generator, value, shape, "argument") if known is None else convert(known, value, shape, name)
        )
        values[number] = Tensor._wrap(np.asarray(made))
    default_generator.manual_seed(arguments.seed)
    positional, named = _call(program, values)
    try:
        result = program(*positional, **named)
    except Exception as error:
        raise CommandError(f"{arguments.graph} failed: {type(error).__name__}: {error}") from error
    results: dict[str, Any] = {}
    for name, value in _named("result", result):
        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        print(f"{name}: {array.dtype}{list(array.shape)}  {summarize(array)}")
        results[name] = array
    unused = [name for name in given if name not in by_name]
    if unused:
        print(f"not arguments of this program: {', '.join(unused)}")
    if arguments.output is not None:
        save_arrays(arguments.output, results)
    return 0


def _call(program: ExportedProgram, values: dict[int, Any]) -> tuple[list[Any], dict[str, Any]]:
    def build(tree: dict[str, Any]) -> Any:
        kind, inner = next(iter(tree.items()))
        if kind == "argument":
            return values.get(inner, Tensor._wrap(np.zeros(0)))  # one that the program does not read
        if kind == "value":
            return inner
        if kind == "dict":
            return {key: build(child) for key, child in inner.items()}
        return [build(child) for child in inner]

    positional, named = build(program.manifest["arguments"])
    return positional, named


def _named(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """Each leaf of a result with a name that says where it is."""
    if isinstance(value, dict):
        return [leaf for key, child in value.items() for leaf in _named(f"{prefix}.{key}", child)]
    if isinstance(value, list | tuple):
        return [leaf for i, child in enumerate(value) for leaf in _named(f"{prefix}{i}", child)]
    return [(prefix, value)]
