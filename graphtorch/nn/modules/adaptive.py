"""Adaptive softmax: a softmax over many classes whose rare ones are in clusters of their own.

Source: Grave et al., Efficient softmax approximation for GPUs, 2016 (https://arxiv.org/abs/1609.04309)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphtorch import ops
from graphtorch.autograd.state import state
from graphtorch.nn import functional as F
from graphtorch.nn.modules.container import ModuleList, Sequential
from graphtorch.nn.modules.linear import Linear
from graphtorch.nn.modules.module import Module
from graphtorch.tensor.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class _ASMoutput(NamedTuple):
    """The log-probability of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of targets among `n_classes` classes, sorted by frequency, most frequent first.

    The head has the first `cutoffs[0]` classes and an entry for each cluster; a cluster's classes are computed from
    `in_features / div_value ** i` features, and only for the targets that lie in it. (In a compiled function, whose
    shapes can't depend on the targets, for all of them.)

    Shapes: input (N, in_features), target (N,); or one sample without N.

    Raises ValueError for cutoffs that don't increase within 1 .. n_classes - 1.
    See https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (
            cutoffs != sorted(set(cutoffs))
            or cutoffs[0] <= 0
            or cutoffs[-1] > n_classes - 1
            or any(int(c) != c for c in cutoffs)
        ):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing order, where each "
                "value is between 1 and n_classes-1"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            hidden = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, hidden, bias=False, device=device, dtype=dtype),
                    Linear(hidden, high - low, bias=False, device=device, dtype=dtype),
                )
            )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        """(log-probabilities (N,), loss). Raises RuntimeError for shapes or targets that don't fit."""
        if target_.dim() > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        batched = target_.dim() == 1
        if batched and input_.shape[0] != target_.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if input_.dim() != target_.dim() + 1:
            raise RuntimeError(
                f"{target_.dim()}D target tensor expects {target_.dim() + 1}D input tensors, but found inputs with "
                f"size {input_.size()}"
            )
        input, target = (input_, target_) if batched else (input_.unsqueeze(0), target_.unsqueeze(0))
        recorded = state.recorder is not None
        if not recorded and ((target < 0) | (target >= self.n_classes)).any():
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{target.min().item()}, {target.max().item()}] were found. "
            )
        head = F.log_softmax(self.head(input), dim=1)
        column = target
        within = ops.zeros_like(head[:, 0])  # log-probabilities in the clusters
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            inside = (target >= low) & (target < high)
            column = ops.where(inside, self.shortlist_size + i, column)
            if recorded:
                local = self._cluster(i, input, (target - low).clamp(0, high - low - 1))
                within = ops.where(inside, local, within)
                continue
            rows = inside.nonzero().squeeze(1)
            if rows.numel():
                local = self._cluster(i, input.index_select(0, rows), target.index_select(0, rows) - low)
                within = within.index_copy(0, rows, local)
        output = within + head.gather(1, column.unsqueeze(1)).squeeze(1)
        loss = (-output).mean()
        return _ASMoutput(output if batched else output.squeeze(0), loss)

    def _cluster(self, i: int, input: Tensor, local_target: Tensor) -> Tensor:
        return F.log_softmax(self.tail[i](input), dim=1).gather(1, local_target.unsqueeze(1)).squeeze(1)

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities of all classes: (N, in_features) to (N, n_classes)."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            parts.append(F.log_softmax(cluster(input), dim=1) + head[:, self.shortlist_size + i].unsqueeze(1))
        return ops.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of each sample: (N, in_features) to (N,)."""
        return self.log_prob(input).argmax(dim=1)
