"""Symbolic tracing: running a module on proxies. Modules of this package stay calls, others are looked through.

While a module is traced, functions of this package (and those named by `wrap`) record themselves where they get a
proxy; user code finds them under the names by which it mentions them."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphtorch.fx.graph import Graph
from graphtorch.fx.graph_module import GraphModule
from graphtorch.fx.node import Node, map_aggregate
from graphtorch.fx.proxy import Attribute, Proxy, TraceError, proxies_in
from graphtorch.nn import Module, Parameter, Sequential
from graphtorch.tensor.tensor import Tensor

_WRAPPED: dict[tuple[int, str], dict[str, Any]] = {}  # what `wrap` named: (namespace, name) -> the namespace


def wrap(fn_or_name: Any) -> Any:
    """Have a function of the calling module's namespace recorded as a call, instead of looked through. Call it at the
    top of a module, with a function or its name, or as a decorator. See torch.fx.wrap.

    Raises RuntimeError for anything else, NotImplementedError inside of a function."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError("Unsupported type for global function! Must be either a callable or string name")
    name = fn_or_name if isinstance(fn_or_name, str) else fn_or_name.__name__
    frame = inspect.currentframe()
    caller = None if frame is None else frame.f_back
    assert caller is not None
    if caller.f_code.co_name != "<module>":
        raise NotImplementedError("wrap must be called at the top level of a module")
    _WRAPPED[(id(caller.f_globals), name)] = caller.f_globals
    return fn_or_name


class TracerBase:
    """What makes nodes of what is done to proxies."""

    graph: Graph

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> Node:
        """A node of the graph."""
        return self.graph.create_node(kind, target, args, kwargs, name, type_expr)

    def proxy(self, node: Node) -> Proxy:
        """What stands for a node's value."""
        return Proxy(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, type_expr: Any = None,
        proxy_factory_fn: Callable[[Node], Proxy] | None = None,
    ) -> Proxy:  # fmt: skip
        """A node of these arguments, and what stands for it."""
        node = self.create_node(
            kind, target, self.create_arg(tuple(args)), self.create_arg(dict(kwargs)), name, type_expr
        )
        return self.proxy(node) if proxy_factory_fn is None else proxy_factory_fn(node)

    def create_arg(self, a: Any) -> Any:
        """A value as a node has it among its arguments. Raises NotImplementedError for one that no node can have."""
        return map_aggregate(a, self._one)

    def _one(self, value: Any) -> Any:
        if isinstance(value, Proxy):
            return value.node
        plain = isinstance(value, str | int | float | complex | bool | bytes | type(None) | type(...))
        if plain or isinstance(value, Node) or callable(value) or hasattr(value, "is_floating_point"):
            return value
        if type(value).__name__ in ("device", "dtype", "layout", "memory_format", "range"):
            return value
        raise NotImplementedError(f"argument of type: {type(value)}")

    def to_bool(self, obj: Proxy) -> bool:
        """Refused. Raises TraceError."""
        raise TraceError("symbolically traced variables cannot be used as inputs to control flow")

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """Refused. Raises TraceError."""
        raise TraceError(
            "Proxy object cannot be iterated. This can be attempted when the Proxy is used in a loop or as a *args or "
            "**kwargs function argument. See the torch.fx docs on pytorch.org for a more detailed explanation of what "
            "types of control flow can be traced, and check out the Proxy docstring for help troubleshooting Proxy "
            "iteration errors"
        )


