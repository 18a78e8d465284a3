"""`einsum`: Einstein summation, contracted from left to right as batched matrix products over views."""

from __future__ import annotations

import string
from typing import Any

from graphtorch.autograd.compositions import in_one_piece
from graphtorch.ops.build import function
from graphtorch.ops.products import bmm
from graphtorch.ops.shaping import reshape
from graphtorch.ops.strides import product
from graphtorch.ops.view import diagonal, permute, unsqueeze
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

# Dimensions covered by an ellipsis get integer labels, counted from the last; letters are labels themselves.
Labels = list[Any]


def _parse(text: str, operand: int) -> Labels:
    """The labels of one operand (or, with operand -1, of the output)."""
    labels: Labels = []
    i = 0
    while i < len(text):
        c = text[i]
        if c == " ":
            i += 1
        elif c == ".":
            if text[i : i + 3] != "..." or Ellipsis in labels:
                where = f"for operand {operand}" if operand >= 0 else "for the output"
                raise RuntimeError(
                    f"einsum(): found '.' {where} that is not part of any ellipsis"
                    if Ellipsis not in labels
                    else f"einsum(): found '.' {where} for which an ellipsis was already found"
                )
            labels.append(Ellipsis)
            i += 3
        elif c.isascii() and c.isalpha():
            labels.append(c)
            i += 1
        else:
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {i} in the equation string, subscripts must be in [a-zA-Z]"
            )
    return labels


def _spread(labels: Labels, rank: int, operand: int) -> Labels:
    """The ellipsis replaced by a label for each dimension that it covers."""
    if Ellipsis not in labels:
        if len(labels) != rank:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(labels)}) does not match the number of "
                f"dimensions ({rank}) for operand {operand} and no ellipsis was given"
            )
        return labels
    covered = rank - (len(labels) - 1)
    if covered < 0:
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({len(labels) - 1}) is more than the number of "
            f"dimensions ({rank}) for operand {operand}"
        )
    at = labels.index(Ellipsis)
    return [*labels[:at], *range(covered - 1, -1, -1), *labels[at + 1 :]]


def _without_repeats(tensor: Tensor, labels: Labels, operand: int) -> tuple[Tensor, Labels]:
    """Repeated labels of one operand become the diagonal of their dimensions."""
    for label in list(dict.fromkeys(labels)):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if tensor.shape[i] != tensor.shape[j]:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for operand {operand} but the sizes don't match, "
                    f"{tensor.shape[j]} != {tensor.shape[i]}"
                )
            tensor = diagonal(tensor, 0, i, j)
            labels = [n for k, n in enumerate(labels) if k not in (i, j)] + [label]
    return tensor, labels


def _align(tensor: Tensor, labels: tuple[Any, ...], wanted: tuple[Any, ...]) -> Tensor:
    """Dimensions in the order of `wanted`, of size 1 where the operand lacks one."""
    present = [n for n in wanted if n in labels]
    tensor = permute(tensor, tuple(labels.index(n) for n in present))
    for i, n in enumerate(wanted):
        if n not in labels:
            tensor = unsqueeze(tensor, i)
    return tensor


def _contract(a: Tensor, la: Labels, b: Tensor, lb: Labels, keep: set[Any]) -> tuple[Tensor, Labels]:
    """The product of two operands, summed over the labels that nobody else needs."""

    def size(tensor: Tensor, labels: Labels, n: Any) -> Any:
        return tensor.shape[labels.index(n)] if n in labels else 1

    def folded(tensor: Tensor, labels: Labels, n: Any, keepdim: bool) -> Tensor:
        # A sum of narrow integers is int64; of a single one there is no sum.
        kept = tensor.dtype if _is_one(size(tensor, labels, n)) else None
        summed: Tensor = tensor.sum(labels.index(n), keepdim=keepdim, dtype=kept)
        return summed

    for n in [n for n in la if n not in keep and (n not in lb or _is_one(size(b, lb, n)))]:
        a, la = folded(a, la, n, n in lb), [m for m in la if m != n or n in lb]
    for n in [n for n in lb if n not in keep and (n not in la or _is_one(size(a, la, n)))]:
        b, lb = folded(b, lb, n, n in la), [m for m in lb if m != n or n in la]
    if a.dtype is not b.dtype:
        wide = dtypes.promote_types(a.dtype, b.dtype)
        a, b = a.to(wide), b.to(wide)
    every = list(dict.fromkeys([*la, *lb]))
    shared = [n for n in every if n in la and n in lb]
    # Labels of size 1 on one side broadcast: they belong to the other side alone.
    real = [n for n in shared if not _is_one(size(a, la, n)) and not _is_one(size(b, lb, n))]
    batch = [n for n in real if n in keep]
    summed = [n for n in real if n not in keep]
    left = [n for n in every if n not in real and not _is_one(size(a, la, n))]
    right = [n for n in every if n not in real and n not in left and not _is_one(size(b, lb, n))]
    ones = [n for n in every if n in keep and n not in batch and n not in left and n not in right]
    drop_a = [n for n in la if n in real or n in left]
    drop_b = [n for n in lb if n in real or n in right]
    a, b = _dropped(a, la, drop_a), _dropped(b, lb, drop_b)

    groups = tuple(batch), tuple(left), tuple(summed), tuple(right)
    return _multiplied(a, tuple(drop_a), b, tuple(drop_b), groups, len(ones)), batch + left + right + ones


