"""PyTorch's switches of compute libraries, `torch.backends`: programs set them and ask what is there.

None of these libraries is behind the operators here, so `is_available()` says no and the switches are only kept."""

from __future__ import annotations

from graphtorch.backends import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp, opt_einsum

fp32_precision = "none"

__all__ = ["cpu", "cuda", "cudnn", "fp32_precision", "mkl", "mkldnn", "mps", "openmp", "opt_einsum"]
