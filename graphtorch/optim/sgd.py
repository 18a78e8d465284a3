"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.grad_mode import set_grad_enabled
from graphtorch.ops.arrays import update
from graphtorch.optim.optimizer import Closure, Optimizer, ParamGroup, new_state
from graphtorch.tensor.dtypes import float64
from graphtorch.tensor.tensor import Tensor

__all__ = ["SGD"]


class SGD(Optimizer):
    """``v = momentum * v + (1 - dampening) * grad``, ``param -= lr * v``, the first ``v`` being the gradient itself.

    ``nesterov`` steps along ``grad + momentum * v`` instead; ``weight_decay`` adds a multiple of the parameter to the
    gradient; ``maximize`` follows the gradient upwards. ``foreach`` and ``fused`` are accepted and change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        # With dampening the first update of a buffer differs from the later ones. This holds, for each such
        # parameter, a 0-d tensor that is 1 before the first update and 0 after it; it is not part of the state dict.
        self._untouched: dict[Tensor, Tensor] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._untouched = {}
        for group in self.param_groups:
            for name, default in (("nesterov", False), ("maximize", False), ("differentiable", False)):
                group.setdefault(name, default)
            group.setdefault("foreach", None)
            group.setdefault("fused", None)

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters once; returns what ``closure`` returned."""
        with set_grad_enabled(bool(self.defaults["differentiable"])):
            loss = self._run_closure(closure)
            for group in self.param_groups:
                self._update_group(group)
        return loss

    def _update_group(self, group: ParamGroup) -> None:
        lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
        dampening, nesterov, maximize = group["dampening"], group["nesterov"], group["maximize"]
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            if maximize:
                grad = -grad
            if dampening == 0 and type(lr) is float:
                changed = (param, self._momentum_buffer(param, dampening)) if momentum != 0 else (param,)
                if update(_small, changed, grad, lr, momentum, weight_decay, nesterov):
                    continue
            if weight_decay != 0:
                grad = grad.add(param, alpha=weight_decay)
            if momentum != 0:
                buffer = self._momentum_buffer(param, dampening)
                buffer.mul_(momentum)
                if dampening == 0:
                    buffer.add_(grad)
                else:
                    untouched = self._untouched[param]
                    # 1 for the first gradient, 1 - dampening for all others.
                    buffer.add_(grad * (1 - dampening * (1 - untouched)))
                    untouched.zero_()
                grad = grad.add(buffer, alpha=momentum) if nesterov else buffer
            param.add_(grad, alpha=-lr)

    def _momentum_buffer(self, param: Tensor, dampening: float) -> Tensor:
        """The buffer of ``param``. A new one is zero, so that the first update makes it the gradient."""
        own = self.state[param]
        is_new = own.get("momentum_buffer") is None
        if is_new or (dampening != 0 and param not in self._untouched):
            with new_state():
                if is_new:
                    own["momentum_buffer"] = ops.zeros_like(param)
                if dampening != 0:
                    # float64 keeps 1 - dampening as exact as the Python number is.
                    self._untouched[param] = ops.full((), float(is_new), dtype=float64, device=param.device)
        buffer: Tensor = own["momentum_buffer"]
        return buffer


def _small(param: Any, *rest: Any) -> None:
    """`SGD._update_group` for one parameter, on arrays: its buffer, if there is momentum, the gradient, and numbers."""
    *buffers, grad, lr, momentum, weight_decay, nesterov = rest
    if weight_decay != 0:
        grad = grad + param * weight_decay
    for buffer in buffers:
        np.multiply(buffer, momentum, buffer)
        np.add(buffer, grad, buffer)
        grad = grad + buffer * momentum if nesterov else buffer
    np.add(param, grad * -lr, param)
