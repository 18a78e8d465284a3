"""`torch._foreach_*`, `torch._check*` and arithmetic on sizes beside PyTorch's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch import foreach

torch = pytest.importorskip("torch")

UNARY = sorted(name for name in foreach.FUNCTIONS if name[9:].rstrip("_") in foreach._UNARY)


def lists(module: Any, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [module.tensor(rng.uniform(1.1, 2.0, shape).astype(np.float32).tolist()) for shape in ((2,), (2, 3), ())]


def same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs) and len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert tuple(mine.shape) == tuple(other.shape) and str(mine.dtype) == str(other.dtype)
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-6)


def test_every_name_is_here() -> None:
    missing = [name for name in dir(torch) if name.startswith("_foreach_") and not hasattr(graphtorch, name)]
    assert not missing


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    mine, other = ([t - 1 for t in lists(m)] for m in (graphtorch, torch))
    if name.startswith(("_foreach_acos",)):
        mine, other = [t * 0.5 for t in mine], [t * 0.5 for t in other]
    made = getattr(graphtorch, name)(mine)
    same(made, getattr(torch, name)(other))
    assert (made is mine) == name.endswith("_")


@pytest.mark.parametrize("inplace", ["", "_"])
@pytest.mark.parametrize(
    "call",
    [
        lambda t, end, a, b, c: getattr(t, "_foreach_add" + end)(a, 2),
        lambda t, end, a, b, c: getattr(t, "_foreach_add" + end)(a, b, alpha=0.5),
        lambda t, end, a, b, c: getattr(t, "_foreach_add" + end)(a, [1.0, 2.0, 3.0]),
        lambda t, end, a, b, c: getattr(t, "_foreach_add" + end)(a, t.tensor(2.0), alpha=3),
        lambda t, end, a, b, c: getattr(t, "_foreach_sub" + end)(a, b, alpha=2),
        lambda t, end, a, b, c: getattr(t, "_foreach_mul" + end)(a, t.tensor(2.0)),
        lambda t, end, a, b, c: getattr(t, "_foreach_div" + end)(a, b),
        lambda t, end, a, b, c: getattr(t, "_foreach_maximum" + end)(a, b),
        lambda t, end, a, b, c: getattr(t, "_foreach_minimum" + end)(a, [1.2, 1.5, 1.7]),
        lambda t, end, a, b, c: getattr(t, "_foreach_clamp_min" + end)(a, 1.5),
        lambda t, end, a, b, c: getattr(t, "_foreach_clamp_max" + end)(a, b),
        lambda t, end, a, b, c: getattr(t, "_foreach_addcdiv" + end)(a, b, c, 0.5),
        lambda t, end, a, b, c: getattr(t, "_foreach_addcmul" + end)(a, b, c, [1.0, 2.0, 3.0]),
        lambda t, end, a, b, c: getattr(t, "_foreach_addcdiv" + end)(a, b, c, t.tensor([1.0, 2.0, 3.0])),
        lambda t, end, a, b, c: getattr(t, "_foreach_lerp" + end)(a, b, 0.25),
        lambda t, end, a, b, c: getattr(t, "_foreach_lerp" + end)(a, b, c),
        lambda t, end, a, b, c: getattr(t, "_foreach_pow" + end)(a, 2),
        lambda t, end, a, b, c: getattr(t, "_foreach_pow" + end)(a, b),
    ],
)
def test_several_operands(call: Any, inplace: str) -> None:
    made = [call(m, inplace, lists(m), lists(m, 1), lists(m, 2)) for m in (graphtorch, torch)]
    same(*made)


def test_the_rest() -> None:
    for call in (
        lambda t, a: t._foreach_norm(a),
        lambda t, a: t._foreach_norm(a, 1),
        lambda t, a: t._foreach_max(a),
        lambda t, a: t._foreach_clone(a),
        lambda t, a: t._foreach_pow(2.0, a),
        lambda t, a: t._foreach_zero_(a),
        lambda t, a: t._foreach_copy_(a, lists(t, 3)),
    ):
        same(call(graphtorch, lists(graphtorch)), call(torch, lists(torch)))


@pytest.mark.parametrize(
    "call",
    [
        lambda t, a: t._foreach_add([], 1),
        lambda t, a: t._foreach_add(a, a[:1]),
        lambda t, a: t._foreach_add(a, [1.0]),
        lambda t, a: t._foreach_mul(a, t.ones(2)),
        lambda t, a: t._foreach_abs([]),
        lambda t, a: t._foreach_addcmul(a, a, a, [1.0]),
        lambda t, a: t._assert(False, "no"),
        lambda t, a: t._assert(t.tensor(False), "no"),
        lambda t, a: t._check(False),
        lambda t, a: t._check(False, lambda: "text"),
        lambda t, a: t._check(1),
        lambda t, a: t._check_index(False, lambda: "a"),
        lambda t, a: t._check_value(False, lambda: "a"),
        lambda t, a: t._check_type(False, lambda: "a"),
        lambda t, a: t._check_not_implemented(False, lambda: "a"),
        lambda t, a: t._check_tensor_all(t.tensor([True, False])),
        lambda t, a: t._check_with(KeyError, False, lambda: "a"),
        lambda t, a: t.sym_ite(1, 2, 3),
    ],
)
def test_errors(call: Any) -> None:
    with pytest.raises(Exception) as theirs:
        call(torch, lists(torch))
    with pytest.raises(type(theirs.value)) as ours:
        call(graphtorch, lists(graphtorch))
    assert str(ours.value).partition("\n")[0] == str(theirs.value).partition("\n")[0]


def test_a_wrong_operand_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"_foreach_add\(\) received an invalid combination"):
        graphtorch._foreach_add(lists(graphtorch), "a")


def test_sizes() -> None:
    for name, args in (
        ("sym_int", (2.7,)), ("sym_int", (-2.7,)), ("sym_max", (2, 3.0)), ("sym_min", (2, 3)), ("sym_not", (0,)),
        ("sym_float", (3,)), ("sym_ite", (True, 1, 2)), ("sym_sum", ([1, 2],)), ("sym_sqrt", (4,)),
    ):  # fmt: skip
        ours, theirs = getattr(graphtorch, name)(*args), getattr(torch, name)(*args)
        assert (type(ours), ours) == (type(theirs), theirs), name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graphtorch._check_is_size(3)


def test_classes_of_sizes_and_modules_of_devices() -> None:
    @graphtorch.compile(dynamic=True)
    def f(x: Any) -> Any:
        assert isinstance(x.shape[0], int | graphtorch.SymInt) and not isinstance(1.0, graphtorch.SymFloat)
        return x * x.shape[0]

    assert f(graphtorch.ones(3)).tolist() == [3, 3, 3]
    for package in (graphtorch, torch):
        assert package.get_device_module("cpu") is package.cpu and package.get_device_module("cuda") is package.cuda
        assert not isinstance(True, package.SymBool)
        with pytest.raises(RuntimeError, match="does not have a corresponding module"):
            package.get_device_module("meta")


def test_a_compiled_optimizer_of_ones_own() -> None:
    def step(params: list[Any], momenta: list[Any], x: Any) -> Any:
        loss = (x @ params[0] + params[1]).square().mean()
        loss.backward()
        with graphtorch.no_grad():
            grads = [p.grad for p in params]
            graphtorch._foreach_mul_(momenta, 0.9)
            graphtorch._foreach_add_(momenta, grads)
            graphtorch._foreach_add_(params, momenta, alpha=-0.1)
        for p in params:
            p.grad = None
        return loss

    def state() -> tuple[list[Any], list[Any]]:
        params = [graphtorch.full((3, 2), 0.5), graphtorch.ones(2)]
        return [p.requires_grad_() for p in params], [graphtorch.zeros(3, 2), graphtorch.zeros(2)]

    x = graphtorch.arange(12.0).reshape(4, 3) / 10
    compiled, (p1, m1), (p2, m2) = graphtorch.compile(step, fullgraph=True), state(), state()
    for _ in range(3):
        assert abs(step(p1, m1, x).item() - compiled(p2, m2, x).item()) < 1e-5
    for a, b in zip(p1, p2, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5)
