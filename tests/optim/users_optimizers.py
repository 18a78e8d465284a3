"""Optimizers as people write them beside their training programs: state and counters are plain Python numbers."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from math import sqrt
from typing import Any

import graphtorch as torch
from graphtorch.optim import Optimizer


class EarlyAdam(Optimizer):
    """Adam in the manner of 2018: an integer count, math.sqrt, AMSGrad."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        )

    def step(self, closure=None):
        loss = None
        if closure is not None:
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.data
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p.data)
                    state["exp_avg_sq"] = torch.zeros_like(p.data)
                    if group["amsgrad"]:
                        state["max_exp_avg_sq"] = torch.zeros_like(p.data)
                exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
                beta1, beta2 = group["betas"]
                state["step"] += 1
                if group["weight_decay"] != 0:
                    grad = grad.add(p.data, alpha=group["weight_decay"])
                exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
                exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                if group["amsgrad"]:
                    torch.max(state["max_exp_avg_sq"], exp_avg_sq, out=state["max_exp_avg_sq"])
                    denom = state["max_exp_avg_sq"].sqrt().add_(group["eps"])
                else:
                    denom = exp_avg_sq.sqrt().add_(group["eps"])
                bias1 = 1 - beta1 ** state["step"]
                bias2 = 1 - beta2 ** state["step"]
                p.data.addcdiv_(exp_avg, denom, value=-group["lr"] * math.sqrt(bias2) / bias1)
        return loss


