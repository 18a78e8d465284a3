"""Adamax, NAdam and RAdam: Adam with another norm, with Nesterov momentum, and with a rectified variance."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import (
    PerParameterOptimizer,
    as_number,
    as_real,
    check_at_least_zero,
    check_betas,
    check_lr,
    scalar,
)
from graphtorch.tensor.dtypes import float64
from graphtorch.tensor.tensor import Tensor

__all__ = ["Adamax", "NAdam", "RAdam"]


class Adamax(PerParameterOptimizer):
    """Adam that divides by the decaying maximum of the gradient's size instead of its root mean square.

    (Kingma & Ba 2015, section 7.1) ``foreach`` and ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Adamax.html
    """

    _counts_on_host = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(eps=eps)
        check_betas(betas)
        check_at_least_zero(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        return {"step": scalar(0.0), "exp_avg": ops.zeros_like(param), "exp_inf": ops.zeros_like(param)}

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, (beta1, beta2) = as_number(group["lr"]), group["betas"]
        if group["weight_decay"] != 0:
            grad = grad.add(param, alpha=group["weight_decay"])
        param, grad, mean, largest = as_real(param, grad, own["exp_avg"], own["exp_inf"])
        mean.lerp_(grad, 1 - beta1)
        largest.copy_(ops.maximum(largest * beta2, grad.abs().add(group["eps"])))
        if group["differentiable"]:
            # The next step overwrites them, and the backward of this one needs them.
            mean, largest = mean.clone(), largest.clone()
        param.addcdiv_(mean, largest, value=-(lr / (1 - beta1 ** own["step"].item())))


class NAdam(PerParameterOptimizer):
    """Adam with Nesterov momentum, whose weight grows over time (Dozat 2016).

    ``decoupled_weight_decay`` shrinks the parameter itself instead of adding to the gradient. ``foreach`` and
    ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html
    """

    _counts_on_host = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(eps=eps)
        check_betas(betas)
        check_at_least_zero(weight_decay=weight_decay, momentum_decay=momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        return {
            "step": scalar(0.0),
            "mu_product": scalar(1.0),
            "exp_avg": ops.zeros_like(param),
            "exp_avg_sq": ops.zeros_like(param),
        }

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, (beta1, beta2), decay = as_number(group["lr"]), group["betas"], group["momentum_decay"]
        param, grad, mean, square = as_real(param, grad, own["exp_avg"], own["exp_avg_sq"])
        grad = _with_decay(param, grad, lr, group)
        step = own["step"].item()
        now = beta1 * (1.0 - 0.5 * 0.96 ** (step * decay))
        following = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * decay))
        own["mu_product"].mul_(now)
        product = own["mu_product"].item()
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (square / (1 - beta2**step)).sqrt().add(group["eps"])
        if group["differentiable"]:
            mean = mean.clone()  # the next step overwrites it, and the backward of this one needs it
        param.addcdiv_(grad, root, value=-lr * (1.0 - now) / (1.0 - product))
        param.addcdiv_(mean, root, value=-lr * following / (1.0 - product * following))


class RAdam(PerParameterOptimizer):
    """Adam whose step is rectified for the variance of its divisor, and undivided while that is unbounded.

    (Liu et al. 2020) ``decoupled_weight_decay`` shrinks the parameter itself instead of adding to the gradient.
    ``foreach`` and ``capturable`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.RAdam.html
    """

    _counts_on_host = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_lr(lr)
        check_at_least_zero(eps=eps)
        check_betas(betas)
        check_at_least_zero(weight_decay=weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        return {"step": scalar(0.0), "exp_avg": ops.zeros_like(param), "exp_avg_sq": ops.zeros_like(param)}

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, (beta1, beta2) = as_number(group["lr"]), group["betas"]
        param, grad, mean, square = as_real(param, grad, own["exp_avg"], own["exp_avg_sq"])
        grad = _with_decay(param, grad, lr, group)
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        # The count decides between two updates. It changes from step to step, so under a capture both are in the graph
        # and these 0-d tensors choose; float64 keeps them as exact as Python numbers.
        step = own["step"].to(float64)
        correction2 = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction2
        known = length > 5.0
        bounded = length.clamp(min=5.0)
        rectifier = (bounded - 4) * (bounded - 2) * longest / ((longest - 4) * (longest - 2) * bounded)
        adaptive = (rectifier * correction2).sqrt() / square.sqrt().add(group["eps"])
        if group["differentiable"]:
            mean = mean.clone()  # the next step overwrites it, and the backward of this one needs it
        update = mean / (1 - beta1**step) * ops.where(known, adaptive, ops.ones_like(adaptive))
        param.add_(update, alpha=-lr)


def _with_decay(param: Tensor, grad: Tensor, lr: Any, group: ParamGroup) -> Tensor:
    """The gradient after weight decay, which when decoupled shrinks the parameter instead."""
    decay = group["weight_decay"]
    if decay == 0:
        return grad
    if group["decoupled_weight_decay"]:
        param.mul_(1 - lr * decay)
        return grad
    return grad.add(param, alpha=decay)
