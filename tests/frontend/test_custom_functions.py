"""`autograd.Function`, tensor hooks and module hooks inside compiled functions: the same gradients as eager
execution."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn


class ScaledExp(torch.autograd.Function):
    """exp, whose backward is told a factor: a wrong derivative on purpose, so that it is seen to be used."""

    @staticmethod
    def forward(ctx, x, factor):
        y = x.exp()
        ctx.save_for_backward(y)
        ctx.factor = factor
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * ctx.factor, None


class TwoResults(torch.autograd.Function):
    """Sum and difference, with a result that carries no gradient."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.set_materialize_grads(False)
        sign = (a > b).to(torch.float32)
        ctx.mark_non_differentiable(sign)
        return a + b, a - b, sign

    @staticmethod
    def backward(ctx, g_sum, g_difference, g_sign):
        zero = None if g_sum is None else g_sum * 0
        g_difference = zero if g_difference is None else g_difference
        return g_sum + g_difference, g_sum - g_difference


class Separate(torch.autograd.Function):
    """The style with `setup_context`."""

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 10 * g * x


def leaf(values=(0.5, -1.0, 2.0)):
    return torch.tensor(values, requires_grad=True)


def one_result(x):
    loss = (ScaledExp.apply(x * 2, 3.0) * torch.arange(3)).sum()
    loss.backward()
    return loss.detach()


def two_results(x):
    total, difference, sign = TwoResults.apply(x, x.flip(0) * 2)
    loss = (total * sign).sum()
    loss.backward()
    return loss.detach(), difference.detach(), sign


def separate(x):
    loss = (Separate.apply(x.sin()) ** 2).sum()
    loss.backward()
    return loss.detach()