class RectifiedAdam(Optimizer):
    """RAdam with its table of the last ten steps' constants."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self.buffer = [[None, None, None] for _ in range(10)]

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.data.float()
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
                beta1, beta2 = group["betas"]
                exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
                state["step"] += 1
                buffered = self.buffer[int(state["step"] % 10)]
                if state["step"] == buffered[0]:
                    n_sma, step_size = buffered[1], buffered[2]
                else:
                    buffered[0] = state["step"]
                    beta2_t = beta2 ** state["step"]
                    n_sma_max = 2 / (1 - beta2) - 1
                    n_sma = n_sma_max - 2 * state["step"] * beta2_t / (1 - beta2_t)
                    buffered[1] = n_sma
                    if n_sma >= 5:
                        rect = (n_sma - 4) / (n_sma_max - 4) * (n_sma - 2) / n_sma * n_sma_max / (n_sma_max - 2)
                        step_size = math.sqrt((1 - beta2_t) * rect) / (1 - beta1 ** state["step"])
                    else:
                        step_size = 1.0 / (1 - beta1 ** state["step"])
                    buffered[2] = step_size
                if n_sma >= 5:
                    denom = exp_avg_sq.sqrt().add_(group["eps"])
                    p.data.addcdiv_(exp_avg, denom, value=-step_size * group["lr"])
                else:
                    p.data.add_(exp_avg, alpha=-step_size * group["lr"])


class PlainRAdam(Optimizer):
    """RAdam without the table."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["step"], state["m"], state["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                t = state["step"]
                state["m"].lerp_(p.grad, 1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                rho_inf = 2 / (1 - beta2) - 1
                rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
                corrected = state["m"] / (1 - beta1**t)
                if rho > 5:
                    r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
                    length = sqrt(1 - beta2**t) / (state["v"].sqrt() + group["eps"])
                    p.add_(corrected * length * r, alpha=-group["lr"])
                else:
                    p.add_(corrected, alpha=-group["lr"])


class Lion(Optimizer):
    """The sign of an interpolation; decay before the step. No counts at all."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.1):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                beta1, beta2 = group["betas"]
                update = state["exp_avg"] * beta1 + p.grad * (1 - beta1)
                p.add_(update.sign_(), alpha=-group["lr"])
                state["exp_avg"].mul_(beta2).add_(p.grad, alpha=1 - beta2)


class AdaBelief(Optimizer):
    """AdaBelief with decoupled decay and rectification by a floor of the step."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-12, weight_decay=1e-2):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad, state, (beta1, beta2) = p.grad.data, self.state[p], group["betas"]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p.data)
                    state["exp_avg_var"] = torch.zeros_like(p.data)
                p.data.mul_(1.0 - group["lr"] * group["weight_decay"])
                state["step"] += 1
                bias_correction1 = 1 - beta1 ** state["step"]
                bias_correction2 = 1 - beta2 ** state["step"]
                state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
                residual = grad - state["exp_avg"]
                state["exp_avg_var"].mul_(beta2).addcmul_(residual, residual, value=1 - beta2)
                denom = (state["exp_avg_var"].add_(group["eps"]).sqrt() / math.sqrt(bias_correction2)).add_(
                    group["eps"]
                )
                step_size = group["lr"] / bias_correction1
                p.data.addcdiv_(state["exp_avg"], denom, value=-step_size)


class Lamb(Optimizer):
    """LAMB: the count belongs to the group, the trust ratio is chosen by where."""

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            if "step" in group:
                group["step"] += 1
            else:
                group["step"] = 1
            bias1, bias2 = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
                exp_avg.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                exp_avg_sq.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                update = (exp_avg / bias1) / ((exp_avg_sq / bias2).sqrt() + group["eps"])
                update.add_(p, alpha=group["weight_decay"])
                w_norm, g_norm = p.norm(2.0), update.norm(2.0)
                one = torch.ones_like(w_norm)
                trust = torch.where(w_norm > 0, torch.where(g_norm > 0, w_norm / g_norm, one), one)
                p.add_(update * trust, alpha=-group["lr"])


class Lookahead(Optimizer):
    """Wraps an optimizer, and goes back half of the way every k steps."""

    def __init__(self, base, k=3, alpha=0.5):
        self.optimizer = base
        self.k, self.alpha = k, alpha
        self.param_groups = base.param_groups
        self.state = defaultdict(dict)
        self.fast_state = base.state
        self.defaults = base.defaults
        for group in self.param_groups:
            group["counter"] = 0

    def update(self, group):
        for fast in group["params"]:
            param_state = self.state[fast]
            if "slow_param" not in param_state:
                param_state["slow_param"] = torch.zeros_like(fast.data)
                param_state["slow_param"].copy_(fast.data)
            slow = param_state["slow_param"]
            slow += (fast.data - slow) * self.alpha
            fast.data.copy_(slow)

    def step(self, closure=None):
        loss = self.optimizer.step(closure)
        for group in self.param_groups:
            if group["counter"] == 0:
                self.update(group)
            group["counter"] += 1
            if group["counter"] >= self.k:
                group["counter"] = 0
        return loss

    def state_dict(self):
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict):
        self.optimizer.load_state_dict(state_dict)
        self.param_groups, self.fast_state = self.optimizer.param_groups, self.optimizer.state


class Ranger(Optimizer):
    """RAdam with Lookahead and centralized gradients in one: `step % k`."""

    def __init__(self, params, lr=1e-3, alpha=0.5, k=4, betas=(0.95, 0.99), eps=1e-5, threshold=5):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "k": k, "step_counter": 0})
        self.alpha, self.k, self.threshold = alpha, k, threshold

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.data
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p.data)
                    state["exp_avg_sq"] = torch.zeros_like(p.data)
                    state["slow_buffer"] = torch.empty_like(p.data)
                    state["slow_buffer"].copy_(p.data)
                exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
                beta1, beta2 = group["betas"]
                if grad.dim() > 1:
                    grad = grad - grad.mean(dim=tuple(range(1, grad.dim())), keepdim=True)
                state["step"] += 1
                exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
                beta2_t = beta2 ** state["step"]
                sma_max = 2 / (1 - beta2) - 1
                sma = sma_max - 2 * state["step"] * beta2_t / (1 - beta2_t)
                if sma > self.threshold:
                    step_size = math.sqrt(
                        (1 - beta2_t) * (sma - 4) / (sma_max - 4) * (sma - 2) / sma * sma_max / (sma_max - 2)
                    ) / (1 - beta1 ** state["step"])
                    p.data.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-step_size * group["lr"])
                else:
                    p.data.add_(exp_avg, alpha=-(1.0 / (1 - beta1 ** state["step"])) * group["lr"])
                if state["step"] % group["k"] == 0:
                    slow = state["slow_buffer"]
                    slow.add_(p.data - slow, alpha=self.alpha)
                    p.data.copy_(slow)


