"""The steps of one direction of an LSTM or a GRU as native code, forwards and backwards: what eager execution runs for
all but the smallest sequences. Each step is one native call; going back, it computes its activations again.

The interface is that of `recurrent_kernels.py`, whose NumPy code serves what has no program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.nn.functional import recurrent_kernels
from graphtorch.nn.functional.convolutions import linear
from graphtorch.ops import native
from graphtorch.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]
LEAST = 1024  # elements of what the input adds, in all steps
# The arguments of `_after` whose gradients are asked for: what the input adds, what the hidden state adds (which has
# the same one in an LSTM), and the part of the state that it depends on besides: an LSTM's cell, a GRU's hidden state.
_ASKED = {"LSTM": (0, 3), "GRU": (0, 1, 2)}

State = tuple[Tensor, ...]
Saved = dict[str, Any]


def next_state(mode: str, gates: Tensor, own: Tensor, now: State) -> State:
    """The state after a step: `gates` is what the input adds, `own` what the hidden state adds, (N, gates * H)."""
    if mode == "LSTM":
        enter, keep, new, show = (gates + own).chunk(4, -1)
        cell = keep.sigmoid() * now[1] + enter.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell
    if mode == "GRU":
        reset, update, new = gates.chunk(3, -1)
        own_reset, own_update, own_new = own.chunk(3, -1)
        new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
        return ((now[0] - new) * (update + own_update).sigmoid() + new,)
    total = gates + own
    return (total.tanh() if mode == "RNN_TANH" else total.relu(),)


@functools.cache
def _after(mode: str) -> Callable[..., State]:
    """A step from what does not depend on weights, which is what its gradients are taken of."""

    def after(gates: Tensor, own: Tensor, *now: Tensor) -> State:
        return next_state(mode, gates, own, now)

    return after


@functools.cache
def _step(mode: str) -> Callable[..., State]:
    """A step from the weights: the state, and what the hidden state added."""

    def step(gates: Tensor, weight: Tensor, bias: Tensor | None, *now: Tensor) -> State:
        own = linear(now[0], weight, bias)
        return *next_state(mode, gates, own, now), own

    return step


def forward(
    gates: Array,
    hidden: Array,
    cell: Array | None,
    weight: Array,
    bias: Array | None,
    mode: str,
    steps: int,
    reverse: bool,
) -> tuple[tuple[Array, ...], Saved]:
    """The outputs (steps * N, H) and the last state, and what `backward` needs."""
    arguments = (gates, hidden, cell, weight, bias, mode, steps, reverse)
    count, width = hidden.shape[0], gates.shape[1]
    if not native.switch.on or mode not in _ASKED or gates.size < LEAST:
        return recurrent_kernels.forward(*arguments)
    weights = [np.ascontiguousarray(w) for w in (weight, bias) if w is not None]
    now = [np.ascontiguousarray(s) for s in (hidden, cell) if s is not None]
    given = np.ascontiguousarray(gates).reshape(steps, count, width)
    run = native.step(_step(mode), (given[0], weights[0], weights[1] if len(weights) > 1 else None, *now))
    if run is None:
        return recurrent_kernels.forward(*arguments)
    states = [np.empty((steps, *s.shape), gates.dtype) for s in now]
    own = np.empty_like(given)
    start = now
    order = recurrent_kernels.order_of(steps, reverse)
    for t in order:
        after = [s[t] for s in states]
        run((given[t], *weights, *now), (*after, own[t]))
        now = after
    last = [s[order[-1]].copy() for s in states]
    saved = {"given": given, "own": own, "states": states, "start": start, "weight": weights[0]}
    return (states[0].reshape(steps * count, -1), *last), saved


def backward(
    saved: Saved, args: Sequence[Any], cotangents: Sequence[Array | None], wanted: Sequence[int]
) -> list[Array | None]:
    """The gradients of the arguments of `forward` at the positions `wanted`."""
    if "own" not in saved:
        return recurrent_kernels.backward(saved, args, cotangents, wanted)
    mode, steps, reverse = args[5:]
    given, own, states, weight = saved["given"], saved["own"], saved["states"], saved["weight"]
    _, count, size = states[0].shape
    # The state that each step began with.
    before = [np.empty_like(s) for s in states]
    for known, state, start in zip(before, states, saved["start"], strict=True):
        if reverse:
            known[:-1], known[-1] = state[1:], start
        else:
            known[1:], known[0] = state[:-1], start
    flowing = None if cotangents[0] is None else cotangents[0].reshape(steps, count, size)
    last = cotangents[1 : 1 + len(states)]
    g_now = [np.zeros((count, size), given.dtype) if c is None else np.array(c, order="C") for c in last]
    operands = (given[0], own[0], *(b[0] for b in before))
    run = native.gradient_step(_after(mode), operands, g_now, _ASKED[mode])
    if run is None:
        _, again = recurrent_kernels.forward(*args)
        return recurrent_kernels.backward(again, args, cotangents, wanted)
    g_gates = np.empty_like(given)
    g_own = np.empty_like(given) if mode == "GRU" else g_gates
    for t in recurrent_kernels.order_of(steps, reverse)[::-1]:
        if flowing is not None:
            g_now[0] += flowing[t]
        further = np.empty((count, size), given.dtype)
        results = (g_gates[t], further) if mode == "LSTM" else (g_gates[t], g_own[t], further)
        run((given[t], own[t], *(b[t] for b in before), *g_now), results)
        through = g_own[t] @ weight
        if mode == "LSTM":
            g_now = [through, further]
        else:
            through += further
            g_now = [through]
    flat = g_own.reshape(steps * count, -1)
    made: dict[int, Any] = {
        0: lambda: g_gates.reshape(args[0].shape),
        1: lambda: g_now[0],
        2: lambda: g_now[1],
        3: lambda: flat.T @ before[0].reshape(steps * count, size),
        4: lambda: flat.sum(0),
    }
    return [made[i]() for i in wanted]
