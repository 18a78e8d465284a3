"""From dense tensors to sparse ones, which live in `graphtorch.sparse`."""

from __future__ import annotations

import importlib
from typing import Any

from graphtorch.ops.build import method
from graphtorch.tensor.tensor import Tensor


def _to_sparse(self: Tensor, sparse_dim: int | None = None, **unused: Any) -> Any:
    """The elements that are not 0, in coordinate form. See torch.Tensor.to_sparse."""
    return importlib.import_module("graphtorch.sparse.coo")._from_dense(self, sparse_dim)


method("to_sparse")(_to_sparse)
method("to_sparse_coo")(_to_sparse)
