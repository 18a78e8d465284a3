"""`ExponentialFamily` under the module name that PyTorch has it in."""

from graphtorch.distributions.distribution import ExponentialFamily

__all__ = ["ExponentialFamily"]
