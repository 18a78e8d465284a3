"""Which backend `@compile` takes when none is named."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.lowering.backend import default_backend, get_backend


@pytest.fixture(autouse=True)
def _chosen_anew(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("GRAPHTORCH_BACKEND", raising=False)
    default_backend.cache_clear()
    yield
    default_backend.cache_clear()


def test_native_code_where_it_can_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(get_backend("cpu")), "unavailable", lambda self: None)
    assert default_backend() == "cpu"


def test_numpy_elsewhere_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(type(get_backend("cpu")), "unavailable", lambda self: "llvmlite is missing")
    with caplog.at_level(logging.WARNING):
        functions = [torch.compile(lambda x: x + 1), torch.compile(lambda x: x + 2, backend="inductor")]
        assert [f(torch.ones(2)).tolist() for f in functions] == [[2, 2], [3, 3]]
    assert [f.backend for f in functions] == ["numpy", "numpy"]
    assert sum("llvmlite is missing" in r.getMessage() for r in caplog.records) == 1


def test_environment_chooses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRAPHTORCH_BACKEND", "interpreter")
    assert default_backend() == "interpreter"
    default_backend.cache_clear()
    monkeypatch.setenv("GRAPHTORCH_BACKEND", "abacus")
    with pytest.raises(ValueError, match="unknown backend 'abacus'"):
        torch.compile(lambda x: x + 1)(torch.ones(2))


def test_names_load_nothing_before_the_first_call(monkeypatch: pytest.MonkeyPatch):
    def fail() -> str:
        raise AssertionError

    monkeypatch.setattr("graphtorch.frontend.compiler.default_backend", fail)
    torch.compile(lambda x: x + 1)
