"""Where PyTorch's own sample inputs show another behaviour than PyTorch's, on purpose or for want of a feature.

`tools/compare_with_samples.py` lists these apart, and docs/samples.md gives the reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sample_runs import Count, Difference

HALVES = "no complex dtype of half precision (`complex32`)"
DESCRIPTORS = (
    "PyTorch's unbound `Tensor.__radd__` and its like refuse a number as `self`; here they are plain functions"
)
OUT = "`out=` of functions of `nn.functional`, which is not documented"
WRONG = "PyTorch's result is wrong"
EXTERN = "the sample reaches into `torch.ops.aten`, which is not here"
NAMES = "internals of PyTorch (names with an underscore), `jiterator` and CUDA's scaled products"


@dataclass(frozen=True)
class Known:
    """A difference of an operator (a regular expression of its name) whose text contains something."""

    name: str
    text: str
    reason: str
    mode: str = ""

    def covers(self, difference: Difference) -> bool:
        return (
            re.fullmatch(self.name, difference.name) is not None
            and self.text in f"{difference.sample}: {difference.text}"
            and self.mode in ("", difference.mode)
        )


KNOWN = (
    Known("view_as_complex|complex|chalf", "", HALVES),
    Known("__r(add|mul|and|or|xor)__", "descriptor", DESCRIPTORS),
    Known(r"nn\.functional\.(linear|avg_pool[23]d)", "unexpected keyword argument 'out'", OUT),
    Known("max_pool2d_with_indices_backward", "aten", EXTERN),
    Known(
        "as_strided_scatter",
        "gradient",
        f"{WRONG}: the gradient of `input` is that of the elements that are replaced instead of the others",
    ),
    Known(
        "matrix_exp", "Low precision", f"{WRONG} in half precision (infinities for a matrix of ones), and an error here"
    ),
    Known(
        r"special\.bessel_(j0|y1)|special\.bessel_j1|special\.bessel_y0",
        "values",
        f"{WRONG} from the seventh digit on, SciPy's is ours",
    ),
    Known(
        "renorm", "nan", "PyTorch's gradient of a complex norm of infinite order is NaN, where the true one is finite"
    ),
    Known(
        "gather",
        "Expected dtype int32/int64 for index",
        "PyTorch takes an index of another integer dtype where it is empty",
    ),
    Known(
        "narrow_copy", "self_sizes.size()", "PyTorch's error is an internal assertion; here it is the one of `narrow`"
    ),
    Known(
        "to_sparse",
        "SparseTensor instead of a tensor",
        "a sparse tensor is a class of its own",
    ),
    Known("arange", "step must be nonzero", "PyTorch cuts a step of 0.5 to 0 for an `out=` of integers"),
    Known(
        "cov",
        "gradient 1",
        "the covariance of two observations does not depend on their weights: a gradient of 0 up to rounding",
    ),
    Known(
        r"div \(trunc_rounding\)|nn\.functional\.fractional_max_pool[23]d",
        "float16",
        "a fused kernel keeps what half precision would round away before the fraction is cut off",
        mode="cpu",
    ),
)


def reason_of(difference: Difference) -> str | None:
    """Why a difference is known; None for one that is not."""
    return next((known.reason for known in KNOWN if known.covers(difference)), None)


def unknown(count: Count) -> list[Difference]:
    """The differences that nothing explains."""
    return [d for d in count.differences if reason_of(d) is None]
