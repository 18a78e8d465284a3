"""Functions that PyTorch has at the top of its namespace under the names of `nn.functional`, with other arguments.

Reductions and modes are numbers here (0 none, 1 mean, 2 sum), flags that choose a library are accepted and ignored.
See https://docs.pytorch.org/docs/stable/torch.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphtorch import ops
from graphtorch.nn import functional as F
from graphtorch.nn.functional.recurrent import gru_step, lstm_step, recurrent_layers, rnn_step
from graphtorch.nn.utils.parametrizations import norm_except_dim as _norm_except_dim
from graphtorch.nn.utils.rnn import read_sizes
from graphtorch.tensor.dtypes import bool_
from graphtorch.tensor.tensor import Tensor

_REDUCTIONS = ("none", "mean", "sum")


def _reduction(given: int | str) -> str:
    return given if isinstance(given, str) else _REDUCTIONS[given]


# -- grids ------------------------------------------------------------------------------------------------------------


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sample` with modes as numbers: bilinear, nearest, bicubic; zeros, border, reflection."""
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    return F.grid_sample(input, grid, mode, padding, align_corners)


grid_sampler_2d = grid_sampler_3d = grid_sampler


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """See torch.nn.functional.affine_grid."""
    return F.affine_grid(theta, size, align_corners)


