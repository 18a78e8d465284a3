"""`utils._pytree` beside PyTorch's."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import pytest

import graphtorch
from graphtorch.utils import _pytree as pytree

Point = namedtuple("Point", "x y")
TREES: list[Any] = [
    3, None, (), [], {}, (1, [2, {"a": 3, "b": (4,)}], None), Point(1, [2, 3]), OrderedDict(z=1, a=[2]),
    defaultdict(list, k=[1, 2]), deque([1, (2,)], maxlen=4), {"outer": {"b": 1, "a": 2}},
]  # fmt: skip


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_flatten_and_back(tree: Any) -> None:
    leaves, spec = pytree.tree_flatten(tree)
    back = pytree.tree_unflatten(leaves, spec)
    assert back == tree and type(back) is type(tree) and spec.num_leaves == len(leaves)
    assert pytree.tree_structure(back) == spec and pytree.tree_leaves(tree) == leaves
    if isinstance(tree, deque):
        assert back.maxlen == tree.maxlen
    theirs = pytest.importorskip("torch.utils._pytree")
    assert theirs.tree_leaves(tree) == leaves


def test_maps() -> None:
    tree = {"a": (1, 2.0), "b": [graphtorch.ones(2), "text"]}
    doubled = pytree.tree_map_only((int, float), lambda v: v * 2, tree)
    assert doubled["a"] == (2, 4.0) and doubled["b"][1] == "text"
    assert pytree.tree_map(lambda a, b: (a, b), {"x": 1, "y": 2}, {"y": 20, "x": 10}) == {"x": (1, 10), "y": (2, 20)}
    assert pytree.tree_map(lambda a, b: b, (1, 2), ([1, 2], {"c": 3})) == ([1, 2], {"c": 3})
    assert pytree.tree_any(lambda v: v == 2, [1, (2,)]) and not pytree.tree_all(lambda v: v == 2, [1, (2,)])
    assert pytree.tree_map(len, [(1, 2), (3,)], is_leaf=lambda t: type(t) is tuple) == [2, 1]
    seen: list[int] = []
    assert pytree.tree_map_(seen.append, [1, (2,)]) == [1, (2,)] and seen == [1, 2]
    with pytest.raises(ValueError, match="holds 2 items"):
        pytree.tree_unflatten([1], pytree.tree_structure((1, 2)))
    with pytest.raises(ValueError, match="mismatch"):
        pytree.tree_map(lambda a, b: a, (1, 2), (1, 2, 3))


def test_registered_classes() -> None:
    class Pair:
        def __init__(self, a: Any, b: Any) -> None:
            self.a, self.b = a, b

    pytree.register_pytree_node(Pair, lambda p: ([p.a, p.b], None), lambda c, _: Pair(*c))
    assert pytree.tree_leaves([Pair(1, (2, 3)), 4]) == [1, 2, 3, 4]
    made = pytree.tree_map(lambda v: v + 1, Pair(1, 2))
    assert (made.a, made.b) == (2, 3)
    with pytest.raises(ValueError, match="already registered"):
        pytree.register_pytree_node(Pair, lambda p: ([], None), lambda c, _: None)
