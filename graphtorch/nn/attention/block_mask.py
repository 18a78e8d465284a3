"""Masks of attention in blocks: `BlockMask`.

A mask is a function of the indices of batch, head, query and key; here it gets whole arrays of them, broadcast against
each other. Blocks of queries and keys are empty, full, or partial; the function decides in the partial ones. See
https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import graphtorch as torch
from graphtorch import Tensor

MaskMod = Callable[[Any, Any, Any, Any], Any]
_DEFAULT_BLOCK = 128


def noop_mask(batch: Any, head: Any, token_q: Any, token_kv: Any) -> Any:
    """A mask that keeps everything."""
    return torch.ones_like(batch + head + token_q + token_kv, dtype=torch.bool)


def indices_of(batch: int, heads: int, rows: int, columns: int, device: Any = None) -> tuple[Any, ...]:
    """The indices of batch, head, query and key, each along its own of four dimensions."""
    sizes = (batch, heads, rows, columns)
    return tuple(
        torch.arange(size, device=device).reshape([size if d == place else 1 for d in range(4)])
        for place, size in enumerate(sizes)
    )


def create_mask(
    mod_fn: Callable[..., Any], B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None
) -> Tensor:
    """The mask of a function, bool (B, H, Q_LEN, KV_LEN), or the changes that a score function makes to zeros."""
    indices = indices_of(B or 1, H or 1, Q_LEN, KV_LEN, device)
    shape = (B or 1, H or 1, Q_LEN, KV_LEN)
    code = getattr(mod_fn, "__code__", None)
    if code is not None and code.co_argcount == 5:
        return mod_fn(torch.zeros(shape, device=device), *indices).expand(shape)
    found: Tensor = torch.as_tensor(mod_fn(*indices), device=device).expand(shape)
    return found


def _ordered(dense: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of blocks, how many it has, and all columns with these first."""
    indices = torch.argsort(dense.int(), dim=-1, descending=True, stable=True)
    return dense.sum(-1).to(torch.int32), indices.to(torch.int32)


def _dense(numbers: Tensor, indices: Tensor, columns: int | None = None) -> Tensor:
    """The blocks of rows, bool (..., rows, columns)."""
    width = indices.shape[-1]
    columns = width if columns is None else columns
    taken = torch.arange(width, device=indices.device) < numbers.unsqueeze(-1)
    places = torch.where(taken, indices.long(), columns)
    made = torch.zeros((*indices.shape[:-1], columns + 1), dtype=torch.bool, device=indices.device)
    found: Tensor = made.scatter(-1, places, True)[..., :columns]
    return found


