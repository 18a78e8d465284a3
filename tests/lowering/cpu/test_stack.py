"""Threads with small stacks may run compiled code that keeps much on the stack."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import graphtorch as torch
from graphtorch.lowering.cpu import stack

LARGE = 2 << 20


def in_thread(function: Any, size: int) -> Any:
    found: list[Any] = []
    before = threading.stack_size(size)
    try:
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return found[0]


def test_the_size_of_a_stack_is_known():
    # The system may give a thread the larger stack of one that has ended.
    assert in_thread(stack.stack_size, LARGE) >= LARGE - (1 << 16)


def test_what_suffices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stack, "stack_size", lambda: LARGE)
    assert stack.suffices(LARGE // 2)
    assert not stack.suffices(LARGE)
    monkeypatch.setattr(stack, "stack_size", lambda: 0)
    assert stack.suffices(1000)
    assert not stack.suffices(LARGE // 2)


def test_an_error_comes_back():
    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        stack.with_room(fail)


def test_need_is_that_of_a_chain_and_a_member():
    texts = ["%a = alloca [16 x float], align 64", "none", "%b = alloca [8 x i64]\n%c = alloca [2 x half]"]
    assert stack.needed(texts) == 64 + 68


def test_a_convolution_on_a_small_stack():
    x, w = torch.randn(1, 512, 64, 64), torch.randn(512, 512, 3, 3)
    convolve = torch.compile(lambda x, w: torch.nn.functional.conv2d(x, w, padding=1).sum(), backend="cpu")
    expected = convolve(x, w).item()
    assert in_thread(lambda: convolve(x, w).item(), 512 << 10) == expected
