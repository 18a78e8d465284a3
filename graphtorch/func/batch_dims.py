"""Where `vmap` finds the batch in its arguments and puts it in its results: `in_dims` and `out_dims`, which may give
one dimension for everything, one an argument, or any prefix of the structure between."""

from __future__ import annotations

from typing import Any

from graphtorch.frontend.tree import LEAF, Tree, flatten
from graphtorch.tensor.tensor import Tensor


def spread_prefix(prefix: Any, tree: Any) -> list[Any] | None:
    """One entry of `prefix` a leaf of `tree`; None where the two do not fit."""
    if tree is LEAF or type(tree) is not Tree:
        return [prefix] if prefix is None or isinstance(prefix, int) else None
    if prefix is None or isinstance(prefix, int):
        return [prefix] * _leaves(tree)
    if isinstance(prefix, dict) and tree.keys is not None:
        if list(prefix) != list(tree.keys) and set(prefix) != set(tree.keys):
            return None
        parts = [prefix[k] for k in tree.keys]
    elif isinstance(prefix, tuple | list) and len(prefix) == len(tree.children):
        parts = list(prefix)
    else:
        return None
    found: list[Any] = []
    for part, child in zip(parts, tree.children, strict=True):
        inner = spread_prefix(part, child)
        if inner is None:
            return None
        found.extend(inner)
    return found


def _leaves(tree: Any) -> int:
    return sum(_leaves(c) for c in tree.children) if type(tree) is Tree else 1


def read_in_dims(in_dims: Any, args: tuple[Any, ...], name: str) -> tuple[list[Any], Any, list[int | None], Any]:
    """The leaves of the arguments, their structure, the dimension of each leaf (None: the same for all), and the size
    of the batch.

    Raises ValueError, in PyTorch's words, for dims that do not fit the arguments or differ in size.
    """
    shown = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>)"
    if not isinstance(in_dims, int | tuple | list) or isinstance(in_dims, bool):
        raise ValueError(
            f"{shown}: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, "
            f"got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"{shown}: got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a function with "
            "no inputs. The latter is unsupported."
        )
    leaves: list[Any] = []
    tree = flatten(args, leaves)
    dims = spread_prefix(tuple(in_dims) if isinstance(in_dims, list) else in_dims, tree)
    if dims is None:
        raise ValueError(
            f"{shown}: in_dims is not compatible with the structure of inputs. in_dims has structure "
            f"{type(in_dims).__name__} but inputs has structure {tree}."
        )
    size: Any = None
    for place, (leaf, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{shown}: Got in_dim={dim} for an input but the input is of type {type(leaf)}. We cannot vmap over "
                "non-Tensor arguments, please use None as the respective in_dim"
            )
        rank = len(leaf.shape)
        if not -rank <= dim < rank:
            raise ValueError(
                f"{shown}: Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {rank} so "
                f"expected in_dim to satisfy -{rank} <= in_dim < {rank}."
            )
        dims[place] = dim % rank
        own = leaf.shape[dim]
        if size is None:
            size = own
        elif size is not own and size != own:
            sizes = [t.shape[d] for t, d in zip(leaves, dims, strict=True) if d is not None and d < len(t.shape)]
            raise ValueError(
                "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                f"{sizes} for the mapped dimension"
            )
    if size is None:
        raise ValueError(
            f"{shown}: Expected at least one Tensor to vmap over, got none: all in_dims are None. Please ensure that "
            "`in_dims` is not None for at least one input."
        )
    return leaves, tree, dims, size


def read_out_dims(out_dims: Any, outputs: Any, name: str) -> tuple[list[Tensor], Any, list[int | None]]:
    """The leaves of the results, their structure, and where each gets its batch dimension.

    Raises ValueError for results that are no tensors and out_dims of another structure.
    """
    leaves: list[Any] = []
    tree = flatten(outputs, leaves)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. Did you mean to set "
                "out_dims= to None for output?"
            )
    given = out_dims
    if tree is LEAF and isinstance(out_dims, tuple) and len(out_dims) == 1:
        given = out_dims[0]
    dims = spread_prefix(tuple(given) if isinstance(given, list) else given, tree)
    if dims is None:
        raise ValueError(
            f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure of "
            f"outputs. out_dims has structure {type(out_dims).__name__} but outputs has structure {tree}."
        )
    return leaves, tree, dims
