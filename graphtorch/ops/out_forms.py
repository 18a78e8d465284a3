"""`out=` for functions whose definitions do without it: compositions, and records with fronts of their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.dispatch import tensors_of, write_out
from graphtorch.tensor.tensor import Tensor

NAMES = (
    *("addbmm", "addmv", "addr", "aminmax", "bucketize", "cholesky", "cholesky_inverse", "cholesky_solve"),
    *(
        "column_stack",
        "conj_physical",
        "cross",
        "cummax",
        "cummin",
        "deg2rad",
        "diag",
        "dstack",
        "float_power",
        "frexp",
    ),
    *("ger", "histogram", "hstack", "igamma", "igammac", "inner", "kron", "kthvalue", "ldexp", "lu_solve", "lu_unpack"),
    *("masked_select", "matmul", "matrix_power", "mode", "mvlgamma", "nanmean", "nonzero", "ormqr", "outer", "polar"),
    *("renorm", "row_stack", "searchsorted", "svd", "take_along_dim", "topk", "triangular_solve", "vdot", "vstack"),
    *("linalg_cholesky", "linalg_cholesky_ex", "linalg_cond", "linalg_cross", "linalg_eigvals", "linalg_eigvalsh"),
    *("linalg_householder_product", "linalg_inv_ex", "linalg_ldl_factor", "linalg_ldl_factor_ex", "linalg_lu"),
    *("linalg_lu_factor", "linalg_lu_factor_ex", "linalg_lu_solve", "linalg_matrix_norm", "linalg_matrix_power"),
    *("linalg_matrix_rank", "linalg_multi_dot", "linalg_norm", "linalg_pinv", "linalg_solve", "linalg_solve_ex"),
    *("linalg_solve_triangular", "linalg_svd", "linalg_svdvals", "linalg_tensorinv", "linalg_tensorsolve"),
    "linalg_vecdot",
    *(f"fft_{name}{count}" for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for count in ("", "2", "n")),
    *("special_entr", "special_gammainc", "special_gammaincc", "special_log_ndtr", "special_multigammaln"),
    *("special_ndtr", "special_xlog1py", "special_zeta"),
)


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
        write_out(outs, function(*args, **kwargs))
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