class BlockMask:
    """A mask in blocks of queries and keys. Made by `create_block_mask`, or `BlockMask.from_kv_blocks`.

    kv_num_blocks, kv_indices            of each row of blocks, the number of partial ones, and their columns first
    full_kv_num_blocks, full_kv_indices  the same of full blocks
    q_num_blocks, q_indices, full_q_...  the same of each column
    """

    dq_write_order = dq_write_order_full = dq_kv_order = dq_kv_order_spt = None

    mask_mod: MaskMod
    seq_lengths: tuple[int, int]
    BLOCK_SIZE: tuple[int, int]

    def __init__(self) -> None:
        self._batch: tuple[int, ...] = ()
        self._device: Any = None
        self._given: tuple[Tensor, Tensor | None] | None = None  # the partial and the full blocks, unless described

    @classmethod
    def _described(cls, mod: MaskMod, batch: tuple[int, ...], lengths: tuple[int, int], block: Any, device: Any) -> Any:
        made = cls()
        made.mask_mod, made.seq_lengths, made._batch, made._device = mod, lengths, batch, device
        made.BLOCK_SIZE = (block, block) if isinstance(block, int) else tuple(block)
        return made

    @classmethod
    def from_kv_blocks(
        cls,
        kv_num_blocks: Tensor,
        kv_indices: Tensor,
        full_kv_num_blocks: Tensor | None = None,
        full_kv_indices: Tensor | None = None,
        BLOCK_SIZE: int | tuple[int, int] = _DEFAULT_BLOCK,
        mask_mod: MaskMod | None = None,
        seq_lengths: tuple[int, int] | None = None,
        compute_q_blocks: bool = True,
        **orders: Any,
    ) -> BlockMask:
        """The mask of partial and full blocks; without a `mask_mod`, partial ones are full.

        Raises RuntimeError for indices of less than two dimensions, AssertionError for a half of the full blocks."""
        if kv_indices.dim() < 2:
            raise RuntimeError("BlockMask must have at least 2 dimensions")
        if (full_kv_num_blocks is None) != (full_kv_indices is None):
            raise AssertionError("full_kv_num_blocks and full_kv_indices must be both provided or omitted")
        block = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else tuple(BLOCK_SIZE)
        rows, columns = kv_indices.shape[-2:]
        lengths = (rows * block[0], columns * block[1]) if seq_lengths is None else seq_lengths
        made: BlockMask = cls._described(
            mask_mod or noop_mask, tuple(kv_indices.shape[:-2]), lengths, block, kv_indices.device
        )
        full = None if full_kv_num_blocks is None else _dense(full_kv_num_blocks, full_kv_indices)  # type: ignore[arg-type]
        made._given = _dense(kv_num_blocks, kv_indices), full
        return made

    # -- blocks

    @functools.cached_property
    def _blocks(self) -> tuple[Tensor, Tensor | None]:
        """The partial blocks and the full ones, bool (..., rows, columns)."""
        if self._given is not None:
            return self._given
        rows, columns = self.seq_lengths
        high, wide = self.BLOCK_SIZE
        batch, heads = self._batch[-2:]
        mask = create_mask(self.mask_mod, batch, heads, rows, columns, self._device)
        padded = torch.nn.functional.pad(mask.int(), (0, -columns % wide, 0, -rows % high))
        blocks = padded.reshape(*self._batch, padded.shape[-2] // high, high, padded.shape[-1] // wide, wide)
        count = blocks.sum((-3, -1))
        return (count > 0) & (count < high * wide), count == high * wide

    def _listed(self, full: bool, transposed: bool) -> tuple[Tensor | None, Tensor | None]:
        dense = self._blocks[1] if full else self._blocks[0]
        if dense is None:
            return None, None
        return _ordered(dense.mT if transposed else dense)

    kv_num_blocks = property(lambda self: self._listed(False, False)[0])
    kv_indices = property(lambda self: self._listed(False, False)[1])
    full_kv_num_blocks = property(lambda self: self._listed(True, False)[0])
    full_kv_indices = property(lambda self: self._listed(True, False)[1])
    q_num_blocks = property(lambda self: self._listed(False, True)[0])
    q_indices = property(lambda self: self._listed(False, True)[1])
    full_q_num_blocks = property(lambda self: self._listed(True, True)[0])
    full_q_indices = property(lambda self: self._listed(True, True)[1])

    def _element_mask(self, b: Any, h: Any, q: Any, k: Any) -> Any:
        """Whether elements are kept, by their indices."""
        if self._given is None:
            return self.mask_mod(b, h, q, k)
        partial, full = self._given
        high, wide = self.BLOCK_SIZE
        rows = torch.div(q, high, rounding_mode="floor")
        columns = torch.div(k, wide, rounding_mode="floor")
        at = [i % size for i, size in zip((b, h), partial.shape[-4:-2], strict=False)]
        kept = partial[(*at, rows, columns)] & self.mask_mod(b, h, q, k)
        return kept if full is None else kept | full[(*at, rows, columns)]

    # -- what it looks like

    @property
    def shape(self) -> tuple[int, ...]:
        """(batch, heads, queries, keys)."""
        return (*self._batch, *self.seq_lengths)

    def numel(self) -> int:
        """The number of elements of the mask."""
        return math.prod(self.shape)

    def to_dense(self) -> Tensor:
        """The blocks that are not empty as 1, int32 (batch, heads, rows of blocks, columns of blocks)."""
        partial, full = self._blocks
        found: Tensor = (partial if full is None else partial | full).to(torch.int32)
        return found

    def sparsity(self) -> float:
        """How many percent of the elements lie in empty blocks; below 0 where blocks reach over the edges."""
        held = self.to_dense().sum().item() * self.BLOCK_SIZE[0] * self.BLOCK_SIZE[1]
        return 100 * (1 - held / self.numel())

    def as_tuple(self, flatten: bool = True) -> tuple[Any, ...]:
        """The lengths, the blocks, the blocks' size and the function."""
        orders = (self.dq_write_order, self.dq_write_order_full, self.dq_kv_order, self.dq_kv_order_spt)
        blocks = (
            *(self.kv_num_blocks, self.kv_indices, self.full_kv_num_blocks, self.full_kv_indices),
            *(self.q_num_blocks, self.q_indices, self.full_q_num_blocks, self.full_q_indices),
        )
        lengths: tuple[Any, ...] = self.seq_lengths if flatten else (self.seq_lengths,)
        size: tuple[Any, ...] = self.BLOCK_SIZE if flatten else (self.BLOCK_SIZE,)
        return (*lengths, *blocks, *orders, *size, self.mask_mod)

    def __getitem__(self, index: Any) -> BlockMask:
        """The mask of some batches and heads; dimensions stay."""
        index = index if isinstance(index, tuple) else (index,)
        chosen = [
            torch.arange(size, device=self.kv_num_blocks.device)[slice(i, i + 1 or None) if isinstance(i, int) else i]
            for i, size in itertools.zip_longest(index, self._batch, fillvalue=slice(None))
        ]
        outer = self

        def shifted(b: Any, h: Any, q: Any, k: Any) -> Any:
            of_b, of_h = (places[i % len(places)] for places, i in zip(chosen, (b, h), strict=True))
            return outer._element_mask(of_b, of_h, q, k)

        batch = tuple(len(places) for places in chosen)
        made: BlockMask = self._described(shifted, batch, self.seq_lengths, self.BLOCK_SIZE, self._device)
        return made

    def to(self, device: Any) -> BlockMask:
        """The mask on another device."""
        made: BlockMask = self._described(self.mask_mod, self._batch, self.seq_lengths, self.BLOCK_SIZE, device)
        if self._given is not None:
            partial, full = self._given
            made._given = partial.to(device), None if full is None else full.to(device)
        return made

    def to_string(self, grid_size: int | tuple[int, int] = (20, 20), limit: int = 4) -> str:
        """A picture of the first `limit` masks, of at most `grid_size` characters each way."""
        dense = self.to_dense().float()
        high, wide = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
        rows, columns = dense.shape[-2:]
        step, across = max(1, -(-rows // high)), max(1, -(-columns // wide))
        pictures: list[str] = []
        for number, place in enumerate(itertools.product(*(range(n) for n in self._batch))):
            if number == limit:
                pictures += [
                    "...",
                    "To print out more, set BlockMask.to_string(limit=N)",
                    "You can also index (BlockMask[batch, head]) to choose a specific batch or head",
                ]
                break
            lines = [str(place)]
            for row in range(0, rows, step):
                parts = [
                    dense[place][row : row + step, column : column + across].mean().item()
                    for column in range(0, columns, across)
                ]
                lines.append("".join(("█" if part == 1 else " " if part == 0 else "░") * 2 for part in parts))
            pictures.append("\n".join(lines) + "\n")
        return "\n".join(pictures)

    def __str__(self) -> str:
        return f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%, \n{self.to_string().strip()}\n)"

    def __repr__(self) -> str:
        name = getattr(self.mask_mod, "__name__", repr(self.mask_mod))
        return f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%, mask_mod={name})"
