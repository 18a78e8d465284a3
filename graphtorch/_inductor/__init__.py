"""PyTorch's code generator has no counterpart of its own here; its settings are accepted, so that programs run."""

from graphtorch._inductor import config

__all__ = ["config"]
