"""Whether two ways to run a step give the same numbers, up to rounding: what autotuning checks before a candidate wins.

Both ways do the same operations on the same operands, but add up in different orders. So their results may differ by

- what two sums of n terms in different orders differ by. With independent roundings that is below a multiple of
  sqrt(n) units in the last place of the accumulator, relative to the size of a result whose terms have random signs, or
  all one sign (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5),
  2019); the multiple is what no element of a few million exceeds. Tensor cores truncate, sixteen terms at a time (Fasi
  et al., "Numerical behavior of NVIDIA tensor cores", PeerJ Comput. Sci. 7:e330, 2021), which adds a share of n;
- one unit in the last place of the coarsest format, for each time that something is rounded to it: what differs by less
  may be rounded to neighbours;
- anything, where a value lies so near a threshold (of a comparison, a maximum's position, a pole) that the first
  difference carries it across: a share of all elements that is as small as that difference.

Random operands make results of the size that this assumes. What leaves out a block of a sum, or a row of blocks, or
takes an element from elsewhere, differs by far more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import ml_dtypes
import numpy as np

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.fused import PRODUCTS, FusedCall, extents
from graphtorch.lowering.triton.groups import RowKernel

Array = np.ndarray[Any, Any]

# Differences between successive numbers near 1, coarsest first, by how sources and signatures name a format.
_SPACING = (
    (re.compile(r"bfloat16|\*bf16"), 2.0**-7),
    (re.compile(r"tf32"), 2.0**-10),
    (re.compile(r"float16|\*fp16"), 2.0**-10),
    (re.compile(r"float32|\*fp32"), 2.0**-23),
)
_DOUBLE = 2.0**-52
_SMALLEST = 2.0**-126  # of float32: what is smaller may be zero on a GPU
_DEVIATIONS = 6  # of a normal distribution: exceeded by one of 5e8
_TRUNCATED_TOGETHER = 32  # terms of a sum; twice what tensor cores do, for half a unit is lost on an average


@dataclass(frozen=True)
class Result:
    """A buffer that a step writes. With several `parts`, along its first dimension, it is their sum that counts: which
    terms are in which part is up to each candidate."""

    buffer: Buffer
    parts: int = 1


@dataclass(frozen=True)
class Tolerance:
    """relative    to an element, or to the median element where that is larger
    share       of all elements that may differ by more"""

    relative: float
    share: float


def results_of(step: Kernel | ExternCall) -> list[Result]:
    """What a step writes."""
    if isinstance(step, RowKernel):
        sums = {s.access.buffer for s in step.columns}
        return [Result(b, b.shape[0] if b in sums else 1) for b in dict.fromkeys(step.writes())]
    splits = step.splits if isinstance(step, FusedCall) else 1
    return [Result(b, splits) for b in dict.fromkeys(step.writes())]


def tolerance(step: Kernel | ExternCall, functions: Sequence[Generated], bindings: Mapping[str, int]) -> Tolerance:
    """By how much two ways to run a step may differ; `functions` are those of one of them."""
    text = "\n".join(part for f in functions for part in (*f.signature().values(), f.source))
    number, truncated = _terms(step, bindings)
    single = any(pattern.search(text) for pattern, _ in _SPACING)
    accumulated = (_SPACING[-1][1] if single else _DOUBLE) * (_DEVIATIONS * sqrt(number) + truncated)
    spacing = next((s for pattern, s in _SPACING if pattern.search(text)), _DOUBLE)
    roundings = 1 + len(re.findall(r"\.to\(tl\.b?float16\)", text))
    return Tolerance(spacing * sqrt(roundings) + accumulated, accumulated)


def _terms(step: Kernel | ExternCall, bindings: Mapping[str, int]) -> tuple[int, float]:
    """How many terms the longest sum of a step has, and what truncation adds to it, in units in the last place."""
    if isinstance(step, Kernel):
        summed = [a for a in step.axes if a.reduction or isinstance(step, RowKernel)]
        return prod(concrete(a.size, bindings) for a in summed), 0.0
    if step.op.name in PRODUCTS:
        number = concrete(extents(step)[2], bindings)
    else:
        first = 0 if step.op.name == "fused_attention" else 1
        (_, queries, heads, size), (_, keys, shared, _) = (concrete(a.shape, bindings) for a in step.args[first:][:2])
        number = size + keys + queries * (heads // shared)  # of scores, results, and gradients of shared heads
    return number, number / _TRUNCATED_TOGETHER


def difference(found: Array, expected: Array, allowed: Tolerance) -> str:
    """How results differ by more than is allowed; nothing if they do not."""
    if expected.dtype.kind in "biu":
        a, b = found, expected
        near = found == expected
    else:
        of = ml_dtypes.finfo(expected.dtype)  # type: ignore[no-untyped-call]
        least = max(float(of.tiny) * float(of.eps), _SMALLEST)
        with np.errstate(all="ignore"):
            a, b = found.astype(np.float64), expected.astype(np.float64)
            sizes = np.where(np.isfinite(b), np.abs(b), 0)
            some = sizes[sizes > 0]
            usual = float(np.median(some)) if some.size else 0.0
            near = np.abs(a - b) <= allowed.relative * np.maximum(sizes, usual) + least
        near |= (a == b) | (np.isnan(a) & np.isnan(b))
    wrong = ~near
    count = int(np.count_nonzero(wrong))
    if count <= allowed.share * wrong.size:
        return ""
    at = int(np.argmax(wrong))
    return f"{count} of {wrong.size} numbers differ, the first is {a[at]:.6g} instead of {b[at]:.6g}"
