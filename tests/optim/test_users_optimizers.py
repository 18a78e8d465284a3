"""Optimizers of the users' own, with counts and rates that are Python numbers, compiled beside eager execution."""

from __future__ import annotations

import copy
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from users_optimizers import MAKERS, EarlyAdam, RectifiedAdam

STEPS = 16
# How many programs a run of STEPS needs: one for each kind of step, and none for a loaded state.
PROGRAMS = {"radam": 2, "plain_radam": 2, "lookahead": 2, "ranger": 4, "muon": 2, "sophia": 2}


def plain_state(optimizer: Any) -> list[Any]:
    """All that is no tensor."""

    def numbers(options: Any) -> dict[str, Any]:
        return {k: v for k, v in options.items() if type(v) in (int, float, bool, tuple, list) and k != "params"}

    found = [numbers(own) for own in (*optimizer.state.values(), *optimizer.param_groups)]
    own = {k: v for k, v in vars(optimizer).items() if k not in ("_generation", "param_groups")}
    return [*found, numbers(own)]


def typed(value: Any) -> Any:
    """A value with the types of the numbers in it."""
    if isinstance(value, dict):
        return {k: typed(v) for k, v in value.items()}
    return [typed(v) for v in value] if isinstance(value, list | tuple) else (type(value), value)


class Run:
    """A small training run with another rate in the middle and a state that is saved and loaded."""

    def __init__(self, name: str, backend: str | None, device: str = "cpu", steps: int = STEPS) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
        optimizer = MAKERS[name](list(model.parameters()))

        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        self.optimizer, self.model = optimizer, model
        self.step: Any = step if backend is None else torch.compile(step, backend=backend)
        self.losses: list[float] = []
        for i in range(steps):
            x, y = torch.randn(5, 4).to(device), torch.randn(5, 2).to(device)
            if i == 6:
                for group in optimizer.param_groups:
                    if group["lr"] is not None:
                        group["lr"] *= 0.5
            if i == 9 and hasattr(optimizer, "state_dict"):
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer.load_state_dict(torch.load(file))
            self.losses.append(self.step(x, y).item())


def programs(compiled: Any) -> int:
    """How often something was compiled."""
    return len({id(s.compiled) for s in compiled.specializations})


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("name", MAKERS)
def test_beside_eager(name: str, backend: str) -> None:
    eager = Run(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = Run(name, backend)
    torch.testing.assert_close(compiled.losses, eager.losses, rtol=2e-6, atol=1e-7)
    for mine, wanted in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)
    found, wanted_numbers = plain_state(compiled.optimizer), plain_state(eager.optimizer)
    if name == "prodigy":  # its numbers come from tensors
        torch.testing.assert_close(found, wanted_numbers, rtol=1e-4, atol=1e-7)
    else:
        assert typed(found) == typed(wanted_numbers)
    assert compiled.step.eager_calls <= 1  # the call that makes the state
    assert programs(compiled.step) == PROGRAMS.get(name, 1)


def test_a_long_run_needs_no_more_programs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = Run("radam", "numpy", steps=80)
    assert programs(run.step) == 2 and run.step.eager_calls == 1
    assert {own["step"] for own in run.optimizer.state.values()} == {80}
    wanted = Run("radam", None, steps=80)
    assert run.losses == wanted.losses


def test_counts_that_part() -> None:
    """A parameter that has no gradient for a while falls behind."""

    def losses(backend: str | None) -> tuple[list[float], list[int], int]:
        torch.manual_seed(0)
        first, second = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
        optimizer = EarlyAdam([first, second], lr=0.1)

        def step(both: bool) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (first * first).sum() + ((second * second).sum() if both else 0.0)
            loss.backward()
            optimizer.step()
            return loss

        run: Any = step if backend is None else torch.compile(step, backend=backend)
        found = [run(i % 3 != 1).item() for i in range(12)]
        return found, [own["step"] for own in optimizer.state.values()], getattr(run, "eager_calls", 0)

    wanted, found = losses(None), losses("numpy")
    assert found[:2] == wanted[:2] and found[1] == [12, 8]
    assert found[2] == 1


def test_errors_leave_the_state() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = EarlyAdam([parameter], lr=0.1)

    @torch.compile(backend="cpu")
    def step(at: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter[at].sum()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(4):
        step(torch.tensor([0, 2]))
    kept = copy.deepcopy(optimizer.state_dict())
    before = parameter.detach().clone()
    with pytest.raises(IndexError):
        step(torch.tensor([0, 7]))
    assert typed(plain_state(optimizer))[0]["step"] == (int, 4)
    assert torch.equal(parameter, before)
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])
    step(torch.tensor([0, 1]))
    assert optimizer.state[parameter]["step"] == 5 and step.eager_calls == 1


def test_the_explanation_names_what_was_asked() -> None:
    run = Run("sophia", "numpy", steps=8)
    text = str(run.step.explain())
    assert "== 0) was True" in text and "users_optimizers.py" in text and "step % 4" in text


def test_an_optimizer_under_gradient_accumulation() -> None:
    def run(backend: str | None) -> tuple[list[float], Any]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = RectifiedAdam(model.parameters(), lr=0.05)

        class Trainer:
            def __init__(self) -> None:
                self.micro, self.total = 0, 0.0

            def __call__(self, x: torch.Tensor) -> torch.Tensor:
                loss = model(x).square().mean() / 2
                loss.backward()
                self.total += loss.item()
                self.micro += 1
                if self.micro % 2 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                return loss

        trainer = Trainer()
        step: Any = trainer if backend is None else torch.compile(trainer, backend=backend)
        found = [step(torch.randn(4, 3)).item() for _ in range(14)]
        return [*found, trainer.total, trainer.micro], step

    wanted, (found, step) = run(None)[0], run("numpy")
    assert found == wanted
    assert step.eager_calls <= 2