def second_derivative(x):
    (g,) = torch.autograd.grad(ScaledExp.apply(x, 2.0).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad((g * g).sum(), x)
    return g.detach(), h


def tensor_hook(x):
    y = x * 3
    y.register_hook(lambda g: g * 10)
    seen = y.exp()
    (seen.sum() + y.sum()).backward()
    return seen.detach()


def leaf_hook_and_retained(x):
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    return y.grad


@pytest.mark.parametrize("backend", ["numpy", "interpreter"])
@pytest.mark.parametrize(
    "function",
    [one_result, two_results, separate, second_derivative, tensor_hook, leaf_hook_and_retained],
    ids=lambda f: f.__name__,
)
def test_same_as_eager(function, backend):
    eager, x = function, leaf()
    compiled, y = torch.compile(function, backend=backend), leaf()
    for _ in range(2):
        expected, actual = eager(x), compiled(y)
        expected = expected if isinstance(expected, tuple) else (expected,)
        actual = actual if isinstance(actual, tuple) else (actual,)
        for a, e in zip(actual, expected):
            np.testing.assert_allclose(a.numpy(), e.numpy(), rtol=1e-6)
        assert (x.grad is None) == (y.grad is None)
        if x.grad is not None:
            np.testing.assert_allclose(y.grad.numpy(), x.grad.numpy(), rtol=1e-6)
    assert len(compiled.specializations) <= 2  # without and with an earlier .grad


def test_module_hooks():
    seen = []

    def run(compiled):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        model[1].register_forward_hook(lambda module, inputs, output: output * 2)
        model[0].register_full_backward_hook(lambda module, grad_input, grad_output: None)

        def step(x):
            loss = model(x).sum()
            loss.backward()
            return loss.detach()

        step = torch.compile(step) if compiled else step
        loss = step(torch.ones(2, 3))
        seen.append([loss.item(), *(p.grad.numpy() for p in model.parameters())])

    run(False)
    run(True)
    for a, e in zip(seen[1], seen[0]):
        np.testing.assert_allclose(a, e, rtol=1e-6)


def test_wrong_number_of_gradients_is_an_error():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    def step(x):
        Wrong.apply(x, x).sum().backward()

    for function in (step, torch.compile(step)):
        x = leaf()
        with pytest.raises(RuntimeError, match="incorrect number of gradients"):
            function(x)
        assert x.grad is None


@pytest.mark.parametrize("function", [lambda x: ScaledExp.apply(x * 2, 3.0), lambda x: Separate.apply(x.sin())])
def test_backward_outside(function):
    compiled = torch.compile(function)
    for size in (3, 3, 5, 4):
        x, y = leaf([0.5] * size), leaf([0.5] * size)
        function(x).sum().backward()
        compiled(y).sum().backward()
        np.testing.assert_allclose(y.grad.numpy(), x.grad.numpy(), rtol=1e-6)
    assert len(compiled.specializations) == 2


SYMBOLIC = {
    "select": lambda x: x.select(0, 1),
    "stepped slice": lambda x: x[::3],
    "narrow": lambda x: x.narrow(0, 1, 2),
    "sum": lambda x: (x * 2).sum(),
    "mean": lambda x: x.exp().mean(0),
    "linear": lambda x: nn.functional.linear(x, torch.arange(12.0).view(4, 3)),
    "flat view": lambda x: x.view(-1),
    "reshaped": lambda x: (x * 2).reshape(3, -1),
    "concatenated": lambda x: torch.cat([x, x * 2]),
    "stacked": lambda x: torch.stack([x, x + 1], 1),
    "gathered": lambda x: x[torch.tensor([1, 0, 1])],
    "masked": lambda x: torch.where(x > 2, x, 0 * x),
    "transposed product": lambda x: x.t() @ x,
    "softmax": lambda x: torch.softmax(x, 0),
    "cumulative": lambda x: x.cumsum(0),
    "padded": lambda x: nn.functional.pad(x, (0, 0, 1, 2)),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_symbolic_sizes_with_backward_outside(name):
    function = SYMBOLIC[name]
    compiled = torch.compile(function)
    for size in (6, 5, 7, 4):
        x = torch.arange(3.0 * size).view(size, 3).requires_grad_()
        y = x.detach().clone().requires_grad_()
        expected, actual = function(x), compiled(y)
        assert expected.shape == actual.shape
        np.testing.assert_allclose(actual.detach().numpy(), expected.detach().numpy(), rtol=1e-5)
        expected.square().sum().backward()
        actual.square().sum().backward()
        np.testing.assert_allclose(y.grad.numpy(), x.grad.numpy(), rtol=1e-5)


# -- derivatives of derivatives, outside ------------------------------------------------------------------------------


class Saving(torch.autograd.Function):
    """Keeps an input, a result, and what forward made inside, which has no derivative in backward."""

    @staticmethod
    def forward(ctx, x, k):
        result, inside = x.exp() * k, x * 2
        ctx.save_for_backward(result, x)
        ctx.inside = inside
        return result

    @staticmethod
    def backward(ctx, g):
        result, x = ctx.saved_tensors
        return g * result + x * x * g * ctx.inside, None


class Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y, x + y, x > 0

    @staticmethod
    def backward(ctx, a, b, c):
        x, y = ctx.saved_tensors
        return a * y + b * x * x, a * x + b


def saving(x):
    return (Saving.apply(x * x, 3.0) * x).sum()


def pair(x):
    p, q, positive = Pair.apply(x.sin(), x * 0.5)
    return (p * q).sum() + positive.sum()


def hooks_that_close_over_tensors(x):
    y, z = x.sin(), x * x
    y.register_hook(lambda g: g * z * 2)
    u = y * y
    u.register_hook(lambda g: g + u)
    return (u * x).sum()


def function_made_inside(x):
    factor = x.detach() * 3

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * 2 * ctx.saved_tensors[0] * factor

    return Square.apply(x).sum()


def gradient_inside(x):
    (g,) = torch.autograd.grad(Saving.apply(x, 2.0).sum(), x, create_graph=True)
    product = g * x
    product.register_hook(lambda g: g * 3)
    return product.sum()


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(
    "function", [saving, pair, hooks_that_close_over_tensors, function_made_inside, gradient_inside]
)
def test_three_derivatives_outside(function, backend):
    found = []
    for f in (function, torch.compile(function, backend=backend)):
        x = torch.tensor([0.5, 0.7], dtype=torch.float64, requires_grad=True)
        derivatives = [f(x)]
        for order in range(3):
            (g,) = torch.autograd.grad(derivatives[-1].sum(), x, create_graph=order < 2)
            derivatives.append(g)
            if not g.requires_grad:
                break
        found.append([d.tolist() for d in derivatives])
    assert len(found[0]) > 2
    for actual, expected in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(actual, expected)


class Cube(torch.autograd.Function):
    """x^3, whose backward reads what it saved."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


def cube_then_scale(a):
    v = a - 2
    y = Cube.apply(v)
    v.mul_(2)
    return y


def cube_then_add_the_result(a):
    v = a - 2
    y = Cube.apply(v)
    v.add_(y.detach())
    return y


@pytest.mark.parametrize("function", [cube_then_scale, cube_then_add_the_result])
@pytest.mark.parametrize("inside", [False, True])
def test_what_a_custom_function_saved_must_not_be_changed(function, inside):
    def step(a):
        y = function(a)
        if inside:
            y.sum().backward()
        return y

    for run in (step, torch.compile(step)):
        a = torch.ones(2, requires_grad=True)
        with pytest.raises(RuntimeError, match="modified by an inplace"):
            run(a).sum().backward()
        assert a.grad is None


def test_what_a_custom_function_saved_may_be_changed_after_the_backward_pass():
    def step(a):
        v = a - 2
        y = Cube.apply(v)
        (g,) = torch.autograd.grad(y.sum(), a)
        v.mul_(2)
        return g, v

    a = torch.ones(2, requires_grad=True)
    for actual, expected in zip(torch.compile(step)(a), step(a), strict=True):
        assert torch.equal(actual, expected)


def hook_on_a_view_of_a_leaf(a):
    v = a.view(-1)
    v.register_hook(lambda g: g * 2)
    return v[1:]


def hook_on_an_expanded_leaf(a):
    v = a.expand(3, *a.shape)
    v.register_hook(lambda g: g * 2)
    return v[0, 0]


def hook_on_a_view_with_two_results(a):
    v = (a * 1).view(-1)
    v.register_hook(lambda g: g * 2)
    return v[1:], v[:1]


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize(
    "function", [hook_on_a_view_of_a_leaf, hook_on_an_expanded_leaf, hook_on_a_view_with_two_results]
)
def test_hooks_on_views_see_the_gradients_of_views_of_these(function):
    grads = []
    for run in (function, torch.compile(function)):
        a = torch.ones(2, 2, requires_grad=True)
        made = run(a)
        sum(t.sum() for t in (made if isinstance(made, tuple) else (made,))).backward()
        grads.append(a.grad)
    assert torch.equal(*grads)
    assert 2.0 in grads[0]


class CubesByAutograd(torch.autograd.Function):
    """sum(x^3), whose backward differentiates what forward recorded."""

    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = (ctx.x * ctx.x * ctx.x).sum()
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, g):
        return torch.autograd.grad(ctx.y, ctx.x, g)[0]


@pytest.mark.parametrize("inside", [False, True])
def test_a_backward_that_differentiates(inside):
    def step(a):
        y = CubesByAutograd.apply(a * 2)
        return torch.autograd.grad(y, a)[0] if inside else y

    found = []
    for run in (step, torch.compile(step, fullgraph=True)):
        a = torch.tensor([1.0, 2.0], requires_grad=True)
        y = run(a)
        if not inside:
            y.backward()
        found.append(y if inside else a.grad)
    assert torch.equal(*found)
    assert found[0].tolist() == [24.0, 96.0]


class Reversed(torch.autograd.Function):
    """The operand itself, with the gradient of its negative."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


def test_a_gradient_reversal_compiles():
    step = torch.compile(lambda a: (Reversed.apply(a * 3) * 2).sum(), fullgraph=True)
    a = torch.ones(3, requires_grad=True)
    step(a).backward()
    assert a.grad.tolist() == [-6.0] * 3


def change_of_the_operand(a):
    b = a * 1
    y = Reversed.apply(b)
    with torch.no_grad():
        b.mul_(5)
    return y.detach()


def change_of_the_result(a):
    b = a * 1
    y = Reversed.apply(b).detach()
    y.mul_(5)
    return b


def both_as_results(a):
    b = a * 1
    return Reversed.apply(b), b


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("function", [change_of_the_operand, change_of_the_result, both_as_results])
def test_results_of_custom_functions_that_are_their_operands(function):
    found = []
    for run in (function, torch.compile(function)):
        made = run(torch.tensor([1.0, 2.0], requires_grad=True))
        made = made if isinstance(made, tuple) else (made,)
        found.append(([t.tolist() for t in made], {t.data_ptr() - made[0].data_ptr() for t in made}))
    assert found[0] == found[1]
