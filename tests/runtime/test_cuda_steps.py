"""Compiled steps on CUDA tensors: the numbers of eager execution on the CPU, in all modes; what a call sends to the
device; and who owns what memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.triton.execution import DeviceExecutable
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytestmark = pytest.mark.usefixtures("cuda")
MODES = ("default", "reduce-overhead")


def training(device: str, wrap: Callable[[Any], Any], optimizer: str = "AdamW") -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).to(device)
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05)

    def step(x: Any, y: Any) -> Any:
        made.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        made.step()
        return loss

    return model, made, wrap(step)


def batches(count: int, rows: int = 5) -> list[tuple[Any, Any]]:
    torch.manual_seed(3)
    return [(torch.randn(rows, 6), torch.randint(0, 3, (rows,))) for _ in range(count)]


def executable_of(step: Any) -> DeviceExecutable:
    found = step.specializations[-1].compiled.executable
    assert isinstance(found, DeviceExecutable)
    return found


OTHERS = ("Adam", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD", "Adafactor")


@pytest.mark.parametrize(
    ("optimizer", "mode"), [*((o, m) for o in ("SGD", "AdamW") for m in MODES), *((o, "default") for o in OTHERS)]
)
def test_a_training_step_gives_what_the_cpu_gives(optimizer: str, mode: str) -> None:
    plain, plain_optimizer, eager = training("cpu", lambda f: f, optimizer)
    model, made, step = training("cuda", lambda f: torch.compile(f, mode=mode), optimizer)
    for i, (x, y) in enumerate(batches(5)):
        for group in (*plain_optimizer.param_groups, *made.param_groups):
            group["lr"] = 0.05 / (i + 1)
        wanted, found = eager(x, y), step(x.cuda(), y.cuda())
        assert found.is_cuda
        np.testing.assert_allclose(found.item(), wanted.item(), 2e-5)
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        assert q.is_cuda and q.grad.is_cuda
        np.testing.assert_allclose(q.detach().cpu().numpy(), p.detach().numpy(), 1e-4, 1e-5)
        np.testing.assert_allclose(q.grad.cpu().numpy(), p.grad.numpy(), 1e-4, 1e-5)
        for name, value in plain_optimizer.state[p].items():
            own = made.state[q][name].cpu().numpy()
            np.testing.assert_allclose(own, value.numpy(), 1e-4, 1e-6, err_msg=name)
    assert len(step.specializations) == 1 and executable_of(step).graphs is (mode != "default")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_numbers_is_copied_between_steps(mode: str, cuda: SimulatedDriver) -> None:
    _, _, step = training("cuda", lambda f: torch.compile(f, mode=mode))
    given = [(x.cuda(), y.cuda()) for x, y in batches(6)]
    for x, y in given[:4]:
        step(x, y)
    torch.cuda.synchronize()
    cuda.log = []
    step(*given[4])
    kinds = [entry[0] for entry in cuda.log]
    assert kinds.count("in") == 1 and "out" not in kinds and "allocate" not in kinds
    (numbers,) = (entry for entry in cuda.log if entry[0] == "in")
    assert numbers[2] < 512  # the learning rate, and the optimizer's step counts
    if mode == "default":
        assert kinds.count("launch") == len(executable_of(step)._only.plan.launches)  # type: ignore[union-attr]
    else:
        assert "launch" not in kinds and kinds.count("graph") == 1
        assert kinds.count("copy") <= 3  # a batch that lies elsewhere than the last one, and the loss


@pytest.mark.parametrize("mode", MODES)
def test_results_own_their_memory(mode: str) -> None:
    @torch.compile(mode=mode)
    def function(x: Any) -> tuple[Any, ...]:
        y = x * 2
        return y, y.sum(), y.t()

    inputs = [torch.full((3, 4), float(i), device="cuda") for i in range(5)]
    kept = [function(x) for x in inputs]
    for i, (y, total, turned) in enumerate(kept):
        assert y.tolist() == [[2.0 * i] * 4] * 3 and total.item() == 24 * i
        y.add_(1)
        assert turned.tolist() == [[2.0 * i + 1] * 3] * 4
    assert inputs[2].tolist() == [[2.0] * 4] * 3


def test_memory_is_freed_between_steps() -> None:
    _, _, step = training("cuda", torch.compile)
    given = [(x.cuda(), y.cuda()) for x, y in batches(3)]
    for x, y in given:
        step(x, y)
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        for x, y in given:
            step(x, y)
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before


@pytest.mark.parametrize("mode", MODES)
def test_parameters_that_move_are_followed(mode: str) -> None:
    weight = torch.ones(4, device="cuda")

    @torch.compile(mode=mode)
    def update(x: Any) -> Any:
        weight.mul_(0.5)
        return (weight * x).sum()

    x = torch.arange(4.0, device="cuda")
    assert [update(x).item() for _ in range(3)] == [3.0, 1.5, 0.75]
    weight.data = torch.full((4,), 8.0, device="cuda")
    assert update(x).item() == 24 and weight.tolist() == [4] * 4
    assert update(x.clone()).item() == 12
    assert update(torch.arange(8.0, device="cuda")[::2]).item() == 12  # not row by row
    assert update(torch.arange(5.0, device="cuda")[1:]).item() == 5  # not on a boundary of 16 bytes


@pytest.mark.parametrize("mode", MODES)
def test_random_numbers_differ_from_call_to_call(mode: str) -> None:
    @torch.compile(mode=mode)
    def function(x: Any) -> Any:
        return nn.functional.dropout(x, 0.5), torch.rand(4, device="cuda")

    x = torch.ones(64, device="cuda")
    torch.manual_seed(11)
    first = [function(x) for _ in range(4)]
    torch.manual_seed(11)
    again = [function(x) for _ in range(4)]
    for (a, b), (c, d) in zip(first, again, strict=True):
        assert a.tolist() == c.tolist() and b.tolist() == d.tolist()
    masks = {tuple((a != 0).tolist()) for a, _ in first}
    assert len(masks) == 4
    torch.manual_seed(11)
    eager = [(nn.functional.dropout(x, 0.5), torch.rand(4, device="cuda")) for _ in range(4)]
    for (a, b), (c, d) in zip(first, eager, strict=True):
        assert a.tolist() == c.tolist() and b.tolist() == d.tolist()


def test_sizes_that_change() -> None:
    _, _, eager = training("cpu", lambda f: f)
    _, _, step = training("cuda", torch.compile)
    for rows in (4, 7, 9, 4, 12):
        ((x, y),) = batches(1, rows)
        np.testing.assert_allclose(step(x.cuda(), y.cuda()).item(), eager(x, y).item(), 2e-5)
    assert len(step.specializations) == 2


def test_backward_outside_of_the_compiled_forward() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    on_device = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).cuda()
    on_device.load_state_dict(model.state_dict())
    compiled = torch.compile(on_device)
    for _ in range(3):
        x = torch.randn(5, 3)
        model(x).square().sum().backward()
        out = compiled(x.cuda())
        assert out.is_cuda and out.grad_fn is not None
        out.square().sum().backward()
    for p, q in zip(model.parameters(), on_device.parameters(), strict=True):
        np.testing.assert_allclose(q.grad.cpu().numpy(), p.grad.numpy(), 1e-4, 1e-5)


def test_steps_without_a_kernel_run_on_the_host() -> None:
    @torch.compile
    def function(a: Any, b: Any) -> Any:
        return torch.linalg.solve(a @ a.t() + torch.eye(3, device="cuda"), b) * 2

    a, b = torch.randn(3, 3), torch.randn(3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = function(a.cuda(), b.cuda())
        again = function(a.cuda(), b.cuda())
    wanted = torch.linalg.solve(a @ a.t() + torch.eye(3), b) * 2
    np.testing.assert_allclose(found.cpu().numpy(), wanted.numpy(), 1e-4, 1e-5)
    assert again.tolist() == found.tolist()


def test_decisions_on_data() -> None:
    @torch.compile
    def function(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    for x in (torch.ones(3), -torch.ones(3), torch.ones(3)):
        wanted = x * 2 if x.sum() > 0 else x - 1
        assert function(x.cuda()).tolist() == wanted.tolist()


def test_results_of_both_devices() -> None:
    @torch.compile
    def function(x: Any, scale: Any) -> Any:
        return x * scale, (x + 1).cpu()

    for factor in (2.0, 3.0):
        on, off = function(torch.ones(3, device="cuda"), torch.tensor(factor))
        assert on.is_cuda and not off.is_cuda and on.tolist() == [factor] * 3 and off.tolist() == [2, 2, 2]


def test_cpu_tensors_through_the_backend_by_name() -> None:
    @torch.compile(backend="triton")
    def function(x: Any) -> Any:
        x.add_(1)
        return x.exp(), x.sum()

    x = torch.zeros(3)
    made, total = function(x)
    assert x.tolist() == [1, 1, 1] and not made.is_cuda and total.item() == 3
    np.testing.assert_allclose(made.numpy(), np.exp(np.ones(3)), 1e-6)


def test_modes_are_checked() -> None:
    with pytest.raises(RuntimeError, match="Unrecognized mode=fast"):
        torch.compile(lambda x: x, mode="fast")
    with pytest.raises(RuntimeError, match="Unexpected optimization option magic"):
        torch.compile(lambda x: x, options={"magic": True})
    function = lambda x: x + 1  # noqa: E731
    assert torch.compile(function, disable=True) is function
    assert torch.compile(function, mode="max-autotune")(torch.ones(2)).tolist() == [2, 2]


def test_a_checked_function_is_put_back_before_it_runs_again() -> None:
    @torch.compile(check=True)
    def function(x: Any) -> Any:
        x.add_(1)
        return (x * 2).sum()

    x = torch.ones(3, device="cuda")
    assert [function(x).item() for _ in range(3)] == [12, 18, 24] and x.tolist() == [4, 4, 4]


def test_explain_names_the_backend() -> None:
    function = torch.compile(lambda x: (x * 2).sum())
    function(torch.ones(3, device="cuda"))
    text = str(function.explain())
    assert "compiled for the triton backend" in text and "x: f32[3]@cuda:0" in text


@pytest.mark.parametrize("reached", ["arguments", "closure"])
def test_the_order_of_sums_is_a_guard(reached: str) -> None:
    x, s = torch.zeros(4, 3, device="cuda"), torch.ones(5, 3, device="cuda")
    i = torch.tensor([0, 1, 1, 3, 1], device="cuda")
    given = (x, i, s) if reached == "arguments" else ()
    add = torch.compile(lambda *a: x.index_add(0, i, s) if not a else a[0].index_add(0, a[1], a[2]))
    wanted = [[1.0] * 3, [3.0] * 3, [0.0] * 3, [1.0] * 3]
    try:
        for ordered in (False, True, False, True):
            torch.use_deterministic_algorithms(ordered)
            assert torch.are_deterministic_algorithms_enabled() is ordered
            for _ in range(2):
                assert add(*given).tolist() == wanted
                assert torch.zeros(4, 3, device="cuda").index_add_(0, i, s).tolist() == wanted
    finally:
        torch.use_deterministic_algorithms(False)
    sources = ["".join(s.compiled.executable.sources().values()) for s in add.specializations]
    assert ["atomic" in text for text in sources] == [True, False]


def test_updates_in_place_beside_long_folds_are_made_once(cuda: SimulatedDriver) -> None:
    """Sums over many rows are cut into parts, whose programs must not each update the running statistics, parameters
    and momenta that are fused with them."""

    def train(device: str, wrap: Callable[..., Any]) -> list[Any]:
        torch.manual_seed(0)
        layers = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 8), nn.BatchNorm1d(8)
        model = nn.Sequential(*layers).to(device)
        made = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        x = (torch.randn(1536, 8) + 2).to(device)

        def step(x: Any) -> Any:
            made.zero_grad()
            loss = (model(x) * x).sin().mean()
            loss.backward()
            made.step()
            return loss

        run = wrap(step)
        losses = [run(x).detach() for _ in range(2)]
        return [*losses, *(t.detach() for t in model.state_dict().values())]

    wanted = train("cpu", lambda f: f)
    for mode in ("default", "reduce-overhead"):
        for mine, theirs in zip(train("cuda", lambda f, m=mode: torch.compile(f, mode=m)), wanted, strict=True):
            np.testing.assert_allclose(mine.cpu().numpy(), theirs.numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_results_that_are_views_at_a_place_on_the_device(mode: str) -> None:
    x = torch.arange(12.0, device="cuda").reshape(4, 3)
    f = torch.compile(lambda x, i: x[i], mode=mode)
    for i in (2, 0, -1):
        found = f(x, torch.tensor(i, device="cuda"))
        assert found.is_cuda and torch.equal(found.cpu(), x.cpu()[i])
        assert found.data_ptr() == x[i].data_ptr()
