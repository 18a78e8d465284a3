"""Transforms and what surrounds them: modules, the outer tape, compiled functions, custom functions, randomness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import Tensor, nn
from graphtorch.func import (
    functional_call,
    functionalize,
    grad,
    hessian,
    jacrev,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vjp,
    vmap,
)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(100), nn.Linear(100, 3)
    )


def test_gradients_of_each_sample() -> None:
    model = classifier()
    parameters = {k: v.detach() for k, v in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        out = functional_call(model, parameters, (x.unsqueeze(0),))
        return nn.functional.cross_entropy(out, y.unsqueeze(0))

    x, y = torch.randn(6, 1, 12, 12), torch.randint(0, 3, (6,))
    each = vmap(grad(loss), in_dims=(None, 0, 0))
    found = each(parameters, x, y)
    compiled = torch.compile(each, fullgraph=True)
    for values in (found, compiled(parameters, x, y), compiled(parameters, x, y)):
        for i in range(6):
            model.zero_grad()
            nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                close(values[name][i], parameter.grad)


def test_a_batch_whose_size_changes_is_compiled_twice() -> None:
    weights = torch.randn(4, 5)
    each = torch.compile(vmap(grad(lambda w, x: (x @ w).tanh().sum()), in_dims=(None, 0)), fullgraph=True)
    for count in (3, 5, 8, 13, 3):
        x = torch.randn(count, 4)
        found = each(weights, x)
        close(found[-1], grad(lambda w, x=x: (x[-1] @ w).tanh().sum())(weights))
    assert len(each.specializations) == 2


def test_an_ensemble() -> None:
    models = [nn.Linear(3, 2) for _ in range(4)]
    parameters, buffers = stack_module_state(models)
    assert buffers == {} and parameters["weight"].shape == (4, 2, 3) and parameters["weight"].requires_grad
    x = torch.randn(5, 3)
    out = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)), in_dims=(0, 0, None))(parameters, buffers, x)
    for i, model in enumerate(models):
        close(out[i], model(x))
    out.sum().backward()
    assert parameters["weight"].grad is not None and parameters["weight"].grad.shape == (4, 2, 3)
    assert models[0].weight.grad is None


def test_functional_call_puts_everything_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {k: id(v) for k, v in model.state_dict(keep_vars=True).items()}
    given = {"0.weight": torch.zeros(2, 2), "1.running_mean": torch.zeros(2)}
    functional_call(model, given, (torch.randn(4, 2),))
    assert {k: id(v) for k, v in model.state_dict(keep_vars=True).items()} == before
    assert given["1.running_mean"].abs().sum() > 0, "the buffer that was given is updated, as a module's own would be"
    assert model[1].running_mean.abs().sum() == 0


def test_functional_call_of_tied_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, bias=False)
            self.two = nn.Linear(2, 2, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))  # type: ignore[no-any-return]

    model, x = Tied(), torch.ones(1, 2)
    twice = {"one.weight": 2 * torch.eye(2)}
    close(functional_call(model, twice, (x,)), 4 * x)
    close(functional_call(model, twice, (x,), tie_weights=False), (2 * x) @ model.one.weight.detach().T)
    with pytest.raises(ValueError, match="multiple values"):
        functional_call(model, {**twice, "two.weight": torch.eye(2)}, (x,))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        functional_call(model, {"three": x}, (x,), strict=True)
    with pytest.raises(KeyError):
        functional_call(model, {"three": x}, (x,))


def test_the_outer_tape_sees_through_a_transform() -> None:
    w = torch.randn(4, requires_grad=True)
    x = torch.randn(3, 4)
    g = grad(lambda a: (a * w).pow(3).sum())(x)
    (found,) = torch.autograd.grad(g.sum(), w)
    close(found, (9 * x**2 * w.detach() ** 2).sum(0))
    with torch.no_grad():
        assert not grad(lambda a: (a * w).pow(3).sum())(x).requires_grad


def test_batched_cotangents_of_autograd_grad() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.exp() * x
    (rows,) = torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    close(rows, torch.diag((x.exp() * (x + 1)).detach()))


def test_a_compiled_function_inside_a_transform() -> None:
    compiled = torch.compile(lambda a: a.sin().sum())
    x = torch.randn(3, 4)
    close(grad(compiled)(x), x.cos())
    close(vmap(grad(compiled))(x), x.cos())
    close(vmap(compiled)(x), x.sin().sum(1))


def test_transforms_in_a_compiled_training_step() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 4)

    def physics(a: Tensor) -> Tensor:
        return model(a).squeeze(-1)  # type: ignore[no-any-return]

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        # The derivative of the model in its input is part of the loss, as in physics-informed networks.
        loss = (vmap(grad(physics))(x).sum(-1) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    start = {k: v.clone() for k, v in model.state_dict().items()}
    eager = [step(x).item() for _ in range(4)]
    model.load_state_dict(start)
    compiled = torch.compile(step, fullgraph=True)
    found = [compiled(x).item() for _ in range(4)]
    np.testing.assert_allclose(found, eager, rtol=1e-4)
    assert eager[-1] < eager[0]


def test_randomness() -> None:
    ones = torch.ones(4, 50)
    different = vmap(lambda x: x * torch.rand(50), randomness="different")(ones)
    assert not torch.equal(different[0], different[1])
    same = vmap(lambda x: x * torch.rand(50), randomness="same")(ones)
    assert torch.equal(same[0], same[1])
    dropped = vmap(nn.functional.dropout, randomness="different")(ones)
    assert not torch.equal(dropped[0], dropped[1]) and set(dropped.unique().tolist()) == {0.0, 2.0}
    masks = vmap(nn.functional.dropout, randomness="same")(ones)
    assert torch.equal(masks[0], masks[1])
    orders = vmap(lambda x: torch.randperm(50), randomness="different")(ones)
    assert orders.sort(1).values.tolist() == [list(range(50))] * 4
    torch.manual_seed(1)
    first = vmap(lambda x: x + torch.randn(3, 50), randomness="different")(ones)
    torch.manual_seed(1)
    close(first, ones.unsqueeze(1) + torch.randn(4, 3, 50))


class Cube(torch.autograd.Function):
    """x**3 with a backward that is wrong on purpose: whoever differentiates x**3 instead of calling it is found."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 7 * g * x


