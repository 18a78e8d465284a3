"""Backward hooks that are not full ones (`register_backward_hook`) beside PyTorch's, and small parts of Module."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphtorch
from graphtorch.nn.modules.module import register_module_backward_hook, register_module_full_backward_hook
from graphtorch.utils.hooks import BackwardHook, unserializable_hook, warn_if_has_hooks

torch = pytest.importorskip("torch")


class Nested(graphtorch.nn.Module):
    def forward(self, x: Any) -> Any:
        return {"b": 1, "a": x * 2}


def run(module: Any, everywhere: bool) -> tuple[Any, ...]:
    nn = module.nn
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Flatten())
    for i, p in enumerate(model.parameters()):
        p.data = module.full(p.shape, 0.5 + i)
    seen: list[Any] = []

    def hook(owner: Any, grad_input: Any, grad_output: Any) -> Any:
        seen.append(
            (
                type(owner).__name__,
                [None if g is None else g.tolist() for g in grad_input],
                [g.tolist() for g in grad_output],
            )
        )
        if isinstance(owner, nn.ReLU):
            return (grad_input[0] * 2,)
        return None

    x = module.arange(6.0).reshape(2, 3).requires_grad_()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if everywhere:
            handles = [nn.modules.module.register_module_backward_hook(hook)]
        else:
            handles = [child.register_backward_hook(hook) for child in model]
        try:
            model(x).square().sum().backward()
        finally:
            for handle in handles:
                handle.remove()
            nn.modules.module._global_is_full_backward_hook = None  # PyTorch never forgets the kind
    texts = [str(w.message) for w in warned if issubclass(w.category, FutureWarning)]
    return seen, texts, x.grad.tolist(), [p.grad.tolist() for p in model.parameters()]


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_see_what_pytorch_s_see(everywhere: bool) -> None:
    assert run(graphtorch, everywhere) == run(torch, everywhere)


def test_two_kinds_on_one_module() -> None:
    for module in (graphtorch, torch):
        layer = module.nn.Linear(2, 2)
        layer.register_backward_hook(lambda *a: None)
        with pytest.raises(RuntimeError, match="full backward hooks on a single Module"):
            layer.register_full_backward_hook(lambda *a: None)
        layer = module.nn.Linear(2, 2)
        layer.register_full_backward_hook(lambda *a: None)
        with pytest.raises(RuntimeError, match="full backward hooks on a single Module"):
            layer.register_backward_hook(lambda *a: None)
    with (
        register_module_backward_hook(lambda *a: None),
        pytest.raises(RuntimeError, match="as a global Module hook"),
    ):
        register_module_full_backward_hook(lambda *a: None)
    with (
        register_module_full_backward_hook(lambda *a: None),
        pytest.raises(RuntimeError, match="as a global Module hook"),
    ):
        register_module_backward_hook(lambda *a: None)


def test_results_in_containers() -> None:
    seen: list[Any] = []
    module = Nested()
    module.register_backward_hook(lambda owner, grad_input, grad_output: seen.append(grad_output[0].tolist()))
    x = graphtorch.ones(2, requires_grad=True)
    with pytest.warns(FutureWarning, match="does not return a single Tensor"):
        made = module(x)
    made["a"].sum().backward()
    assert seen == [[1.0, 1.0]]


def test_compiled_steps_run_such_hooks() -> None:
    layer = graphtorch.nn.Linear(2, 1)
    seen: list[Any] = []
    layer.register_backward_hook(lambda owner, grad_input, grad_output: seen.append(tuple(grad_output[0].shape)))

    @graphtorch.compile
    def step(x: Any) -> Any:
        loss = layer(x).sum()
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            step(graphtorch.ones(4, 2))
    assert seen == [(4, 1)] * 3


def test_backward_hook_is_what_calls_use() -> None:
    seen: list[Any] = []
    around = BackwardHook(
        graphtorch.nn.Identity(), [lambda m, gi, go: seen.append((gi[0].tolist(), go[0].tolist()))], []
    )
    x = graphtorch.ones(2, requires_grad=True)
    (inner,) = around.setup_input_hook((x,))
    around.setup_output_hook(inner * 3).sum().backward()
    assert seen == [([3.0, 3.0], [1.0, 1.0])]


def test_hooks_that_a_file_would_not_hold() -> None:
    x = graphtorch.ones(2, requires_grad=True)
    x.register_hook(unserializable_hook(lambda g: None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_has_hooks(x)
    x.register_hook(lambda g: None)
    with pytest.warns(UserWarning, match="will not be serialized"):
        warn_if_has_hooks(x)


def test_private_pre_hook_of_loading() -> None:
    def states(module: Any) -> list[Any]:
        layer = module.nn.Linear(2, 1, bias=False)
        seen: list[Any] = []

        def without(state: Any, prefix: str, *rest: Any) -> None:
            seen.append((prefix, len(rest)))
            state[prefix + "weight"] = state.pop(prefix + "w")

        layer._register_load_state_dict_pre_hook(without)
        layer._register_load_state_dict_pre_hook(lambda m, s, p, *rest: seen.append(type(m).__name__), with_module=True)
        module.nn.Sequential(layer).load_state_dict({"0.w": module.ones(1, 2)})
        return [*seen, layer.weight.tolist()]

    assert states(graphtorch) == states(torch)


def test_moves() -> None:
    layer = graphtorch.nn.Linear(2, 1)
    for move in (layer.xpu, layer.share_memory):
        with pytest.raises(RuntimeError):
            move()