class Adafactor(Optimizer):
    """Row and column means for matrices; a step relative to the parameter's size; decay by the count."""

    def __init__(self, params, lr=None, eps=(1e-30, 1e-3), clip=1.0, decay_rate=-0.8, warmup=False):
        super().__init__(params, {"lr": lr, "eps": eps, "clip": clip, "decay_rate": decay_rate, "warmup": warmup})

    @staticmethod
    def _get_lr(group, state):
        min_step = 1e-6 * state["step"] if group["warmup"] else 1e-2
        rel_step = min(min_step, 1.0 / math.sqrt(state["step"]))
        return max(group["eps"][1], 0.5) * rel_step

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad, state, factored = p.grad, self.state[p], p.dim() >= 2
                if len(state) == 0:
                    state["step"] = 0
                    if factored:
                        state["row"] = torch.zeros(grad.shape[:-1])
                        state["col"] = torch.zeros(grad.shape[:-2] + grad.shape[-1:])
                    else:
                        state["square"] = torch.zeros_like(grad)
                state["step"] += 1
                lr = self._get_lr(group, state)
                beta2t = 1.0 - math.pow(state["step"], group["decay_rate"])
                update = grad**2 + group["eps"][0]
                if factored:
                    row, col = state["row"], state["col"]
                    row.mul_(beta2t).add_(update.mean(dim=-1), alpha=1.0 - beta2t)
                    col.mul_(beta2t).add_(update.mean(dim=-2), alpha=1.0 - beta2t)
                    r = (row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
                    update = (r * col.unsqueeze(-2).rsqrt()).mul_(grad)
                else:
                    square = state["square"]
                    square.mul_(beta2t).add_(update, alpha=1.0 - beta2t)
                    update = square.rsqrt().mul_(grad)
                rms = update.norm(2) / (update.numel() ** 0.5)
                update.div_((rms / group["clip"]).clamp_(min=1.0))
                p.add_(update, alpha=-lr)


class Muon(Optimizer):
    """Orthogonalized momentum for matrices, with a schedule of its own in an attribute."""

    def __init__(self, params, lr=0.02, momentum=0.95, warmup=5):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.warmup, self.updates = warmup, 0

    def orthogonal(self, g, steps=3):
        x = g / (g.norm() + 1e-7)
        flip = x.size(0) > x.size(1)
        x = x.T if flip else x
        for _ in range(steps):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        return x.T if flip else x

    @torch.no_grad()
    def step(self, closure=None):
        self.updates += 1
        scale = min(1.0, self.updates / self.warmup)
        momentum = 0.85 + (0.95 - 0.85) * scale
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(g)
                buf = state["momentum_buffer"]
                buf.mul_(momentum).add_(g)
                g = g.add(buf, alpha=momentum)
                if g.ndim == 2:
                    g = self.orthogonal(g) * max(1, p.size(0) / p.size(1)) ** 0.5
                p.data.add_(g, alpha=-group["lr"] * scale)


class Sophia(Optimizer):
    """A clipped step by a diagonal estimate that is renewed every k steps."""

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.95), rho=0.04, k=4, batch=5):
        super().__init__(params, {"lr": lr, "betas": betas, "rho": rho})
        self.k, self.batch = k, batch

    @torch.no_grad()
    def update_hessian(self, group, p):
        state = self.state[p]
        state["hessian"].mul_(group["betas"][1]).addcmul_(p.grad, p.grad, value=1 - group["betas"][1])

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"], state["hessian"] = torch.zeros_like(p), torch.zeros_like(p)
                if state["step"] % self.k == 0:
                    self.update_hessian(group, p)
                state["step"] += 1
                state["exp_avg"].mul_(group["betas"][0]).add_(p.grad, alpha=1 - group["betas"][0])
                ratio = (state["exp_avg"].abs() / (group["rho"] * self.batch * state["hessian"] + 1e-15)).clamp(None, 1)
                p.addcmul_(state["exp_avg"].sign(), ratio, value=-group["lr"])


