"""`GradScaler`: a loss scale for float16 training, which grows until gradients overflow and then backs off. See
https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling.

All state is in tensors that change in place, and what happens between two updates leaves the object's attributes as
they were, so that a compiled step can use a scaler."""

from __future__ import annotations

import enum
import warnings
from typing import Any

from graphtorch.amp.autocast_mode import has_cuda
from graphtorch.autograd.grad_mode import no_grad
from graphtorch.ops.build import FUNCTIONS
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor


class OptState(enum.Enum):
    """What was done with an optimizer's gradients since the last update."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


class GradScaler:
    """Scales losses, unscales gradients, and skips steps whose gradients are not finite. See torch.amp.GradScaler.

    device           "cpu"; "cuda" warns and disables the scaler where there is no such device.
    init_scale       the first scale.
    growth_factor    what the scale is multiplied by after `growth_interval` updates without infinities.
    backoff_factor   what it is multiplied by after an infinity.
    enabled          False makes every method do nothing but what the optimizer does.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        if enabled and device == "cuda" and not has_cuda():
            warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        self._init_scale = init_scale
        if not enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._scale: Tensor = FUNCTIONS["full"]((), float(init_scale), dtype=dtypes.float32)
        self._growth_tracker: Tensor = FUNCTIONS["full"]((), 0, dtype=dtypes.int32)
        # id of an optimizer -> (what was done, whether an infinity was found); empty between updates
        self._per_optimizer: dict[int, tuple[OptState, Tensor | None]] = {}

    def is_enabled(self) -> bool:
        """Whether the scaler does anything."""
        return self._enabled

    # -- a step ------------------------------------------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in lists and tuples, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale.to(outputs.dtype)
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(o) for o in outputs)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Any) -> None:
        """Divide an optimizer's gradients by the scale, in place.

        Raises RuntimeError the second time between two updates, and after a step.
        """
        if not self._enabled:
            return
        done, _ = self._per_optimizer.get(id(optimizer), (OptState.READY, None))
        if done is OptState.UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if done is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        inverse = self._scale.double().reciprocal().float()
        self._per_optimizer[id(optimizer)] = (OptState.UNSCALED, self._unscale_grads(optimizer, inverse))

    def _unscale_grads(self, optimizer: Any, inverse: Tensor) -> Tensor | None:
        """Unscale; returns 1.0 where some gradient was not finite, else 0.0, and None without gradients."""
        found: Tensor | None = None
        with no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad
                    if gradient is None:
                        continue
                    if gradient.dtype is dtypes.float16:
                        raise ValueError("Attempting to unscale FP16 gradients.")
                    bad = gradient.isfinite().all().logical_not()
                    found = bad if found is None else found.logical_or(bad)
                    gradient.mul_(inverse.to(gradient.dtype))
        return None if found is None else found.float()

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Unscale, unless that was done, and step, unless a gradient is not finite. Returns what the step returns.

        Raises RuntimeError for a second step between two updates, a closure, and an optimizer without gradients.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        done, found = self._per_optimizer.get(id(optimizer), (OptState.READY, None))
        if done is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if done is OptState.READY:
            self.unscale_(optimizer)
            _, found = self._per_optimizer[id(optimizer)]
        if found is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None
        if not found.item():
            result = optimizer.step(*args, **kwargs)
        self._per_optimizer[id(optimizer)] = (OptState.STEPPED, found)
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Grow or back off, or set `new_scale`; the optimizers' next step begins.

        Raises AssertionError where nothing was unscaled since the last update.
        """
        if not self._enabled:
            return
        with no_grad():
            if new_scale is not None:
                if isinstance(new_scale, Tensor):
                    self._scale.copy_(new_scale)
                else:
                    self._scale.fill_(new_scale)
            else:
                self._grow_or_back_off()
        self._per_optimizer.clear()

    def _grow_or_back_off(self) -> None:
        found: Tensor | None = None
        for _, own in self._per_optimizer.values():
            if own is not None:
                found = own if found is None else found + own
        if found is None:
            raise AssertionError("No inf checks were recorded prior to update.")
        where = FUNCTIONS["where"]
        bad = found > 0
        streak = self._growth_tracker + 1
        grows = streak == self._growth_interval
        grown = self._scale * self._growth_factor
        kept = where(grows.logical_and(grown.isfinite()), grown, self._scale)
        self._scale.copy_(where(bad, self._scale * self._backoff_factor, kept))
        self._growth_tracker.copy_(where(bad.logical_or(grows), self._growth_tracker * 0, streak))

    # -- settings ----------------------------------------------------------------------------------------------------

    def get_scale(self) -> float:
        """The scale now; 1.0 if disabled."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        return int(self._growth_tracker.item()) if self._enabled else 0

    def state_dict(self) -> dict[str, Any]:
        """The settings and the state as Python numbers; empty if disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict()` was taken.

        Raises RuntimeError for the empty state of a disabled scaler.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._scale.fill_(state_dict["scale"])
        self._growth_tracker.fill_(state_dict["_growth_tracker"])

    def __getstate__(self) -> dict[str, Any]:
        if self._enabled and self._per_optimizer:
            raise AssertionError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after "
                "scaler.update()."
            )
        return self.__dict__.copy()
