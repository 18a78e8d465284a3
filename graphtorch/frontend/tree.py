"""Flattening nested containers of arguments and results into leaves and back.

Dictionaries, lists, tuples, named tuples and dataclasses are structure; everything else is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from graphtorch.tensor.size import Size


class Leaf:
    """The place of one leaf."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Leaf

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "*"


LEAF = Leaf()


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """One level of structure: the container's type, its keys (dictionaries, dataclasses) and its children."""

    type: type
    keys: tuple[Any, ...] | None
    children: tuple[Any, ...]


def flatten(value: Any, leaves: list[Any]) -> Any:
    """Append the leaves of `value`, depth first, and return its structure."""
    kind = type(value)
    if kind is tuple or kind is list or kind is Size or (isinstance(value, tuple) and hasattr(value, "_fields")):
        return Tree(kind, None, tuple([flatten(v, leaves) for v in value]))
    if kind is dict or kind is OrderedDict:
        return Tree(kind, tuple(value), tuple([flatten(v, leaves) for v in value.values()]))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(f.name for f in dataclasses.fields(value) if hasattr(value, f.name))
        if hasattr(value, "__dict__") and len(vars(value)) > len(names):
            names += tuple(n for n in vars(value) if n not in names)
        return Tree(kind, names, tuple([flatten(getattr(value, n), leaves) for n in names]))
    leaves.append(value)
    return LEAF


def mutable_containers(value: Any) -> Iterator[Any]:
    """The lists, dictionaries and dataclasses that may change among the containers of `value`, depth first."""
    kind = type(value)
    if kind is tuple or kind is list or (isinstance(value, tuple) and hasattr(value, "_fields")):
        if kind is list:
            yield value
        for item in value:
            yield from mutable_containers(item)
    elif kind is dict or kind is OrderedDict:
        yield value
        for item in value.values():
            yield from mutable_containers(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        if not value.__dataclass_params__.frozen:  # type: ignore[attr-defined, unused-ignore]
            yield value
        for field in dataclasses.fields(value):
            yield from mutable_containers(getattr(value, field.name, None))


def unflatten(tree: Any, leaves: Iterator[Any]) -> Any:
    """The inverse of `flatten`."""
    if type(tree) is Leaf:
        return next(leaves)
    children = [unflatten(c, leaves) for c in tree.children]
    if tree.keys is None:
        if tree.type in (tuple, list, Size):
            return tree.type(children)
        return tree.type(*children)
    if dataclasses.is_dataclass(tree.type):
        made: Any = object.__new__(tree.type)  # type: ignore[arg-type, unused-ignore]
        for name, child in zip(tree.keys, children, strict=True):
            object.__setattr__(made, name, child)
        return made
    return tree.type(zip(tree.keys, children, strict=True))
