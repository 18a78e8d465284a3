"""The operators: one record each, a file a family.

`FUNCTIONS` holds every public function by name; this package has them as attributes too (`ops.add`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Importing a family registers its records and installs the Tensor methods.
from graphtorch.ops import (
    activation,
    arithmetic,
    attention,
    autocast,
    bessel_functions,
    binning,
    cast,
    cholesky_factors,
    comparison,
    contraction,
    convolution,
    creation,
    embeddings,
    fourier,
    histograms,
    indexing,
    interop,
    join,
    ldl,
    limits,
    linalg,
    loss,
    low_rank,
    lu_factors,
    matrix_functions,
    memory,
    normalization,
    norms,
    numbers,
    pointwise_losses,
    pooling,
    products,
    properties,
    random,
    reduction,
    sampled_distributions,
    scan,
    scattering,
    segments,
    selection,
    shaping,
    softmax,
    sorting,
    sparse_forms,
    special_airy,
    special_functions,
    statistics,
    ternary,
    tolerant_factors,
    unary,
    view,
)

# isort: split
from graphtorch.ops import inplace_forms, out_forms  # made of the functions above
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import REGISTRY, Operator, lookup

__all__ = ["FUNCTIONS", "REGISTRY", "Operator", "lookup"]

autocast.install()
globals().update(FUNCTIONS)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...

else:

    def __getattr__(name):
        # Operators by PyTorch's C++ names: torch.ops.aten.mm, and those that graphtorch.library defines.
        from graphtorch.ops.modes import namespace

        found = namespace(name)
        if found is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return found
