"""Eager autograd does what PyTorch does: the same small programs run in both, and values, errors and side effects
agree.

A program takes the namespace (`graphtorch` or `torch`) and returns tensors, numbers and strings; what it raises counts
too.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

PROGRAMS: dict[str, Callable[[Any], Any]] = {}


def program(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    PROGRAMS[function.__name__] = function
    return function


def plain(value: Any) -> Any:
    """Results as NumPy and Python values."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, graphtorch.Tensor | torch.Tensor):
        return (str(value.dtype), tuple(value.shape), np.array(value.detach().tolist()), value.requires_grad)
    return value


def outcome(function: Callable[[Any], Any], namespace: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(function(namespace))
        except Exception as error:
            # Our messages go on with the call and the user's line; the hints of some of PyTorch's are its own.
            first = str(error).split("\n")[0]
            return f"{type(error).__name__}: {first}"


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs), f"{ours} is not {theirs}"
    if isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(ours, tuple):
        assert ours[:2] == theirs[:2] and ours[3] == theirs[3], f"{ours} is not {theirs}"
        np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-5, atol=1e-6)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-5, nan_ok=True)
    else:
        assert ours == theirs


# -- the engine -------------------------------------------------------------------------------------------------------


@program
def gradients_accumulate(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    first = x.grad.clone()
    (x * 3).sum().backward()
    return first, x.grad


@program
def a_leaf_used_twice(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x * x + x.exp() * x).sum().backward()
    return x.grad


@program
def backward_twice_needs_retain(t: Any) -> Any:
    x = t.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward()
    y.backward()


@program
def retain_graph(t: Any) -> Any:
    x = t.tensor(2.0, requires_grad=True)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


@program
def a_graph_without_saved_values_runs_twice(t: Any) -> Any:
    x = t.tensor(2.0, requires_grad=True)
    y = x + 1
    y.backward()
    y.backward()
    return x.grad


@program
def gradient_of_non_scalar(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).backward()


@program
def gradient_of_wrong_shape(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).backward(t.ones(3))


@program
def backward_without_history(t: Any) -> Any:
    t.tensor([1.0]).sum().backward()


@program
def create_graph_twice(t: Any) -> Any:
    x = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x**3).sum()
    (first,) = t.autograd.grad(y, x, create_graph=True)
    (second,) = t.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = t.autograd.grad(second.sum(), x)
    return first, second, third


