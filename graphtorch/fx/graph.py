"""Graphs of `torch.fx`: nodes in order, and the Python code that they stand for.

These graphs record Python calls, for programs that rewrite modules. They have no types, and the compiler does not use
them: `@compile` captures what a rewritten module does as it does with any other."""

from __future__ import annotations

import builtins
import inspect
import keyword
import math
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from graphtorch.fx.node import Node, is_builtin, map_aggregate, map_arg
from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.size import Size

_INFIX = {
    "add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "truediv": "{} / {}", "floordiv": "{} // {}",
    "mod": "{} % {}", "pow": "{} ** {}", "matmul": "{} @ {}", "and_": "{} & {}", "or_": "{} | {}",
    "xor": "{} ^ {}", "lshift": "{} << {}", "rshift": "{} >> {}", "lt": "{} < {}", "le": "{} <= {}",
    "gt": "{} > {}", "ge": "{} >= {}", "eq": "{} == {}", "ne": "{} != {}", "getitem": "{}[{}]",
    "neg": "-{}", "pos": "+{}", "invert": "~{}",
}  # fmt: skip
_RESERVED = {*keyword.kwlist, *dir(builtins), "torch", "self", "inf", "nan", "device"}


class PythonCode(NamedTuple):
    """Source of a `forward`, and the objects that it names."""

    src: str
    globals: dict[str, Any]