# -- normalisation and dropout ----------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """See torch.nn.functional.batch_norm."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """See torch.nn.functional.instance_norm."""
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, reciprocal standard deviation); the statistics keep the reduced dimensions as ones."""
    dims = tuple(range(-len(normalized_shape), 0))
    fixed = input.detach()
    mean = fixed.mean(dims, keepdim=True)
    scale = ((fixed - mean).square().mean(dims, keepdim=True) + eps).rsqrt()
    return F.layer_norm(input, normalized_shape, weight, bias, eps), mean, scale


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, reciprocal standard deviation); the statistics have shape (N, group)."""
    grouped = input.reshape(N, group, C // group * HxW)
    mean = grouped.mean(-1)
    scale = ((grouped - mean.unsqueeze(-1)).square().mean(-1) + eps).rsqrt()
    return F.group_norm(input, group, weight, bias, eps), mean, scale


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, reciprocal standard deviation) of each channel; empty statistics in evaluation."""
    result = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return result, input.new_zeros(0), input.new_zeros(0)
    dims = tuple(d for d in range(input.ndim) if d != 1)
    variance, mean = ops.var_mean(input.detach(), dims, correction=0)
    return result, mean, (variance + eps).rsqrt()


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(result, mask): what was kept is divided by 1 - p."""
    if train is False:
        return input, ops.ones_like(input, dtype=bool_)
    kept = ops.empty_like(input.detach()).bernoulli_(1 - p)
    scale = 0.0 if p == 1 else 1 / (1 - p)
    return input * kept * scale, kept.bool()


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """See torch.nn.functional.alpha_dropout."""
    return F.alpha_dropout(input, p, train)


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """See torch.nn.functional.feature_alpha_dropout."""
    return F.feature_alpha_dropout(input, p, train)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Whole channels (dimension 1) are dropped, as by torch.nn.functional.dropout2d, whatever dimensions follow."""
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if not 0 <= p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not train or p == 0:
        return input
    if p == 1:
        return input * 0
    noise = input.new_empty((*input.shape[:2], *(1,) * (input.ndim - 2))).bernoulli_(1 - p).div_(1 - p)
    return input * noise


def _inplace(function: Any) -> Any:
    def changed(input: Tensor, p: float, train: bool) -> Tensor:
        return input.copy_(function(input.clone(), p, train))

    changed.__name__ = function.__name__ + "_"
    changed.__doc__ = f"`{function.__name__}`, in place."
    return changed


dropout_ = _inplace(ops.dropout)
alpha_dropout_ = _inplace(alpha_dropout)
feature_alpha_dropout_ = _inplace(feature_alpha_dropout)
feature_dropout_ = _inplace(feature_dropout)


# -- losses -----------------------------------------------------------------------------------------------------------


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int | str = 0,
) -> Tensor:
    """See torch.nn.functional.binary_cross_entropy_with_logits."""
    return F.binary_cross_entropy_with_logits(
        input, target, weight, pos_weight=pos_weight, reduction=_reduction(reduction)
    )


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int | str = 0
) -> Tensor:
    """See torch.nn.functional.cosine_embedding_loss."""
    return F.cosine_embedding_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: int | str = 0) -> Tensor:
    """See torch.nn.functional.hinge_embedding_loss."""
    return F.hinge_embedding_loss(input, target, margin, reduction=_reduction(reduction))


def kl_div(input: Tensor, target: Tensor, reduction: int | str = 0, *, log_target: bool = False) -> Tensor:
    """See torch.nn.functional.kl_div; the mean is that over all elements."""
    return F.kl_div(input, target, reduction=_reduction(reduction), log_target=log_target)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int | str = 0
) -> Tensor:
    """See torch.nn.functional.margin_ranking_loss."""
    return F.margin_ranking_loss(input1, input2, target, margin, reduction=_reduction(reduction))


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int | str
) -> Tensor:
    """See torch.nn.functional.poisson_nll_loss."""
    return F.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_reduction(reduction))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int | str = 0,
) -> Tensor:
    """See torch.nn.functional.triplet_margin_loss."""
    return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=_reduction(reduction))


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int | str = 0,
    zero_infinity: bool = False,
) -> Tensor:
    """See torch.nn.functional.ctc_loss."""
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _reduction(reduction), zero_infinity)


# -- the rest ---------------------------------------------------------------------------------------------------------


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """The largest elements and where they are. See torch.nn.functional.adaptive_max_pool1d."""
    return F.adaptive_max_pool1d(input, output_size, return_indices=True)


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    """See torch.nn.functional.max_pool1d."""
    return F.max_pool1d(input, kernel_size, stride or None, padding, dilation, ceil_mode, True)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution over one to three dimensions, transposed or not."""
    spatial = input.ndim - 2
    if transposed:
        name = f"conv_transpose{spatial}d"
        return getattr(F, name)(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return getattr(F, f"conv{spatial}d")(input, weight, bias, stride, padding, dilation, groups)


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The bags alone, of the four results of PyTorch's function; modes are 0 sum, 1 mean, 2 max."""
    name = ("sum", "mean", "max")[mode]
    return F.embedding_bag(
        indices,
        weight,
        offsets,
        scale_grad_by_freq=scale_grad_by_freq,
        mode=name,
        sparse=sparse,
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )


def embedding_renorm_(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Rescale the rows that are looked up to a norm of at most `max_norm`, in place."""
    from graphtorch.nn.functional.convolutions import _shrink_rows

    _shrink_rows(weight, indices, max_norm, norm_type)
    return weight


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The norms of the slices along `dim`, which stays; of all elements together for -1."""
    if pow == 2:
        return _norm_except_dim(v, dim)
    if dim == -1:
        return v.norm(pow)
    return v.norm(pow, tuple(d for d in range(v.dim()) if d != dim), keepdim=True)


def frobenius_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The root of the sum of squares over one dimension or two."""
    return ops.linalg_vector_norm(input, 2, dim or None, keepdim)


def nuclear_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum of the singular values."""
    return ops.linalg_matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """See torch.nn.functional.threshold_."""
    return F.threshold_(input, threshold, value)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """See torch.nn.functional.rrelu_."""
    return F.rrelu_(input, lower, upper, training)


def resize_as_(input: Tensor, the_template: Tensor) -> Tensor:
    """See torch.Tensor.resize_as_."""
    return input.resize_as_(the_template)


def detach_(input: Tensor) -> Tensor:
    """See torch.Tensor.detach_."""
    return input.detach_()


# -- recurrent cells --------------------------------------------------------------------------------------------------


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The next hidden and cell state."""
    return lstm_step(F.linear(input, w_ih, b_ih), hx[0], hx[1], w_hh, b_hh)


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """The next hidden state."""
    return gru_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh)


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """The next hidden state."""
    return rnn_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh, "tanh")


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """The next hidden state."""
    return rnn_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh, "relu")


# -- recurrent layers -------------------------------------------------------------------------------------------------

_LAYER = ("hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")


def _recurrent(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The layers on (steps, N, in), or on packed data with their batch sizes, as the arguments' types say."""
    state_is_tensor = name != "lstm"
    packed = "batch_sizes" in kwargs or (
        isinstance(args[2] if state_is_tensor and len(args) > 2 else args[1] if len(args) > 1 else None, Tensor)
    )
    names = ("data", "batch_sizes", *_LAYER) if packed else ("input", *_LAYER, "batch_first")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if set(given) != set(names) or len(args) > len(names):
        kinds = ", ".join(type(a).__name__ for a in (*args, *kwargs.values()))
        raise TypeError(f"{name}() received an invalid combination of arguments - got ({kinds})")
    params, directions = list(given["params"]), 2 if given["bidirectional"] else 1
    each = len(params) // (given["num_layers"] * directions)
    weights = []
    for first in range(0, len(params), each):
        own = params[first : first + each]
        biases = own[2:4] if given["has_biases"] else (None, None)
        projection = own[-1] if each > (4 if given["has_biases"] else 2) else None
        weights.append([own[0], biases[0], own[1], biases[1], projection])
    state = (given["hx"],) if state_is_tensor else tuple(given["hx"])
    options = (weights, given["bidirectional"], given["dropout"], given["train"])
    mode = name.upper()
    if packed:
        return recurrent_layers(mode, given["data"], read_sizes(given["batch_sizes"]), state, *options)
    data = given["input"].transpose(0, 1) if given["batch_first"] else given["input"]
    steps, batch = data.shape[:2]
    if type(steps) is int:
        output, last = recurrent_layers(mode, data.reshape(steps * batch, -1), [batch] * steps, state, *options)
        output = output.reshape(steps, batch, -1)
    else:
        output, last = recurrent_layers(mode, data, None, state, *options)
    return output.transpose(0, 1) if given["batch_first"] else output, last


def lstm(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(output, last hidden state, last cell state) of `lstm(input, hx, params, has_biases, num_layers, dropout, train,
    bidirectional, batch_first)`, or of packed data: `lstm(data, batch_sizes, hx, params, ..., bidirectional)`.

    `params` are, for each direction of each layer: weight_ih, weight_hh, and where there are some bias_ih, bias_hh and
    the projection.
    """
    output, (hidden, cell) = _recurrent("lstm", args, kwargs)
    return output, hidden, cell


def _one_state(name: str) -> Any:
    def layers(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        output, (hidden,) = _recurrent(name, args, kwargs)
        return output, hidden

    layers.__name__ = layers.__qualname__ = name
    layers.__doc__ = "(output, last hidden state); arguments are those of `lstm`, with one tensor as `hx`."
    return layers


gru, rnn_tanh, rnn_relu = (_one_state(_name) for _name in ("gru", "rnn_tanh", "rnn_relu"))