@program
def backward_with_create_graph(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    (g * g).sum().backward()
    return g, x.grad


@program
def grad_of_several(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    w = t.tensor([3.0, 4.0], requires_grad=True)
    y, z = (x * w).sum(), (x + w * w).sum()
    return t.autograd.grad([y, z], [x, w], grad_outputs=[t.tensor(1.0), t.tensor(2.0)])


@program
def grad_of_unused_input(t: Any) -> Any:
    x, w = (t.tensor([1.0], requires_grad=True) for _ in range(2))
    t.autograd.grad(x.sum(), w)


@program
def grad_allow_unused(t: Any) -> Any:
    x, w = (t.tensor([1.0], requires_grad=True) for _ in range(2))
    return [g is None for g in t.autograd.grad((x * 2).sum(), [x, w], allow_unused=True)]


@program
def grad_materialize(t: Any) -> Any:
    x, w = (t.tensor([1.0], requires_grad=True) for _ in range(2))
    return t.autograd.grad((x * 2).sum(), [x, w], materialize_grads=True)


@program
def grad_of_input_without_grad(t: Any) -> Any:
    t.autograd.grad(t.tensor([1.0], requires_grad=True).sum(), t.tensor([1.0]))


@program
def grad_of_intermediate(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    h = x * x
    return t.autograd.grad((h * 3).sum(), [h, x])


@program
def backward_with_inputs(t: Any) -> Any:
    x, w = (t.tensor([2.0], requires_grad=True) for _ in range(2))
    (x * w).sum().backward(inputs=[x])
    return x.grad, w.grad is None


@program
def backward_of_several_roots(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    t.autograd.backward([x.sum(), (x * x).sum()])
    return x.grad


@program
def retain_grad_of_intermediate(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    h.retain_grad()
    (h * h).sum().backward()
    return h.grad, x.grad, h.retains_grad


@program
def no_grad_results(t: Any) -> Any:
    x = t.tensor([1.0], requires_grad=True)
    with t.no_grad():
        y = x * 2
        with t.enable_grad():
            z = x * 2
    return y, z, t.is_grad_enabled()


@program
def no_grad_as_decorator(t: Any) -> Any:
    @t.no_grad()
    def double(x: Any) -> Any:
        return x * 2

    return double(t.tensor([1.0], requires_grad=True))


@program
def set_grad_enabled_restores(t: Any) -> Any:
    with t.set_grad_enabled(False):
        inside = t.is_grad_enabled()
    return inside, t.is_grad_enabled()


@program
def detach_stops_gradients(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    (x * x.detach()).sum().backward()
    return x.grad, x.detach()


@program
def detach_shares_memory(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    x.detach()[0] = 5.0
    return x


@program
def broadcasting_gradients(t: Any) -> Any:
    a = t.ones(3, 1, requires_grad=True)
    b = t.ones(4, requires_grad=True)
    c = t.tensor(2.0, requires_grad=True)
    (a * b * c).sum().backward()
    return a.grad, b.grad, c.grad


@program
def mixed_dtype_gradients(t: Any) -> Any:
    a = t.ones(2, dtype=t.float32, requires_grad=True)
    b = t.ones(2, dtype=t.float64, requires_grad=True)
    (a * b).sum().backward()
    return a.grad, b.grad


@program
def integer_tensors_carry_no_gradient(t: Any) -> Any:
    x = t.tensor([1.5, 2.5], requires_grad=True)
    return x.long(), (x > 2), x.argmax()


@program
def requires_grad_of_integers(t: Any) -> Any:
    t.tensor([1]).requires_grad_()


@program
def requires_grad_of_non_leaf(t: Any) -> Any:
    (t.tensor([1.0], requires_grad=True) * 2).requires_grad_(False)


@program
def grad_attribute_of_other_shape(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    x.grad = t.ones(3)


@program
def grad_fn_names(t: Any) -> Any:
    x = t.ones(2, 2, requires_grad=True)
    values = [x * 2, x + 1, x - 1, -x, x.exp(), x @ x, x.relu(), x.mean(), x.t(), x.clone(), x.sigmoid(), x.double()]
    return [v.grad_fn.name() for v in values] + [x.grad_fn is None, x.is_leaf, values[0].is_leaf]


# -- hooks ------------------------------------------------------------------------------------------------------------


@program
def tensor_hook_replaces(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    h.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    h.sum().backward()
    return x.grad


@program
def hooks_run_in_order_and_are_removed(t: Any) -> Any:
    seen = []
    x = t.tensor([1.0], requires_grad=True)
    h = x * 2
    one = h.register_hook(lambda g: seen.append("one"))
    h.register_hook(lambda g: seen.append("two"))
    h.sum().backward(retain_graph=True)
    one.remove()
    h.sum().backward()
    return seen


@program
def hook_on_tensor_without_grad(t: Any) -> Any:
    t.ones(1).register_hook(lambda g: g)


@program
def post_accumulate_hook(t: Any) -> Any:
    seen = []
    x = t.tensor([1.0, 2.0], requires_grad=True)
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.tolist()))
    (x * 3).sum().backward()
    (x * 3).sum().backward()
    return seen


@program
def node_hooks(t: Any) -> Any:
    seen = []
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.grad_fn.register_prehook(lambda gs: seen.append([g.tolist() for g in gs]))
    y.grad_fn.register_hook(lambda gi, go: seen.append([None if g is None else g.tolist() for g in gi]))
    y.sum().backward()
    return seen


# -- in-place changes -------------------------------------------------------------------------------------------------


@program
def in_place_on_leaf(t: Any) -> Any:
    t.tensor([1.0], requires_grad=True).add_(1)


@program
def in_place_on_leaf_under_no_grad(t: Any) -> Any:
    x = t.tensor([1.0], requires_grad=True)
    with t.no_grad():
        x.add_(1)
    return x, x._version


@program
def in_place_on_intermediate(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.mul_(3)
    y += x
    y.sum().backward()
    return y, x.grad


@program
def saved_value_was_changed(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y.add_(1)
    y.sum().backward()


@program
def unsaved_value_may_change(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = x + 1
    z = y + 1
    y.mul_(2)
    (z + y).sum().backward()
    return x.grad


@program
def in_place_on_view_of_leaf(t: Any) -> Any:
    t.ones(2, 2, requires_grad=True)[0].mul_(2)


@program
def in_place_on_view(t: Any) -> Any:
    x = t.ones(2, 3, requires_grad=True)
    y = x * 2
    y[0].mul_(5)
    y[:, 1] = 7.0
    y.sum().backward()
    return y, x.grad


@program
def in_place_on_base_reaches_views(t: Any) -> Any:
    x = t.ones(2, 3, requires_grad=True)
    y = x * 2
    row = y[0]
    y.mul_(3)
    (row * row).sum().backward()
    return row, x.grad


@program
def in_place_on_view_reaches_other_views(t: Any) -> Any:
    x = t.ones(4, requires_grad=True)
    y = x * 2
    a, b = y[:2], y.view(2, 2)
    a.mul_(10)
    (b * t.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    return b, x.grad


@program
def write_of_a_differentiated_value(t: Any) -> Any:
    x = t.tensor([1.0, 2.0], requires_grad=True)
    w = t.tensor(3.0, requires_grad=True)
    y = t.zeros(3)
    y[0] = w * 2
    y[1:] = x * w
    (y * y).sum().backward()
    return y, x.grad, w.grad


@program
def view_of_view_in_place(t: Any) -> Any:
    x = t.arange(12.0).reshape(3, 4).requires_grad_()
    y = x * 1
    y.t()[1:3][:, 0].mul_(10)
    (y * y).sum().backward()
    return y, x.grad


@program
def versions(t: Any) -> Any:
    x = t.zeros(3)
    seen = [x._version]
    x.add_(1)
    seen.append(x._version)
    view = x[:2]
    view.mul_(2)
    seen += [x._version, view._version]
    x.data.add_(1)
    seen.append(x._version)
    x.detach().add_(1)
    seen.append(x._version)
    return seen


@program
def in_place_result_type(t: Any) -> Any:
    t.tensor([1, 2]).add_(1.5)


@program
def in_place_shape(t: Any) -> Any:
    t.ones(2).add_(t.ones(3, 2))


@program
def in_place_keeps_identity(t: Any) -> Any:
    x = t.ones(2)
    y = x
    y += 1
    y.sub_(3).abs_().clamp_(max=0.5)
    return x is y, x


@program
def copy_into_view(t: Any) -> Any:
    x = t.zeros(2, 2)
    w = t.tensor([1.0, 2.0], requires_grad=True)
    x[0].copy_(w)
    (x * 3).sum().backward()
    return x, w.grad


@program
def view_made_under_no_grad(t: Any) -> Any:
    x = t.ones(2, requires_grad=True) * 2
    with t.no_grad():
        view = x[:1]
    view.mul_(2)


@program
def optimizer_step_by_hand(t: Any) -> Any:
    w = t.tensor([1.0, -2.0], requires_grad=True)
    for _ in range(3):
        loss = (w * w).sum()
        loss.backward()
        with t.no_grad():
            w -= 0.1 * w.grad
            w.grad.zero_()
    return w, w.grad


# -- out= -------------------------------------------------------------------------------------------------------------


@program
def out_is_written_and_returned(t: Any) -> Any:
    out = t.empty(2)
    result = t.add(t.tensor([1.0, 2.0]), 1, out=out)
    return result is out, out


@program
def out_is_resized(t: Any) -> Any:
    out = t.empty(0)
    t.mul(t.ones(2, 3), 2, out=out)
    return out


@program
def out_casts(t: Any) -> Any:
    out = t.empty(2, dtype=t.float64)
    t.add(t.tensor([1.0, 2.0]), 1, out=out)
    return out


@program
def out_of_lower_category(t: Any) -> Any:
    t.add(t.tensor([1.0]), 1, out=t.empty(1, dtype=t.int64))


@program
def out_with_grad(t: Any) -> Any:
    t.add(t.tensor([1.0], requires_grad=True), 1, out=t.empty(1))


# -- Function ---------------------------------------------------------------------------------------------------------


@program
def custom_function(t: Any) -> Any:
    class Cube(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 3 * x * x * g

    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = Cube.apply(x)
    (first,) = t.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = t.autograd.grad(first.sum(), x)
    return y, first, second, y.grad_fn.name()


@program
def custom_function_with_several(t: Any) -> Any:
    class Split(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            ctx.factor = factor
            return x * factor, (x > 0)

        @staticmethod
        def backward(ctx: Any, g: Any, _: Any) -> Any:
            return g * ctx.factor, None

    x = t.tensor([1.0, -2.0], requires_grad=True)
    y, positive = Split.apply(x, 3.0)
    y.sum().backward()
    return y, positive, x.grad


@program
def custom_function_returns_too_few(t: Any) -> Any:
    class Product(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x * y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    a, b = (t.tensor([1.0], requires_grad=True) for _ in range(2))
    Product.apply(a, b).sum().backward()


# -- promotion and conversions ----------------------------------------------------------------------------------------


@program
def promotion_of_numbers(t: Any) -> Any:
    i, f, b = t.tensor([1, 2]), t.tensor([1.0, 2.0]), t.tensor([True, False])
    return [
        i + 1,
        i + 1.5,
        i * True,
        f + 1,
        b + 1,
        b + 1.5,
        b + True,
        i / 2,
        i // 2,
        i**2,
        2**i,
        2.0**i,
        1 - b.int(),
        i / i,
    ]


@program
def promotion_of_zero_dim(t: Any) -> Any:
    zero, vector = t.tensor(1.5, dtype=t.float64), t.ones(2)
    return [
        vector + zero, t.ones(2, dtype=t.int32) + zero, t.tensor([1], dtype=t.int8) + t.tensor(300), zero + t.tensor(1),
        t.tensor([1], dtype=t.uint8) + t.tensor([1], dtype=t.int8), vector.half() + vector.bfloat16(),
        vector.half() + zero,
    ]  # fmt: skip


@program
def result_types(t: Any) -> Any:
    names = (
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
    )
    kinds = [getattr(t, n) for n in names]
    return [str(t.promote_types(a, b)) for a in kinds for b in kinds] + [
        str(t.can_cast(a, b)) for a in kinds for b in kinds
    ]


@program
def conversions(t: Any) -> Any:
    x = t.tensor([-1.7, 0.0, 2.5])
    return [
        x.to(t.int32), x.to("cpu", t.float64), x.to(t.zeros(1, dtype=t.int64)), x.bool(), x.half(), x.to(x.dtype) is x,
        x.to(x.dtype, copy=True) is x, x.type(), x.type_as(t.zeros(1).double()), x.long().float(), x.cpu() is x,
    ]  # fmt: skip


@program
def division_rules(t: Any) -> Any:
    a, b = t.tensor([7, -7, 7, -7]), t.tensor([2, 2, -2, -2])
    x, y = a.double(), b.double()
    return [
        f(p, q)
        for p, q in ((a, b), (x, y))
        for f in (
            t.div, t.floor_divide, t.remainder, t.fmod,
            lambda p, q: t.div(p, q, rounding_mode="floor"), lambda p, q: t.div(p, q, rounding_mode="trunc"),
        )
    ]  # fmt: skip


@program
def default_dtype(t: Any) -> Any:
    t.set_default_dtype(t.float64)
    try:
        return [t.tensor([1.5]), t.ones(2), t.tensor([1, 2]) / 2, t.arange(3) * 0.5, t.get_default_dtype() is t.float64]
    finally:
        t.set_default_dtype(t.float32)


@program
def reflected_operators(t: Any) -> Any:
    x = t.tensor([2.0, 4.0])
    return [1 + x, 1 - x, 3 * x, 1 / x, 7 // x, 7 % x, 2**x, x == 1, x < 3, np.float32(2) * x, x * np.float64(2)]


@program
def operators_refuse(t: Any) -> Any:
    found = []
    for wrong in ("a", None, [1.0], object()):
        try:
            t.ones(1) + wrong
        except TypeError as error:
            found.append(re.sub(r"\n.*", "", str(error), flags=re.DOTALL))
    return [*found, t.ones(1) == "a", t.ones(1) != None]  # noqa: E711


@program
def max_overloads(t: Any) -> Any:
    x = t.tensor([[1.0, 5.0, 5.0], [7.0, 2.0, 7.0]], requires_grad=True)
    values, indices = x.max(dim=1)
    whole, both = x.max(), t.max(x, t.full((3,), 4.0))
    (values.sum() + whole + both.sum()).backward()
    return values, indices, whole, both, x.grad


@program
def ties_share_gradients(t: Any) -> Any:
    x = t.tensor([1.0, 3.0, 3.0], requires_grad=True)
    y = t.tensor([1.0, 2.0, 4.0], requires_grad=True)
    (x.amax() + t.maximum(x, y).sum() + t.minimum(x, y).sum()).backward()
    return x.grad, y.grad


@program
def zeros_in_products(t: Any) -> Any:
    grads = []
    for values in ([2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 3.0, 0.0]):
        for fold in (lambda x: x.prod(), lambda x: x.cumprod(0).sum(), lambda x: (x.cumprod(0) * x).sum()):
            x = t.tensor(values, requires_grad=True)
            fold(x).backward()
            grads.append(x.grad)
    return grads


@program
def norms_at_zero(t: Any) -> Any:
    grads = []
    for p in (1, 2, 3, float("inf")):
        x = t.zeros(3, requires_grad=True)
        t.linalg.vector_norm(x, p).backward()
        grads.append(x.grad)
    return grads


@program
def where_and_masks(t: Any) -> Any:
    x = t.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = t.where(x > 0, x * 2, 0.0) + x.masked_fill(x < 0, 1.5) + t.where(x > 2, 1, x)
    y.sum().backward()
    return y, x.grad, t.where(x > 0)


@program
def clamped(t: Any) -> Any:
    x = t.tensor([-2.0, 0.0, 1.0, 3.0], requires_grad=True)
    low = t.tensor(0.0, requires_grad=True)
    (x.clamp(0, 1) * 2 + x.clamp(min=low) + x.clamp_max(2)).sum().backward()
    return x.grad, low.grad


@program
def powers(t: Any) -> Any:
    x = t.tensor([0.0, 1.0, 2.0], requires_grad=True)
    e = t.tensor([0.0, 2.0, 3.0], requires_grad=True)
    (x**2 + x**0 + x**e + 2.0**e + 0.0**e).sum().backward()
    return x.grad, e.grad


@program
def creation(t: Any) -> Any:
    return [
        t.arange(5), t.arange(1, 6, 2), t.arange(0.0, 1.0, 0.25), t.arange(3.0, 0.0, -1), t.linspace(-1, 1, 6),
        t.eye(2, 3),
        t.full((2,), 3), t.full((2,), 3.5), t.full((2,), True), t.zeros(2, 1), t.ones((2,), dtype=t.int32),
        t.zeros_like(t.ones(2, dtype=t.int64)), t.tensor([[1, 2], [3, 4]]), t.tensor([1, 2.5]), t.tensor(True),
        t.tensor([]),
        t.tensor(np.array([1.0])), t.as_tensor([1, 2]), t.from_numpy(np.ones(2, np.float32)), t.tensor(1 + 2j),
        t.tensor([t.tensor(1.0), 2.0]), t.logspace(0, 2, 3), t.tril_indices(3, 3), t.ones(2).new_zeros(3),
        t.Tensor([1, 2]),
        t.linspace(0, 10, 5, dtype=t.int64), t.scalar_tensor(2), t.empty(0, 3), t.ones(2).new_tensor([1, 2]),
    ]  # fmt: skip


# -- derivatives as functions -----------------------------------------------------------------------------------------


@program
def jacobians(t: Any) -> Any:
    x, w = t.tensor([1.0, 2.0]), t.tensor([[1.0, 2.0], [3.0, 4.0]])
    functional = t.autograd.functional
    return [
        functional.jacobian(lambda a: a.exp() * a[0], x),
        functional.jacobian(lambda a, b: (b @ a, (a * a).sum()), (x, w)),
        functional.hessian(lambda a: (a**3).sum() * a[0], x),
        functional.hessian(lambda a, b: (b @ a * a).sum(), (x, w)),
    ]


@program
def vector_products(t: Any) -> Any:
    x, v = t.tensor([1.0, 2.0]), t.tensor([0.5, -1.0])
    functional = t.autograd.functional
    return [
        functional.vjp(lambda a: a.exp() * a[0], x, v),
        functional.jvp(lambda a: a.exp() * a[0], x, v),
        functional.hvp(lambda a: (a**3).sum() * a[0], x, v),
        functional.vhp(lambda a: (a**3).sum() * a[0], x, v),
        functional.vjp(lambda a: a.sum(), x),
    ]


@program
def vector_product_needs_a_vector(t: Any) -> Any:
    t.autograd.functional.vjp(lambda a: a * 2, t.ones(2))


@program
def cotangent_in_another_order_behind_a_changed_view(t: Any) -> Any:
    x = t.arange(10.0).reshape(5, 1, 2).requires_grad_()
    base = x * 1
    flat, turned = base.reshape(-1), base.permute(2, 1, 0)
    flat.neg_()
    (turned * t.arange(10.0).reshape(2, 1, 5)).sum().backward()
    return x.grad, turned


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_torch(name: str) -> None:
    assert_same(outcome(PROGRAMS[name], graphtorch), outcome(PROGRAMS[name], torch))
