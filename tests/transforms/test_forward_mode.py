"""`jvp` of every differentiable operator against central differences, on the sample calls of its record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.cli.graphs import load_records
from graphtorch.func import jvp, vmap
from graphtorch.ops import dispatch
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.tensor.dtypes import float64

load_records()

STEP = 1e-6
# Their results are fixed up to a sign or an order that the sample's neighbours need not share, or jump.
UNSTABLE = {
    "linalg_eig", "linalg_eigh", "linalg_qr", "linalg_svd_factors", "linalg_lu_parts", "geqrf", "linalg_pinv_matrix",
    "linalg_lstsq_solution", "linalg_eigvals", "frexp", "view_dtype",
}  # fmt: skip
NAMES = sorted(
    name
    for name, op in REGISTRY.items()
    if op.derivative and op.samples is not None and not op.random and "f" in op.categories and name not in UNSTABLE
)


def sampled(op: Operator) -> list[tuple[Any, ...]]:
    assert op.samples is not None
    found = []
    for example in op.samples(Sampler(float64)):
        given = dict(zip([p.name for p in op.parameters], example.args, strict=False)) | example.kwargs
        values = [given.get(p.name, p.default) for p in op.parameters]
        listed = [(a,) if p.kind.startswith("int[]") and isinstance(a, int) else a
                  for p, a in zip(op.parameters, values, strict=True)]  # fmt: skip
        found.append(tuple(tuple(a) if isinstance(a, list) else a for a in listed))
    return found


def flat(value: Any) -> list[torch.Tensor]:
    return [v for v in (value if isinstance(value, tuple) else (value,)) if v.dtype is float64]


@pytest.mark.parametrize("name", NAMES)
def test_forward_derivative(name: str) -> None:
    op = REGISTRY[name]
    random = np.random.default_rng(0)
    checked = 0
    for args in sampled(op):
        places = [
            i
            for i, (p, a) in enumerate(zip(op.parameters, args, strict=True))
            if p.name in op.derivative and isinstance(a, torch.Tensor) and a.dtype is float64 and a.numel()
        ]
        if not places:
            continue

        def call(*values: Any, args: Any = args, places: Any = places) -> Any:
            given = list(args)
            for place, value in zip(places, values, strict=True):
                given[place] = value
            return tuple(flat(dispatch.call(op, tuple(given))))

        primals = tuple(args[i] for i in places)
        tangents = tuple(torch.from_numpy(random.normal(size=tuple(p.shape))) for p in primals)
        values, derivatives = jvp(call, primals, tangents)
        ahead = call(*(p + STEP * t for p, t in zip(primals, tangents, strict=True)))
        behind = call(*(p - STEP * t for p, t in zip(primals, tangents, strict=True)))
        batch = tuple(torch.stack([t, 2 * t]) for t in tangents)
        pushed = vmap(lambda *t, call=call, primals=primals: jvp(call, primals, t)[1])(*batch)
        for value, derivative, both, a, b in zip(values, derivatives, pushed, ahead, behind, strict=True):
            measured = (a.numpy() - b.numpy()) / (2 * STEP)
            if not np.isfinite(measured).all() or not np.isfinite(value.numpy()).all():
                continue
            scale = max(float(np.abs(measured).max(initial=0.0)), 1.0)
            np.testing.assert_allclose(derivative.numpy(), measured, rtol=1e-4, atol=1e-4 * scale, err_msg=name)
            np.testing.assert_allclose(both[1].numpy(), 2 * derivative.numpy(), rtol=1e-9, atol=1e-9 * scale)
            checked += 1
    if not checked:
        pytest.skip("no sample has a differentiable float64 operand and a finite result")
