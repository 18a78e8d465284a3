"""Sparse matrices in coordinate form: enough for graph networks and fixed sparse operators.

A :class:`SparseTensor` is a pair of dense tensors, indices and values. It is no Tensor, and only the functions and
methods here take it; gradients flow to the values and to dense operands. See https://docs.pytorch.org/docs/stable/sparse.html
"""

from graphtorch.sparse.coo import SparseTensor, addmm, mm, softmax, sparse_coo_tensor, sum

__all__ = ["SparseTensor", "addmm", "mm", "softmax", "sparse_coo_tensor", "sum"]
