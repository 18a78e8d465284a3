"""`torch.utils._pytree`: nested containers as a list of leaves and a specification, and functions over the leaves.

Tuples, named tuples, lists, dictionaries, ordered and default dictionaries, deques and registered classes are
containers; everything else, None included, is a leaf. Keys of dictionaries keep their order.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = [
    "LeafSpec", "PyTree", "TreeSpec", "is_namedtuple", "is_namedtuple_class", "register_pytree_node", "tree_all",
    "tree_all_only", "tree_any", "tree_any_only", "tree_flatten", "tree_is_leaf", "tree_iter", "tree_leaves",
    "tree_map", "tree_map_", "tree_map_only", "tree_map_only_", "tree_structure", "tree_unflatten",
    "GetAttrKey", "MappingKey", "SequenceKey", "key_get", "keystr", "tree_flatten_with_path", "tree_leaves_with_path",
    "tree_map_with_path",
]  # fmt: skip

PyTree = Any
Context = Any
Function = Callable[..., Any]
IsLeaf = Callable[[Any], bool]


class _Node(NamedTuple):
    """How containers of one class come apart, into children and a context, and together again."""

    flatten: Callable[[Any], tuple[list[Any], Context]]
    unflatten: Callable[[Iterable[Any], Context], Any]


def _of_default_dict(children: Iterable[Any], context: Context) -> defaultdict[Any, Any]:
    factory, keys = context
    return defaultdict(factory, zip(keys, children, strict=True))


_NODES: dict[type, _Node] = {
    tuple: _Node(lambda t: ([*t], None), lambda c, _: tuple(c)),
    list: _Node(lambda t: ([*t], None), lambda c, _: [*c]),
    dict: _Node(lambda t: ([*t.values()], [*t]), lambda c, keys: dict(zip(keys, c, strict=True))),
    OrderedDict: _Node(lambda t: ([*t.values()], [*t]), lambda c, keys: OrderedDict(zip(keys, c, strict=True))),
    defaultdict: _Node(lambda t: ([*t.values()], [t.default_factory, [*t]]), _of_default_dict),
    deque: _Node(lambda t: ([*t], t.maxlen), lambda c, length: deque(c, length)),
}
_NAMED_TUPLE = _Node(lambda t: ([*t], type(t)), lambda c, kind: kind(*c))


def register_pytree_node(
    cls: type,
    flatten_fn: Callable[[Any], tuple[list[Any], Context]],
    unflatten_fn: Callable[[Iterable[Any], Context], Any],
    **names: Any,
) -> None:
    """Make a class a container. `names` are accepted for PyTorch's sake. Raises ValueError if it is one already."""
    if cls in _NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")
    _NODES[cls] = _Node(flatten_fn, unflatten_fn)


def is_namedtuple_class(cls: type) -> bool:
    """Whether a class is a named tuple's."""
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_namedtuple(obj: object) -> bool:
    """Whether an object is a named tuple."""
    return is_namedtuple_class(type(obj))


def _node_of(tree: PyTree) -> _Node | None:
    found = _NODES.get(type(tree))
    return _NAMED_TUPLE if found is None and is_namedtuple(tree) else found


