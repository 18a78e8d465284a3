"""Programs whose tensors lie on a (simulated) CUDA device: random ones, eager beside compiled, and what these found.

`GRAPHTORCH_CUDA=simulated python tools/random_programs.py --backends triton` runs more of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import func
from graphtorch.nn import functional as F
from graphtorch.runtime.cuda.simulated import SimulatedDriver

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "frontend"))

pytestmark = pytest.mark.usefixtures("cuda")


@pytest.mark.parametrize("seed", range(0, 480, 12))
def test_random_programs(seed: int) -> None:
    import random_program
    from random_running import NO_PROGRAMS, failure, shrink

    NO_PROGRAMS.clear()
    program = random_program.from_seed(seed)
    if failure(program, "triton") is not None:
        small = shrink(program, "triton")
        pytest.fail(f"{failure(small, 'triton')}\n\n{small.script()}", pytrace=False)
    assert not NO_PROGRAMS


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, device="cuda")


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: func.grad(lambda t: func.grad(lambda u: (u * u * t).sum())(x).sum())(x),
        lambda x: func.jvp(torch.sin, (x,), (x,))[1],
        lambda x: func.hessian(lambda t: (t**3).sum())(x),
        lambda x: func.vmap(func.grad(lambda t: t.tanh().square()))(x),
        lambda x: func.grad(lambda t: (t * torch.tensor([1.0, 2.0], device=x.device)).sum())(x),
        lambda x: func.grad(lambda t: (t * torch.arange(2, device=x.device)).sum())(x),
    ],
)
def test_transforms_stay_on_the_device(transform: Callable[[Any], Any]) -> None:
    x = numbers(0.5, -1.5)
    found = transform(x)
    assert found.device == x.device
    torch.testing.assert_close(found.cpu(), transform(x.cpu()))


def test_sizes_that_depend_on_data() -> None:
    step = torch.compile(lambda x: (x[x > 0], x.nonzero()[:, 0], x.masked_select(x < 0)))
    for values in ([1.0, -2.0, 3.0], [-1.0, -1.0, -1.0, 5.0], [0.0]):
        for found, expected in zip(step(numbers(*values)), step.__wrapped__(torch.tensor(values)), strict=True):
            assert found.device.type == "cuda"
            assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.rand(5), lambda: torch.bernoulli(torch.full((4,), 0.5)), lambda: torch.randperm(4)],
    ids=["rand", "bernoulli", "randperm"],
)
def test_draws_that_nobody_reads_move_the_stream_on(draw: Callable[[], Any]) -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        draw()
        return x + 1

    states = []
    with torch.device("cuda"):
        for f in (step, torch.compile(step)):
            torch.manual_seed(3)
            f(numbers(1.0))
            states.append(torch.cuda.get_rng_state().tolist())
    assert states[0] == states[1]


@pytest.mark.parametrize("dropout", [0.5, 0.25])
def test_masks_of_symbolic_sizes_are_those_of_eager_execution(dropout: float) -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, dropout)

    found = []
    for f in (step, torch.compile(step)):
        torch.manual_seed(5)
        found.append([f(torch.ones(n, device="cuda")).tolist() for n in (4, 6, 8, 12, 7, 4)])
    assert found[0] == found[1]


def test_a_decision_on_drawn_numbers() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(x)
        return noise * 2 if noise.sum() > 0 else noise - 1

    found = []
    for f in (step, torch.compile(step)):
        torch.manual_seed(5)
        found.append([f(numbers(1.0, 2.0, 3.0)).tolist() for _ in range(4)])
        found.append(torch.cuda.get_rng_state().tolist())
    assert found[:2] == found[2:]


def test_control_flow_stays_on_the_device() -> None:
    def step(x: torch.Tensor) -> Any:
        chosen = torch.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)
        _, halved = torch.while_loop(
            lambda n, t: n < 3, lambda n, t: (n + 1, t * 0.5), (torch.tensor(0, device=x.device), x)
        )
        last, steps = torch.scan(lambda c, t: (c + t, c.sin()), x[0], x)
        return chosen, halved, last, steps

    compiled = torch.compile(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it does not run on the host
        for values in ([1.0, 2.0, 0.5], [-1.0, -2.0, 0.5]):
            found = compiled(numbers(*values))
            for one, expected in zip(found, step(torch.tensor(values)), strict=True):
                assert one.device.type == "cuda"
                torch.testing.assert_close(one.cpu(), expected)


def test_constants_of_a_capture_lie_on_the_device() -> None:
    @torch.compile
    def step(x: torch.Tensor) -> Any:
        made = torch.tensor([1.0, 2.0], device=x.device)
        return made, made[0], x.new_tensor([3, 4]), x * made

    for _ in range(2):
        found = step(numbers(5.0, 6.0))
        assert [t.device.type for t in found] == ["cuda"] * 4
        assert [t.tolist() for t in found] == [[1.0, 2.0], 1.0, [3.0, 4.0], [5.0, 12.0]]


def test_indices_on_devices_and_bool_tensors_that_are_expanded() -> None:
    flags = torch.tensor([[True, False], [True, True]], device="cuda").expand(3, 2, 2)
    assert flags[torch.tensor([1, 0], device="cuda")].tolist() == flags.cpu()[[1, 0]].tolist()

    @torch.compile
    def step(x: torch.Tensor) -> torch.Tensor:
        x[torch.tensor(1)] += x[torch.tensor(1)]
        return x

    assert step(numbers(1.0, 2.0)).tolist() == [1.0, 4.0]


def test_scans_of_what_is_expanded(cuda: SimulatedDriver) -> None:
    x = numbers(1.0, 2.0).expand(3, 2)
    assert x.cumsum(0).tolist() == [[1, 2], [2, 4], [3, 6]]
    assert x.cummax(0).values.tolist() == [[1, 2]] * 3


def test_powers_of_sizes_and_nothing_at_all() -> None:
    square = torch.compile(lambda x: F.pad(1 - x, (1, 2)), dynamic=True)
    for n in (2, 3, 4):
        x = torch.ones(n, n, n, device="cuda")
        assert square(x).tolist() == F.pad(1 - x.cpu(), (1, 2)).tolist()

    @torch.compile
    def flipped(x: torch.Tensor) -> torch.Tensor:
        return x.copy_(x.flip(0))

    assert flipped(torch.ones(0, 2, device="cuda")).shape == (0, 2)
    assert flipped(numbers(1.0, 2.0)).tolist() == [2.0, 1.0]
    absolute = torch.compile(lambda x: torch.complex(x, x).abs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex numbers have no kernels
        assert absolute(torch.ones(0, 2, device="cuda")).shape == (0, 2)


def test_gradients_that_are_views_of_what_flows_back() -> None:
    """The gradient of a sum is expanded, and lies in no order that a view could count in."""
    x = torch.rand(3, 1, 2, device="cuda").requires_grad_()
    other = torch.rand(3, 1, 2, device="cuda")
    step = torch.compile(lambda y: torch.stack([y, x], 0).unsqueeze(-1))
    for _ in range(2):
        x.grad = None
        step(other).sum().backward()
        assert x.grad is not None and (x.grad == 1).all()


def test_decisions_behind_control_flow_and_lists_of_positions() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        total = torch.scan(lambda c, t: (c + t, c.sin()), x[0], x)[0]
        picked = x[[0, 1]]
        return x * 2 if total + picked.sum() > 3 else x - 1

    compiled = torch.compile(step)
    for values in ([1.0, 2.0, 3.0], [-1.0, -2.0, 3.0]):
        assert compiled(numbers(*values)).tolist() == step(torch.tensor(values)).tolist()


def test_gradcheck_on_a_device() -> None:
    x = torch.tensor([0.5, -1.5], dtype=torch.float64, device="cuda", requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: (t.sin() * t).sum(), x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda t: (t.sin() * t).sum(), x)
    assert x.tolist() == [0.5, -1.5]


def test_an_exported_program_of_a_device(tmp_path: Path) -> None:
    with torch.device("cuda"):
        model, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / "model.pt2")
    for found in (program, torch.export.load(tmp_path / "model.pt2")):
        made = found.module()(x)
        assert made.device == x.device
        torch.testing.assert_close(made, model(x))


def test_the_host_reads_no_element_by_itself() -> None:
    array = numbers(1.0, 2.0)._data
    assert array[0].ndim == 0  # a view: what NumPy makes of a number would have been read
    assert array[0].item() == 1.0
    with pytest.raises(TypeError, match=r"can't be read by the host"):
        array[[0, 1]]


@pytest.mark.parametrize("value", [0.5, 1.5, 3])
def test_integers_truncate_a_number_of_the_call(value: float) -> None:
    x = torch.tensor([2, 3, -1])
    on_device = x.cuda()
    assert torch.addcmul(on_device, on_device, on_device, value=value).tolist() == (x + x * int(value) * x).tolist()


def test_gradients_lie_as_their_leaves_do() -> None:
    x = torch.rand(3, 2, device="cuda").t().requires_grad_()
    for f in (lambda t: (t * t).sum(), torch.compile(lambda t: torch.linalg.norm(t.t(), dim=-1).sum())):
        x.grad = None
        f(x).backward()
        assert x.grad is not None and x.grad.stride() == x.stride()


def test_a_backward_pass_behind_a_decision_and_control_flow() -> None:
    x = numbers(0.5, 2.0).requires_grad_()

    def step(t: torch.Tensor) -> torch.Tensor:
        chosen = torch.as_tensor(t.mean().item() > 0.1, device=t.device)
        return torch.cond(chosen, lambda: t.tanh(), lambda: t / 2).sum()

    for f in (step, torch.compile(step)):
        x.grad = None
        f(x).backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad.cpu(), 1 - x.detach().cpu().tanh() ** 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.max(1).values.sum() + x.median(0).values.sum() + x.cummax(0).values.sum(),
        lambda x: F.adaptive_max_pool2d(x[None], (2, 1)).sum(),
        lambda x: F.pad(x, (1, 2), value=0.5).sum(),
        lambda x: F.conv3d(x[None, None, None], torch.ones(1, 1, 1, 2, 2, device=x.device), padding=(1, 0, 0)).sum(),
        lambda x: F.local_response_norm(x[None, :, :, None], 3).sum(),
        lambda x: x.scatter(0, torch.zeros(1, 3, dtype=torch.int64, device=x.device), 2.0, reduce="add").sum(),
        lambda x: torch.istft(torch.stft(x.reshape(-1), 4, return_complex=True), 4).sum(),
        lambda x: torch.func.vmap(lambda row, i: row[i])(x, torch.tensor([0, 2], device=x.device)).sum(),
    ],
    ids=["folds", "adaptive", "pad", "conv3d", "response", "scatter", "istft", "vmap"],
)
def test_functions_make_what_they_need_on_the_device(function: Callable[[Any], Any]) -> None:
    """No default device helps them."""
    x = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.25, -0.75]])
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fourier transforms have no kernels
        for leaf in (x.clone().requires_grad_(), x.cuda().requires_grad_()):
            made = function(leaf)
            made.backward()
            assert leaf.grad is not None and made.device == leaf.device
            found += [made.detach().cpu(), leaf.grad.cpu()]
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])


def test_numbers_of_integers_quantiles_and_windows_of_nothing() -> None:
    whole = torch.arange(8).reshape(2, 2, 2)
    on_device = whole.cuda()
    found = torch.baddbmm(on_device, on_device, on_device, beta=2, alpha=3)
    assert found.tolist() == torch.baddbmm(whole, whole, whole, beta=2, alpha=3).tolist()
    x = torch.tensor([1.0, 5.0, 2.0])
    assert x.cuda().quantile(0.25).item() == x.quantile(0.25).item()
    scalar = torch.tensor(2.0, device="cuda").requires_grad_()
    (scalar.unfold(0, 1, 1) * 3).sum().backward()
    assert scalar.grad is not None and scalar.grad.item() == 3.0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll(1, 0),
        lambda x: x.roll((1, -2), (0, 0)),
        lambda x: x + (-3) % x.shape[0],
        lambda x: x + (-3) // x.shape[0],
        lambda x: x[(2 - x.shape[0]) % 5 % x.shape[0] :] * 1,
    ],
)
def test_quotients_of_negative_sizes_round_down(function: Callable[[Any], Any]) -> None:
    compiled = torch.compile(function, dynamic=True)
    for n in (4, 7, 9):
        x = torch.arange(float(n))
        assert compiled(x.cuda()).tolist() == function(x).tolist()


def test_results_lie_channels_last() -> None:
    def function(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, weight)
        return x, y, y.relu() + 1, torch.cat([x, x], 1), torch.zeros_like(y), F.max_pool2d(y, 2)

    given = (torch.rand(2, 3, 6, 6), torch.rand(4, 3, 3, 3))
    compiled = torch.compile(function)
    for expected, actual in zip(function(*given), compiled(*(t.cuda() for t in given)), strict=True):
        assert actual.stride() == expected.stride()
        torch.testing.assert_close(actual.cpu(), expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, n: (x**n, n**x, x * n),
        lambda x, n: (F.pad(x, (1, 1), value=n), torch.full_like(x, n)),
        lambda x, n: (F.avg_pool1d(x[None], n), F.max_pool1d(x[None], n)),
        lambda x, n: (F.conv1d(x[None, None], x[None, None, :2], stride=n, padding=n), torch.special.polygamma(n, x)),
    ],
)
def test_numbers_that_are_sizes(function: Callable[[Any, int], Any]) -> None:
    x = torch.arange(1.0, 9.0)
    for compiled, argument in (
        (torch.compile(function), int),
        (torch.compile(lambda x, of: function(x, of.shape[0])), lambda n: torch.zeros(n, device="cuda")),
    ):
        for n in (2, 3, 4, 5):
            for actual, expected in zip(compiled(x.cuda(), argument(n)), function(x, n), strict=True):
                torch.testing.assert_close(actual.cpu(), expected)


def test_images_that_change_between_convolutions() -> None:
    """Each convolution reads a copy by channels of what the image is by then; one image is a result as well."""

    def program(x: Any, w: Any) -> Any:
        first = F.conv2d(x, w, None, 1, 1)
        x.add_(1.0)
        second = F.conv2d(x, w, None, 1, 1)
        x.mul_(first.mean() + 2)
        return first, second, F.conv2d(x, w, None, 2, 1), F.conv2d(first, w, None, 1, 1), x

    x, w = torch.randn(2, 16, 6, 5), torch.randn(16, 16, 3, 3)
    expected = program(x.clone(), w)
    compiled = torch.compile(program)
    for _ in range(2):
        for actual, wanted in zip(compiled(x.cuda(), w.cuda()), expected, strict=True):
            torch.testing.assert_close(actual.cpu(), wanted, rtol=1e-4, atol=1e-3)
    assert compiled.eager_calls == 0
