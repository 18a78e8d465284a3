"""The linear algebra namespace, `torch.linalg`: vector norms and products of matrices."""

from __future__ import annotations

from graphtorch.ops import FUNCTIONS

vector_norm = FUNCTIONS["linalg_vector_norm"]
matmul = FUNCTIONS["matmul"]
