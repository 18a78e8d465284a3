"""Binary operators with one operand of bools: values and gradients as PyTorch's, where it has them (it can't subtract
bools in the gradient of logaddexp and atan2)."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch

NAMES = ("logaddexp", "logaddexp2", "maximum", "minimum", "mul", "div", "add", "hypot", "fmax", "xlogy", "pow", "atan2")


@pytest.mark.parametrize("backend", [None, "numpy", "cpu"])
@pytest.mark.parametrize("name", NAMES)
def test_bool_and_float(name: str, backend: str | None) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    mask, values = rng.random((3, 4)) < 0.5, rng.uniform(0.5, 2, (3, 4))
    for swapped in (False, True):
        found = []
        for library in (torch, graphtorch):
            x = library.tensor(values.tolist(), dtype=library.float64, requires_grad=True)
            b = library.tensor(mask.tolist())

            def f(x, b, library=library, swapped=swapped):
                return getattr(library, name)(*((x, b) if swapped else (b, x)))

            run = graphtorch.compile(f, backend=backend) if backend and library is graphtorch else f
            try:
                result = run(x, b)
                result.sum().backward()
            except (RuntimeError, NotImplementedError) as error:
                found.append(type(error).__name__)
                continue
            found.append((result.detach().numpy(), x.grad.numpy()))
        theirs, mine = found
        if isinstance(theirs, str):
            continue
        for a, e in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)
