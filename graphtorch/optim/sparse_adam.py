"""Adam for gradients of which few rows are not zero."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import PerParameterOptimizer, scalar
from graphtorch.tensor.tensor import Tensor

__all__ = ["SparseAdam"]


class SparseAdam(PerParameterOptimizer):
    """Adam that leaves rows without a gradient, and their running means, as they are (masked, "lazy" Adam).

    Gradients are dense here, those of ``nn.Embedding(sparse=True)`` too: a row (an index of the first dimension) takes
    part in a step if its gradient is not all zeros. PyTorch's takes part if it was looked up, which differs for rows
    whose gradient happens to be exactly 0.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr > 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps > 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        for index, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "maximize": maximize})
        complex_ones = [
            [index, place]
            for index, group in enumerate(self.param_groups)
            for place, param in enumerate(group["params"])
            if param.is_complex()
        ]
        if complex_ones:
            raise ValueError(
                f"Complex params at indices {complex_ones}: SparseAdam does not support complex parameters"
            )

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Any]:
        return {"step": scalar(0.0), "exp_avg": ops.zeros_like(param), "exp_avg_sq": ops.zeros_like(param)}

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        if isinstance(lr, Tensor):
            lr = lr.item()
        present = grad != 0
        for _ in range(grad.dim() - 1):
            present = present.any(-1)
        present = present.reshape((-1, *(1,) * (grad.dim() - 1))) if grad.dim() else present
        mean, square = own["exp_avg"], own["exp_avg_sq"]
        zero = grad.new_zeros(())
        mean.add_(ops.where(present, (grad - mean) * (1 - beta1), zero))
        square.add_(ops.where(present, (grad.pow(2) - square) * (1 - beta2), zero))
        step = own["step"].item()
        size = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        param.add_(ops.where(present, mean / square.sqrt().add(group["eps"]), zero) * -size)
