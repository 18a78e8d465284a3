"""The steps of one direction of a recurrent layer in NumPy, forwards and backwards: what eager execution runs instead
of a dozen operators a step where `recurrent_steps.py` does not.

Gates lie beside each other, (steps, N, gates * H), as PyTorch has them: input, forget, cell, output of an LSTM; reset,
update, new of a GRU. Going back, everything that does not depend on later steps is computed for all steps at once, and
the weights' gradients are one product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Saved = dict[str, Array]


def applies(args: Sequence[Any]) -> bool:
    """Whether the arguments of `forward` are arrays of one dtype that NumPy computes in, and fit together."""
    gates, hidden, cell, weight, bias, _, steps, _ = args
    arrays = [a for a in (gates, hidden, cell, weight, bias) if a is not None]
    if gates.dtype.num not in _WIDE or any([a.dtype != gates.dtype for a in arrays]):
        return False
    fits = gates.ndim == 2 == hidden.ndim and gates.shape[0] == steps * hidden.shape[0]
    fits = fits and weight.shape == (gates.shape[1], hidden.shape[1]) and (cell is None or cell.shape == hidden.shape)
    return fits and (bias is None or bias.shape == gates.shape[1:])


_WIDE = frozenset((np.dtype(np.float32).num, np.dtype(np.float64).num))


def _sigmoid_(x: Array) -> None:
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    np.reciprocal(x, out=x)


def order_of(steps: int, reverse: bool) -> range:
    """The steps in the order in which they are taken."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


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
    count, size = hidden.shape
    given = gates.reshape(steps, count, -1)
    before = np.empty((steps, count, size), gates.dtype)  # the hidden state that each step began with
    outputs = np.empty((steps, count, size), gates.dtype)
    transposed = weight.T
    order = order_of(steps, reverse)
    if mode == "GRU":
        saved = _gru(given, hidden, transposed, bias, order, before, outputs)
    else:
        active = given.copy() if bias is None else given + bias
        if mode == "LSTM":
            assert cell is not None
            saved = _lstm(active, hidden, cell, transposed, order, before, outputs)
        else:
            saved = {}
            for t in order:
                before[t] = hidden
                a = active[t]
                a += hidden @ transposed
                hidden = np.tanh(a, out=outputs[t]) if mode == "RNN_TANH" else np.maximum(a, 0, out=outputs[t])
    last = outputs[order[-1]].copy()
    flat = outputs.reshape(steps * count, size)
    saved |= {"before": before, "outputs": outputs}
    return (flat, last, saved["cells"][order[-1]].copy()) if mode == "LSTM" else (flat, last), saved


def _lstm(
    active: Array, hidden: Array, cell: Array, transposed: Array, order: range, before: Array, outputs: Array
) -> Saved:
    size = hidden.shape[1]
    cells, cells_before, tanhs = np.empty_like(outputs), np.empty_like(outputs), np.empty_like(outputs)
    for t in order:
        before[t] = hidden
        cells_before[t] = cell
        a = active[t]
        a += hidden @ transposed
        enter, keep, new, show = (a[:, i * size : (i + 1) * size] for i in range(4))
        _sigmoid_(a[:, : 2 * size])
        np.tanh(new, out=new)
        _sigmoid_(show)
        cell = np.multiply(keep, cell, out=cells[t])
        cell += enter * new
        hidden = np.multiply(show, np.tanh(cell, out=tanhs[t]), out=outputs[t])
    return {"active": active, "cells": cells, "cells_before": cells_before, "tanhs": tanhs}


def _gru(
    given: Array, hidden: Array, transposed: Array, bias: Array | None, order: range, before: Array, outputs: Array
) -> Saved:
    size = hidden.shape[1]
    active = np.empty_like(given)
    own_new = np.empty_like(outputs)  # what the hidden state adds to the new one, before the reset
    for t in order:
        before[t] = hidden
        own = hidden @ transposed
        if bias is not None:
            own += bias
        a = active[t]
        np.add(given[t][:, : 2 * size], own[:, : 2 * size], out=a[:, : 2 * size])
        _sigmoid_(a[:, : 2 * size])
        reset, update, new = (a[:, i * size : (i + 1) * size] for i in range(3))
        own_new[t] = own[:, 2 * size :]
        np.multiply(reset, own_new[t], out=new)
        new += given[t][:, 2 * size :]
        np.tanh(new, out=new)
        difference = hidden - new
        difference *= update
        hidden = np.add(difference, new, out=outputs[t])
    return {"active": active, "own_new": own_new}


