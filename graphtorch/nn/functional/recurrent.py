"""Recurrent networks as compositions: one step of each kind, and a layer's steps over packed data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.autograd.compositions import Kernels, by_kernels
from graphtorch.nn.functional import recurrent_kernels, recurrent_steps
from graphtorch.nn.functional.convolutions import linear
from graphtorch.nn.functional.dropouts import dropout as drop
from graphtorch.nn.functional.recurrent_steps import next_state
from graphtorch.tensor.tensor import Tensor

__all__ = ["gru_step", "lstm_step", "recurrent_layer", "recurrent_layers", "recurrent_scan", "rnn_step"]

State = tuple[Tensor, ...]


def rnn_step(gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, nonlinearity: str) -> Tensor:
    """The next hidden state of an Elman network; ``gates`` is what the input adds, (N, H)."""
    step = _tanh_step if nonlinearity == "tanh" else _relu_step
    return step(gates, hidden, None, weight, bias, f"RNN_{nonlinearity.upper()}", 1, False)[1]


def lstm_step(
    gates: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, bias: Tensor | None, projection: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The next hidden and cell state; ``gates`` is what the input adds, (N, 4 H): input, forget, cell, output."""
    if projection is not None:
        hidden, cell = _next_state("LSTM", gates, (hidden, cell), (None, None, weight, bias, projection))
        return hidden, cell
    _, hidden, cell = _lstm_step(gates, hidden, cell, weight, bias, "LSTM", 1, False)
    return hidden, cell


def gru_step(gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The next hidden state; ``gates`` is what the input adds, (N, 3 H): reset, update, new."""
    return _gru_step(gates, hidden, None, weight, bias, "GRU", 1, False)[1]


def _next_state(mode: str, gates: Tensor, now: State, weights: Sequence[Tensor | None]) -> State:
    """One step, operator by operator."""
    _, _, weight, bias, projection = weights
    assert weight is not None
    after = next_state(mode, gates, linear(now[0], weight, bias), now)
    return after if projection is None else (linear(after[0], projection), *after[1:])


def _steps(
    gates: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    mode: str,
    steps: int,
    reverse: bool,
) -> tuple[Tensor, ...]:
    """One direction of one layer over sequences of one length: the outputs (steps * N, H) and the last state. `gates`
    is what the input adds, (steps * N, gates * H)."""
    now: State = (hidden,) if cell is None else (hidden, cell)
    outputs: list[Any] = [None] * steps
    each = (gates,) if steps == 1 else gates.split([hidden.shape[0]] * steps, 0)
    for step in range(steps - 1, -1, -1) if reverse else range(steps):
        now = _next_state(mode, each[step], now, (None, None, weight, bias, None))
        outputs[step] = now[0]
    return (outputs[0] if steps == 1 else ops.cat(outputs)), *now


_KERNELS = Kernels(recurrent_kernels.applies, recurrent_steps.forward, recurrent_steps.backward)
# The same, named as PyTorch's histories end.
_sequence = by_kernels("CatBackward0", _KERNELS)(_steps)
_lstm_step = by_kernels("MulBackward0", _KERNELS)(_steps)
_gru_step = by_kernels("AddBackward0", _KERNELS)(_steps)
_tanh_step = by_kernels("TanhBackward0", _KERNELS)(_steps)
_relu_step = by_kernels("ReluBackward0", _KERNELS)(_steps)


def recurrent_scan(
    mode: str, data: Tensor, state: State, weights: Sequence[Tensor | None], reverse: bool = False
) -> tuple[Tensor, State]:
    """One direction of one layer over (steps, N, in), as one loop of the graph: for numbers of steps that are symbols
    while a function is compiled. Arguments and results are otherwise those of :func:`recurrent_layer`; the outputs are
    (steps, N, H)."""
    from graphtorch.frontend.control_flow import scan

    input_weight, input_bias = weights[:2]
    assert input_weight is not None

    def step(now: State, gates: Tensor) -> tuple[State, Tensor]:
        after = _next_state(mode, gates, now, weights)
        return after, after[0].clone()

    last, outputs = scan(step, state, linear(data, input_weight, input_bias), reverse=reverse)
    return outputs, last


def recurrent_layer(
    mode: str,
    data: Tensor,
    batch_sizes: Sequence[int],
    state: State,
    weights: Sequence[Tensor | None],
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """One direction of one layer.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        data: (sum of the batch sizes, in), step by step; sequences end by leaving at the end of the batch.
        batch_sizes: how many sequences each step has, not increasing.
        state: the first hidden state (N, H), of an LSTM followed by the cell state.
        weights: input weight and bias, hidden weight and bias, and a projection; None where there is none.
        reverse: whether to go from the last step to the first.

    Returns:
        the outputs (sum of the batch sizes, H) and the last state of each sequence.
    """
    input_weight, input_bias, weight = weights[:3]
    assert input_weight is not None and weight is not None
    # What the input adds is independent of the steps: one product for all.
    total = linear(data, input_weight, input_bias)
    if weights[4] is None and batch_sizes[0] == batch_sizes[-1]:
        cell = state[1] if mode == "LSTM" else None
        output, *last = _sequence(total, state[0], cell, weight, weights[3], mode, len(batch_sizes), reverse)
        return output, tuple(last)
    gates = total.split(list(batch_sizes), 0)
    first, now = state, tuple(part[: batch_sizes[-1]] for part in state) if reverse else state
    outputs: list[Tensor] = []
    ended: list[State] = []  # final states of sequences that are over, the shortest first
    order = range(len(batch_sizes) - 1, -1, -1) if reverse else range(len(batch_sizes))
    size = batch_sizes[-1] if reverse else batch_sizes[0]
    for step in order:
        next_size = batch_sizes[step]
        if next_size > size:  # backwards, longer sequences are under way when shorter ones come in
            now = tuple(ops.cat([part, start[size:next_size]]) for part, start in zip(now, first, strict=True))
        elif next_size < size:
            ended.append(tuple(part[next_size:] for part in now))
            now = tuple(part[:next_size] for part in now)
        size = next_size
        now = _next_state(mode, gates[step], now, weights)
        outputs.append(now[0])
    if reverse:
        outputs.reverse()
    if ended:
        now = tuple(ops.cat([part, *(other[i] for other in reversed(ended))]) for i, part in enumerate(now))
    return ops.cat(outputs), now


def recurrent_layers(
    mode: str,
    data: Tensor,
    batch_sizes: Sequence[int] | None,
    state: State,
    weights: Sequence[Sequence[Tensor | None]],
    bidirectional: bool,
    dropout: float,
    training: bool,
) -> tuple[Tensor, State]:
    """All layers, of which each but the last is followed by dropout.

    Arguments are those of :func:`recurrent_layer`, for every direction of every layer in turn: `weights` a list of
    them, the state's tensors (layers * directions, N, H). Without `batch_sizes` the data are (steps, N, in), with a
    number of steps that is a symbol.
    """
    directions = 2 if bidirectional else 1
    count = len(weights) // directions
    ends: list[State] = []
    for layer in range(count):
        outputs = []
        for reverse in (False, True)[:directions]:
            start = tuple(part[len(ends)] for part in state)
            own = weights[len(ends)]
            if batch_sizes is None:
                output, end = recurrent_scan(mode, data, start, own, reverse)
            else:
                output, end = recurrent_layer(mode, data, batch_sizes, start, own, reverse)
            outputs.append(output)
            ends.append(end)
        data = ops.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
        if dropout > 0 and layer < count - 1:
            data = drop(data, dropout, training)
    return data, tuple(ops.stack(parts) for parts in zip(*ends, strict=True))
