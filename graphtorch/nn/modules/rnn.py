"""Recurrent layers: RNN, LSTM and GRU over sequences, and their cells for one step."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphtorch import ops
from graphtorch.nn import functional as F
from graphtorch.nn import init
from graphtorch.nn.functional.recurrent import gru_step, lstm_step, recurrent_layers, rnn_step
from graphtorch.nn.modules.module import Module
from graphtorch.nn.parameter import Parameter
from graphtorch.nn.utils.rnn import PackedSequence, read_sizes
from graphtorch.tensor.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters, checks, and the loop over layers and directions.

    Shapes: input (T, N, input_size), or (N, T, input_size) with ``batch_first``, or (T, input_size), or a
    :class:`~graphtorch.nn.utils.rnn.PackedSequence`; hidden state (layers * directions, N, H); output (T, N,
    directions * H). Dropout is on the outputs of all layers but the last.

    Raises:
        ValueError: an option is out of its range.
        TypeError: an option has another type.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        for name, value, kind in (
            ("bias", bias, bool),
            ("batch_first", batch_first, bool),
            ("input_size", input_size, int),
            ("hidden_size", hidden_size, int),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if mode not in _GATES:
            raise ValueError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates, shown = _GATES[mode] * hidden_size, proj_size or hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else shown * (2 if bidirectional else 1)
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, inputs), "weight_hh": (gates, shown)}
            if bias:
                # One bias would do; there are two because cuDNN has two, so checkpoints have.
                shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
            if proj_size > 0:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for suffix in ("", "_reverse") if bidirectional else ("",):
                for name, shape in shapes.items():
                    parameter = Parameter(ops.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{suffix}", parameter)
                self._all_weights.append([f"{name}_l{layer}{suffix}" for name in shapes])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly within ``1 / sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: there is no library here that wants the parameters in one piece of memory."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def _weights_of(self, layer: int, suffix: str) -> list[Tensor | None]:
        names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_hr")
        return [getattr(self, f"{name}_l{layer}{suffix}", None) for name in names]

    def _state_sizes(self) -> tuple[int, ...]:
        """The width of each state tensor."""
        return (self.hidden_size,)

    def _check(self, input: Tensor, state: tuple[Tensor, ...], batch: int, packed: bool) -> None:
        weight: Tensor = self.weight_ih_l0
        if input.dtype != weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )
        if packed and input.dim() != 2:
            raise RuntimeError(f"input must have 2 dimensions, got {input.dim()}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        rows = self.num_layers * (2 if self.bidirectional else 1)
        for i, (part, size) in enumerate(zip(state, self._state_sizes(), strict=True)):
            expected = (rows, batch, size)
            if tuple(part.shape) != expected:
                which = "hidden" if len(state) == 1 else f"hidden[{i}]"
                raise RuntimeError(f"Expected {which} size {expected}, got {list(part.shape)}")

    def _run(self, input: Any, hx: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """The output in the form of the input, and the last state tensors."""
        if isinstance(input, PackedSequence):
            data, sizes = input.data, read_sizes(input.batch_sizes)
            batch = sizes[0]
            if hx is None:
                hx = self._zeros(data, batch)
            elif input.sorted_indices is not None:
                hx = tuple(part.index_select(1, input.sorted_indices) for part in hx)
            self._check(data, hx, batch, packed=True)
            output, state = self._layers(data, sizes, hx)
            if input.unsorted_indices is not None:
                state = tuple(part.index_select(1, input.unsorted_indices) for part in state)
            packed = PackedSequence(output, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return packed, state
        if input.dim() not in (2, 3):
            kind = "RNN" if self.mode.startswith("RNN") else self.mode
            end = "tensor instead" if kind == "RNN" else "instead"
            raise ValueError(f"{kind}: Expected input to be 2D or 3D, got {input.dim()}D {end}")
        batched = input.dim() == 3
        if hx is not None and any(part.dim() != input.dim() for part in hx):
            self._refuse_state(hx, input.dim(), batched)
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            hx = None if hx is None else tuple(part.unsqueeze(1) for part in hx)
        steps_first = input.transpose(0, 1) if self.batch_first else input
        steps, batch = steps_first.shape[0], steps_first.shape[1]
        if hx is None:
            hx = self._zeros(input, batch)
        self._check(input, hx, batch, packed=False)
        if type(steps) is int:
            output, state = self._layers(steps_first.reshape(steps * batch, -1), [batch] * steps, hx)
            output = output.reshape(steps, batch, -1)
        else:  # a symbol, in a function that is compiled for any length
            output, state = self._layers(steps_first, None, hx)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            state = tuple(part.squeeze(1) for part in state)
        return output, state

    def _refuse_state(self, hx: tuple[Tensor, ...], expected: int, batched: bool) -> None:
        kind = f"For {'batched' if batched else 'unbatched'} {expected}-D input, "
        if len(hx) == 1:
            raise RuntimeError(f"{kind}hx should also be {expected}-D but got {hx[0].dim()}-D tensor")
        raise RuntimeError(
            f"{kind}hx and cx should also be {expected}-D but got ({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
        )

    def _zeros(self, like: Tensor, batch: int) -> tuple[Tensor, ...]:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return tuple(
            ops.zeros((rows, batch, size), dtype=like.dtype, device=like.device) for size in self._state_sizes()
        )

    def _layers(
        self, data: Tensor, sizes: list[int] | None, hx: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers over (sum of `sizes`, in), or, without sizes, over (steps, N, in)."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        weights = [self._weights_of(layer, suffix) for layer in range(self.num_layers) for suffix in suffixes]
        return recurrent_layers(self.mode, data, sizes, hx, weights, self.bidirectional, self.dropout, self.training)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0}
        for name, default in {**defaults, "bidirectional": False}.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(RNNBase):
    """Elman networks: ``h = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu as ``nonlinearity``.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Return (output, last hidden state); ``hx`` is the first hidden state, zeros by default."""
        output, state = self._run(input, None if hx is None else (hx,))
        return output, state[0]


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014).

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Return (output, last hidden state); ``hx`` is the first hidden state, zeros by default."""
        output, state = self._run(input, None if hx is None else (hx,))
        return output, state[0]


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter & Schmidhuber 1997); with ``proj_size`` the hidden state is projected.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def _state_sizes(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Return (output, (last hidden state, last cell state)); ``hx`` is the first pair, zeros by default."""
        output, (hidden, cell) = self._run(input, None if hx is None else tuple(hx))
        return output, (hidden, cell)


class RNNCellBase(Module):
    """What the cells share.

    Shapes: input (N, input_size) or (input_size,), state (N, hidden_size) or (hidden_size,).
    """

    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(ops.empty((rows, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(ops.empty((rows, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(ops.empty(rows, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly within ``1 / sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _prepare(self, input: Tensor, hx: tuple[Tensor, ...] | None, parts: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the input adds to the gates, and the state, both with a batch dimension."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for index, part in enumerate(hx or ()):
            if part.dim() not in (1, 2):
                which = "hidden" if parts == 1 else f"hx[{index}]"
                raise ValueError(f"{name}: Expected {which} to be 1D or 2D, got {part.dim()}D instead")
        batched = input.dim() == 2
        rows = input if batched else input.unsqueeze(0)
        if hx is None:
            zeros = ops.zeros((rows.shape[0], self.hidden_size), dtype=input.dtype, device=input.device)
            hx = (zeros,) * parts
        elif not batched:
            hx = tuple(part.unsqueeze(0) for part in hx)
        return F.linear(rows, self.weight_ih, self.bias_ih), hx

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        return text


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next hidden state."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        gates, (hidden,) = self._prepare(input, None if hx is None else (hx,), 1)
        result = rnn_step(gates, hidden, self.weight_hh, self.bias_hh, self.nonlinearity)
        return result if input.dim() == 2 else result.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state."""
        gates, (hidden, cell) = self._prepare(input, None if hx is None else tuple(hx), 2)
        hidden, cell = lstm_step(gates, hidden, cell, self.weight_hh, self.bias_hh)
        return (hidden, cell) if input.dim() == 2 else (hidden.squeeze(0), cell.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next hidden state."""
        gates, (hidden,) = self._prepare(input, None if hx is None else (hx,), 1)
        result = gru_step(gates, hidden, self.weight_hh, self.bias_hh)
        return result if input.dim() == 2 else result.squeeze(0)