@dataclass(frozen=True)
class TreeSpec:
    """The structure of a tree: a container's class (None: a leaf), its context and its children's structures."""

    type: Any
    context: Context
    children_specs: tuple[TreeSpec, ...]

    @property
    def num_leaves(self) -> int:
        return 1 if self.type is None else sum(child.num_leaves for child in self.children_specs)

    @property
    def num_nodes(self) -> int:
        return 1 + sum(child.num_nodes for child in self.children_specs)

    @property
    def num_children(self) -> int:
        return len(self.children_specs)

    def is_leaf(self) -> bool:
        return self.type is None

    def unflatten(self, leaves: Iterable[Any]) -> PyTree:
        """The tree of this structure. Raises ValueError for another number of leaves."""
        leaves = [*leaves]
        if len(leaves) != self.num_leaves:
            raise ValueError(
                f"treespec.unflatten(leaves): `leaves` has length {len(leaves)} but the spec refers to a pytree that "
                f"holds {self.num_leaves} items ({self})."
            )
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> PyTree:
        if self.type is None:
            return next(leaves)
        node = _NODES.get(self.type, _NAMED_TUPLE)
        return node.unflatten([child._build(leaves) for child in self.children_specs], self.context)

    def flatten_up_to(self, tree: PyTree) -> list[PyTree]:
        """The parts of `tree` in the places of this structure's leaves. Raises ValueError where it is another one."""
        if self.type is None:
            return [tree]
        node = _node_of(tree)
        if node is None or type(tree) is not self.type:
            raise ValueError(f"Type mismatch; expected {self.type!r}, but got {type(tree)!r}.")
        children, context = node.flatten(tree)
        named = self.type in (dict, OrderedDict)
        if named and set(context) == set(self.context):
            children = [tree[key] for key in self.context]
        elif named or len(children) != len(self.children_specs):
            raise ValueError(f"Node arity mismatch; expected {len(self.children_specs)}, but got {len(children)}.")
        parts = zip(self.children_specs, children, strict=True)
        return [leaf for spec, child in parts for leaf in spec.flatten_up_to(child)]


class LeafSpec(TreeSpec):
    """The structure of a leaf."""

    def __init__(self) -> None:
        super().__init__(None, None, ())


def tree_is_leaf(tree: PyTree, is_leaf: IsLeaf | None = None) -> bool:
    """Whether a tree is a single leaf."""
    return (is_leaf is not None and is_leaf(tree)) or _node_of(tree) is None


def tree_flatten(tree: PyTree, is_leaf: IsLeaf | None = None) -> tuple[list[Any], TreeSpec]:
    """(leaves, structure), depth first. `is_leaf` says of containers whether they count as leaves."""
    leaves: list[Any] = []

    def visit(part: PyTree) -> TreeSpec:
        if tree_is_leaf(part, is_leaf):
            leaves.append(part)
            return LeafSpec()
        node = _node_of(part)
        assert node is not None
        children, context = node.flatten(part)
        return TreeSpec(type(part), context, tuple([visit(child) for child in children]))

    return leaves, visit(tree)


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The tree of a structure and its leaves."""
    if not isinstance(treespec, TreeSpec):
        raise TypeError(f"tree_unflatten(leaves, treespec): expected a TreeSpec, got {type(treespec)}")
    return treespec.unflatten(leaves)


def tree_iter(tree: PyTree, is_leaf: IsLeaf | None = None) -> Iterator[Any]:
    """The leaves, one after another."""
    yield from tree_flatten(tree, is_leaf)[0]


def tree_leaves(tree: PyTree, is_leaf: IsLeaf | None = None) -> list[Any]:
    """The leaves."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: PyTree, is_leaf: IsLeaf | None = None) -> TreeSpec:
    """The structure."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Function, tree: PyTree, *rests: PyTree, is_leaf: IsLeaf | None = None) -> PyTree:
    """A tree of the same structure, of what `func` gives for each leaf and the parts of `rests` in its place."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *(spec.flatten_up_to(rest) for rest in rests)]
    return spec.unflatten([func(*row) for row in zip(*columns, strict=True)])


