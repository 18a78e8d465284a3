"""RMSprop."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.ops.arrays import update
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import (
    PerParameterOptimizer,
    as_number,
    as_real,
    check_at_least_zero,
    check_lr,
    scalar,
)
from graphtorch.tensor.tensor import Tensor

__all__ = ["RMSprop"]


class RMSprop(PerParameterOptimizer):
    """Divides the gradient by the root of the running mean of its square (Tieleman & Hinton 2012).

    ``centered`` takes off the square of the running mean of the gradient, so that the root is of its variance.
    ``momentum`` accumulates the divided gradients. ``foreach`` and ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(eps=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("momentum", 0)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        own = {"step": scalar(0.0), "square_avg": ops.zeros_like(param)}
        if group["momentum"] > 0:
            own["momentum_buffer"] = ops.zeros_like(param)
        if group["centered"]:
            own["grad_avg"] = ops.zeros_like(param)
        return own

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, alpha, momentum = as_number(group["lr"]), group["alpha"], group["momentum"]
        if not group["centered"] and type(lr) is float:
            changed = param, own["square_avg"], *((own["momentum_buffer"],) if momentum > 0 else ())
            if update(_small, changed, grad, lr, alpha, momentum, group["weight_decay"], group["eps"]):
                return
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        param, grad, square = as_real(param, grad, own["square_avg"])
        square.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if group["centered"]:
            (mean,) = as_real(own["grad_avg"])
            mean.lerp_(grad, 1 - alpha)
            if group["differentiable"]:
                mean = mean.clone()  # the next step overwrites it, and the backward of this one needs it
            root = square.addcmul(mean, mean, value=-1).sqrt()
        else:
            root = square.sqrt()
        root = root.add(group["eps"])
        if momentum > 0:
            (buffer,) = as_real(own["momentum_buffer"])
            buffer.mul_(momentum).addcdiv_(grad, root)
            param.add_(buffer, alpha=-lr)
        else:
            param.addcdiv_(grad, root, value=-lr)


def _small(param: Any, square: Any, *rest: Any) -> None:
    """`RMSprop._update` for one parameter, on arrays: its buffer, if there is momentum, the gradient, and numbers."""
    *buffers, grad, lr, alpha, momentum, weight_decay, eps = rest
    if weight_decay != 0:
        grad = grad + param * weight_decay
    np.multiply(square, alpha, square)
    change = grad * (1 - alpha)
    change *= grad
    np.add(square, change, square)
    root = np.sqrt(square)
    root += eps
    for buffer in buffers:
        np.multiply(buffer, momentum, buffer)
        np.add(buffer, grad / root, buffer)
        np.add(param, buffer * -lr, param)
    if not buffers:
        np.multiply(grad, -lr, change)
        change /= root
        np.add(param, change, param)