def test_custom_functions() -> None:
    x = torch.randn(3)
    close(grad(lambda x: Cube.apply(x).sum())(x), 7 * x)
    close(vmap(grad(Cube.apply))(x), 7 * x)
    close(grad(lambda x: vmap(Cube.apply)(x).sum())(x), 7 * x)
    close(vmap(grad(grad(Cube.apply)))(x), torch.full((3,), 7.0))

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

    with pytest.raises(RuntimeError, match="setup_context"):
        grad(lambda x: Plain.apply(x).sum())(x)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            assert info.batch_size == 3 and in_dims == (0,)
            return x * 5, 0

    close(vmap(Own.apply)(x), 5 * x)
    with pytest.raises(RuntimeError, match="does not have vmap support"):
        vmap(Plain.apply)(x)


def test_a_pullback_may_be_used_again_and_inside_other_transforms() -> None:
    x = torch.randn(3)
    value, pull = vjp(lambda a: a.sin() * a.sum(), x)
    close(value, x.sin() * x.sum())
    rows = torch.stack([pull(row)[0] for row in torch.eye(3)])
    close(vmap(lambda row: pull(row)[0])(torch.eye(3)), rows)
    close(jacrev(lambda a: a.sin() * a.sum())(x), rows)
    with pytest.raises(RuntimeError, match="structure of cotangents"):
        pull((x, x))


def test_hessian_of_a_model_beside_autograd() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(3)
    mine = hessian(lambda a: model(a).sum())(x)
    theirs = torch.autograd.functional.hessian(lambda a: model(a).sum(), x)
    close(mine, theirs)


def test_batch_norm_without_running_statistics() -> None:
    model = replace_all_batch_norm_modules_(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    x = torch.randn(5, 4, 3)
    out = vmap(lambda x: functional_call(model, parameters, (x,)), randomness="error")(x)
    for i in range(5):
        close(out[i], model(x[i]), 1e-4)


def test_printing_inside_shows_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    def show(x: Tensor) -> Tensor:
        print(x)
        return x.sum()

    vmap(grad(show))(torch.ones(2, 3))
    assert capsys.readouterr().out.startswith(
        "GradTrackingTensor(value=\n    BatchedTensor(value=\n        tensor([[1., 1"
    )


def test_a_failed_transform_leaves_no_level_behind() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    for transform in (grad, vmap, hessian):
        with pytest.raises(ValueError, match="no"):
            transform(fail)(torch.ones(2))
        assert torch.ones(2).sum().item() == 2.0 and torch.is_grad_enabled()


def test_functionalize() -> None:
    def f(x: Tensor) -> Tensor:
        x[0] = 5.0
        return x.add_(1) * 2

    a, b = torch.ones(3), torch.ones(3)
    close(functionalize(f)(a), f(b))
    close(a, b)
    with pytest.raises(RuntimeError, match="invalid argument for remove"):
        functionalize(f, remove="all")
