"""Random optimizers beside PyTorch: options, groups, dtypes, schedules, and state dicts handed over in both directions.

GRAPHTORCH_OPTIMIZER_SEEDS="0:5000" runs that range instead of the short default."""

from __future__ import annotations

import copy
import os
import random
import warnings

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
FIRST, LAST = map(int, os.environ.get("GRAPHTORCH_OPTIMIZER_SEEDS", "0:60").split(":"))
STEPS = 12


def options(r: random.Random) -> tuple[str, dict]:
    """A class and its options."""
    decay = r.choice((0, 0, 0.05))
    betas = r.choice(((0.9, 0.999), (0.8, 0.95), (0.5, 0.9)))
    eps = r.choice((1e-8, 1e-4))
    common = {"foreach": r.choice((None, False, True)), "maximize": r.random() < 0.2}
    momentum = r.choice((0.0, 0.5, 0.9))
    choices = {
        "SGD": {
            "momentum": momentum,
            "dampening": r.choice((0, 0.2)),
            "weight_decay": decay,
            **common,
        },
        "Adam": {"betas": betas, "eps": eps, "weight_decay": decay, "amsgrad": r.random() < 0.4, **common},
        "AdamW": {"betas": betas, "eps": eps, "weight_decay": decay, "amsgrad": r.random() < 0.4, **common},
        "NAdam": {"betas": betas, "eps": eps, "weight_decay": decay, "momentum_decay": r.choice((4e-3, 0.1)), **common},
        "RAdam": {"betas": betas, "eps": eps, "weight_decay": decay, **common},
        "Adamax": {"betas": betas, "eps": eps, "weight_decay": decay, **common},
        "Adadelta": {"rho": r.choice((0.9, 0.7)), "eps": r.choice((1e-6, 1e-3)), "weight_decay": decay, **common},
        "Adagrad": {
            "lr_decay": r.choice((0, 0.1)),
            "weight_decay": decay,
            "initial_accumulator_value": r.choice((0, 0.1)),
            **common,
        },
        "RMSprop": {
            "alpha": r.choice((0.99, 0.8)),
            "eps": eps,
            "weight_decay": decay,
            "momentum": momentum,
            "centered": r.random() < 0.4,
            **common,
        },
        "Rprop": {"etas": r.choice(((0.5, 1.2), (0.3, 1.5))), **common},
        "ASGD": {"lambd": r.choice((1e-4, 1e-2)), "t0": r.choice((3, 1e6)), "weight_decay": decay, **common},
        "Adafactor": {"d": r.choice((1.0, 1.5)), "weight_decay": decay, **common},
        "Muon": {"momentum": r.choice((0.9, 0.95)), "nesterov": r.random() < 0.5, "weight_decay": decay},
    }
    name = r.choice(sorted(choices))
    made = choices[name]
    if name in ("NAdam", "RAdam", "Adam") and r.random() < 0.3:
        made["decoupled_weight_decay"] = True
    if name == "SGD" and momentum and not made["dampening"]:
        made["nesterov"] = r.random() < 0.5
    if name == "ASGD":
        made["foreach"] = False  # PyTorch's other way keeps the rate in float32
    made["lr"] = r.choice((0.01, 0.05, 1e-3))
    return name, made


SCHEDULES = [
    None,
    lambda s, o: s.StepLR(o, 3, 0.5),
    lambda s, o: s.CosineAnnealingLR(o, STEPS),
    lambda s, o: s.OneCycleLR(o, 0.05, total_steps=2 * STEPS, cycle_momentum=False),
    lambda s, o: s.LinearLR(o, 0.1, 1.0, 5),
    lambda s, o: s.ExponentialLR(o, 0.9),
    lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 3), s.CosineAnnealingLR(o, 9)], [3]),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
]


