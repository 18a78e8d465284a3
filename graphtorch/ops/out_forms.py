"""`out=` for functions whose definitions do without it: compositions, and records with fronts of their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.dispatch import EXACT, check_apart, tensors_of, write_out
from graphtorch.tensor.tensor import Tensor

NAMES = (
    "addbmm", "addmv", "addr", "alias_copy", "aminmax", "bucketize", "chain_matmul", "cholesky",
    "cholesky_inverse", "cholesky_solve",
    "column_stack", "conj_physical", "cross", "cummax", "cummin", "deg2rad", "diag", "diff", "dstack", "float_power",
    "frexp", "ger", "histogram", "hstack", "igamma", "igammac", "index_reduce", "inner", "kron", "kthvalue", "ldexp",
    "log_softmax", "lu_solve", "lu_unpack", "masked_select", "matmul", "matrix_power", "mode", "msort", "mvlgamma",
    "nanmean", "nonzero", "ormqr", "outer", "polar", "polygamma", "rad2deg", "renorm", "row_stack", "scatter",
    "scatter_reduce", "searchsorted", "slice_scatter", "softmax", "svd", "take", "take_along_dim", "tensordot",
    "topk", "triangular_solve", "vdot", "vstack",
    *(name for name in FUNCTIONS if name.endswith("_copy") and name != "index_copy"),
    *("linalg_" + name for name in (
        "cholesky", "cholesky_ex", "cond", "cross", "eigvals", "eigvalsh", "householder_product", "inv_ex",
        "ldl_factor", "ldl_factor_ex", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matrix_norm",
        "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "solve", "solve_ex", "solve_triangular",
        "svd", "svdvals", "tensorinv", "tensorsolve", "vecdot",
    )),
    *(f"fft_{name}{count}" for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for count in ("", "2", "n")),
    *("special_" + name for name in (
        "entr", "gammainc", "gammaincc", "log_ndtr", "multigammaln", "ndtr", "polygamma", "xlog1py", "zeta",
    )),
)  # fmt: skip


def _with_out(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def with_out(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return function(*args, **kwargs)
        outs = tuple(out) if isinstance(out, tuple | list) else (out,)
        for tensor in outs:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(tensor).__name__}")
        if state.grad_enabled and any(t.requires_grad for t in (*tensors_of((*args, *kwargs.values())), *outs)):
            raise RuntimeError(
                f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
                "arguments requires grad."
            )
        check_apart(name, tensors_of((*args, *kwargs.values())), outs)
        write_out(outs, function(*args, **kwargs), exact=name in EXACT)
        return out

    own = inspect.signature(function)
    parameters = list(own.parameters.values())
    at = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    parameters.insert(at, inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None))
    with_out.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_out


for _name in NAMES:
    if _name in FUNCTIONS and "out" not in inspect.signature(FUNCTIONS[_name]).parameters:
        FUNCTIONS[_name] = _with_out(_name, FUNCTIONS[_name])
