"""Functional transforms: derivatives of functions as functions, batches, and modules as functions of their parameters.

All of them compose with one another and with `compile`, in any order. See
https://docs.pytorch.org/docs/stable/func.html.
"""

from graphtorch.func.modules import functional_call, replace_all_batch_norm_modules_, stack_module_state
from graphtorch.func.transforms import (
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
    vmap,
)

__all__ = [
    "functional_call",
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "value_and_grad",
    "vjp",
    "vmap",
]
