"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphtorch import ops
from graphtorch.autograd.grad_mode import set_grad_enabled
from graphtorch.autograd.state import state
from graphtorch.ops.arrays import count_of, update
from graphtorch.optim.optimizer import Closure, Optimizer, ParamGroup, move_counts, new_state
from graphtorch.tensor.dtypes import float32
from graphtorch.tensor.tensor import Tensor

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps by the running mean of the gradient over the root of that of its square (Kingma & Ba 2015).

    ``amsgrad`` divides by the largest running mean so far (Reddi et al. 2018). ``decoupled_weight_decay`` shrinks the
    parameter itself instead of adding to the gradient. ``foreach``, ``fused`` and ``capturable`` are accepted and
    change nothing.

    Raises:
        ValueError: an option is out of its range.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps >= 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        for index, beta in enumerate(betas):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
        if not weight_decay >= 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if not all(isinstance(b, float) for b in betas) and not all(isinstance(b, Tensor) for b in betas):
            raise ValueError("betas must be either both floats or both Tensors")
        given: tuple[Any, ...] = tuple(betas)
        for index, beta in enumerate(given):
            if isinstance(beta, Tensor) and foreach and not capturable:
                raise ValueError(f"betas[{index}] as a Tensor is not supported for capturable=False and foreach=True")
            if isinstance(beta, Tensor) and beta.numel() != 1:
                raise ValueError(f"Tensor betas[{index}] must be 1-element")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name in ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay"):
                group.setdefault(name, False)
            group.setdefault("foreach", None)
            group.setdefault("fused", None)
            for param in group["params"]:
                own = self.state.get(param, {})
                # Checkpoints of early versions stored the count as a number.
                if own and not isinstance(own["step"], Tensor):
                    own["step"] = ops.full((), float(own["step"]), dtype=float32)

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters once; returns what ``closure`` returned."""
        with set_grad_enabled(bool(self.defaults["differentiable"])):
            loss = self._run_closure(closure)
            for group in self.param_groups:
                self._update_group(group)
        return loss

    def _update_group(self, group: ParamGroup) -> None:
        lr, (beta1, beta2), eps = group["lr"], group["betas"], group["eps"]
        weight_decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]
        amsgrad, maximize, differentiable = group["amsgrad"], group["maximize"], group["differentiable"]
        capturable = group["capturable"]
        if isinstance(lr, Tensor) and not (capturable and lr.is_cuda and state.recorder is None):
            lr = lr.item()
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            own = self._state_of(param, amsgrad, capturable)
            if maximize:
                grad = -grad
            count = own["step"]
            taken = None if amsgrad or type(beta1) is not float or type(beta2) is not float else count_of(count)
            if taken is not None:
                step = (taken + 1).item()
                numbers = (beta1, beta2, 1 - beta1**step, 1 - beta2**step, lr, eps, weight_decay, decoupled)
                if update(_small, (param, own["exp_avg"], own["exp_avg_sq"]), grad, *numbers):
                    taken += 1
                    count._bump_version()
                    continue
            count.add_(1)
            if weight_decay != 0:
                if decoupled:
                    param.mul_(1 - lr * weight_decay)
                else:
                    grad = grad.add(param, alpha=weight_decay)
            mean, square = own["exp_avg"], own["exp_avg_sq"]
            largest = own["max_exp_avg_sq"] if amsgrad else None
            target = param
            if param.is_complex():
                # The real and imaginary parts are independent parameters.
                target, grad, mean, square = (ops.view_as_real(t) for t in (param, grad, mean, square))
                largest = None if largest is None else ops.view_as_real(largest)

            mean.lerp_(grad, 1 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            if largest is not None:
                largest.copy_(ops.maximum(largest, square))
                square = largest
            if capturable and count.is_cuda and state.recorder is None:
                # Nothing is read from the device, so that a CUDA graph of the step counts its replays.
                denominator = (square.sqrt() / (1 - beta2**count).sqrt()).add_(eps)
                target.sub_(mean / denominator * (lr / (1 - beta1**count)))
                continue
            # Under a capture the count is a traced number, so this is plain arithmetic without the math module.
            step = count.item()
            correction1 = 1 - beta1**step
            correction2 = 1 - beta2**step
            denominator = (square.sqrt() / correction2**0.5).add_(eps)
            if differentiable:
                mean = mean.clone()  # the next step overwrites it, and the backward of this one needs it
            target.addcdiv_(mean, denominator, value=-(lr / correction1))

    def _state_of(self, param: Tensor, amsgrad: bool, capturable: bool) -> dict[str, Tensor]:
        own: dict[str, Tensor] = self.state[param]
        if not own:
            captured = state.recorder is not None
            with new_state():
                own["step"] = ops.zeros((), dtype=float32)
                own["exp_avg"] = ops.zeros_like(param)
                own["exp_avg_sq"] = ops.zeros_like(param)
                if amsgrad:
                    own["max_exp_avg_sq"] = ops.zeros_like(param)
                if captured or capturable:
                    move_counts(param, own)
        return own


def _small(
    param: Any,
    mean: Any,
    square: Any,
    grad: Any,
    beta1: float,
    beta2: float,
    correction1: float,
    correction2: float,
    lr: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """`Adam._update_group` for one parameter, on arrays."""
    if weight_decay != 0:
        if decoupled:
            np.multiply(param, 1 - lr * weight_decay, param)
        else:
            grad = grad + param * weight_decay
    change = grad - mean
    weight = mean.dtype.type(1 - beta1)
    if weight < 0.5:
        change *= weight
        np.add(mean, change, mean)
    else:
        change *= 1 - weight
        np.subtract(grad, change, mean)
    np.multiply(square, beta2, square)
    np.multiply(grad, 1 - beta2, change)
    change *= grad
    np.add(square, change, square)
    denominator = np.sqrt(square)
    denominator /= correction2**0.5
    denominator += eps
    np.multiply(mean, -(lr / correction1), change)
    change /= denominator
    np.add(param, change, param)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter itself (Loshchilov & Hutter 2019).

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