class GraphAppendingTracer(TracerBase):
    """Appends to a graph that there is."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph


class Tracer(TracerBase):
    """Traces modules and functions. See torch.fx.Tracer."""

    def __init__(
        self, autowrap_modules: Any = (math,), autowrap_functions: tuple[Callable[..., Any], ...] = (),
        param_shapes_constant: bool = False,
    ) -> None:  # fmt: skip
        self._functions = autowrap_functions
        self._modules = tuple(autowrap_modules)
        self.root: Module = Module()
        self._paths: dict[int, str] = {}

    # -- what subclasses change

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        """Whether a module is recorded as one call: those of this package are, except Sequential."""
        return type(m).__module__.startswith("graphtorch.nn") and not isinstance(m, Sequential)

    def path_of_module(self, mod: Module) -> str:
        """The dotted name of a submodule. Raises NameError for one that is none."""
        if id(mod) not in self._paths:
            raise NameError("module is not installed as a submodule")
        return self._paths[id(mod)]

    def call_module(self, m: Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A call of a submodule: recorded if it is a leaf, else looked through."""
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return self.create_proxy("call_module", path, args, kwargs)
        return forward(*args, **kwargs)

    # -- tracing

    def _one(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            for name, held in list(self._tensors.items()):
                if held is value:
                    return self.create_node("get_attr", name, (), {})
            number = 0
            while hasattr(self.root, f"_tensor_constant{number}"):
                number += 1
            name = f"_tensor_constant{number}"
            setattr(self.root, name, value)
            self._tensors[name] = value
            return self.create_node("get_attr", name, (), {})
        if isinstance(value, Module):
            return self.create_node("get_attr", self.path_of_module(value), (), {})
        return super()._one(value)

    def trace(self, root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> Graph:
        """The graph of a module's forward, or of a function. `concrete_args`: arguments that are these values."""
        if isinstance(root, Module):
            self.root, function = root, type(root).forward
            self._paths = {id(m): name for name, m in root.named_modules()}
        else:
            self.root, function = Module(), root
        self._tensors = {**dict(self.root.named_parameters()), **dict(self.root.named_buffers())}
        for name, module in self.root.named_modules():
            for attribute, value in vars(module).items():
                if isinstance(value, Tensor):
                    self._tensors[f"{name}.{attribute}" if name else attribute] = value
        self._names = {id(p): name for name, p in self.root.named_parameters()}
        self.graph = Graph(tracer_cls=type(self))
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters = list(inspect.signature(function).parameters.values())
        if isinstance(root, Module):
            args.append(root)
            parameters = parameters[1:]
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise TraceError(f"*{parameter.name}: what a function gets of any number is not known to a trace")
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            default: tuple[Any, ...] = () if parameter.default is parameter.empty else (parameter.default,)
            given: Any = None
            if concrete_args and parameter.name in concrete_args:
                given = concrete_args[parameter.name]
                self.create_proxy("placeholder", parameter.name, (given,), {})
            else:
                given = self.create_proxy("placeholder", parameter.name, default, {})
            if parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = given
            else:
                args.append(given)
        with self._recording(function):
            result = function(*args, **kwargs)
        self.create_node("output", "output", (self.create_arg(result),), {})
        return self.graph

    @contextmanager
    def _recording(self, function: Callable[..., Any]) -> Iterator[None]:
        """Have calls of modules and functions come here."""
        import graphtorch

        known: dict[int, Any] = {}  # a function -> what records it
        changed: list[tuple[dict[str, Any], str, Any]] = []

        def recorded(target: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(target)
            def call(*args: Any, **kwargs: Any) -> Any:
                proxy = proxies_in((args, kwargs))
                if proxy is None:
                    return target(*args, **kwargs)
                return self.create_proxy("call_function", target, args, kwargs)

            return call

        def put(space: dict[str, Any], name: str, value: Any) -> None:
            changed.append((space, name, space.get(name, changed)))
            space[name] = value

        spaces = [graphtorch, graphtorch.nn.functional, graphtorch.linalg, graphtorch.special, graphtorch.fft]
        for space in (*spaces, *self._modules):
            for name, value in list(vars(space).items()):
                if callable(value) and not isinstance(value, type | Module) and not name.startswith("_"):
                    known.setdefault(id(value), recorded(value))
                    put(vars(space), name, known[id(value)])
        for value in self._functions:
            known.setdefault(id(value), recorded(value))
        # User code that imported functions by their names.
        homes = {id(function.__globals__): function.__globals__} if hasattr(function, "__globals__") else {}
        for module in self.root.modules():
            found = sys.modules.get(type(module).__module__)
            if found is not None and not found.__name__.startswith("graphtorch"):
                homes[id(vars(found))] = vars(found)
        for home in homes.values():
            for name, value in list(home.items()):
                if id(value) in known and callable(value):
                    put(home, name, known[id(value)])
        for (_, name), home in _WRAPPED.items():
            value = home.get(name, getattr(builtins, name, None))
            if value is not None:
                put(home, name, recorded(value))

        own_call = Module.__call__

        def module_call(mod: Module, *args: Any, **kwargs: Any) -> Any:
            if proxies_in((args, kwargs)) is None:
                return own_call(mod, *args, **kwargs)
            return self.call_module(mod, lambda *a, **k: own_call(mod, *a, **k), args, kwargs)

        own_getattr = Module.__getattr__
        read: dict[str, Proxy] = {}

        def module_getattr(mod: Module, name: str) -> Any:
            value = own_getattr(mod, name)
            if not isinstance(value, Parameter):
                return value
            path = self._names.get(id(value))
            if path is None:
                return value
            if path not in read:
                read[path] = self.create_proxy("get_attr", path, (), {})
            return read[path]

        Module.__call__ = module_call  # type: ignore[assignment, method-assign]
        Module.__getattr__ = module_getattr  # type: ignore[method-assign]
        try:
            yield
        finally:
            Module.__call__ = own_call  # type: ignore[method-assign]
            Module.__getattr__ = own_getattr  # type: ignore[method-assign]
            for space, name, value in reversed(changed):
                if value is changed:
                    del space[name]
                else:
                    space[name] = value


def symbolic_trace(root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None) -> GraphModule:
    """A module that does what a module or function does, as a graph. See torch.fx.symbolic_trace.

    Raises TraceError for control flow that depends on values."""
    tracer = Tracer()
    graph = tracer.trace(root, concrete_args)
    name = type(root).__name__ if isinstance(root, Module) else getattr(root, "__name__", "GraphModule")
    return GraphModule(tracer.root, graph, name)


__all__ = ["Attribute", "GraphAppendingTracer", "Tracer", "TracerBase", "symbolic_trace", "wrap"]
