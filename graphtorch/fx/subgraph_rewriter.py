"""Replacing patterns in graphs of `torch.fx`: `replace_pattern`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from graphtorch.fx.graph import Graph
from graphtorch.fx.graph_module import GraphModule
from graphtorch.fx.node import Node
from graphtorch.fx.tracer import symbolic_trace
from graphtorch.nn import Module

__all__ = ["Match", "replace_pattern"]


class Match(NamedTuple):
    """Where a pattern was found: the node of its result, and which nodes stand for the pattern's."""

    anchor: Node
    nodes_map: dict[Node, Node]


def _graph_of(pattern: Any) -> Graph:
    if isinstance(pattern, Graph):
        return pattern
    return pattern.graph if isinstance(pattern, GraphModule) else symbolic_trace(pattern).graph


def _same(pattern: Any, node: Any, found: dict[Node, Node], module: Module) -> bool:
    """Whether an argument of the graph matches one of the pattern; notes which nodes correspond."""
    if isinstance(pattern, Node):
        if pattern in found:
            return found[pattern] is node
        if not isinstance(node, Node):
            return False
        if pattern.op == "placeholder":
            found[pattern] = node
            return True
        if pattern.op != node.op or not _same_target(pattern, node, module):
            return False
        if len(pattern.args) != len(node.args) or pattern.kwargs.keys() != node.kwargs.keys():
            return False
        found[pattern] = node
        return all(_same(p, a, found, module) for p, a in zip(pattern.args, node.args, strict=True)) and all(
            _same(p, node.kwargs[key], found, module) for key, p in pattern.kwargs.items()
        )
    if isinstance(pattern, tuple | list):
        if type(pattern) is not type(node) or len(pattern) != len(node):
            return False
        return all(_same(p, a, found, module) for p, a in zip(pattern, node, strict=True))
    return type(pattern) is type(node) and bool(pattern == node)


def _same_target(pattern: Node, node: Node, module: Module) -> bool:
    if pattern.op == "call_module":
        owner = pattern.graph.owning_module
        if owner is None:
            return bool(pattern.target == node.target)
        return type(owner.get_submodule(pattern.target)) is type(module.get_submodule(node.target))
    return bool(pattern.target == node.target)


def replace_pattern(gm: GraphModule, pattern: Callable[..., Any] | Graph, replacement: Any) -> list[Match]:
    """Replace each place of a graph that does what `pattern` does by what `replacement` does, and compile the module
    anew. Both are functions, modules or graphs of as many arguments. See torch.fx.replace_pattern.

    Places do not overlap, and what is inside one is read by nothing outside. Returns the matches."""
    wanted, instead = _graph_of(pattern), _graph_of(replacement)
    result = wanted.output_node().args[0]
    anchors = list(result) if isinstance(result, tuple | list) else [result]
    placeholders = [n for n in wanted.nodes if n.op == "placeholder"]
    used: set[Node] = set()
    matches: list[Match] = []
    for node in list(gm.graph.nodes):
        found: dict[Node, Node] = {}
        if node in used or not _same(anchors[-1], node, found, gm):
            continue
        inner = {p: n for p, n in found.items() if p.op != "placeholder"}
        if len(inner) != sum(n.op not in ("placeholder", "output") for n in wanted.nodes):
            continue
        if used & set(inner.values()) or any(p not in found for p in placeholders):
            continue
        outside = [
            n for p, n in inner.items() if p not in anchors and any(user not in inner.values() for user in n.users)
        ]
        if outside:
            continue
        used.update(inner.values())
        matches.append(Match(node, found))
    places = [n for n in instead.nodes if n.op == "placeholder"]
    renewed: dict[Node, Node] = {}
    for match in matches:
        mapping = dict(zip(places, (match.nodes_map[p] for p in placeholders), strict=True))
        mapping = {p: renewed.get(n, n) for p, n in mapping.items()}
        with gm.graph.inserting_before(match.anchor):
            made = gm.graph.graph_copy(instead, mapping)
        news = list(made) if isinstance(made, tuple | list) else [made]
        for old, new in zip(anchors, news, strict=True):
            match.nodes_map[old].replace_all_uses_with(new)
            renewed[match.nodes_map[old]] = new
        for p in reversed([n for n in wanted.nodes if n.op not in ("placeholder", "output")]):
            if not match.nodes_map[p].users:
                gm.graph.erase_node(match.nodes_map[p])
    owner = instead.owning_module
    for node in gm.graph.nodes:
        if node.op in ("get_attr", "call_module") and owner is not None and not _has(gm, node.target):
            if node.op == "call_module":
                gm.add_submodule(node.target, owner.get_submodule(node.target))
            else:
                setattr(gm, node.target, getattr(owner, node.target))
    gm.recompile()
    return matches


def _has(module: Any, path: str) -> bool:
    for part in path.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True
