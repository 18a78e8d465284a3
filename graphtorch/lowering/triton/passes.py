"""What is done to a schedule before code is generated, in order."""

from __future__ import annotations

from graphtorch.lowering.kernel import Schedule
from graphtorch.lowering.triton.bias import begin_sums_in_products
from graphtorch.lowering.triton.columns import fuse_columns
from graphtorch.lowering.triton.deltas import make_deltas_in_attention
from graphtorch.lowering.triton.expand import expand_calls
from graphtorch.lowering.triton.factors import share_sums
from graphtorch.lowering.triton.fused import fuse_products
from graphtorch.lowering.triton.horizontal import group_kernels
from graphtorch.lowering.triton.joined import store_in_place
from graphtorch.lowering.triton.layout import order_axes, use_channels_last
from graphtorch.lowering.triton.moments import begin_moments_in_convolutions
from graphtorch.lowering.triton.narrow import frame_narrow_images
from graphtorch.lowering.triton.random import draw_in_kernels
from graphtorch.lowering.triton.recompute import recompute_in_readers
from graphtorch.lowering.triton.splitting import split_schedule
from graphtorch.lowering.triton.windows import remember_places


def prepare_schedule(schedule: Schedule) -> Schedule:
    """The same computation in steps that each are launches: calls that other operators make up are replaced, random
    numbers are drawn where they are read, positions of maxima that only gradients read take a byte, images between
    convolutions, and those of few channels, get their channels side by side, products take their neighbours in and
    begin sums over rows of what they store, gradients of attention are stored where they are joined and come with
    the sums of rows that they need, kernels over rows sum over these rows, kernels that are no single launch are cut,
    and those that do the same to different tensors become one launch."""
    schedule = share_sums(recompute_in_readers(draw_in_kernels(remember_places(expand_calls(schedule)))))
    schedule = store_in_place(fuse_products(frame_narrow_images(use_channels_last(schedule))))
    schedule = begin_moments_in_convolutions(begin_sums_in_products(schedule))
    schedule = split_schedule(fuse_columns(make_deltas_in_attention(schedule)))
    return group_kernels(order_axes(schedule))
