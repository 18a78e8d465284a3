"""Schedules of the learning rate. Call ``scheduler.step()`` after ``optimizer.step()``.

A schedule has two forms: the chainable one changes the current learning rate (so several schedules compose), the closed
one computes it from the initial rate and serves ``step(epoch)``.
See https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from graphtorch.optim.lr_scheduler.base import LRScheduler
from graphtorch.optim.lr_scheduler.composite import ChainedScheduler, ReduceLROnPlateau, SequentialLR
from graphtorch.optim.lr_scheduler.cyclic import CyclicLR
from graphtorch.optim.lr_scheduler.one_cycle import OneCycleLR
from graphtorch.optim.lr_scheduler.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

_LRScheduler = LRScheduler  # its name before PyTorch 2.0, which programs still use

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR",
    "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip
