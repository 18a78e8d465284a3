"""`torch._dynamo.config`, `torch._inductor.config` and `compile(options=...)`: which take effect, which only exist."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphtorch
import graphtorch._dynamo.config as dynamo
import graphtorch._inductor.config as inductor
from graphtorch.compiler.settings import _DYNAMO, _INDUCTOR, _NESTED


def test_names_and_defaults_are_pytorch_s() -> None:
    pytest.importorskip("torch")
    import torch._dynamo.config as theirs
    import torch._inductor.config as theirs_too

    removed = {"log_level", "accumulated_cache_size_limit", "cache_size_limit", "use_mixed_mm"}
    machine = {"compile_threads", "fx_graph_remote_cache", "worker_start_method"}  # depend on where PyTorch runs
    for values, module in ((_DYNAMO, theirs), (_INDUCTOR, theirs_too)):
        for name, value in values.items():
            if name not in removed | machine:
                assert getattr(module, name) == value, name
    for group, members in _NESTED.items():
        for name in members:
            assert hasattr(getattr(theirs_too, group), name), f"{group}.{name}"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"torch\._dynamo\.config\.nothing does not exist"):
        dynamo.nothing = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"torch\._inductor\.config\.nothing does not exist"):
        inductor.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="nothing does not exist"):
        inductor.triton.nothing = 1
    with pytest.raises(RuntimeError, match="Unexpected optimization option nothing"):
        graphtorch.compile(lambda x: x, options={"nothing": 1})
    assert graphtorch.compile(lambda x: x + 1, options={"triton.cudagraphs": True})(graphtorch.ones(1)).item() == 2


def test_settings_for_a_while() -> None:
    assert inductor.coordinate_descent_tuning is False
    with inductor.patch(coordinate_descent_tuning=True), inductor.patch("triton.cudagraphs", True):
        assert inductor.coordinate_descent_tuning is True and inductor.triton.cudagraphs is True
    assert inductor.coordinate_descent_tuning is False and inductor.triton.cudagraphs is False

    @dynamo.patch({"suppress_errors": True})
    def inside() -> Any:
        return dynamo.suppress_errors

    assert inside() is True and dynamo.suppress_errors is False


def test_recompile_limit() -> None:
    f = graphtorch.compile(lambda x, n: x * n, dynamic=False)
    own = graphtorch.compile(lambda x, n: x * n, recompile_limit=5)
    with dynamo.patch(cache_size_limit=2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert dynamo.recompile_limit == 2 and own.recompile_limit == 5
        for n in range(1, 5):
            assert f(graphtorch.ones(1), n).item() == n
        assert len(f.specializations) == 2
    assert f.recompile_limit == 8


def test_disable() -> None:
    f = graphtorch.compile(lambda x: x + 1)
    with dynamo.patch(disable=True):
        f(graphtorch.ones(1))
    assert not f.specializations
    f(graphtorch.ones(1))
    assert len(f.specializations) == 1
