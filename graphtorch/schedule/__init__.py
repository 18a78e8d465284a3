"""From operators to kernels: decomposition to primitives, fusion, in-place updates, memory plan."""

from graphtorch.schedule.build import build_schedule
from graphtorch.schedule.groups import Limits
from graphtorch.schedule.primitives import lower_to_primitives

__all__ = ["Limits", "build_schedule", "lower_to_primitives"]
