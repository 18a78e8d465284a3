"""`graphtorch run`: executes a dumped graph on given or random inputs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphtorch.cli.arrays import load_arrays, save_arrays
from graphtorch.cli.errors import USAGE, CommandError
from graphtorch.cli.graphs import load_graph
from graphtorch.ir.graph import Graph, Value
from graphtorch.tensor import dtypes
from graphtorch.tensor.generator import default_generator
from graphtorch.tensor.symint import evaluate, free_symbols

SHOWN_ELEMENTS = 8


def execute(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    from graphtorch.frontend.pipeline import compile_graph
    from graphtorch.ir.printer import Names
    from graphtorch.serialization.program import is_exported

    if arguments.graph != "-" and is_exported(arguments.graph):
        from graphtorch.cli.exported import run_exported

        return run_exported(arguments)
    graph = load_graph(arguments.graph)
    names = Names(graph)
    given = {} if arguments.inputs is None else load_arrays(arguments.inputs)
    by_name = {names[value]: value for value in graph.inputs}
    sizes = bind_sizes(graph, by_name, given, parse_sizes(arguments.size, graph))
    generator = np.random.default_rng(arguments.seed)
    inputs: list[Any] = []
    for (name, value), kind in zip(by_name.items(), graph.input_kinds, strict=True):
        shape = tuple(evaluate(size, sizes) for size in value.shape)
        if name in given:
            inputs.append(convert(given[name], value, shape, name))
        else:
            inputs.append(random_input(generator, value, shape, kind))
    default_generator.manual_seed(arguments.seed)  # of random operators in the graph
    try:
        outputs = compile_graph(graph, arguments.backend, {}).run(inputs, {})
    except Exception as error:
        raise CommandError(f"{arguments.graph} failed: {type(error).__name__}: {error}") from error
    results: dict[str, Any] = {}
    for name, value, output in zip(graph.output_names, graph.outputs, outputs, strict=True):
        array = np.asarray(output)
        print(f"{name}: {value.dtype.abbreviation}{list(array.shape)}  {summarize(array)}")
        results[_unique(name, results)] = array
    unused = [name for name in given if name not in by_name]
    if unused:
        print(f"not inputs of this graph: {', '.join(unused)}")
    if arguments.output is not None:
        save_arrays(arguments.output, results)
    return 0


def summarize(array: np.ndarray[Any, Any]) -> str:
    """All elements of a small array, the mean, standard deviation and range of a large one."""
    if array.size <= SHOWN_ELEMENTS:
        # bfloat16 prints through float32, in as many digits as NumPy finds right.
        shown = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        return " ".join(np.array2string(shown, separator=", ", precision=6).split())
    kind = np.complex128 if array.dtype.kind == "c" else np.float64
    wide = array.astype(kind)
    text = f"mean {wide.mean():.6g}, std {wide.std():.6g}"
    if kind is np.float64:
        text += f", in [{wide.min():.6g}, {wide.max():.6g}]"
    broken = int(np.count_nonzero(~np.isfinite(wide)))
    return text + (f", {broken} not finite" if broken else "")


def _unique(name: str, taken: Iterable[str]) -> str:
    known = set(taken)
    made, count = name, 1
    while made in known:
        made, count = f"{name}_{count}", count + 1
    return made


def parse_sizes(texts: Iterable[str], graph: Graph) -> dict[str, int]:
    known = graph.symbols
    sizes: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not number.isdecimal():
            raise CommandError(f"--size {text}: expected NAME=NUMBER, such as s0=8", USAGE)
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "all its sizes are fixed"
            raise CommandError(f"--size {text}: the graph has no size {name!r}; {has}", USAGE)
        if int(number) < known[name].lower:
            raise CommandError(f"--size {text}: the graph assumes {name} >= {known[name].lower}", USAGE)
        sizes[name] = int(number)
    return sizes


def bind_sizes(
    graph: Graph, inputs: Mapping[str, Value], given: Mapping[str, np.ndarray[Any, Any]], sizes: dict[str, int]
) -> dict[str, int]:
    """A value for every symbolic size: from --size, from the shape of a given input, or what it was at capture."""
    for name, value in inputs.items():
        if name in given and given[name].ndim == len(value.shape):
            for size, actual in zip(value.shape, given[name].shape, strict=True):
                if free_symbols(size) == {str(size)}:
                    sizes.setdefault(str(size), actual)
    for name, symbol in graph.symbols.items():
        if name not in sizes:
            if symbol.hint is None:
                raise CommandError(f"the graph has a size {name} without an example: give --size {name}=NUMBER", USAGE)
            sizes[name] = symbol.hint
    return sizes


def convert(array: np.ndarray[Any, Any], value: Value, shape: tuple[int, ...], name: str) -> Any:
    """A given array as the input's type. Raises CommandError where it doesn't fit."""
    if array.shape != shape:
        raise CommandError(f"input {name} is {value.type}, here of shape {list(shape)}; given {list(array.shape)}")
    target = value.dtype
    if target.name == "bfloat16" and array.dtype == np.float32:
        return array.astype(target.numpy)
    if not dtypes.can_cast(dtypes.from_numpy_dtype(array.dtype), target):
        raise CommandError(f"input {name} is {value.type}; given {array.dtype}, which it can't hold")
    cast = array.astype(target.numpy)
    return cast.item() if value.is_number else cast


def random_input(generator: np.random.Generator, value: Value, shape: tuple[int, ...], kind: str) -> Any:
    """Values that suit most programs: integers are 0 or 1, valid as indices and labels; optimizer state and numbers
    lie in [0, 1), where square roots of them exist; everything else is standard normal."""
    d = value.dtype
    if d is dtypes.bool_:
        drawn: Any = generator.random(shape) < 0.5
    elif not (d.is_floating_point or d.is_complex):
        drawn = generator.integers(0, 2, shape)
    elif value.is_number or kind == "state":
        drawn = generator.random(shape)
    elif d.is_complex:
        drawn = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    else:
        drawn = generator.standard_normal(shape)
    array = np.asarray(drawn).astype(d.numpy)
    return array.item() if value.is_number else array
