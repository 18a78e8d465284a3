"""L-BFGS, with a line search to the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from graphtorch import ops
from graphtorch.autograd.grad_mode import enable_grad, no_grad
from graphtorch.autograd.state import state
from graphtorch.optim.optimizer import Closure, Optimizer
from graphtorch.optim.per_parameter import as_number, as_real, check_lr
from graphtorch.tensor.tensor import Tensor

__all__ = ["LBFGS"]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of parameters and gradients.

    One call of :meth:`step` makes up to ``max_iter`` iterations and calls the closure up to ``max_eval`` times
    (1.25 times ``max_iter`` by default); ``line_search_fn`` is None or "strong_wolfe". There is one group only.
    (Nocedal & Wright 2006, algorithms 7.4 and 3.5)

    The number of evaluations depends on the loss, so a step is no part of a graph, and a compiled function that takes
    one runs eagerly: compile the closure instead.

    Raises:
        ValueError: the rate is negative, or there are several groups.

    See https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_lr(lr)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    def step(self, closure: Closure | None = None) -> Any:
        """Minimise from the present parameters on; returns the first loss that ``closure`` returned.

        Raises:
            TypeError: there is no closure.
            RuntimeError: ``line_search_fn`` is unknown.
        """
        if state.recorder is not None:
            from graphtorch.frontend.errors import refuse

            raise refuse(
                "LBFGS.step() evaluates the loss as often as its values ask for", "compile the closure instead"
            )
        if closure is None:
            raise TypeError("LBFGS.step() missing 1 required positional argument: 'closure'")
        with no_grad():
            return self._minimise(closure)

    def _minimise(self, closure: Closure) -> Any:
        group = self.param_groups[0]
        lr, max_iter, max_eval = as_number(group["lr"]), group["max_iter"], group["max_eval"]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        # The state is that of all parameters together; with the first one, so that loading casts it.
        own = self.state[group["params"][0]]
        own.setdefault("func_evals", 0)
        own.setdefault("n_iter", 0)
        with enable_grad():
            first_loss = closure()
        loss, grad = float(first_loss), self._flat_grad()
        evaluations = 1
        own["func_evals"] += 1
        if float(grad.abs().max()) <= group["tolerance_grad"]:
            return first_loss
        for iteration in range(1, max_iter + 1):
            own["n_iter"] += 1
            direction = self._direction(own, grad, group["history_size"])
            own["prev_flat_grad"], own["prev_loss"] = grad.clone(), loss
            t = lr if own["n_iter"] > 1 else min(1.0, 1.0 / float(grad.abs().sum())) * lr
            own["d"], own["t"] = direction, _like(group["lr"], t)
            slope = float(grad.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            before, calls = loss, 0
            if group["line_search_fn"] is not None:
                start = [p.clone() for p in group["params"]]

                def at(t: float, start: list[Tensor] = start, direction: Tensor = direction) -> _Point:
                    self._move(t, direction)
                    with enable_grad():
                        value = float(closure())
                    found = self._flat_grad()
                    for param, old in zip(self.param_groups[0]["params"], start, strict=True):
                        param.copy_(old)
                    return _Point(t, value, found, float(found.dot(direction)))

                found, calls = _strong_wolfe(
                    at,
                    _Point(0.0, loss, grad, slope),
                    t,
                    float(direction.abs().max()),
                    group["tolerance_change"],
                    max_eval - evaluations,
                )
                t, loss, grad = found.t, found.loss, found.grad
                own["t"] = _like(group["lr"], t)
                self._move(t, direction)
            else:
                self._move(t, direction)
                # After the last iteration the loss is of no further use.
                if iteration != max_iter:
                    with enable_grad():
                        loss = float(closure())
                    grad, calls = self._flat_grad(), 1
            evaluations += calls
            own["func_evals"] += calls
            if (
                evaluations >= max_eval
                or float(grad.abs().max()) <= group["tolerance_grad"]
                or float(direction.mul(t).abs().max()) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                break
        return first_loss

    def _direction(self, own: dict[str, Any], grad: Tensor, history_size: int) -> Tensor:
        """The approximate inverse Hessian times the negative gradient, after adding the last step to the history."""
        if own["n_iter"] == 1:
            own["old_dirs"], own["old_stps"], own["ro"], own["H_diag"] = [], [], [], 1
            return grad.neg()
        changes, steps, rho = own["old_dirs"], own["old_stps"], own["ro"]
        change, step = grad.sub(own["prev_flat_grad"]), own["d"].mul(own["t"])
        curvature = change.dot(step)
        if float(curvature) > 1e-10:
            if len(changes) == history_size:
                for history in (changes, steps, rho):
                    history.pop(0)
            changes.append(change)
            steps.append(step)
            rho.append(1.0 / curvature)
            own["H_diag"] = curvature / change.dot(change)
        weights = own.setdefault("al", [None] * history_size)
        result = grad.neg()
        for i in range(len(changes) - 1, -1, -1):
            weights[i] = steps[i].dot(result) * rho[i]
            result = result - changes[i] * weights[i]
        result = result * own["H_diag"]
        for i in range(len(changes)):
            result = result + steps[i] * (weights[i] - changes[i].dot(result) * rho[i])
        return result

    def _flat_grad(self) -> Tensor:
        """All gradients as one vector; zeros where there is none."""
        parts = []
        for param in self.param_groups[0]["params"]:
            (part,) = as_real(ops.zeros_like(param) if param.grad is None else param.grad)
            parts.append(part.reshape(-1))
        return ops.cat(parts)

    def _move(self, t: float, direction: Tensor) -> None:
        """Add ``t`` times the direction to the parameters."""
        offset = 0
        for param in self.param_groups[0]["params"]:
            (target,) = as_real(param)
            count = target.numel()
            target.add_(direction[offset : offset + count].view(target.shape), alpha=t)
            offset += count


def _like(lr: Any, t: float) -> Any:
    """The step as the state has it: a tensor where the rate is one."""
    return ops.full_like(lr, t) if isinstance(lr, Tensor) else t


class _Point(NamedTuple):
    """A point on the line: its distance from the start, and there the loss, the gradient and the slope."""

    t: float
    loss: float
    grad: Tensor
    slope: float


def _strong_wolfe(
    at: Callable[[float], _Point],
    start: _Point,
    t: float,
    length: float,
    tolerance: float,
    limit: int,
    decrease: float = 1e-4,
    curvature: float = 0.9,
) -> tuple[_Point, int]:
    """A point that is lower by ``decrease`` and flatter by ``curvature`` than the start, and the evaluations it took.

    First the interval grows until it must contain such a point, then it shrinks around it; if ``limit`` rounds do not
    suffice, the best point found is returned. ``length`` is the direction's largest element.
    """

    def too_high(point: _Point) -> bool:
        return point.loss > start.loss + decrease * point.t * start.slope

    def flat(point: _Point) -> bool:
        return abs(point.slope) <= -curvature * start.slope

    previous, current = start, at(t)
    rounds = 0
    while rounds < limit:
        if too_high(current) or (rounds > 1 and current.loss >= previous.loss):
            break
        if flat(current):
            return current, rounds + 1
        if current.slope >= 0:
            break
        step = current.t + 0.01 * (current.t - previous.t), current.t * 10
        previous, current = current, at(_cubic_minimum(previous, current, *step))
        rounds += 1
    else:
        previous = start
    evaluations = rounds + 1

    low, high = (previous, current) if previous.loss <= current.loss else (current, previous)
    stuck = False
    while rounds < limit and abs(high.t - low.t) * length >= tolerance:
        left, right = min(low.t, high.t), max(low.t, high.t)
        t = _cubic_minimum(low, high, left, right)
        # Points at an end bring little: after two of them, or at the very end, move a tenth into the interval.
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if stuck or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        current = at(t)
        evaluations += 1
        rounds += 1
        if too_high(current) or current.loss >= low.loss:
            high = current
            if high.loss < low.loss:
                low, high = high, low
            continue
        if flat(current):
            return current, evaluations
        if current.slope * (high.t - low.t) >= 0:
            high = low
        low = current
    return low, evaluations


def _cubic_minimum(a: _Point, b: _Point, lowest: float, highest: float) -> float:
    """Where the cubic through two points with their slopes is least, within bounds; their middle if it has no minimum.

    (Nocedal & Wright 2006, equation 3.59)
    """
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return (lowest + highest) / 2.0
    d2 = math.sqrt(square)
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, lowest), highest)
