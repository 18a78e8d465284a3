"""What the optimizers that treat each parameter by itself share: the loop, new state, checks, complex parameters."""

from __future__ import annotations

from typing import Any

from graphtorch import ops
from graphtorch.autograd.grad_mode import set_grad_enabled
from graphtorch.autograd.state import state
from graphtorch.ops.arrays import count_up
from graphtorch.optim.optimizer import Closure, Optimizer, ParamGroup, move_counts, new_state
from graphtorch.tensor.dtypes import float32, float64, get_default_dtype
from graphtorch.tensor.tensor import Tensor

__all__ = ["PerParameterOptimizer", "as_number", "as_real", "check_at_least_zero", "check_betas", "check_lr", "scalar"]


class PerParameterOptimizer(Optimizer):
    """Base of the optimizers whose update of a parameter needs nothing but its gradient, its state and the options.

    Subclasses define :meth:`_initial_state` and :meth:`_update`. The gradient that `_update` gets is already negated
    under ``maximize``, and the count in ``own["step"]`` already includes the step being taken. ``foreach``, ``fused``
    and ``capturable`` are accepted by all and change nothing: there is one implementation, which captures.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            # Checkpoints of early versions lack the flags, and stored the count as a number.
            for flag in ("maximize", "capturable", "differentiable", "centered", "decoupled_weight_decay"):
                if flag in self.defaults:
                    group.setdefault(flag, False)
            for choice in ("foreach", "fused"):
                if choice in self.defaults:
                    group.setdefault(choice, None)
            for param in group["params"]:
                own = self.state.get(param, {})
                for name in ("step", "eta", "mu", "mu_product"):
                    if name in own and not isinstance(own[name], Tensor):
                        own[name] = scalar(float(own[name]))

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters once; returns what ``closure`` returned."""
        with set_grad_enabled(bool(self.defaults.get("differentiable"))):
            loss = self._run_closure(closure)
            for group in self.param_groups:
                maximize = "maximize" in group and group["maximize"]
                for param in group["params"]:
                    grad = param.grad
                    if grad is None:
                        continue
                    own = self._state_of(param, group)
                    if "step" in own:
                        count_up(own["step"])
                    self._update(param, -grad if maximize else grad, own, group)
        return loss

    def _state_of(self, param: Tensor, group: ParamGroup) -> dict[str, Any]:
        own: dict[str, Any] = self.state[param]
        if not own:
            captured = state.recorder is not None
            with new_state():
                own.update(self._initial_state(param, group))
                if captured:
                    move_counts(param, own)
        return own

    def _initial_state(self, param: Tensor, group: ParamGroup) -> dict[str, Tensor]:
        """The state of a parameter before its first update."""
        raise NotImplementedError

    def _update(self, param: Tensor, grad: Tensor, own: dict[str, Any], group: ParamGroup) -> None:
        """Update one parameter and its state in place."""
        raise NotImplementedError


def scalar(value: float) -> Tensor:
    """A 0-d state tensor, such as a count: of the default dtype if that is float64, else float32."""
    return ops.full((), value, dtype=float64 if get_default_dtype() is float64 else float32)


def as_number(value: float | Tensor) -> Any:
    """A learning rate as a number; under a capture a traced one."""
    return value.item() if isinstance(value, Tensor) else value


def as_real(*tensors: Any) -> tuple[Any, ...]:
    """Complex tensors as real views: their real and imaginary parts are independent parameters."""
    return tuple(ops.view_as_real(t) if isinstance(t, Tensor) and t.is_complex() else t for t in tensors)


def check_lr(lr: float | Tensor, message: str = "Invalid learning rate: {}") -> None:
    """Raise ValueError unless ``lr`` is a non-negative number or one-element tensor."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(message.format(lr))


def check_at_least_zero(**options: float) -> None:
    """Raise ValueError naming the first option that is negative (or NaN)."""
    for name, value in options.items():
        if not value >= 0.0:
            raise ValueError(f"Invalid {'epsilon' if name == 'eps' else name} value: {value}")


def check_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError unless each of ``betas`` is in [0, 1)."""
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
