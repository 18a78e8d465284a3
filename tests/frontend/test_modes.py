"""no_grad, inference_mode, set_grad_enabled and set_default_dtype inside and around compiled functions: PyTorch's
results eagerly, and eager results compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")


def functions(m: Any) -> dict[str, Callable[[Any], Any]]:
    w = m.ones(3, requires_grad=True)

    def block(x: Any) -> Any:
        with m.no_grad():
            y = x * w
        return y, x * w

    def inference(x: Any) -> Any:
        with m.inference_mode():
            return x * w, x.view(3, 1), x.clone()

    def default_dtype(x: Any) -> Any:
        old = m.get_default_dtype()
        m.set_default_dtype(m.float64)
        try:
            made = m.ones(3) + 0.5, m.tensor([1.5]), x / 2, m.arange(3.0), m.arange(3) / 2
        finally:
            m.set_default_dtype(old)
        return (*made, m.ones(2))

    def default_dtype_for_good(x: Any) -> Any:
        m.set_default_dtype(m.float64)
        return m.ones(3) + x

    def mode_for_good(x: Any) -> Any:
        m.set_grad_enabled(False)
        return x * w

    @m.no_grad()  # type: ignore[untyped-decorator]
    def decorated(x: Any) -> Any:
        return x * w

    @m.inference_mode  # type: ignore[untyped-decorator]
    def bare(x: Any) -> Any:
        return x * w

    def enabled_again(x: Any) -> Any:
        with m.no_grad(), m.enable_grad():
            return x * w

    def asks(x: Any) -> Any:
        return x * w if m.is_grad_enabled() else x + 1

    def asks_inference(x: Any) -> Any:
        return x * w if m.is_inference_mode_enabled() else x + 1

    def by_shape(x: Any) -> Any:
        with m.set_grad_enabled(x.shape[0] > 3):
            return x * w

    return {name: f for name, f in locals().items() if name not in ("m", "w")}


@contextmanager
def float64(m: Any) -> Any:
    m.set_default_dtype(m.float64)
    yield


AROUND = {
    "nothing": lambda m: nullcontext(),
    "no_grad": lambda m: m.no_grad(),
    "inference_mode": lambda m: m.inference_mode(),
    "float64": float64,
}


def described(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(described(v) for v in value)
    return repr(value.dtype), value.requires_grad, value.is_inference(), value.is_leaf, value.detach().tolist()


def observe(m: Any, run: Callable[[Any], Any], around: str) -> list[Any]:
    seen = []
    for _ in range(2):
        try:
            with AROUND[around](m):
                seen.append((described(run(m.ones(3))), repr(m.get_default_dtype()), m.is_grad_enabled()))
        finally:
            m.set_default_dtype(m.float32)
            m.set_grad_enabled(True)
    return seen


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", functions(graphtorch))
def test_modes(name: str, around: str) -> None:
    eager = observe(graphtorch, functions(graphtorch)[name], around)
    assert eager == observe(torch, functions(torch)[name], around)
    with warnings.catch_warnings():
        if name.endswith("for_good"):
            warnings.simplefilter("ignore")
        else:
            warnings.simplefilter("error")
        assert observe(graphtorch, graphtorch.compile(functions(graphtorch)[name]), around) == eager


def test_a_mode_that_changes_between_calls_is_a_guard() -> None:
    f = graphtorch.compile(functions(graphtorch)["asks"], fullgraph=True)
    x = graphtorch.ones(3)
    for _ in range(2):
        assert f(x).requires_grad
        with graphtorch.no_grad():
            assert f(x).tolist() == [2.0, 2.0, 2.0]
    assert len(f.specializations) == 2


@pytest.mark.parametrize("name", ["default_dtype_for_good", "mode_for_good"])
def test_a_mode_changed_for_good_runs_eagerly_and_says_so(name: str) -> None:
    words = "the default dtype" if name.startswith("default") else "the grad mode"
    with pytest.warns(UserWarning, match=f"runs eagerly: each call changes {words}"):
        observe(graphtorch, graphtorch.compile(functions(graphtorch)[name]), "nothing")
    with pytest.raises(RuntimeError, match=f"each call changes {words}"):
        graphtorch.compile(functions(graphtorch)[name], fullgraph=True)(graphtorch.ones(3))
    assert graphtorch.is_grad_enabled() and graphtorch.get_default_dtype() is graphtorch.float32


@pytest.mark.parametrize("compiled", [False, True])
def test_inference_tensors_stay_out_of_autograd(compiled: bool) -> None:
    def make(x: Any) -> Any:
        with graphtorch.inference_mode():
            return x + 1

    made = (graphtorch.compile(make, fullgraph=True) if compiled else make)(graphtorch.ones(3))
    w = graphtorch.ones(3, requires_grad=True)
    assert (made + w).requires_grad, "nothing is saved of a sum"
    for use, words in (
        (lambda: made * w, "cannot be saved for backward"),
        (lambda: made.add_(1), "Inplace update to inference tensor"),
        (lambda: made.requires_grad_(), "Setting requires_grad=True on inference tensor"),
    ):
        with pytest.raises(RuntimeError, match=words):
            use()
    assert (made.clone() * w).requires_grad
    with graphtorch.inference_mode():
        made.add_(1)
    assert made.tolist() == [3.0, 3.0, 3.0]


# -- stance -----------------------------------------------------------------------------------------------------------


def test_stance():
    @graphtorch.compile
    def f(x):
        return x * 2 if x.sum() > 0 else x - 1

    with graphtorch.compiler.set_stance("force_eager"):
        assert f(graphtorch.ones(3)).tolist() == [2, 2, 2]
    assert not f.specializations
    f(graphtorch.ones(3))
    with graphtorch.compiler.set_stance("eager_on_recompile"):
        assert f(graphtorch.ones(4)).tolist() == [2] * 4 and f(-graphtorch.ones(3)).tolist() == [-2] * 3
        assert f(graphtorch.ones(3)).tolist() == [2] * 3
    assert len(f.specializations) == 1 and f.eager_calls == 2
    with graphtorch.compiler.set_stance("fail_on_recompile"):
        f(graphtorch.ones(3))
        with pytest.raises(RuntimeError, match=r"shape of x was \[3\](.|\n)*fail_on_recompile"):
            f(graphtorch.ones(4))
    f(-graphtorch.ones(3)), f(graphtorch.ones(4))
    assert len(f.specializations) == 3

    @graphtorch.compiler.set_stance("force_eager")
    def outer(x):
        return f(x)

    outer(graphtorch.ones(7, 2)), f(graphtorch.ones(4))
    assert len(f.specializations) == 3

    g = graphtorch.compile(lambda x: x + 1)
    with graphtorch.compiler.set_stance("eager_then_compile"):
        g(graphtorch.ones(2))
        assert not g.specializations
        g(graphtorch.ones(2))
        assert len(g.specializations) == 1

    graphtorch.compiler.set_stance(force_backend="interpreter")
    try:
        assert g(graphtorch.ones(2)).tolist() == [2, 2] and len(g.specializations) == 1
    finally:
        graphtorch.compiler.set_stance("default")
    assert g(graphtorch.ones(2)).tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="stance"):
        graphtorch.compiler.set_stance("lazy")
