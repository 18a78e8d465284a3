"""What stands beside `checkpoint` in PyTorch's module, and when a second run ends."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)


def outcomes(program: Any) -> list[str]:
    """What a program gives under PyTorch and here: its text, or its error's first sentence."""
    found = []
    for lib in BOTH:
        try:
            found.append(repr(program(lib, importlib.import_module(f"{lib.__name__}.utils.checkpoint"))))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}".split("\n\n")[0])
    return found


@pytest.mark.parametrize("block", [None, False, True])
@pytest.mark.parametrize("argument", [None, False, True])
def test_early_stop(argument: bool | None, block: bool | None) -> None:
    def program(lib: Any, home: Any) -> Any:
        log: list[str] = []

        def function(x: Any) -> Any:
            y = x.exp()
            log.append("between")
            z = (y * x).sum()
            log.append("end")
            return z

        x = lib.tensor([0.5, 1.0], requires_grad=True)
        more = {} if argument is None else {"early_stop": argument}
        if block is None:
            y = home.checkpoint(function, x, use_reentrant=False, **more)
        else:
            with home.set_checkpoint_early_stop(block):
                y = home.checkpoint(function, x, use_reentrant=False, **more)
        y.backward()
        return [round(v, 4) for v in x.grad.tolist()], log

    expected, found = outcomes(program)
    assert found == expected


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("more", ["first", "second"])
def test_another_number_of_saved_tensors(more: str, stop: bool) -> None:
    def program(lib: Any, home: Any) -> Any:
        runs: list[int] = []

        def function(x: Any) -> Any:
            runs.append(1)
            return x.exp().sin() if (len(runs) == 1) == (more == "first") else x.exp()

        x = lib.tensor([0.5, 1.0], requires_grad=True)
        home.checkpoint(function, x, use_reentrant=False, early_stop=stop).sum().backward()
        return [round(v, 4) for v in x.grad.tolist()]

    expected, found = outcomes(program)
    assert found.split("\n")[0] == expected.split("\n")[0]


def test_early_stop_within_others() -> None:
    def program(lib: Any, home: Any) -> Any:
        log: list[str] = []

        def inner(x: Any) -> Any:
            y = x.sin()
            log.append("inner")
            return y.exp() * 2

        def outer(x: Any) -> Any:
            y = home.checkpoint(inner, x, use_reentrant=False)
            log.append("outer")
            return (y * x).cos()

        x = lib.tensor([0.5, 1.0], requires_grad=True)
        home.checkpoint(outer, x, use_reentrant=False).sum().backward()
        return [round(v, 5) for v in x.grad.tolist()]

    expected, found = outcomes(program)
    assert found == expected


def test_detached_variables() -> None:
    def program(lib: Any, home: Any) -> Any:
        x = lib.tensor([1.0], requires_grad=True)
        made = home.detach_variable((x * 2, x.detach(), 3, None))
        return [(v.is_leaf, v.requires_grad, v.tolist()) if isinstance(v, lib.Tensor) else v for v in made]

    expected, found = outcomes(program)
    assert found == expected
    assert len(set(outcomes(lambda lib, home: home.detach_variable([1])))) == 1


def test_warning_of_inputs_without_gradients() -> None:
    for lib in BOTH:
        home = importlib.import_module(f"{lib.__name__}.utils.checkpoint")
        with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True. Gradients will be None"):
            home.check_backward_validity([lib.ones(1), 2])
        home.check_backward_validity([lib.ones(1, requires_grad=True)])


def test_states_of_devices() -> None:
    expected, found = outcomes(lambda lib, home: home.get_device_states(lib.ones(1), 2))
    assert found == expected == "([], [])"
    assert outcomes(lambda lib, home: home.set_device_states([], [])) == ["None", "None"]
