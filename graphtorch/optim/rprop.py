"""Rprop: step sizes from the signs of the gradient."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import PerParameterOptimizer, as_number, as_real, check_lr, scalar
from graphtorch.tensor.tensor import Tensor

__all__ = ["Rprop"]


class Rprop(PerParameterOptimizer):
    """Gives each element a step size that grows while its gradient keeps its sign and shrinks when that changes.

    (Riedmiller & Braun 1993) ``etas`` are the factors of shrinking and growing, ``step_sizes`` the bounds. It is meant
    for whole-batch gradients. ``foreach`` and ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Rprop.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        lr = as_number(group["lr"])
        return {
            "step": scalar(0.0),
            "prev": ops.zeros_like(param),
            "step_size": ops.full_like(param, complex(lr, lr) if param.is_complex() else lr),
        }

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        (shrink, grow), (smallest, largest) = group["etas"], group["step_sizes"]
        param, grad, previous, step_size = as_real(param, grad, own["prev"], own["step_size"])
        before = previous.clone() if group["differentiable"] else previous  # overwritten below
        agreement = (grad * before).sign()
        turned = agreement < 0
        factor = ops.where(agreement > 0, grow, ops.where(turned, shrink, ops.ones_like(agreement)))
        step_size.mul_(factor).clamp_(smallest, largest)
        # An element that has just turned waits for one step.
        grad = ops.where(turned, 0, grad)
        if group["differentiable"]:
            step_size = step_size.clone()  # the next step overwrites it, and the backward of this one needs it
        param.addcmul_(grad.sign(), step_size, value=-1)
        previous.copy_(grad)
