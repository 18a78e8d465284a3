"""Type rules are asked once about the same types and attributes: what they refuse is refused at every call."""

from __future__ import annotations

import pytest

import graphtorch as torch
from graphtorch.ops import dispatch


def test_bad_shapes_are_refused_each_time() -> None:
    a, b = torch.ones(2, 3), torch.ones(2, 4)
    for _ in range(3):
        assert (a - a).shape == (2, 3)
        with pytest.raises(RuntimeError, match="must match the size of tensor b"):
            a - b
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            torch.nn.functional.linear(a, b)


def test_attributes_of_equal_value_and_other_type_are_told_apart() -> None:
    whole, flags = torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)
    for _ in range(2):
        assert torch.sub(whole, whole, alpha=1).tolist() == [0, 0, 0]
        with pytest.raises(RuntimeError, match="Boolean alpha only supported for Boolean results"):
            torch.sub(whole, whole, alpha=True)
        with pytest.raises(RuntimeError, match="must not be a floating point number"):
            torch.sub(whole, whole, alpha=1.0)
        with pytest.raises(RuntimeError, match="bool tensor"):
            torch.sub(flags, whole)


def test_in_place_forms_are_checked() -> None:
    a = torch.ones(2, 3)
    for _ in range(2):
        a.sub_(torch.ones(3))
        with pytest.raises(RuntimeError):
            a.sub_(torch.ones(2))
        with pytest.raises(RuntimeError, match="output with shape"):
            torch.ones(3).sub_(a)


def test_samplers_do_not_keep_their_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.bernoulli(torch.full((3,), 0.5), generator=generator)
    assert not any(part is generator for key in dispatch._passed for part in key)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_passed", set())
    monkeypatch.setattr(dispatch, "_MOST_PASSED", 4)
    for n in range(1, 12):
        torch.ones(n) - torch.ones(n)
    assert 0 < len(dispatch._passed) <= 4