def snake_case(text: str) -> str:
    """`CamelCase` as `camel_case`."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", text).lower()


def dotted_name(function: Any) -> str | None:
    """Where a function of this library is found: "torch.nn.functional.relu"."""
    import graphtorch

    own = getattr(function, "__name__", "")
    spaces = (
        ("torch", graphtorch), ("torch.nn.functional", graphtorch.nn.functional), ("torch.linalg", graphtorch.linalg),
        ("torch.special", graphtorch.special), ("torch.fft", graphtorch.fft),
    )  # fmt: skip
    for title, space in spaces:
        if vars(space).get(own) is function:
            return f"{title}.{own}"
    return None


class Graph:
    """Nodes in the order in which they run. See torch.fx.Graph."""

    def __init__(self, owning_module: Any = None, tracer_cls: Any = None, tracer_extras: Any = None) -> None:
        self.owning_module = owning_module
        self._tracer_cls = tracer_cls
        self._root = Node(self, "", "output", "output", (), {})
        self._names: dict[str, int] = {}
        self._insert_before = self._root

    @property
    def nodes(self) -> _Nodes:
        """The nodes; they may be changed while one goes through them."""
        return _Nodes(self)

    # -- making nodes

    def _fresh(self, candidate: str) -> str:
        base = re.sub(r"[^0-9a-zA-Z_]+", "_", candidate) or "_unnamed"
        if base[0].isdigit():
            base = f"_{base}"
        name = base
        found = re.match(r"(.*)_(\d+)$", base)
        stem, number = (found[1], int(found[2])) if found else (base, 0)
        if name in _RESERVED or name in self._names:
            if name in _RESERVED and not found:
                number = max(number, self._names.get(stem, 0))
            number = max(number, self._names.get(stem, 0))
            while name in self._names or name in _RESERVED:
                number += 1
                name = f"{stem}_{number}"
        self._names[name] = 0
        self._names[stem] = max(self._names.get(stem, 0), number)
        return name

    def create_node(
        self, op: str, target: Any, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None,
        name: str | None = None, type_expr: Any = None,
    ) -> Node:  # fmt: skip
        """A node where nodes are inserted now: at the end, unless `inserting_before` or `inserting_after` says so."""
        if name is None:
            own = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
            if own.startswith("__") and own.endswith("__"):
                own = own[2:-2]
            name = snake_case(own)
        made = Node(self, self._fresh(name), op, target, args or (), kwargs or {}, type_expr)
        made._link(self._insert_before)
        return made

    def placeholder(self, name: str, type_expr: Any = None, default_value: Any = inspect.Parameter.empty) -> Node:
        """An argument of the function."""
        args = () if default_value is inspect.Parameter.empty else (default_value,)
        return self.create_node("placeholder", name, args, type_expr=type_expr)

    def get_attr(self, qualified_name: str, type_expr: Any = None) -> Node:
        """A parameter, buffer or other attribute of the module, by its dotted name."""
        return self.create_node("get_attr", qualified_name, type_expr=type_expr)

    def call_function(
        self, the_function: Callable[..., Any], args: Any = None, kwargs: Any = None, type_expr: Any = None,
        name: str | None = None,
    ) -> Node:  # fmt: skip
        """A call of a function."""
        return self.create_node("call_function", the_function, args, kwargs, name, type_expr)

    def call_module(self, module_name: str, args: Any = None, kwargs: Any = None, type_expr: Any = None) -> Node:
        """A call of a submodule, by its dotted name."""
        return self.create_node("call_module", module_name, args, kwargs, type_expr=type_expr)

    def call_method(self, method_name: str, args: Any = None, kwargs: Any = None, type_expr: Any = None) -> Node:
        """A call of a method of the first argument."""
        return self.create_node("call_method", method_name, args, kwargs, type_expr=type_expr)

    def output(self, result: Any, type_expr: Any = None) -> Node:
        """What the function returns."""
        return self.create_node("output", "output", (result,), type_expr=type_expr)

    def node_copy(self, node: Node, arg_transform: Callable[[Node], Any] = lambda x: x) -> Node:
        """A copy of another graph's node, whose arguments are what `arg_transform` gives."""
        args, kwargs = map_arg((node.args, node.kwargs), arg_transform)
        made = self.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        made.meta = dict(node.meta)
        return made

    def graph_copy(self, g: Graph, val_map: dict[Node, Node], return_output_node: bool = False) -> Any:
        """Copies of all nodes of another graph that `val_map` does not have; returns what it returns."""
        for node in g.nodes:
            if node in val_map:
                continue
            if node.op == "output":
                result = map_arg(node.args[0], val_map.__getitem__)
                return (result, node) if return_output_node else result
            val_map[node] = self.node_copy(node, val_map.__getitem__)
        return None

    @contextmanager
    def inserting_before(self, n: Node | None = None) -> Iterator[None]:
        """A block in which nodes are made before this one (None: at the beginning)."""
        held, self._insert_before = self._insert_before, self._root._next if n is None else n
        try:
            yield
        finally:
            self._insert_before = held

    @contextmanager
    def inserting_after(self, n: Node | None = None) -> Iterator[None]:
        """A block in which nodes are made after this one (None: at the end)."""
        held, self._insert_before = self._insert_before, self._root if n is None else n._next
        try:
            yield
        finally:
            self._insert_before = held

    # -- changing

    def erase_node(self, to_erase: Node) -> None:
        """Take a node out. Raises RuntimeError if something reads it."""
        if to_erase.users:
            raise RuntimeError(
                f"Tried to erase Node {to_erase} but it still had {len(to_erase.users)} users in the graph: "
                f"{to_erase.users}!"
            )
        if to_erase._erased:
            return
        to_erase._update((), {})
        to_erase._unlink()
        to_erase._erased = True

    def eliminate_dead_code(self, is_impure_node: Callable[[Node], bool] | None = None) -> bool:
        """Take out what nobody reads and what changes nothing; returns whether there was something."""
        self.lint()
        impure = is_impure_node or (lambda node: node.is_impure())
        changed = False
        for node in reversed(list(self.nodes)):
            if not node.users and not impure(node):
                self.erase_node(node)
                changed = True
        return changed

    def lint(self) -> None:
        """Raise RuntimeError for a graph that makes no sense: a node read before it is made, or a module that is not
        there."""
        seen: set[Node] = set()
        names: set[str] = set()
        for node in self.nodes:
            for read in node.all_input_nodes:
                if read.graph is not self:
                    raise RuntimeError(
                        f"Argument '{read}' of Node '{node}' does not belong to this Graph, but was used as an "
                        "argument! If you are copying nodes from another graph, make sure to use ``arg_transform`` on "
                        f"node_copy() to remap values\n{self}"
                    )
                if read not in seen:
                    raise RuntimeError(
                        f"Argument '{read}' of Node '{node}' was used before it has been defined! Please check that "
                        f"Nodes in the graph are topologically ordered\n{self}"
                    )
            if node.name in names:
                raise RuntimeError(f"Node redefined name {node.name}!")
            seen.add(node)
            names.add(node.name)
            if self.owning_module is not None and node.op in ("get_attr", "call_module"):
                value = self.owning_module
                for part in node.target.split("."):
                    if not hasattr(value, part):
                        raise RuntimeError(f"Node {node} target {node.target} references nonexistent attribute {part}")
                    value = getattr(value, part)

    def find_nodes(self, *, op: str, target: Any = None, sort: bool = True) -> list[Node]:
        """The nodes that do one thing."""
        return [n for n in self.nodes if n.op == op and (target is None or n.target == target)]

    def output_node(self) -> Node:
        """The node that says what is returned."""
        return self.find_nodes(op="output")[-1]

    # -- showing

    def _name_of(self, function: Any) -> str:
        name = dotted_name(function)
        if name is None:
            module = getattr(function, "__module__", None)
            module = {"_operator": "operator"}.get(module or "", module)
            own = getattr(function, "__name__", repr(function))
            name = own if module is None else f"{module}.{own}"
        return name

    def __str__(self) -> str:
        lines = [node.format_node() for node in self.nodes]
        return "graph():" + "".join(f"\n    {line}" for line in lines)

    def print_tabular(self) -> None:
        """Print the nodes as a table."""
        rows = [["opcode", "name", "target", "args", "kwargs"]]
        rows += [[n.op, n.name, str(n.target), str(n.args), str(n.kwargs)] for n in self.nodes]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        rows.insert(1, ["-" * width for width in widths])
        print("\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows))

    def python_code(self, root_module: str = "self", **options: Any) -> PythonCode:
        """The function's source, and the objects that it names."""
        import graphtorch

        space: dict[str, Any] = {"torch": graphtorch, "device": device, "inf": math.inf, "nan": math.nan}

        def function(target: Any) -> str:
            name = dotted_name(target)
            if name is not None:
                return name
            own = getattr(target, "__name__", "function")
            if is_builtin(target):
                return own
            module = {"_operator": "operator"}.get(getattr(target, "__module__", ""), getattr(target, "__module__", ""))
            wanted = re.sub(r"[^0-9a-zA-Z_]+", "_", f"{module}_{own}")
            number, name = 0, wanted
            while name in self._names or space.setdefault(name, target) is not target:
                number += 1
                name = f"{wanted}_{number}"
            return name

        def shown(value: Any) -> str:
            if isinstance(value, Node):
                return value.name
            if isinstance(value, Size):
                return f"torch.Size({list(value)!r})"
            if isinstance(value, tuple):
                inner = ", ".join(map(shown, value))
                if hasattr(value, "_fields"):
                    return f"{function(type(value))}({inner})"
                return f"({inner}{',' * (len(value) == 1)})"
            if isinstance(value, list):
                return f"[{', '.join(map(shown, value))}]"
            if isinstance(value, dict):
                return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in value.items()) + "}"
            if isinstance(value, slice):
                return f"slice({shown(value.start)}, {shown(value.stop)}, {shown(value.step)})"
            if isinstance(value, dtype):
                return repr(value)
            if isinstance(value, device):
                return repr(value)
            if value is Ellipsis:
                return "Ellipsis"
            if isinstance(value, type) or (callable(value) and not isinstance(value, graphtorch.Tensor)):
                return function(value)
            if isinstance(value, str | int | float | complex | bool | bytes | type(None)):
                return repr(value)
            name = f"_object_{len(space)}"
            space[name] = value
            return name

        def call(args: Any, kwargs: Any) -> str:
            return ", ".join([*map(shown, args), *(f"{k} = {shown(v)}" for k, v in kwargs.items())])

        last: dict[Node, list[Node]] = {}
        seen: set[Node] = set()
        for node in reversed(self.nodes):
            for read in node.all_input_nodes:
                if read not in seen:
                    seen.add(read)
                    last.setdefault(node, []).append(read)
        lines, arguments, unused = [], [], []
        for node in self.nodes:
            if node.op == "placeholder":
                name = node.target.lstrip("*")
                stars = node.target[: len(node.target) - len(name)]
                arguments.append(f"{stars}{name}" + (f" = {shown(node.args[0])}" if node.args else ""))
                if node.name != name:
                    lines.append(f"{node.name} = {name}")
                elif not node.users:
                    unused.append(node)
                continue
            if node.op == "output":
                lines.append(f"return {shown(node.args[0])}")
                continue
            if node.op == "get_attr":
                text = _attribute(root_module, node.target)
            elif node.op == "call_module":
                text = f"{_attribute(root_module, node.target)}({call(node.args, node.kwargs)})"
            elif node.op == "call_method":
                text = f"{shown(node.args[0])}.{node.target}({call(node.args[1:], node.kwargs)})"
            elif getattr(node.target, "__module__", "") == "_operator" and node.target.__name__ in _INFIX:
                text = _INFIX[node.target.__name__].format(*map(shown, node.args))
            elif node.target is getattr and len(node.args) == 2:
                text = f"{shown(node.args[0])}.{node.args[1]}"
            else:
                text = f"{function(node.target)}({call(node.args, node.kwargs)})"
            dead = [n.name for n in last.get(node, ())] + ([] if node.users or node.op == "output" else [node.name])
            freed = f";  {' = '.join(dead)} = None" if dead else ""
            lines.append(f"{node.name} = {text}{freed}")
        body = "".join(f"    {line}\n" for line in lines) or "    pass\n"
        head = ", ".join([root_module, *arguments])
        return PythonCode(f"\n\n\ndef forward({head}):\n{body}    ", space)

    def __deepcopy__(self, memo: Any = None) -> Graph:
        made = Graph(tracer_cls=self._tracer_cls)
        mapping: dict[Node, Node] = {}
        result = made.graph_copy(self, mapping)
        made.output(result)
        return made


def _attribute(root: str, path: str) -> str:
    """`self.layers.0.weight` as Python has it."""
    text = root
    for part in path.split("."):
        text = f"{text}.{part}" if part.isidentifier() and not keyword.iskeyword(part) else f'getattr({text}, "{part}")'
    return text


class _Nodes:
    """The nodes of a graph, in order or reversed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __iter__(self) -> Iterator[Node]:
        node = self.graph._root._next
        while node is not self.graph._root:
            if not node._erased:
                yield node
            node = node._next

    def __reversed__(self) -> Iterator[Node]:
        node = self.graph._root._prev
        while node is not self.graph._root:
            if not node._erased:
                yield node
            node = node._prev

    def __len__(self) -> int:
        return sum(1 for _ in self)


__all__ = ["Graph", "Node", "PythonCode", "map_aggregate", "map_arg", "operator"]