class Problem:
    """Parameters, a loss of them, an optimizer in one group or two, and a schedule."""

    def __init__(self, library, seed: int) -> None:
        r, rng = random.Random(seed), np.random.default_rng(seed)
        self.library = library
        self.name, given = options(r)
        matrices = self.name == "Muon"
        self.dtype = "complex128" if r.random() < 0.1 and self.name not in ("Muon", "Adafactor") else "float64"
        if r.random() < 0.5 and self.dtype == "float64":
            self.dtype = "float32"
        shapes = [(4, 3), (3, 5)] if matrices else [(4, 3), (3,), r.choice(((), (2, 1, 3), (1,)))]
        self.parameters = []
        for shape in shapes:
            values = rng.normal(size=shape)
            if self.dtype == "complex128":
                values = values + 1j * rng.normal(size=shape)
            self.parameters.append(library.from_numpy(np.asarray(values, self.dtype)).requires_grad_())
        self.targets = [library.from_numpy(np.asarray(rng.normal(size=s), self.dtype)) for s in shapes]
        self.noise = rng.normal(size=(4 * STEPS,))
        groups = self.parameters
        if r.random() < 0.4:
            groups = [{"params": self.parameters[:1]}, {"params": self.parameters[1:], "lr": given["lr"] * 3}]
        self.optimizer = getattr(library.optim, self.name)(groups, **given)
        make = r.choice(SCHEDULES)
        schedulers = library.optim.lr_scheduler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.schedule = None if make is None else make(schedulers, self.optimizer)
        self.text = f"{self.name}({given}), {self.dtype}, {len(self.optimizer.param_groups)} groups"
        self.taken = 0

    def losses(self, count: int, compile=None) -> list[float]:
        """The losses of so many steps."""

        def step(shift):
            self.optimizer.zero_grad()
            loss = sum(((p - t) * (1 + shift)).abs().square().sum() for p, t in self.pairs())
            loss.backward()
            self.optimizer.step()
            return loss

        run = step if compile is None else compile(step)
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(count):
                shift = self.library.tensor(self.noise[self.taken] * 0.1, dtype=self.library.float64)
                found.append(run(shift).item())
                if self.schedule is not None:
                    self.schedule.step()
                self.taken += 1
        return found

    def pairs(self):
        return zip(self.parameters, self.targets, strict=True)

    def values(self) -> list[np.ndarray]:
        return [p.detach().numpy().copy() for p in self.parameters]


def converted(value, library):
    """A state dict of one library with the other's tensors."""
    if isinstance(value, dict):
        return {k: converted(v, library) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(converted(v, library) for v in value)
    if hasattr(value, "detach"):
        return library.from_numpy(value.detach().numpy().copy())
    return copy.copy(value)


def layout(value):
    """What a state dict holds: keys, and the shapes and dtypes of tensors."""
    if isinstance(value, dict):
        return {k: layout(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [layout(v) for v in value]
    if hasattr(value, "detach"):
        return (tuple(value.shape), str(value.dtype))
    return value


@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_optimizer_is_pytorchs(seed):
    theirs, ours = Problem(torch, seed), Problem(graphtorch, seed)
    rtol = 1e-4 if theirs.dtype == "float32" else 1e-8
    atol = rtol
    if theirs.name == "Muon":
        # It orthogonalises in bfloat16, by products of which each step's update, of the rate's size, keeps five bits.
        rtol = 2**-8
        atol = STEPS * max(group["lr"] for group in theirs.optimizer.param_groups) * 2**-5
    expected = theirs.losses(STEPS)
    np.testing.assert_allclose(ours.losses(STEPS), expected, rtol=rtol, err_msg=ours.text)
    for a, e in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=ours.text)
    assert layout(ours.optimizer.state_dict()) == layout(theirs.optimizer.state_dict()), ours.text

    if seed % 3 == 0:
        compiled = Problem(graphtorch, seed)
        backend = "cpu" if seed % 2 else "numpy"
        found = compiled.losses(4, lambda f: graphtorch.compile(f, backend=backend))
        np.testing.assert_allclose(found, expected[:4], rtol=rtol, err_msg=f"{ours.text} compiled, {backend}")

    # Each continues from the other's state.
    state, other = theirs.optimizer.state_dict(), ours.optimizer.state_dict()
    ours.optimizer.load_state_dict(converted(state, graphtorch))
    theirs.optimizer.load_state_dict(converted(other, torch))
    continued = theirs.losses(6)
    np.testing.assert_allclose(ours.losses(6), continued, rtol=3 * rtol, err_msg=f"{ours.text} continued")
