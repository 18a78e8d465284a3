"""Operators of one's own, under the names of `torch.library`. See docs/custom-operators.md."""

from graphtorch.library.checks import opcheck
from graphtorch.library.custom import CustomOpDef, custom_op
from graphtorch.library.define import (
    Library,
    define,
    get_ctx,
    impl,
    impl_abstract,
    register_autocast,
    register_autograd,
    register_fake,
    register_kernel,
    register_vmap,
)
from graphtorch.library.schema import infer_schema

__all__ = [
    "CustomOpDef",
    "Library",
    "custom_op",
    "define",
    "get_ctx",
    "impl",
    "impl_abstract",
    "infer_schema",
    "opcheck",
    "register_autocast",
    "register_autograd",
    "register_fake",
    "register_kernel",
    "register_vmap",
]
