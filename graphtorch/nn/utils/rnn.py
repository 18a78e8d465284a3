"""Sequences of different lengths: packed (only what is there, step by step) and padded to one length.

How long sequences are decides the shapes of what follows, so lengths are read as Python numbers: while a function is
being compiled they have to be known, as a list or as a tensor that the function does not compute.
See https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphtorch import ops
from graphtorch.autograd.state import recorder_paused
from graphtorch.tensor.creation import as_tensor
from graphtorch.tensor.dtypes import float16, float32, float64, int8, int16, int32, int64, uint8
from graphtorch.tensor.tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]  # fmt: skip


class _PackedSequence(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_PackedSequence):
    """Sequences of decreasing length without padding: of "abc" and "x" the data is "axbc", the batch sizes [2, 1, 1].

    Made by :func:`pack_padded_sequence` and :func:`pack_sequence`.

    Attributes:
        data: (total length, *), all first elements, then all second ones, and so on.
        batch_sizes: int64, how many sequences have a first element, a second one, and so on.
        sorted_indices: the order in which the sequences were taken, or None if as they came.
        unsorted_indices: its inverse.
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            if not (isinstance(data, list | tuple) and len(data) == 2):
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. Instances of PackedSequence should never be created manually. "
                "They should be instantiated by functions like pack_sequence and pack_padded_sequences in nn.utils.rnn."
                " https://pytorch.org/docs/stable/nn.html#torch.nn.utils.rnn.pack_sequence"
            )
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with ``data.to(...)``; the indices follow to its device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        indices = (
            None if index is None else index.to(data.device) for index in (self.sorted_indices, self.unsorted_indices)
        )
        return type(self)(data, self.batch_sizes, *indices)

    def cpu(self) -> PackedSequence:
        """The same in main memory."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        """The same on a GPU."""
        return self.to("cuda" if device is None else device)

    def double(self) -> PackedSequence:
        """The same with float64 data."""
        return self.to(dtype=float64)

    def float(self) -> PackedSequence:
        """The same with float32 data."""
        return self.to(dtype=float32)

    def half(self) -> PackedSequence:
        """The same with float16 data."""
        return self.to(dtype=float16)

    def long(self) -> PackedSequence:
        """The same with int64 data."""
        return self.to(dtype=int64)

    def int(self) -> PackedSequence:
        """The same with int32 data."""
        return self.to(dtype=int32)

    def short(self) -> PackedSequence:
        """The same with int16 data."""
        return self.to(dtype=int16)

    def char(self) -> PackedSequence:
        """The same with int8 data."""
        return self.to(dtype=int8)

    def byte(self) -> PackedSequence:
        """The same with uint8 data."""
        return self.to(dtype=uint8)

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.device.type == "cuda"


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The indices that undo ``permutation``; None of None."""
    return None if permutation is None else permutation.argsort()


def read_sizes(sizes: Tensor) -> list[int]:
    """A tensor of sizes as Python numbers: those that it was made of here, else by a look at its data, which while a
    function is being captured is a decision."""
    known: list[int] | None = vars(sizes).get("_known")
    return [int(size) for size in sizes.tolist()] if known is None else known


def _known(values: Any) -> Tensor:
    """A tensor of sizes or indices that is concrete even under a capture."""
    array = np.asarray(values, dtype=np.int64)
    with recorder_paused():
        made = as_tensor(array)
    vars(made)["_known"] = array.tolist()
    return made


def _places(batch_sizes: Sequence[int], batch: int) -> Tensor:
    """Where the packed elements are in the steps x batch table, row by row."""
    return _known(np.concatenate([step * batch + np.arange(size) for step, size in enumerate(batch_sizes)]))


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences (T, B, *), or (B, T, *) with ``batch_first``.

    Args:
        lengths: the sequences' lengths; decreasing, unless ``enforce_sorted`` is false.

    Raises:
        RuntimeError: the lengths are not positive, not decreasing, or not one a sequence.
    """
    known = np.array(read_sizes(lengths) if isinstance(lengths, Tensor) else list(lengths), dtype=np.int64)
    order = None
    if not enforce_sorted:
        order = _known(np.argsort(-known, kind="stable"))
        input = input.index_select(0 if batch_first else 1, order.to(input.device))
        known = np.sort(known)[::-1]
    if batch_first:
        input = input.transpose(0, 1)
    if len(known) != input.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(known)} (batch_size={input.shape[1]})"
        )
    if known.min() <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if (np.diff(known) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    if known[0] > input.shape[0]:
        raise RuntimeError(f"Expected sequence length to be at most {input.shape[0]}, but got {known[0]}")
    batch_sizes = [int((known > step).sum()) for step in range(known[0])]
    steps, batch = input.shape[0], input.shape[1]
    table = input.reshape(steps * batch, *input.shape[2:])
    data = table.index_select(0, _places(batch_sizes, batch).to(input.device))
    return PackedSequence(data, _known(batch_sizes), None if order is None else order.to(input.device))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The padded sequences (T, B, *), or (B, T, *) with ``batch_first``, in their first order, and their lengths.

    Raises:
        ValueError: ``total_length`` is less than the longest length.
    """
    data, batch_sizes = sequence.data, read_sizes(sequence.batch_sizes)
    steps, batch = len(batch_sizes), batch_sizes[0]
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    rest = tuple(data.shape[1:])
    table = ops.full((steps * batch, *rest), padding_value, dtype=data.dtype, device=data.device)
    padded = table.index_copy(0, _places(batch_sizes, batch).to(data.device), data).reshape(steps, batch, *rest)
    lengths = _known([sum(size > row for size in batch_sizes) for row in range(batch)])
    if batch_first:
        padded = padded.transpose(0, 1)
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(0 if batch_first else 1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu()]
    return padded, lengths


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Stack sequences (L, *) of different lengths as (T, B, *), or (B, T, *) with ``batch_first``.

    Raises:
        RuntimeError: ``sequences`` is not iterable or empty, or the side is unknown.
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    given = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    longest = max(sequence.shape[0] for sequence in given)
    padded = []
    for sequence in given:
        missing = longest - sequence.shape[0]
        ends = (0, missing) if padding_side == "right" else (missing, 0)
        padded.append(ops.constant_pad_nd(sequence, (0, 0) * (sequence.dim() - 1) + ends, padding_value))
    return ops.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences that :func:`pad_sequence` padded, each of its length."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:length] for row, length in zip(rows.unbind(0), read_sizes(lengths), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (L, *), of decreasing length unless ``enforce_sorted`` is false.

    Raises:
        RuntimeError: the lengths do not decrease.
    """
    lengths = [sequence.shape[0] for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences that :func:`pack_sequence` packed, in their first order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