@in_one_piece("ViewBackward0")
def _multiplied(
    a: Tensor,
    la: tuple[Any, ...],
    b: Tensor,
    lb: tuple[Any, ...],
    groups: tuple[tuple[Any, ...], ...],
    ones: int,
) -> Tensor:
    """A batch of matrix products: `groups` are the labels of the batch, of the left operand alone, those summed over,
    and those of the right operand alone. As many dimensions of size 1 stand behind."""
    batch, left, summed, right = groups

    def sizes(tensor: Tensor, labels: tuple[Any, ...], names: tuple[Any, ...]) -> list[Any]:
        return [tensor.shape[labels.index(n)] for n in names]

    shape_batch, shape_left = sizes(a, la, batch), sizes(a, la, left)
    shape_right, shape_sum = sizes(b, lb, right), sizes(a, la, summed)
    x = reshape(_align(a, la, batch + left + summed), (product(shape_batch), product(shape_left), product(shape_sum)))
    y = reshape(_align(b, lb, batch + summed + right), (product(shape_batch), product(shape_sum), product(shape_right)))
    return reshape(bmm(x, y), (*shape_batch, *shape_left, *shape_right, *(1 for _ in range(ones))))


def _is_one(size: Any) -> bool:
    return type(size) is int and size == 1


def _dropped(tensor: Tensor, labels: Labels, kept: Labels) -> Tensor:
    """Without the dimensions (of size 1) that `kept` lacks."""
    if len(kept) == len(labels):
        return tensor
    return reshape(tensor, tuple(n for n, label in zip(tensor.shape, labels, strict=True) if label in kept))


def _from_sublists(given: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The equation and the operands of `einsum(a, [0, 1], b, [1, 2], [0, 2])`."""

    def letters(labels: Any) -> str:
        for n in labels:
            if n is not Ellipsis and not 0 <= n < 52:
                raise ValueError(f"einsum(): expected subscript {n} to be within the range [0, 52)")
        alphabet = string.ascii_uppercase + string.ascii_lowercase
        return "".join("..." if n is Ellipsis else alphabet[n] for n in labels)

    operands, lists = given[0 : len(given) // 2 * 2 : 2], given[1::2]
    equation = ",".join(letters(labels) for labels in lists)
    return (f"{equation}->{letters(given[-1])}" if len(given) % 2 else equation), operands


@function()
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sum products of elements as an equation such as "ij,jk->ik" says, or as lists of labels after each operand
    (`einsum(a, [0, 1], b, [1, 2], [0, 2])`). See torch.einsum.

    Raises RuntimeError, in PyTorch's words, for an equation that doesn't fit the operands.
    """
    if isinstance(equation, Tensor):
        equation, operands = _from_sublists((equation, *operands))
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if not tensors:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
            "subscripts list"
        )
    if len(parts) != len(tensors):
        few = "fewer" if len(tensors) < len(parts) else "more"
        raise RuntimeError(f"einsum(): {few} operands were provided than specified in the equation")
    labels = [_spread(_parse(parts[i], i), tensor.ndim, i) for i, tensor in enumerate(tensors)]
    for i, tensor in enumerate(tensors):
        tensors[i], labels[i] = _without_repeats(tensor, labels[i], i)
    seen: dict[Any, Any] = {}
    for i, (tensor, own) in enumerate(zip(tensors, labels, strict=True)):
        for n, size in zip(own, tensor.shape, strict=True):
            if n in seen and seen[n] != size and seen[n] != 1 and size != 1:
                raise RuntimeError(
                    f"einsum(): subscript {n} has size {size} for operand {i} which does not broadcast with "
                    f"previously seen size {seen[n]}"
                )
            if n not in seen or _is_one(seen[n]):
                seen[n] = size
    covered = sorted((n for n in seen if isinstance(n, int)), reverse=True)
    if arrow:
        output: Labels = []
        for n in _parse(right, -1):
            output.extend(covered if n is Ellipsis else [n])
        for n in output:
            if n not in seen:
                raise RuntimeError(
                    f"einsum(): output subscript {n} does not appear in the equation for any input operand"
                )
            if output.count(n) > 1:
                raise RuntimeError(f"einsum(): output subscript {n} appears more than once in the output")
    else:
        letters = [n for own in (_parse(part, 0) for part in parts) for n in own if n is not Ellipsis]
        output = [*covered, *sorted(n for n in set(letters) if letters.count(n) == 1)]
    result, own = tensors[0], labels[0]
    for i in range(1, len(tensors)):
        later = {n for labels_after in labels[i + 1 :] for n in labels_after}
        result, own = _contract(result, own, tensors[i], labels[i], later | set(output))
    extra = [n for n in own if n not in output]
    if extra:
        result, own = result.sum(tuple(own.index(n) for n in extra)), [n for n in own if n in output]
    return result if own == output else permute(result, tuple(own.index(n) for n in output))
