"""Hooks on all modules at once, beside PyTorch, eagerly and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)


@pytest.fixture(autouse=True)
def no_hook_is_left() -> Iterator[None]:
    from graphtorch.autograd.hooks import ALL_MODULES

    yield
    assert not ALL_MODULES


def model_of(lib: Any) -> Any:
    made = lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.Tanh(), lib.nn.Linear(3, 1))
    with lib.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(lib.arange(parameter.numel()).reshape(parameter.shape) * 0.1 - 0.2 * i)
    return made


def hook_for(lib: Any, kind: str, log: list[Any]) -> Any:
    def say(name: str, module: Any, *values: Any) -> None:
        log.append((name, type(module).__name__, *(repr(v) for v in values)))

    module = lib.nn.modules.module
    if kind == "forward_pre":

        def pre(m: Any, args: Any) -> Any:
            log.append(("pre", type(m).__name__))
            return args[0] * 2

        return module.register_module_forward_pre_hook(pre)
    if kind == "forward":

        def after(m: Any, args: Any, result: Any) -> Any:
            log.append(("after", type(m).__name__))
            return result + 1

        return module.register_module_forward_hook(after)
    if kind == "forward with kwargs":

        def keywords(m: Any, args: Any, kwargs: Any, result: Any) -> Any:
            log.append(("kwargs", type(m).__name__, dict(kwargs)))

        return module.register_module_forward_hook(keywords, with_kwargs=True)
    if kind == "full_backward_pre":

        def backward_pre(m: Any, grads: Any) -> Any:
            say("backward pre", m, grads)
            return tuple(g * 3 for g in grads)

        return module.register_module_full_backward_pre_hook(backward_pre)

    def backward(m: Any, before: Any, after: Any) -> Any:
        say("backward", m, before, after)
        return tuple(None if g is None else g * 2 for g in before)

    return module.register_module_full_backward_hook(backward)


KINDS = ["forward_pre", "forward", "forward with kwargs", "full_backward_pre", "full_backward"]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_calls(kind: str, own: bool) -> None:
    found = []
    for lib in BOTH:
        log: list[Any] = []
        model = model_of(lib)
        if own:
            model[0].register_forward_pre_hook(lambda m, a, log=log: log.append("own pre"))
            model[1].register_forward_hook(lambda m, a, r, log=log: log.append("own"))
            model[2].register_full_backward_hook(lambda m, a, r, log=log: log.append("own backward"))
        x = lib.tensor([[0.5, -1.0]], requires_grad=True)
        with hook_for(lib, kind, log):
            y = model(x)
            y.sum().backward()
        log.append([y.detach(), x.grad, *(p.grad for p in model.parameters())])
        log.append(model(x).detach())
        found.append(repr(log))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full_backward_pre", "full_backward"])
def test_compiled_functions_notice(kind: str) -> None:
    model, x = model_of(graphtorch), graphtorch.tensor([[0.5, -1.0]], requires_grad=True)

    def step(x: Any) -> Any:
        y = model(x)
        return y, *graphtorch.autograd.grad(y.sum(), [x, *model.parameters()])

    compiled = graphtorch.compile(step)

    def compare() -> None:
        for expected, found in zip(step(x), compiled(x), strict=True):
            assert graphtorch.allclose(expected, found)

    hook = {
        "forward_pre": lambda m, args: args[0] * 2,
        "forward": lambda m, args, result: result + 1,
        "full_backward_pre": lambda m, grads: tuple(g * 3 for g in grads),
        "full_backward": lambda m, before, after: tuple(g * 2 for g in before),
    }[kind]
    plain = step(x)
    compare()
    with getattr(graphtorch.nn.modules.module, f"register_module_{kind}_hook")(hook):
        compare()
        compare()
        assert not graphtorch.allclose(step(x)[1], plain[1])
    compare()
    assert len(compiled.specializations) == 2


def test_a_hook_registered_inside_of_a_compiled_function() -> None:
    model, x = model_of(graphtorch), graphtorch.tensor([[0.5, -1.0]])
    register = graphtorch.nn.modules.module.register_module_forward_hook

    def scaled(x: Any) -> Any:
        with register(lambda m, a, r: r * 2):
            return model(x)

    expected = scaled(x)
    compiled = graphtorch.compile(scaled)
    assert graphtorch.allclose(compiled(x), expected)
    assert graphtorch.allclose(compiled(x), expected)
    left = []

    def leaves(x: Any) -> Any:
        left.append(register(lambda m, a, r: r * 2))
        return model(x)

    compiled = graphtorch.compile(leaves)
    first, second = compiled(x), compiled(x)
    for handle in left:
        handle.remove()
    assert len(left) == 2
    assert graphtorch.allclose(first, expected)
    assert not graphtorch.allclose(second, expected)


def test_hooks_that_are_always_called() -> None:
    found = []
    for lib in BOTH:
        log: list[Any] = []
        register = lib.nn.modules.module.register_module_forward_hook
        with (
            register(lambda m, a, r, log=log: log.append(("always", type(m).__name__, r)), always_call=True),
            register(lambda m, a, r, log=log: log.append("otherwise")),
            pytest.raises(RuntimeError),
        ):
            lib.nn.Linear(2, 2)(lib.ones(3))
        found.append(log)
    assert found[0] == found[1] == [("always", "Linear", None)]


def test_registrations() -> None:
    found = []
    for lib in BOTH:
        log: list[Any] = []
        module = lib.nn.modules.module

        def say(m: Any, name: str, value: Any, log: list[Any] = log) -> None:
            log.append((type(m).__name__, name, type(value).__name__))

        def frozen(m: Any, name: str, value: Any) -> Any:
            return value.requires_grad_(False)

        handles = [
            module.register_module_buffer_registration_hook(say),
            module.register_module_module_registration_hook(say),
            module.register_module_parameter_registration_hook(say),
            module.register_module_parameter_registration_hook(frozen),
        ]
        try:
            made = lib.nn.Sequential(lib.nn.Linear(1, 2), lib.nn.BatchNorm1d(2))
            made.add_module("more", lib.nn.ModuleList([lib.nn.ReLU()]))
            made.other = lib.nn.Tanh()
            made.other = None
            made.register_buffer("b", lib.ones(1))
            made.register_buffer("none", None)
            made.b = lib.zeros(1)
            made.register_parameter("p", None)
            made.q = lib.nn.Parameter(lib.ones(1))
        finally:
            for handle in handles:
                handle.remove()
        log.append([p.requires_grad for p in made.parameters()])
        lib.nn.Linear(1, 1)
        found.append(log)
    assert found[0] == found[1]
