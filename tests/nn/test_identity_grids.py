"""Spatial transformers begin with the identity map: points at centres of elements, where rounding decides in which of
two cells a point lies, and so what its gradient is. Rounding is PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as gt


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 1), (0.3, 7.7), (5, -2)])
def test_linspace_is_pytorchs_to_the_bit(start: float, end: float) -> None:
    torch = pytest.importorskip("torch")
    for steps in range(1, 120):
        assert np.array_equal(gt.linspace(start, end, steps).numpy(), torch.linspace(start, end, steps).numpy()), steps


@pytest.mark.parametrize("backend", [None, "numpy", "cpu"])
@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (1, 1, 7, 13), (1, 1, 64, 33), (1, 2, 5, 6, 7)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_of_the_identity_map(backend: str | None, shape: tuple[int, ...], align_corners: bool) -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    spatial = len(shape) - 2

    def gradient(library: Any, theta: Any, x: Any) -> Any:
        F = library.nn.functional
        grid = F.affine_grid(theta, x.size(), align_corners=align_corners)
        sampled = F.grid_sample(x, grid, align_corners=align_corners)
        return library.autograd.grad(sampled.square().sum(), theta)[0]

    found = []
    for library in (torch, gt):
        theta = library.eye(spatial, spatial + 1).repeat(shape[0], *(1, 1)).requires_grad_()

        def run(theta: Any, x: Any, library: Any = library) -> Any:
            return gradient(library, theta, x)

        function = gt.compile(run, backend=backend) if library is gt and backend else run
        found.append(function(theta, library.from_numpy(images)).numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5 * np.abs(found[0]).max())