class Prodigy(Optimizer):
    """Estimates its step size `d` from a sum that is kept as a Python number of each group."""

    def __init__(self, params, lr=1.0, d0=1e-2, beta=0.9):
        super().__init__(params, {"lr": lr, "d": d0, "d0": d0, "k": 0, "numerator": 0.0, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            d, k, beta = group["d"], group["k"], group["beta"]
            numerator = group["numerator"] * beta
            denominator = 0.0
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "s" not in state:
                    state["s"], state["p0"] = torch.zeros_like(p), p.detach().clone()
                state["s"].mul_(beta).add_(p.grad, alpha=d * group["lr"])
                numerator += d * torch.sum(p.grad * (state["p0"] - p)).item()
                denominator += state["s"].abs().sum().item()
            d_hat = numerator / (denominator + 1e-8)
            group["numerator"], group["k"] = numerator, k + 1
            group["d"] = d * (1 + 0.05 / (k + 1))
            group["last"] = d_hat
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-d * group["lr"])


class Warmup:
    """A wrapper with a schedule in it, as in annotated Transformers."""

    def __init__(self, optimizer, factor=0.1, warmup=4):
        self.optimizer, self.factor, self.warmup = optimizer, factor, warmup
        self._step, self._rate = 0, 0.0

    def rate(self, step=None):
        step = self._step if step is None else step
        return self.factor * min(step ** (-0.5), step * self.warmup ** (-1.5))

    def step(self):
        self._step += 1
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._rate = rate
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def state(self):
        return self.optimizer.state


class Yogi(Optimizer):
    """The count is a float, the correction by a running product."""

    def __init__(self, params, lr=1e-2, betas=(0.9, 0.999), eps=1e-3):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in filter(lambda p: p.grad is not None, group["params"]):
                state = self.state[p]
                if len(state) == 0:
                    state["step"], state["product"] = 0.0, 1.0
                    state["m"], state["v"] = torch.full_like(p, 1e-6), torch.full_like(p, 1e-6)
                state["step"] += 1.0
                state["product"] *= beta1
                square = p.grad.pow(2)
                state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["v"].addcmul_((state["v"] - square).sign(), square, value=-(1 - beta2))
                rate = group["lr"] / (1 - state["product"]) / math.log1p(state["step"])
                p.addcdiv_(state["m"], state["v"].sqrt().add_(group["eps"]), value=-rate)


def _lookahead(params: Any) -> Any:
    return Lookahead(EarlyAdam(params, lr=0.02))


def _warmup(params: Any) -> Any:
    return Warmup(torch.optim.SGD(params, lr=0.0, momentum=0.9))


MAKERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda params: EarlyAdam(params, lr=0.02),
    "amsgrad": lambda params: EarlyAdam(params, lr=0.02, amsgrad=True, weight_decay=0.01),
    "radam": lambda params: RectifiedAdam(params, lr=0.02),
    "plain_radam": lambda params: PlainRAdam(params, lr=0.02),
    "lion": lambda params: Lion(params, lr=0.005),
    "adabelief": lambda params: AdaBelief(params, lr=0.01),
    "lamb": lambda params: Lamb(params, lr=0.01),
    "lookahead": _lookahead,
    "ranger": lambda params: Ranger(params, lr=0.02),
    "adafactor": lambda params: Adafactor(params),
    "muon": lambda params: Muon(params, lr=0.01),
    "sophia": lambda params: Sophia(params),
    "prodigy": lambda params: Prodigy(params),
    "warmup": _warmup,
    "yogi": lambda params: Yogi(params),
}

GROUPS = list(itertools.chain(MAKERS))
