"""Memory formats under @compile: results lie in memory as PyTorch's and eager execution's do, and code that asks how
tensors lie (`stride()`, `is_contiguous()`, `view()`) gets the same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

pytorch = pytest.importorskip("torch")

IMAGES = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)


def last(t: Any, x: Any) -> Any:
    return x.contiguous(memory_format=t.channels_last)


def kernel(t: Any, x: Any) -> Any:
    return t.arange(6.0 * x.shape[1] * 9).reshape(6, x.shape[1], 3, 3) / 100


def gradient(t: Any, x: Any, function: Callable[[Any], Any]) -> Any:
    x = x.detach().requires_grad_()
    return t.autograd.grad(function(x), x)[0]


def accumulated(t: Any, x: Any, function: Callable[[Any], Any]) -> Any:
    x = x.detach().requires_grad_()
    function(x).backward()
    return x.grad


def answers(t: Any, x: Any) -> Any:
    """Numbers made of what the program asks about memory."""
    y = last(t, x)
    flags = [z.is_contiguous(memory_format=f) for z in (x, y, y + 1, y.permute(0, 2, 3, 1))
             for f in (t.contiguous_format, t.channels_last) if z.ndim == 4]  # fmt: skip
    return x * y.stride(1) + x.stride(1) + sum(2.0**i * flag for i, flag in enumerate(flags))


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "contiguous": last,
    "to": lambda t, x: x.to(memory_format=t.channels_last),
    "to another dtype": lambda t, x: x.to(t.float64, memory_format=t.channels_last),
    "to rows": lambda t, x: last(t, x).to(memory_format=t.contiguous_format),
    "to rows of a permutation": lambda t, x: x.permute(0, 2, 1, 3).to(memory_format=t.contiguous_format),
    "dtype in rows": lambda t, x: x.permute(0, 2, 1, 3).to(t.float64, memory_format=t.contiguous_format),
    "clone": lambda t, x: x.clone(memory_format=t.channels_last),
    "clone in rows": lambda t, x: last(t, x).clone(memory_format=t.contiguous_format),
    "double": lambda t, x: x.double(memory_format=t.channels_last),
    "arithmetic": lambda t, x: (last(t, x) * 2 + 1).relu(),
    "first operand decides": lambda t, x: (last(t, x) + x, x + last(t, x)),
    "zeros_like": lambda t, x: t.zeros_like(last(t, x)),
    "zeros_like in rows": lambda t, x: t.zeros_like(last(t, x), memory_format=t.contiguous_format),
    "zeros_like channels last": lambda t, x: t.zeros_like(x, memory_format=t.channels_last),
    "empty_like": lambda t, x: t.empty_like(x, memory_format=t.channels_last).copy_(x),
    "full_like": lambda t, x: t.full_like(x, 2.0, memory_format=t.channels_last),
    "empty": lambda t, x: t.empty(2, 3, 4, 5, memory_format=t.channels_last).fill_(1),
    "permute": lambda t, x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "answers": answers,
    "cat": lambda t, x: t.cat([last(t, x), last(t, x)], 1),
    "stack": lambda t, x: t.stack([last(t, x), last(t, x)], 1),
    "stack first": lambda t, x: t.stack([last(t, x), last(t, x)]),
    "stack last": lambda t, x: t.stack([last(t, x), last(t, x)], -1),
    "conv2d": lambda t, x: t.nn.functional.conv2d(last(t, x), kernel(t, x)),
    "conv2d, weight": lambda t, x: t.nn.functional.conv2d(x, last(t, kernel(t, x))),
    "conv_transpose2d": lambda t, x: t.nn.functional.conv_transpose2d(last(t, x), t.ones(x.shape[1], 6, 3, 3)),
    "max_pool2d": lambda t, x: t.nn.functional.max_pool2d(last(t, x), 2, return_indices=True),
    "avg_pool2d": lambda t, x: t.nn.functional.avg_pool2d(last(t, x), 2),
    "adaptive_avg_pool2d": lambda t, x: t.nn.functional.adaptive_avg_pool2d(last(t, x), 2),
    "global average": lambda t, x: t.nn.functional.adaptive_avg_pool2d(last(t, x), 1),
    "adaptive_max_pool2d": lambda t, x: t.nn.functional.adaptive_max_pool2d(last(t, x), 2),
    "batch_norm": lambda t, x: t.nn.functional.batch_norm(last(t, x), None, None, training=True),
    "group_norm": lambda t, x: t.nn.functional.group_norm(last(t, x), 2),
    "instance_norm": lambda t, x: t.nn.functional.instance_norm(last(t, x)),
    "interpolate": lambda t, x: t.nn.functional.interpolate(last(t, x), scale_factor=2),
    "pad": lambda t, x: t.nn.functional.pad(last(t, x), (1, 1, 1, 1)),
    "circular pad": lambda t, x: t.nn.functional.pad(last(t, x), (1, 1, 1, 1), mode="circular"),
    "pixel_shuffle": lambda t, x: t.nn.functional.pixel_shuffle(last(t, x), 2),
    "pixel_unshuffle": lambda t, x: t.nn.functional.pixel_unshuffle(last(t, x), 2),
    "softmax": lambda t, x: last(t, x).softmax(1),
    "sum": lambda t, x: (last(t, x).sum(1), last(t, x).sum(1, keepdim=True), last(t, x).mean((2, 3), keepdim=True)),
    "flatten": lambda t, x: last(t, x).flatten(1),
    "slices": lambda t, x: (last(t, x)[:, 1:], last(t, x)[:, 1:] * 2, last(t, x)[:, :, ::2].contiguous()),
    "permute_copy": lambda t, x: t.permute_copy(x, (0, 3, 1, 2)),
    "gradient of a change of format": lambda t, x: gradient(t, x, lambda y: last(t, y).pow(2).sum()),
    "gradient": lambda t, x: gradient(t, last(t, x), lambda y: y.pow(2).sum()),
    "gradient of flatten": lambda t, x: gradient(t, last(t, x), lambda y: y.flatten(1).pow(2).sum()),
    "gradient of conv2d": lambda t, x: gradient(
        t, last(t, x), lambda y: t.nn.functional.conv2d(y, kernel(t, x)).pow(2).sum()
    ),
    "gradient of a kernel": lambda t, x: gradient(
        t, last(t, kernel(t, x)), lambda w: t.nn.functional.conv2d(x, w).pow(2).sum()
    ),
    "gradient of max_pool2d": lambda t, x: gradient(
        t, last(t, x), lambda y: t.nn.functional.max_pool2d(y, 2).pow(2).sum()
    ),
    "gradient of avg_pool2d": lambda t, x: gradient(
        t, last(t, x), lambda y: t.nn.functional.avg_pool2d(y, 2).pow(2).sum()
    ),
    "gradient of pad": lambda t, x: gradient(
        t, last(t, x), lambda y: t.nn.functional.pad(y, (1, 1, 1, 1)).pow(2).sum()
    ),
    "accumulated gradient": lambda t, x: accumulated(t, last(t, x), lambda y: y.flatten(1).pow(2).sum()),
}


def check(actual: Any, expected: Any) -> None:
    pairs = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
    for a, e in pairs:
        assert a.stride() == e.stride()
        np.testing.assert_allclose(a.numpy(), e.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("backend", "dynamic"), [("eager", None), ("numpy", None), ("cpu", None), ("numpy", True)])
def test_results_lie_as_in_pytorch(name: str, backend: str, dynamic: bool | None) -> None:
    def function(x: Any) -> Any:
        return FUNCTIONS[name](graphtorch, x)

    run = function if backend == "eager" else graphtorch.compile(function, backend=backend, dynamic=dynamic)
    for images in (IMAGES, IMAGES[:1]):
        if name == "stack" and len(images) == 1 and dynamic and backend != "eager":
            continue  # the stride of the only sample is the one thing that differs
        expected = FUNCTIONS[name](pytorch, pytorch.tensor(images))
        for _ in range(2):
            check(run(graphtorch.tensor(images)), expected)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_module_in_channels_last(backend: str) -> None:
    results = []
    for t in (pytorch, graphtorch):
        t.manual_seed(0)
        model = t.nn.Sequential(
            t.nn.Conv2d(4, 8, 3, padding=1), t.nn.BatchNorm2d(8), t.nn.ReLU(), t.nn.MaxPool2d(2), t.nn.Conv2d(8, 6, 1)
        ).to(memory_format=t.channels_last)
        optimizer = t.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            y = model(x)
            y.square().mean().backward()
            optimizer.step()
            return y

        run = step if t is pytorch else graphtorch.compile(step, backend=backend)
        for _ in range(3):
            y = run(t.tensor(IMAGES).to(memory_format=t.channels_last))
        state = [s for p in model.parameters() for s in (p, p.grad, optimizer.state[p]["momentum_buffer"])]
        results.append([y.detach(), *(s.detach() for s in state)])
    check(tuple(results[1]), tuple(results[0]))


def strided(x: Any) -> Any:
    return x * x.stride(0) + x.t().stride(1)


def part_of_columns(x: Any) -> Any:
    part = x[:, x.shape[1] // 2 :]
    return x * part.storage_offset() + part.sum()


def two_by_two(x: Any) -> Any:
    return graphtorch.as_strided(x, (2, 2), (x.stride(0), 1))


def from_the_third_element(x: Any) -> Any:
    return graphtorch.as_strided(x, (2, 2), (1, 1), 2)


def around(x: Any) -> Any:
    return graphtorch.as_strided(x, (2, 2), (1, 2)) * 1


def first_column(x: Any) -> Any:
    return (x * 2)[:3, 0]


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize(
    "function", [strided, part_of_columns, two_by_two, from_the_third_element, around, first_column]
)
def test_strides_and_offsets_are_those_of_each_call(
    function: Callable[[graphtorch.Tensor], graphtorch.Tensor], dynamic: bool | None
) -> None:
    compiled = graphtorch.compile(function, dynamic=dynamic)
    for n in (4, 6, 8, 5):
        rows = graphtorch.arange(8.0 * n)
        for x in (rows[: 3 * n].view(3, n), rows[: 4 * n].view(4, n)[1:], rows[: 3 * n].view(n, 3).t(),
                  rows.view(4, 2 * n)[:3, ::2]):  # fmt: skip
            expected, actual = function(x), compiled(x)
            assert graphtorch.equal(actual, expected)
            assert actual.stride() == expected.stride()
