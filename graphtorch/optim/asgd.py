"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import (
    PerParameterOptimizer,
    as_number,
    as_real,
    check_at_least_zero,
    check_lr,
    scalar,
)
from graphtorch.tensor.dtypes import float64
from graphtorch.tensor.tensor import Tensor

__all__ = ["ASGD"]


class ASGD(PerParameterOptimizer):
    """Gradient descent with a decaying step that also keeps the average of the parameters, in the state's "ax".

    (Polyak & Juditsky 1992) ``t0`` is the step at which averaging begins. ``foreach`` and ``capturable`` are accepted
    and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html
    """

    _counts_on_host = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        return {
            "step": scalar(0.0),
            "eta": scalar(as_number(group["lr"])),
            "mu": scalar(1.0),
            "ax": ops.zeros_like(param),
        }

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, lambd = as_number(group["lr"]), group["lambd"]
        param, grad, average = as_real(param, grad, own["ax"])
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        eta = own["eta"].item()
        param.mul_(1 - lambd * eta)
        param.add_(grad, alpha=-eta)
        # A weight of 1, before averaging begins, makes the average the parameter itself.
        average.lerp_(param, own["mu"].item())
        own["eta"].fill_(lr / (1 + lambd * lr * own["step"].item()) ** group["alpha"])
        own["mu"].copy_(1 / (own["step"].to(float64) - group["t0"]).clamp(min=1))
