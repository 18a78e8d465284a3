"""The verifier: whether a graph is well formed. It runs after every pass in tests and under `GRAPHTORCH_VERIFY=1`.

Checked are inputs (unique, named apart), that every operand is an input or the result of an earlier node of the same
graph, that arguments are of the kinds that the operator's signature takes, that result types are what its type rule
says, and that outputs exist. A fault is shown in its surroundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from graphtorch.ir.equality import same_type
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.printer import Names, print_constant, print_header, print_node, print_outputs
from graphtorch.ops.record import REGISTRY, Parameter
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import Symbol, SymInt, symbols_of

CONTEXT = 2  # lines shown before and after the fault


class VerificationError(RuntimeError):
    """A broken graph: a bug in whatever made it. The message shows the fault among its neighbours.

    fault    the first line of the message.
    line     the index of the faulty line in the printed graph, from 0.
    """

    def __init__(self, fault: str, text: str, line: int) -> None:
        super().__init__(f"{fault}\n{text}")
        self.fault = fault
        self.line = line


def verify(graph: Graph, after: str = "") -> None:
    """Raise VerificationError at the first fault. `after` says what made the graph, for the message."""
    with ExitStack() as stack:
        # Type rules compare sizes: what they find out here must not become an assumption of the program.
        for scope in {id(s.scope): s.scope for s in graph.symbols.values() if s.scope is not None}.values():
            stack.enter_context(scope.discarding())
        for place, fault in _faults(graph):
            _report(graph, place, fault, after)


# Where a fault is: a node's index, or the header or the outputs.
HEADER, OUTPUTS = -1, -2


def _report(graph: Graph, place: int, fault: str, after: str) -> None:
    names = Names(graph)
    # The neighbours first: names of values that are not of this graph are numbered as they appear.
    header, outputs = print_header(graph, names), print_outputs(graph, names)
    lines = [*header, *(print_node(node, names) for node in graph.nodes), *outputs, "}"]
    at = {HEADER: 0, OUTPUTS: len(header) + len(graph.nodes)}.get(place, len(header) + place)
    first, last = max(at - CONTEXT, 0), min(at + CONTEXT, len(lines) - 1)
    shown = [f"{'>' if i == at else ' '} {lines[i]}" for i in range(first, last + 1)]
    title = f"broken graph '{graph.name}'" + (f" after {after}" if after else "")
    raise VerificationError(f"{title}: {fault}", "\n".join(shown), at)


def _faults(graph: Graph) -> Iterator[tuple[int, str]]:
    names = Names(graph)
    defined: set[Value] = set()
    yield from ((HEADER, fault) for fault in _input_faults(graph, defined))
    yield from ((HEADER, fault) for fault in _symbol_faults(graph))
    position: dict[Node, int] = {}
    for i, node in enumerate(graph.nodes):
        if node in position:
            yield i, f"the node of {names.reference(node.result)} is in the graph twice"
        position[node] = i
    for i, node in enumerate(graph.nodes):
        for fault in _node_faults(node, defined, position, names):
            yield i, f"{node.op.name}: {fault}"
        defined.update(node.results)
    for value, name in zip(graph.outputs, graph.output_names, strict=False):
        if type(value) is not Value:
            yield OUTPUTS, f"the output '{name}' is {value!r}, not a value"
        elif value not in defined:
            yield OUTPUTS, f"the output '{name}' is {names.reference(value)}, {_foreign(value, position)}"
    if len(graph.outputs) != len(graph.output_names):
        yield OUTPUTS, f"{len(graph.outputs)} outputs have {len(graph.output_names)} names"


def _input_faults(graph: Graph, defined: set[Value]) -> Iterator[str]:
    seen: set[str] = set()
    for value in graph.inputs:
        if value in defined:
            yield f"the input %{value.name} is listed twice"
        if value.name in seen:
            yield f"two inputs have the name '{value.name}'"
        if value.node is not None:
            yield f"the input %{value.name} is the result of a node ({value.node.op.name})"
        if value.type.is_number and (value.type.shape != () or value.type.dtype.name not in _NUMBER_TYPES):
            yield f"the number %{value.name} has type {value.type}; a number is f64[], c128[], i64[] or bool[]"
        seen.add(value.name)
        defined.add(value)
    if len(graph.inputs) != len(graph.input_kinds):
        yield f"{len(graph.inputs)} inputs have {len(graph.input_kinds)} kinds"


_NUMBER_TYPES = ("float64", "complex128", "int64", "bool")


def _symbol_faults(graph: Graph) -> Iterator[str]:
    """Symbols are known by name: two of one name must agree."""
    seen: dict[str, Symbol] = {}
    for value in (*graph.inputs, *(r for node in graph.nodes for r in node.results)):
        for size in value.type.shape:
            for name, symbol in symbols_of(size).items():
                if seen.setdefault(name, symbol).lower != symbol.lower:
                    yield f"the symbol {name} is at least {seen[name].lower} in one place and {symbol.lower} in another"


def _foreign(value: Value, position: dict[Node, int]) -> str:
    """Why a value is not available, in words."""
    if value.node is None:
        return "which is no input of this graph"
    if value.node not in position:
        return f"a result of a node ({value.node.op.name}) that is not in this graph"
    if not any(r is value for r in value.node.results):
        return f"which its node ({value.node.op.name}) does not list as a result"
    return "which is defined later"


def _node_faults(node: Node, defined: set[Value], position: dict[Node, int], names: Names) -> Iterator[str]:
    op = node.op
    if REGISTRY.get(op.name) is not op:
        yield "the operator is not registered"
        return
    if len(node.args) != len(op.parameters):
        yield f"{len(node.args)} arguments for {op.signature()}"
        return
    sound = True
    for parameter, arg in zip(op.parameters, node.args, strict=True):
        expected = _expected(parameter, arg)
        if expected is not None:
            sound = False
            yield f"argument '{parameter.name}' is {print_constant(arg, names)}, expected {expected}"
        for value in arg if type(arg) is tuple else (arg,):
            if type(value) is Value and value not in defined:
                sound = False
                yield f"operand '{parameter.name}' is {names.reference(value)}, {_foreign(value, position)}"
    for i, result in enumerate(node.results):
        if result.node is not node or result.index != i:
            sound = False
            yield f"result {names.reference(result)} does not point back to its node"
    if sound:
        yield from _type_faults(node, names)


def _type_faults(node: Node, names: Names) -> Iterator[str]:
    try:
        types = node.op.infer(node.args)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        yield f"the type rule refuses: {error}"
        return
    if len(types) != len(node.results):
        yield f"{len(node.results)} results, the type rule gives {len(types)}"
        return
    for result, expected in zip(node.results, types, strict=True):
        if not same_type(result.type, expected):
            yield f"{names.reference(result)} has type {result.type}, the type rule gives {expected}"


# -- kinds of arguments -----------------------------------------------------------------------------------------------


def _is_size(arg: Any) -> bool:
    return type(arg) is int or type(arg) is SymInt


def _is_number(arg: Any) -> bool:
    return isinstance(arg, int | float | complex | SymInt)


def _is_run_time_number(arg: Any) -> bool:
    """A value where the signature takes a number: one element."""
    return type(arg) is Value and all(type(d) is int and d == 1 for d in arg.type.shape)


_CHECKS: dict[str, tuple[str, Any]] = {
    "Tensor": ("a value", lambda a: type(a) is Value),
    "Tensor|Number": ("a value or a number", lambda a: type(a) is Value or _is_number(a)),
    "Number": ("a number", lambda a: _is_number(a) or _is_run_time_number(a)),
    "int": ("an int", _is_size),
    "float": ("a float", lambda a: isinstance(a, int | float | SymInt) or _is_run_time_number(a)),
    "bool": ("a bool", lambda a: isinstance(a, bool)),
    "str": ("a string", lambda a: isinstance(a, str)),
    "dtype": ("a dtype", lambda a: isinstance(a, dtype)),
    "device": ("a device", lambda a: isinstance(a, device)),
}


def _expected(parameter: Parameter, arg: Any) -> str | None:
    """What the parameter takes, if the argument is something else."""
    kind = parameter.kind
    optional = kind.endswith("?")
    kind = kind.removesuffix("?")
    if arg is None and optional:
        return None
    many = kind.endswith("[]")
    kind = kind.removesuffix("[]")
    nullable_items = kind.endswith("?")
    kind = kind.removesuffix("?")
    if kind not in _CHECKS:
        return None  # "any" and "generator"
    what, check = _CHECKS[kind]
    if many:
        if type(arg) is tuple and all(check(a) or (nullable_items and a is None) for a in arg):
            return None
        what = f"a tuple, each {what}" + (" or None" if nullable_items else "")
    elif check(arg):
        return None
    return what + (" or None" if optional else "")
