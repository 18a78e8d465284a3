"""LRScheduler, the base class of the schedules."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.optim.optimizer import Optimizer, ParamGroup
from graphtorch.tensor.tensor import Tensor

__all__ = ["LRScheduler"]

EPOCH_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
    "`scheduler.step()` to step the scheduler. During the deprecation, if epoch is different from None, the closed "
    "form is used instead of the new chainable form, where available."
)


def _read(group: ParamGroup, key: str) -> Any:
    """An option of a group; a tensor as a copy, so that it stays what it is now."""
    value = group[key]
    return value.clone() if isinstance(value, Tensor) else value


def write_lr(group: ParamGroup, lr: Any) -> None:
    """Set the learning rate; a tensor keeps its identity."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr.item() if isinstance(lr, Tensor) else lr)
    else:
        group["lr"] = lr


class LRScheduler:
    """Base class: subclasses define ``get_lr`` and may define ``_get_closed_form_lr``.

    Args:
        last_epoch: the number of the last epoch when resuming, or -1 to start.

    Raises:
        TypeError: ``optimizer`` is not an Optimizer.
        KeyError: resuming, and a group lacks its "initial_lr".
    """

    _get_lr_called_within_step = False
    _is_initial = False
    _last_lr: list[Any]
    _get_closed_form_lr: Callable[[], list[Any]] | None = None

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for index, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _read(group, "lr"))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{index}] when resuming scheduler with "
                    "last_epoch >= 0.\nThis typically happens when:\n"
                    "1. You're trying to resume training from a checkpoint but haven't properly loaded the "
                    "optimizer state\n2. You're using last_epoch >= 0 for a fresh training run (not recommended)"
                )
        self.base_lrs = [_read(group, "initial_lr") for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        optimizer.__dict__.setdefault("_opt_called", False)
        self._initial_step()

    def __getattribute__(self, name: str) -> Any:
        """While a function is captured: numbers as each call finds them, and a step for the end of the call."""
        found = object.__getattribute__(self, name)
        recorder = state.recorder
        if recorder is None or (name.startswith("__") and name != "__dict__"):
            return found
        if name == "__dict__":
            recorder.note_effect("asks for all that a learning-rate scheduler knows")
        if name == "step":
            return functools.partial(recorder.defer_step, self)
        own = object.__getattribute__(self, "__dict__")
        return recorder.python_value(own, name) if name in own else found

    def __setattr__(self, name: str, value: Any) -> None:
        if state.recorder is not None:
            state.recorder.note_effect("changes a learning-rate scheduler")
        object.__setattr__(self, name, value)

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The learning rates in force, one a group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """Compute the next learning rates, one a group."""
        raise NotImplementedError

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch (or, deprecated, to ``epoch``) and set the learning rates.

        Each call of a compiled function does it when the rest has run; one that asks for the rates afterwards runs
        eagerly, with one warning.
        """
        if self._step_count == 1:
            self._warn_about_order()
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _warn_about_order(self) -> None:
        hint = "See more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"
        if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
            warnings.warn(
                "Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization. "
                f"Please, make sure to call `optimizer.step()` before `lr_scheduler.step()`. {hint}",
                UserWarning,
                stacklevel=3,
            )
        elif not self.optimizer._opt_called:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you "
                "should call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  Failure "
                f"to do this will result in PyTorch skipping the first value of the learning rate schedule. {hint}",
                UserWarning,
                stacklevel=3,
            )

    def _update_lr(self, epoch: int | None = None) -> None:
        with self._computing():
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                closed = self._get_closed_form_lr
                values = self.get_lr() if closed is None else closed()
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            write_lr(group, lr)
        self._last_lr = self._current()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _current(self, factor: float | None = None) -> list[Any]:
        """The current learning rates, times ``factor`` if one is given."""
        rates = [_read(group, "lr") for group in self.optimizer.param_groups]
        return rates if factor is None else [rate * factor for rate in rates]

    def _warn_if_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
                stacklevel=3,
            )


def check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def one_a_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """A list with an entry for each group, which ``value`` is or gives all of; ValueError if its length is another."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * groups
    if len(values) != groups:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. {name} has {len(values)} values, "
            f"param_groups has {groups}."
        )
    return [v.clone() if isinstance(v, Tensor) else v for v in values]