def tree_map_(func: Function, tree: PyTree, *rests: PyTree, is_leaf: IsLeaf | None = None) -> PyTree:
    """Call `func` as `tree_map` does, for its effects; the tree itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def _only(kinds: Any, func: Function) -> Function:
    if isinstance(kinds, type | tuple) or hasattr(kinds, "__args__"):  # a class, several, or a union
        return lambda x: func(x) if isinstance(x, kinds) else x
    if callable(kinds):
        return lambda x: func(x) if kinds(x) else x
    raise TypeError("Argument must be a type, a tuple of types, or a callable.")


def tree_map_only(kinds: Any, func: Function, tree: PyTree, is_leaf: IsLeaf | None = None) -> PyTree:
    """`tree_map` over the leaves of some classes, or that a function chooses; the others stay."""
    return tree_map(_only(kinds, func), tree, is_leaf=is_leaf)


def tree_map_only_(kinds: Any, func: Function, tree: PyTree, is_leaf: IsLeaf | None = None) -> PyTree:
    """`tree_map_` over the leaves of some classes."""
    return tree_map_(_only(kinds, func), tree, is_leaf=is_leaf)


def tree_all(pred: IsLeaf, tree: PyTree, is_leaf: IsLeaf | None = None) -> bool:
    """Whether `pred` holds for every leaf."""
    return all(map(pred, tree_iter(tree, is_leaf)))


def tree_any(pred: IsLeaf, tree: PyTree, is_leaf: IsLeaf | None = None) -> bool:
    """Whether `pred` holds for a leaf."""
    return any(map(pred, tree_iter(tree, is_leaf)))


def tree_all_only(kinds: Any, pred: IsLeaf, tree: PyTree, is_leaf: IsLeaf | None = None) -> bool:
    """Whether `pred` holds for every leaf of some classes."""
    return all(pred(x) for x in tree_iter(tree, is_leaf) if isinstance(x, kinds))


def tree_any_only(kinds: Any, pred: IsLeaf, tree: PyTree, is_leaf: IsLeaf | None = None) -> bool:
    """Whether `pred` holds for a leaf of some classes."""
    return any(pred(x) for x in tree_iter(tree, is_leaf) if isinstance(x, kinds))


# -- with paths -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SequenceKey:
    """A step into a list or tuple."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"

    def get(self, sequence: Any) -> Any:
        """What is there."""
        return sequence[self.idx]


@dataclass(frozen=True)
class MappingKey:
    """A step into a dictionary."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"

    def get(self, mapping: Any) -> Any:
        """What is there."""
        return mapping[self.key]


@dataclass(frozen=True)
class GetAttrKey:
    """A step to a named tuple's field."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"

    def get(self, obj: Any) -> Any:
        """What is there."""
        return getattr(obj, self.name)


KeyPath = tuple[Any, ...]


def _steps(tree: PyTree, count: int) -> list[Any]:
    if isinstance(tree, dict):
        return [MappingKey(key) for key in tree]
    if is_namedtuple(tree):
        return [GetAttrKey(name) for name in tree._fields]
    return [SequenceKey(i) for i in range(count)]


def tree_leaves_with_path(tree: PyTree, is_leaf: IsLeaf | None = None) -> list[tuple[KeyPath, Any]]:
    """The leaves, each with the steps that lead to it."""
    node = None if is_leaf is not None and is_leaf(tree) else _node_of(tree)
    if node is None:
        return [((), tree)]
    children, _ = node.flatten(tree)
    found: list[tuple[KeyPath, Any]] = []
    for step, child in zip(_steps(tree, len(children)), children, strict=True):
        found.extend(((step, *path), leaf) for path, leaf in tree_leaves_with_path(child, is_leaf))
    return found


def tree_flatten_with_path(tree: PyTree, is_leaf: IsLeaf | None = None) -> tuple[list[tuple[KeyPath, Any]], TreeSpec]:
    """The leaves with the steps that lead to them, and the structure."""
    return tree_leaves_with_path(tree, is_leaf), tree_structure(tree, is_leaf)


def tree_map_with_path(func: Function, tree: PyTree, *rests: PyTree, is_leaf: IsLeaf | None = None) -> PyTree:
    """`tree_map` of a function that gets the steps to a leaf first."""
    keyed, spec = tree_flatten_with_path(tree, is_leaf)
    others = [spec.flatten_up_to(rest) for rest in rests]
    leaves = [func(path, leaf, *more) for (path, leaf), *more in zip(keyed, *others, strict=True)]
    return tree_unflatten(leaves, spec)


def keystr(kp: KeyPath) -> str:
    """Steps as Python writes them, `['x'][0].name`."""
    return "".join(str(step) for step in kp)


def key_get(obj: Any, kp: KeyPath) -> Any:
    """What is at the end of the steps."""
    for step in kp:
        obj = step.get(obj)
    return obj
