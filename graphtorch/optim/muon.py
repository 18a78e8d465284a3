"""Muon: momentum made orthogonal."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import PerParameterOptimizer, as_number, check_lr
from graphtorch.tensor.dtypes import bfloat16
from graphtorch.tensor.tensor import Tensor

__all__ = ["Muon"]


class Muon(PerParameterOptimizer):
    """Steps along the nearest (semi-)orthogonal matrix to the momentum, found by Newton-Schulz iterations.

    For the matrices inside a network; give its other parameters to another optimizer. (Jordan et al. 2024)
    ``adjust_lr_fn`` says how the rate depends on the shape: "original" multiplies by ``sqrt(max(1, rows/columns))``,
    "match_rms_adamw" by ``0.2 * sqrt(max(rows, columns))``.

    Raises:
        ValueError: an option is out of its range, or a parameter is not a real matrix.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        check_lr(lr, "Learning rate should be >= 0 but is: {}")
        if not momentum >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for param in group["params"]:
                if param.dim() != 2:
                    raise ValueError(
                        f"Muon only supports 2D parameters whereas we found a parameter with size: {param.size()}"
                    )

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        if param.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        return {"momentum_buffer": ops.zeros_like(param)}

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, momentum, buffer = as_number(group["lr"]), group["momentum"], own["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        update = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        update = _orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        param.mul_(1 - lr * group["weight_decay"])
        param.add_(update, alpha=-lr * _shape_factor(group["adjust_lr_fn"], *param.shape))


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """About ``U V^T`` for the singular value decomposition ``U S V^T``, in bfloat16.

    A quintic ``a s + b s^3 + c s^5`` is applied to the singular values ``steps`` times, chosen so that small values
    grow fast; they end near 1 but not at it.
    """
    if steps >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(coefficients) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.to(bfloat16)
    if tall:  # the products below are of the smaller size
        found = found.t()
    found = found / found.norm().clamp(min=eps)  # the Frobenius norm bounds the largest singular value
    for _ in range(steps):
        gram = found @ found.t()
        found = ops.addmm(found, ops.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.t() if tall else found


def _shape_factor(kind: str | None, rows: int, columns: int) -> float:
    if kind == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    return max(1.0, rows / columns) ** 0.5
