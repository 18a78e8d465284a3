"""Proxies: what stands for a value while a module is traced. Everything that is done to one becomes a node."""

from __future__ import annotations

import dis
import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

from graphtorch.fx.node import Node, map_aggregate


class TraceError(ValueError):
    """Something that a trace can't record: a decision on a value, a loop over one."""


def proxies_in(value: Any) -> Proxy | None:
    """A proxy in a nest of containers, if there is one."""
    found: list[Proxy] = []

    def look(item: Any) -> Any:
        if isinstance(item, Proxy):
            found.append(item)
        return item

    map_aggregate(value, look)
    return found[0] if found else None


class Proxy:
    """Stands for the value of a node. See torch.fx.Proxy."""

    def __init__(self, node: Node, tracer: Any = None) -> None:
        from graphtorch.fx.tracer import GraphAppendingTracer

        self.node = node
        self.tracer: Any = GraphAppendingTracer(node.graph) if tracer is None else tracer

    def __repr__(self) -> str:
        return f"Proxy({self.node.name})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Attribute(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__call__", (self, *args), kwargs)

    def __iter__(self) -> Iterator[Any]:
        frame = inspect.currentframe()
        caller = None if frame is None else frame.f_back
        if caller is not None:
            at = caller.f_lasti
            instructions = {i.offset: i for i in dis.get_instructions(caller.f_code)}
            found = instructions.get(at)
            if found is not None and found.opname == "UNPACK_SEQUENCE":
                return iter([self.__getitem__(i) for i in range(found.argval)])
        found_iterator: Iterator[Any] = self.tracer.iter(self)
        return found_iterator

    def __bool__(self) -> bool:
        answer: bool = self.tracer.to_bool(self)
        return answer

    def __len__(self) -> int:
        raise RuntimeError(
            "'len' is not supported in symbolic tracing by default. If you want this call to be recorded, please call "
            "torch.fx.wrap('len') at module scope"
        )

    def __index__(self) -> int:
        raise TraceError("a traced value can't be used as a Python integer")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        proxy = proxies_in((args, kwargs or {}))
        assert proxy is not None
        return proxy.tracer.create_proxy("call_function", func, args, kwargs or {})


class Attribute(Proxy):
    """`x.name`: a method if it is called, else an attribute, which becomes a node when something needs it."""

    def __init__(self, root: Proxy, attr: str) -> None:
        self.root = root
        self.attr = attr
        self.tracer = root.tracer
        self._node: Node | None = None

    @property
    def node(self) -> Node:  # type: ignore[override]
        """The node that reads the attribute."""
        if self._node is None:
            self._node = self.tracer.create_proxy("call_function", getattr, (self.root, self.attr), {}).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


def _binary(function: Callable[..., Any], swapped: bool) -> Callable[..., Any]:
    def apply(self: Proxy, other: Any) -> Any:
        args = (other, self) if swapped else (self, other)
        return self.tracer.create_proxy("call_function", function, args, {})

    return apply


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: self.tracer.create_proxy("call_function", function, (self,), {})


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    _function = getattr(operator, _name if hasattr(operator, _name) else _name + "_")
    setattr(Proxy, f"__{_name}__", _binary(_function, False))
    setattr(Proxy, f"__r{_name}__", _binary(_function, True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "getitem"):
    setattr(Proxy, f"__{_name}__", _binary(getattr(operator, _name), False))
for _name in ("neg", "pos", "invert"):
    setattr(Proxy, f"__{_name}__", _unary(getattr(operator, _name)))
Proxy.__hash__ = object.__hash__  # type: ignore[method-assign]
assert sys.version_info >= (3, 11)  # f_lasti is an offset of `dis`
