"""Adafactor."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.optim.optimizer import ParamGroup
from graphtorch.optim.per_parameter import PerParameterOptimizer, as_number, check_lr, scalar
from graphtorch.tensor.dtypes import finfo, float64
from graphtorch.tensor.tensor import Tensor

__all__ = ["Adafactor"]


class Adafactor(PerParameterOptimizer):
    """Adam's divisor kept as a row and a column instead of a matrix, with steps relative to the parameter's size.

    (Shazeer & Stern 2018; as in PyTorch without momentum, and with ``lr`` as the bound of the relative step.)
    ``eps`` holds the smallest value of the mean square (None: the dtype's epsilon) and of the parameter's size, ``d``
    the root mean square at which updates are clipped. ``foreach`` is accepted and changes nothing.

    Raises:
        ValueError: an option is out of its range.
        RuntimeError: a parameter is complex.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.Adafactor.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        check_lr(lr, "Learning rate should be >= 0 but is: {}")
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        if param.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        own = {"step": scalar(0.0)}
        if param.dim() > 1:
            own["row_var"] = ops.zeros_like(param[..., :1])
            own["col_var"] = ops.zeros_like(param[..., :1, :])
        else:
            own["variance"] = ops.zeros_like(param)
        return own

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        lr, (smallest, smallest_size) = as_number(group["lr"]), group["eps"]
        if smallest is None:
            smallest = finfo(param.dtype).eps
        # What depends on data are 0-d tensors, in float64: the numbers that PyTorch reads, and a capture cannot read.
        step = own["step"].to(float64)
        root_size = param.numel() ** 0.5
        relative = (param.norm(2).to(float64) / root_size).clamp(min=smallest_size)
        rate = relative * step.rsqrt().clamp(max=lr)
        if group["weight_decay"] != 0:
            param.mul_(1 - lr * group["weight_decay"])
        new = own["step"].item() ** group["beta2_decay"]
        if "row_var" in own:
            rows, columns = own["row_var"], own["col_var"]
            squared = grad * grad
            rows.lerp_(squared.mean(-1, keepdim=True), new)
            columns.lerp_(squared.mean(-2, keepdim=True), new)
            variance = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=smallest)
        else:
            own["variance"].lerp_(grad * grad, new)
            variance = own["variance"]
        update = variance.clamp(min=smallest * smallest).rsqrt() * grad
        clipping = (update.norm(2).to(float64) / (root_size * group["d"])).clamp(min=1.0)
        param.sub_(update * (rate / clipping))
