"""Modules whose forward is a graph of `torch.fx`."""

from __future__ import annotations

import copy
import itertools
import linecache
from typing import Any

from graphtorch.fx.graph import Graph, PythonCode
from graphtorch.nn import Module

_numbers = itertools.count()


class GraphModule(Module):
    """A module made of a graph, with the submodules, parameters and buffers that it mentions. See torch.fx.GraphModule.

    `root`: the module that has them, or a dictionary by dotted names. Raises RuntimeError for one that is not there."""

    def __new__(cls, *args: Any, **kwargs: Any) -> GraphModule:
        # A class of its own, which has a forward of its own.
        made = type(cls.__name__, (cls,), {"__module__": cls.__module__})
        return super().__new__(made)

    def __init__(self, root: Module | dict[str, Any], graph: Graph, class_name: str = "GraphModule") -> None:
        super().__init__()
        type(self).__name__ = class_name
        if isinstance(root, Module):
            self.training = root.training
        for node in graph.nodes:
            if node.op in ("get_attr", "call_module"):
                if isinstance(root, Module):
                    _copy_attribute(root, self, node.target)
                elif node.target not in root:
                    raise RuntimeError(
                        f"Node {node} referenced target {node.target} but that target was not provided in ``root``!"
                    )
                else:
                    _set_attribute(self, node.target, root[node.target])
        self.__dict__["_graph"] = graph
        graph.owning_module = self
        self.recompile()

    @property
    def graph(self) -> Graph:
        """The graph; `recompile` after it was changed. A new one compiles at once."""
        return self.__dict__["_graph"]  # type: ignore[no-any-return]

    @graph.setter
    def graph(self, g: Graph) -> None:
        made = copy.deepcopy(g)
        self.__dict__["_graph"] = made
        made.owning_module = self
        self.recompile()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "graph":
            type(self).graph.fset(self, value)  # type: ignore[attr-defined]
        else:
            super().__setattr__(name, value)

    @property
    def code(self) -> str:
        """The Python code of the forward."""
        return self.__dict__["_code"]  # type: ignore[no-any-return]

    def recompile(self) -> PythonCode:
        """Make the forward anew from the graph."""
        made = self.graph.python_code("self")
        self.__dict__["_code"] = made.src
        file = f"<eval_with_key>.{next(_numbers)}"
        linecache.cache[file] = (len(made.src), None, made.src.splitlines(True), file)
        space = dict(made.globals)
        exec(compile(made.src, file, "exec"), space)
        type(self).forward = space["forward"]
        return made

    def add_submodule(self, target: str, m: Module) -> bool:
        """Put a module at a dotted name, making modules on the way; False if something else is in the way."""
        owner: Any = self
        *path, last = target.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, Module())
            owner = getattr(owner, part)
            if not isinstance(owner, Module):
                return False
        owner.add_module(last, m)
        return True

    def delete_submodule(self, target: str) -> bool:
        """Take the module of a dotted name out; False if there is none."""
        path, _, last = target.rpartition(".")
        try:
            owner = self.get_submodule(path)
        except AttributeError:
            return False
        if last not in owner._modules:
            return False
        delattr(owner, last)
        return True

    def delete_all_unused_submodules(self) -> None:
        """Take out the modules that the graph does not call."""
        used: set[str] = set()
        for node in self.graph.nodes:
            if node.op in ("call_module", "get_attr"):
                parts = node.target.split(".")
                used.update(".".join(parts[:i]) for i in range(1, len(parts) + 1))
                if node.op == "call_module":
                    used.update(name for name, _ in self.named_modules() if name.startswith(node.target + "."))
        for name in [name for name, _ in self.named_modules() if name and name not in used]:
            self.delete_submodule(name)

    def print_readable(self, print_output: bool = True, **options: Any) -> str:
        """The module's code, printed unless told otherwise."""
        body = "\n".join("    " + line if line else "" for line in self.code.strip("\n").splitlines())
        text = f"class {type(self).__name__}(torch.nn.Module):\n{body}\n"
        if print_output:
            print(text)
        return text

    def __deepcopy__(self, memo: Any) -> GraphModule:
        plain = Module()
        plain.training = self.training
        for name in ("_parameters", "_buffers", "_modules"):
            plain.__dict__[name] = copy.deepcopy(self.__dict__[name], memo)
        for name, value in self.__dict__.items():
            if name not in plain.__dict__ and name not in ("_graph", "_code"):
                plain.__dict__[name] = copy.deepcopy(value, memo)
        return GraphModule(plain, copy.deepcopy(self.graph, memo), type(self).__name__)

    def __reduce__(self) -> Any:
        own = {k: v for k, v in self.__dict__.items() if k not in ("_graph", "_code")}
        return _restored, (own, self.graph, type(self).__name__)

    def __str__(self) -> str:
        return (
            f"{super().__repr__()}\n{self.code}\n# To see more debug info, please use `graph_module.print_readable()`"
        )


def _restored(own: dict[str, Any], graph: Graph, name: str) -> GraphModule:
    plain = Module()
    plain.__dict__.update(own)
    return GraphModule(plain, graph, name)


def _copy_attribute(source: Module, target: Module, path: str) -> None:
    """Give a module what another has under a dotted name; modules on the way are plain ones."""
    *parts, last = path.split(".")
    to: Any = target
    have: Any = source
    for part in parts:
        have = getattr(have, part)
        if part not in to._modules:
            to.add_module(part, have if have is to else Module())
        to = to._modules[part]
        if to is have:
            return
    value = getattr(have, last)
    if isinstance(value, Module):
        to._modules[last] = value
    elif last in have._parameters:
        to._parameters[last] = value
    elif last in have._buffers:
        to.register_buffer(last, value, last not in have._non_persistent_buffers_set)
    else:
        setattr(to, last, value)


def _set_attribute(target: Module, path: str, value: Any) -> None:
    *parts, last = path.split(".")
    to: Any = target
    for part in parts:
        if part not in to._modules:
            to.add_module(part, Module())
        to = to._modules[part]
    setattr(to, last, value)