def backward(
    saved: Saved, args: Sequence[Any], cotangents: Sequence[Array | None], wanted: Sequence[int]
) -> list[Array | None]:
    """The gradients of the arguments of `forward` at the positions `wanted`."""
    gates, _, _, weight, _, mode, steps, reverse = args
    before, outputs = saved["before"], saved["outputs"]
    _, count, size = before.shape
    flowing = None if cotangents[0] is None else cotangents[0].reshape(steps, count, size)
    g_hidden = np.zeros((count, size), gates.dtype) if cotangents[1] is None else cotangents[1].copy()
    order = order_of(steps, reverse)[::-1]
    g_cell = None
    if mode == "LSTM":
        g_cell = np.zeros((count, size), gates.dtype) if cotangents[2] is None else cotangents[2].copy()
        g_gates, g_hidden, g_cell = _lstm_back(saved, flowing, g_hidden, g_cell, weight, order)
        g_own = g_gates
    elif mode == "GRU":
        g_gates, g_own, g_hidden = _gru_back(saved, flowing, g_hidden, weight, order)
    else:
        g_own = g_gates = np.empty((steps, count, size), gates.dtype)
        slope = 1 - outputs * outputs if mode == "RNN_TANH" else (outputs > 0).astype(gates.dtype)
        for t in order:
            if flowing is not None:
                g_hidden += flowing[t]
            g_hidden = np.multiply(g_hidden, slope[t], out=g_gates[t]) @ weight
    flat = g_own.reshape(steps * count, -1)
    made: dict[int, Any] = {
        0: lambda: g_gates.reshape(gates.shape),
        1: lambda: g_hidden,
        2: lambda: g_cell,
        3: lambda: flat.T @ before.reshape(steps * count, size),
        4: lambda: flat.sum(0),
    }
    return [made[i]() for i in wanted]


def _lstm_back(
    saved: Saved, flowing: Array | None, g_hidden: Array, g_cell: Array, weight: Array, order: range
) -> tuple[Array, Array, Array]:
    active, tanhs = saved["active"], saved["tanhs"]
    size = tanhs.shape[2]
    enter, keep, new, show = (active[..., i * size : (i + 1) * size] for i in range(4))
    # The gates' derivatives by the cell (three gates) and by the hidden state (the fourth, and the cell itself).
    by_cell = np.empty((*tanhs.shape[:2], 3, size), tanhs.dtype)
    np.multiply(new, enter * (1 - enter), out=by_cell[..., 0, :])
    np.multiply(saved["cells_before"], keep * (1 - keep), out=by_cell[..., 1, :])
    np.multiply(enter, 1 - new * new, out=by_cell[..., 2, :])
    of_show = tanhs * (show * (1 - show))
    of_cell = show * (1 - tanhs * tanhs)
    g_gates = np.empty_like(active)
    for t in order:
        if flowing is not None:
            g_hidden += flowing[t]
        g_cell += g_hidden * of_cell[t]
        g = g_gates[t]
        np.multiply(g_cell[:, None, :], by_cell[t], out=g[:, : 3 * size].reshape(-1, 3, size))
        np.multiply(g_hidden, of_show[t], out=g[:, 3 * size :])
        g_hidden = g @ weight
        g_cell *= keep[t]
    return g_gates, g_hidden, g_cell


def _gru_back(
    saved: Saved, flowing: Array | None, g_hidden: Array, weight: Array, order: range
) -> tuple[Array, Array, Array]:
    active, own_new, before = saved["active"], saved["own_new"], saved["before"]
    size = own_new.shape[2]
    reset, update, new = (active[..., i * size : (i + 1) * size] for i in range(3))
    of_update = (before - new) * (update * (1 - update))
    of_new = (1 - update) * (1 - new * new)
    of_reset = own_new * (reset * (1 - reset))
    g_gates, g_own = np.empty_like(active), np.empty_like(active)
    for t in order:
        if flowing is not None:
            g_hidden += flowing[t]
        g, own = g_gates[t], g_own[t]
        g_new = np.multiply(g_hidden, of_new[t], out=g[:, 2 * size :])
        np.multiply(g_new, of_reset[t], out=g[:, :size])
        np.multiply(g_hidden, of_update[t], out=g[:, size : 2 * size])
        own[:, : 2 * size] = g[:, : 2 * size]
        np.multiply(g_new, reset[t], out=own[:, 2 * size :])
        g_hidden *= update[t]
        g_hidden = g_hidden + own @ weight
    return g_gates, g_own, g_hidden
