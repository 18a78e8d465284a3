"""Draws into memory that is not row-major go in memory order, as PyTorch's."""

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

LAYOUTS = {
    "transposed": lambda library: library.ones(3, 4, 2).transpose(0, 1),
    "reversed": lambda library: library.ones(3, 4, 2).permute(2, 1, 0),
    "heads": lambda library: library.ones(2, 3, 4, 5).transpose(1, 2),
    "channels last": lambda library: library.ones(2, 5, 6, 3).permute(0, 3, 1, 2),
    "strided": lambda library: library.ones(4, 6)[:, ::2].t(),
    "expanded": lambda library: library.ones(4, 1, 3).expand(4, 5, 3),
    "row-major": lambda library: library.ones(4, 5),
}


def drawn(library, layout, draw):
    library.manual_seed(3)
    return draw(library, LAYOUTS[layout](library)).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout(layout):
    def draw(library, x):
        return library.nn.functional.dropout(x, 0.4)

    expected = drawn(torch, layout, draw)
    np.testing.assert_allclose(drawn(gt, layout, draw), expected)
    compiled = gt.compile(lambda x: draw(gt, x), fullgraph=True)
    np.testing.assert_allclose(drawn(gt, layout, lambda _, x: compiled(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["bernoulli_", "uniform_", "exponential_"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded"])
def test_filling_in_place(layout, name):
    def draw(library, x):
        assert getattr(x, name)() is x
        return x

    np.testing.assert_allclose(drawn(gt, layout, draw), drawn(torch, layout, draw), rtol=1e-6)
