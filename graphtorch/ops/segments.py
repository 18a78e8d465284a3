"""`segment_reduce`: sums, means, products and extremes of consecutive runs along a dimension."""

from __future__ import annotations

import math
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS, function
from graphtorch.ops.shapes import wrap_dim
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

# What an empty segment gives, and the reduction of `scatter_reduce`.
_EMPTY = {"sum": 0.0, "mean": math.nan, "prod": 1.0, "max": -math.inf, "min": math.inf}
_SCATTER = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}


@function()
def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Tensor:
    """Reduce runs of `data` along `axis`: given `lengths` of shape (*data.shape[:axis], S), or their `offsets`, of one
    entry more. `reduce` is "sum", "mean", "prod", "max" or "min"; `initial` takes part in each reduction.

    Shapes: (*lead, L, *rest) to (*lead, S, *rest). Raises RuntimeError for lengths that do not add up to L, unless
    `unsafe`. See torch.segment_reduce.
    """
    if reduce not in _EMPTY:
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if indices is not None:
        raise RuntimeError("segment_reduce(): indices based reduction is not supported yet.")
    if lengths is None and offsets is None:
        raise RuntimeError("segment_reduce(): Either lengths or offsets must be defined.")
    axis = wrap_dim(axis, data.ndim)
    if lengths is None:
        assert offsets is not None
        lengths = offsets.diff()
    shape = tuple(data.shape)
    if lengths.ndim != axis + 1 or tuple(lengths.shape[:-1]) != shape[:axis]:
        raise RuntimeError("Expected all dimensions of data up to axis to be those of lengths or offsets.")
    ends = lengths.to(dtypes.int64).cumsum(-1)
    if not unsafe and state.recorder is None and not bool((ends[..., -1:] == shape[axis]).all()):
        raise RuntimeError(
            "segment_reduce(): Expected all rows of lengths along axis to sum to data.size(lengths.dim()-1) when "
            "!unsafe."
        )
    places = FUNCTIONS["arange"](shape[axis], device=data.device).expand(*shape[: axis + 1]).contiguous()
    segment = FUNCTIONS["searchsorted"](ends, places, right=True).clamp(max=lengths.shape[-1] - 1)
    spread = (*shape[: axis + 1], *(1 for _ in shape[axis + 1 :]))
    into = (*shape[:axis], lengths.shape[-1], *shape[axis + 1 :])
    start = (0.0 if reduce == "mean" else _EMPTY[reduce]) if initial is None else initial
    made: Tensor = FUNCTIONS["full"](into, start, dtype=data.dtype, device=data.device).scatter_reduce(
        axis, segment.reshape(spread).expand(*shape), data, _SCATTER[reduce], include_self=True
    )
    if reduce != "mean":
        return made
    counts = lengths.reshape((*lengths.shape, *(1 for _ in shape[axis + 1 :]))).to(data.dtype)
    empty: Tensor = made if initial is not None else FUNCTIONS["full_like"](made, math.nan)
    mean: Tensor = FUNCTIONS["where"](counts == 0, empty, made / counts)
    return mean
