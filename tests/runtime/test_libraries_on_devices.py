"""What is made of other functions (distributions, sparse tensors, attention with score functions, image transforms) on
a device: constants and draws that it makes itself lie where its operands do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import distributions
from graphtorch.nn.attention.flex_attention import create_block_mask, flex_attention
from graphtorch.runtime.cuda.simulated import SimulatedDriver
from graphtorch.vision import transforms
from graphtorch.vision.transforms import functional as V

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "probability"))
from distribution_cases import cases

pytestmark = pytest.mark.usefixtures("cuda")


def moved(value: Any, device: str) -> Any:
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value)
        return (tensor.float() if tensor.is_floating_point() else tensor).to(device)
    return value


@pytest.mark.parametrize("number", range(len(cases())))
def test_distributions_draw_and_judge_on_the_device(number: int) -> None:
    name, arguments = cases()[number]
    if not hasattr(distributions, name) or any(not isinstance(v, np.ndarray | int | float) for v in arguments.values()):
        pytest.skip("made of other distributions")
    here, there = (
        getattr(distributions, name)(**{k: moved(v, d) for k, v in arguments.items()}) for d in ("cpu", "cuda")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators that run on the host
        assert there.sample((2,)).is_cuda
        torch.manual_seed(0)
        drawn = here.sample((2,))
        found = there.log_prob(drawn.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), here.log_prob(drawn), rtol=1e-3, atol=1e-3, equal_nan=True)


def sparse(x: Any) -> Any:
    return torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 2]], x.flatten()[:3], (2, 3))


CORNERS = [[0, 0], [4, 0], [4, 4], [0, 4]], [[0, 1], [4, 0], [3, 4], [0, 4]]

# Functions of an image of three rows of five by five numbers between 0 and 1.
CALLS: dict[str, Callable[[Any], Any]] = {
    "score function": lambda x: flex_attention(x[None], x[None], x[None], score_mod=lambda s, b, h, i, j: s + i - j),
    "block mask": lambda x: flex_attention(
        *[x[None]] * 3,
        block_mask=create_block_mask(lambda b, h, i, j: i >= j, None, None, 5, 5, device=x.device),
    ),
    "part of a block mask": lambda x: create_block_mask(lambda b, h, i, j: i >= j, 2, 1, 5, 5, device=x.device)[
        1
    ].to_dense(),
    "sparse": lambda x: sparse(x).to_dense(),
    "sparse transposed": lambda x: sparse(x).transpose(0, 1).to_dense(),
    "sparse sum": lambda x: torch.sparse.sum(sparse(x), 0).to_dense(),
    "sparse softmax": lambda x: torch.sparse.softmax(sparse(x), 1).to_dense(),
    "sparse product": lambda x: torch.sparse.mm(sparse(x), x[0][:3, :2]),
    "sparse zeros": lambda x: torch.sparse_coo_tensor((2, 3), device=x.device).to_dense(),
    "rotate": lambda x: V.rotate(x, 30.0, expand=True, fill=[0.5]),
    "affine": lambda x: V.affine(x, 10.0, [1, 0], 1.1, [2.0]),
    "perspective": lambda x: V.perspective(x, *CORNERS, fill=[0.3, 0.2, 0.1]),
    "normalize": lambda x: V.normalize(x, [0.5] * 3, [0.2] * 3),
    "blur": lambda x: V.gaussian_blur(x, [3, 3]),
    "sharpness": lambda x: V.adjust_sharpness(x, 2.0),
    "equalize": lambda x: V.equalize((x * 255).to(torch.uint8)),
    "pad": lambda x: V.pad(x, [1, 1], padding_mode="symmetric"),
    "erase": lambda x: transforms.RandomErasing(1.0, value=[0.1, 0.2, 0.3])(x) * 0,
    "erase by noise": lambda x: transforms.RandomErasing(1.0, value="random")(x) * 0,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("compiled", [False, True])
def test_calls_give_what_the_cpu_gives(name: str, compiled: bool) -> None:
    x = torch.arange(75.0).reshape(3, 5, 5) / 75
    call = CALLS[name]
    expected = call(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = (torch.compile(call) if compiled else call)(x.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)


# -- custom operators -------------------------------------------------------------------------------------------------


def test_kernels_for_devices_get_the_tensors_themselves(cuda: SimulatedDriver) -> None:
    """`register_kernel("cuda")`, eagerly (without a fake function, as in PyTorch), with gradients, and compiled."""
    seen: list[str] = []

    @torch.library.custom_op("ondevices::twice", mutates_args=(), device_types="cpu")
    def twice(x: torch.Tensor, more: Sequence[torch.Tensor]) -> torch.Tensor:
        seen.append("cpu")
        return x * 2 + more[0]

    @twice.register_kernel("cuda")
    def _(x: Any, more: Any) -> Any:
        seen.append(f"{x.device} {more[0].device}")
        return x * 2 + more[0]

    twice.register_autograd(lambda ctx, g: (g * 2, [g]))
    x = torch.arange(6.0).reshape(2, 3)
    assert twice(x, [x]).tolist() == (x * 3).tolist()
    leaf = x.cuda().requires_grad_()
    result = twice(leaf.t(), [leaf.t()])
    assert result.is_cuda and result.tolist() == (x.t() * 3).tolist()
    result.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [[3.0] * 3] * 2
    twice.register_fake(lambda x, more: torch.empty_like(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing runs on the host
        for mode in ("default", "reduce-overhead"):
            step = torch.compile(lambda y: twice(y + 1, [y]).sum(1), mode=mode, fullgraph=True)
            for _ in range(3):
                assert step(x.cuda()).tolist() == ((x + 1) * 2 + x).sum(1).tolist()
    assert seen == ["cpu", *["cuda:0 cuda:0"] * 7]


def test_kernels_for_devices_that_change_their_arguments(cuda: SimulatedDriver) -> None:
    @torch.library.custom_op("ondevices::add_", mutates_args={"x"})
    def add_(x: torch.Tensor, n: int) -> torch.Tensor:
        raise AssertionError("not on the host")

    @add_.register_kernel("cuda")
    def _(x: Any, n: int) -> Any:
        assert x.is_cuda
        x.add_(n)
        return x.sum()

    x = torch.ones(3, device="cuda")
    total = add_(x, 2)
    assert x.tolist() == [3.0] * 3 and total.is_cuda and total.item() == 9
    add_.register_fake(lambda x, n: torch.empty((), device=x.device))

    @torch.compile(fullgraph=True)
    def step(x: Any) -> Any:
        return add_(x, 1) * 2

    assert step(x).item() == 24 and x.tolist() == [4.0] * 3


def test_what_has_no_kernel_for_devices(cuda: SimulatedDriver) -> None:
    """On copies of the host, with a warning, where there is one for the host; results may not lie in an argument."""

    @torch.library.custom_op("ondevices::host", mutates_args=())
    def host(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, torch.from_numpy(np.sqrt(x.numpy()))

    with pytest.warns(UserWarning, match="ondevices_host has no CUDA kernel here"):
        more, roots = host(torch.full((2,), 4.0, device="cuda"))
    assert more.is_cuda and roots.is_cuda and (more.tolist(), roots.tolist()) == ([5.0, 5.0], [2.0, 2.0])

    @torch.library.custom_op("ondevices::same", mutates_args=(), device_types="cuda")
    def same(x: torch.Tensor) -> torch.Tensor:
        return x.view(-1)

    with pytest.raises(RuntimeError, match="must not also be an input"):
        same(torch.ones(2, 2, device="cuda"))
    torch.library.define("ondevices::nothing", "(Tensor x) -> Tensor")
    for place in ("cpu", "cuda"):
        with pytest.raises(NotImplementedError, match=f"with arguments from the '{place.upper()}' backend"):
            torch.ops.ondevices.nothing(torch.ones(2, device=place))


# -- dispatch modes ---------------------------------------------------------------------------------------------------


def test_modes_see_what_changes_tensors_of_a_device(cuda: SimulatedDriver) -> None:
    """In-place operators, with and without history, and operators of libraries; a mode's answer is what is written."""
    from graphtorch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self, answer: float | None = None) -> None:
            super().__init__()
            self.seen: list[str] = []
            self.answer = answer

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(str(func))
            made = func(*args, **(kwargs or {}))
            return made if self.answer is None else torch.full_like(made, self.answer)

    @torch.library.custom_op("ondevices::more", mutates_args=())
    def more(x: torch.Tensor) -> torch.Tensor:
        return x + 10

    def changes(place: str) -> tuple[Any, Any, Any, int]:
        x, leaf = torch.zeros(4, device=place), torch.ones(4, device=place, requires_grad=True)
        with Names() as outer, Names() as inner:
            x[1:3].add_(1)
            x.copy_(x.double() + 1)
            x.mul_(x)
            x[0].mul_(2)
            y = leaf * 2
            y.mul_(3)
            y.sum().backward()
            z = more(x)
        assert "aten.add_.Tensor" in inner.seen and "ondevices.more.default" in outer.seen
        assert leaf.grad is not None
        return (outer.seen, inner.seen), (x.tolist(), z.tolist()), leaf.grad.tolist(), x._version

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `more` runs on the host
        assert changes("cuda") == changes("cpu")
    x = torch.ones(3, device="cuda")
    with Names(5.0):
        x.add_(1)
    assert x.tolist() == [5.0] * 3
