"""Random training programs with Python numbers that change at each call: in a dictionary, in the attributes of objects
and modules, and in the state of an optimizer of the program's own; and with tensors that each call replaces."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

from random_running import Program
from random_training import AFTER, BETWEEN, CLASSES, EXTRAS, LAYERS, OPTIMIZERS, Trainer

COUNTING = '''
class Counted(optim.Optimizer):
    """An early Adam, with a warm-up and a look back every few steps."""

    def __init__(self, params, lr=0.05, warm=3, every=4, shared=False):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "eps": 0.01, "weight_decay": 0})
        self.warm, self.every, self.shared, self.updates = warm, every, shared, 0

    def step(self, closure=None):
        self.updates += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad, state = p.grad.data, self.state[p]
                if len(state) == 0:
                    state["step"], state["scale"] = 0, 1.0
                    state["m"], state["v"] = torch.zeros_like(p.data), torch.zeros_like(p.data)
                state["step"] += 1
                t = self.updates if self.shared else state["step"]
                state["scale"] = 0.5 * state["scale"] + 0.5 * min(1.0, t / self.warm)
                state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                rate = group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t) * state["scale"]
                p.data.addcdiv_(state["m"], state["v"].sqrt().add_(group["eps"]), value=-rate)
                if state["step"] % self.every == 0:
                    p.data.mul_(0.9)


class Annealed(nn.Module):
    """Counts its calls; what it does to its input depends on that."""

    def __init__(self):
        super().__init__()
        self.calls, self.rate, self.running = 0, 1.0, None

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.rate *= 0.9
        if self.calls > 3:
            x = x * 2
        return x * (1 + self.rate) + self.calls / 10


Settings.steps = 0
'''

OWN = (
    "Counted(PARAMS)",
    "Counted(PARAMS, lr=0.1, warm=2)",
    "Counted(PARAMS, every=2)",
    "Counted(PARAMS, shared=True)",
)
COUNTS = (
    "state['n'] += 1\nloss = loss * (1 + 0.1 * state['n'])",
    "state['n'] += 1\nif state['n'] % 2 == 0: loss = loss * 2",
    "state['m'] = 0.9 * state['m'] + 0.1 * loss.item()",
    "state['m'] = 0.5 * state['m'] + math.exp(-state['n'])\nloss = loss + state['m']",
    "settings.clip = settings.clip * 0.9\nloss = loss * settings.clip",
    "settings.steps += 1\nloss = loss / settings.steps if settings.steps < 3 else loss",
    "state['counts'][0] += x.shape[0]\nstate['counts'][1] = state['counts'][0] / (state['n'] + 1)",
    "state['last'] = state['n'] if state['last'] is None else state['last'] + 1\nloss = loss + state['last']",
    "state['n'] = (state['n'] + 1) % 3\nloss = loss + z[:, state['n']].sum()",
    "loss = loss * 0.5 ** state['n']",
    "state['best'] = min(state['best'], state['n'] * 1.5)\nstate['n'] -= 1",
    "state['flag'] = not state['flag']\nloss = loss if state['flag'] else -loss",
    "optimizer.param_groups[0]['lr'] = 0.1 / (1 + state['n'])\nstate['n'] += 1",
    "for g in optimizer.param_groups: g['lr'] *= 0.9",
    "state['h'] = 0.5 * state['h'] + z.detach().mean(0)\nloss = loss + state['h'].sum()",
    "kept['z'] = z.detach()",
    "kept['z'] = z\nkept['y'] = kept['z'] * 2",
    "state['h'] = z[0].detach()",
    "ema[0] = 0.9 * ema[0] + 0.1 * next(model.parameters()).detach()",
    "state['h'], state['i'] = state['h'] + 1, state['h']",
    "loss = loss + (kept['z'].sum() if kept['z'] is not None else 0)\nkept['z'] = z.detach() * 2",
)
CHANGES = (
    "state['n'] = 7",
    "state['n'] = 0.5",
    "state['m'] = -1",
    "state['counts'] = [0, 0]",
    "settings.steps = 5",
    "state['last'] = 2.5",
    "optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))",
    "state = dict(state)",
    "state['n'] += 1",
    "optimizer = Counted(model.parameters())",
    "state['h'] = torch.zeros(4)",
    "state['h'] = state['h'] * 2",
    "state['i'] = state['h']",
    "kept['z'] = None",
    "kept['y'] = next(model.parameters()).detach()",
    "next(model.parameters()).data = next(model.parameters()).detach() + 1",
)


class Counting(Trainer):
    """Writes one program."""

    def several(self, items: Sequence[str], least: int, most: int) -> list[str]:
        more = {id(EXTRAS): COUNTS, id(AFTER): COUNTS[2:4], id(BETWEEN): CHANGES, id(LAYERS): ("Annealed()",)}
        added = more.get(id(items))
        found = super().several(items, least, most)
        return found if added is None else [*found, *super().several(added, 0, 2)]

    def pick(self, items: Sequence[Any]) -> Any:
        return super().pick(OWN if items is OPTIMIZERS and self.some(70) else items)

    def program(self) -> Program:
        made = super().program()
        setup = [line.replace("optim.Counted(", "Counted(") for line in made.setup]
        assert setup[0] == CLASSES
        numbers = "state.update(n=0, m=0.5, counts=[0, 0.0], last=None, best=9, flag=False)"
        tensors = "kept = {'z': None, 'y': None}\nstate['h'] = state['i'] = torch.zeros(4)"
        setup = ["import math", CLASSES + COUNTING, *setup[1:], numbers, tensors]
        return dataclasses.replace(made, setup=tuple(setup), watched=(*made.watched, "vars(settings)", "kept"))


def random_counting(choose: Callable[[int], int]) -> Program:
    """A program from a source of choices."""
    return Counting(choose).program()


def from_seed(seed: int) -> Program:
    """A program from a seed, for runs by hand."""
    return random_counting(random.Random(seed).randrange)
