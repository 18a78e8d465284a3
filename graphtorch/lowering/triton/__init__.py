"""The Triton backend: GPU kernels as readable Triton source, compiled ahead of launch without torch."""

from graphtorch.lowering.backend import register
from graphtorch.lowering.triton.backend import TritonBackend

register(TritonBackend())
