"""Adagrad and Adadelta: step sizes from the history of squared gradients."""

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
from graphtorch.tensor.tensor import Tensor

__all__ = ["Adadelta", "Adagrad"]


class Adagrad(PerParameterOptimizer):
    """Divides the gradient by the root of the sum of its squares so far (Duchi et al. 2011).

    The learning rate is ``lr / (1 + lr_decay * t)`` after ``t`` steps. ``foreach`` and ``fused`` are accepted and
    change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        # The state exists from the start, so that it can be shared between processes.
        for group in self.param_groups:
            for param in group["params"]:
                self._state_of(param, group)

    def share_memory(self) -> None:
        """Nothing to do: the state's memory is this process's."""

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        start = group["initial_accumulator_value"]
        return {
            "step": scalar(0.0),
            "sum": ops.full_like(param, complex(start, start) if param.is_complex() else start),
        }

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr = as_number(group["lr"]) / (1 + (own["step"].item() - 1) * group["lr_decay"])
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        param, grad, total = as_real(param, grad, own["sum"])
        total.addcmul_(grad, grad, value=1)
        param.addcdiv_(grad, total.sqrt().add(group["eps"]), value=-lr)


class Adadelta(PerParameterOptimizer):
    """Steps by the gradient times the ratio of the running root mean squares of steps and gradients (Zeiler 2012).

    ``foreach`` and ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_at_least_zero(eps=eps, weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        return {"step": scalar(0.0), "square_avg": ops.zeros_like(param), "acc_delta": ops.zeros_like(param)}

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, rho, eps = as_number(group["lr"]), group["rho"], group["eps"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        param, grad, square, steps = as_real(param, grad, own["square_avg"], own["acc_delta"])
        square.mul_(rho).addcmul_(grad, grad, value=1 - rho)
        delta = steps.add(eps).sqrt() / square.add(eps).sqrt() * grad
        steps.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        param.add_(delta, alpha=-lr)
