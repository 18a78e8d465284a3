"""What is done to a schedule before code is generated, in order."""

from __future__ import annotations

from graphtorch.lowering.kernel import Schedule
from graphtorch.lowering.triton.random import draw_in_kernels
from graphtorch.lowering.triton.splitting import split_schedule


def prepare_schedule(schedule: Schedule) -> Schedule:
    """The same computation in kernels that each are one launch, with random numbers drawn where they are read."""
    return split_schedule(draw_in_kernels(schedule))
