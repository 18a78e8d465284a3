"""Policy gradient on CartPole twice from one seed, eagerly and compiled.

    python examples/train_cartpole.py [--steps 150] [--quick] [--backend numpy]

REINFORCE (Williams, 1992): play an episode, then make the actions that were followed by much reward likelier. A step is
an episode. Choosing an action and learning from an episode are a compiled function each; episodes differ in length, so
the second has symbolic sizes. Losses are compared for as long as both runs choose the same actions: on a backend other
than `numpy`, rounding tips a choice sooner or later, and from then on they play other episodes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np
from _side_by_side import Compiler, Program, argument_parser, check_losses, print_table, run_both, save_plot

import graphtorch as torch
from graphtorch import nn

DISCOUNT = 0.99
LONGEST = 200
LOSS_RTOL = 1e-2


class CartPole:
    """A pole on a cart that is pushed left or right; each step in balance earns 1.

    Source: Barto, Sutton and Anderson, Neuronlike Adaptive Elements That Can Solve Difficult Learning Control Problems,
    1983, with the constants of Gymnasium's CartPole-v1. The state is position, speed, angle, angular speed.
    """

    GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.state = np.zeros(4)

    def reset(self) -> np.ndarray:
        """Begin an episode near balance."""
        self.state = self.rng.uniform(-0.05, 0.05, 4)
        return self.state.astype(np.float32)

    def step(self, action: int) -> tuple[np.ndarray, bool]:
        """Push left (0) or right (1) for a fiftieth of a second; the state, and whether the pole has fallen."""
        _, speed, angle, turning = self.state
        force = self.FORCE if action else -self.FORCE
        mass = self.CART + self.POLE
        sine, cosine = math.sin(angle), math.cos(angle)
        push = (force + self.POLE * self.HALF_LENGTH * turning**2 * sine) / mass
        inertia = self.HALF_LENGTH * (4 / 3 - self.POLE * cosine**2 / mass)
        turning_change = (self.GRAVITY * sine - cosine * push) / inertia
        speed_change = push - self.POLE * self.HALF_LENGTH * turning_change * cosine / mass
        self.state = self.state + self.SECONDS * np.array([speed, speed_change, turning, turning_change])
        return self.state.astype(np.float32), bool(abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12))


def discounted(length: int) -> torch.Tensor:
    """What each step of an episode of this length was worth, less the mean, in deviations."""
    worth = np.cumsum(DISCOUNT ** np.arange(length))[::-1]
    return torch.tensor(((worth - worth.mean()) / (worth.std() + 1e-8)).astype(np.float32))


def make_program(seed: int, compiler: Compiler) -> Program:
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    environment = CartPole(seed)
    played: list[list[int]] = []

    def choose(state: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return policy(state).softmax(-1)

    def learn(states: torch.Tensor, actions: torch.Tensor, worth: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        taken = policy(states).log_softmax(-1).gather(1, actions[:, None]).squeeze(1)
        loss = -(taken * worth).mean()
        loss.backward()
        optimizer.step()
        return loss

    choose, learn = compiler(choose), compiler(learn)

    def episode() -> torch.Tensor:
        states, actions = [], []
        state, fallen = environment.reset(), False
        while not fallen and len(states) < LONGEST:
            chances = choose(torch.from_numpy(state))
            actions.append(int(torch.multinomial(chances, 1).item()))
            states.append(state)
            state, fallen = environment.step(actions[-1])
        played.append(actions)
        # The offset keeps episodes' losses from being near 0, where a relative difference says little.
        return learn(torch.tensor(np.stack(states)), torch.tensor(actions), discounted(len(states))) + 1

    return Program(episode, {"played": played})


def nothing() -> Iterator[tuple[()]]:
    """Episodes take no data."""
    while True:
        yield ()


def main() -> None:
    args = argument_parser("Policy gradient on CartPole, eager and compiled.", "cartpole.png", 150, 6).parse_args()
    runs = run_both(lambda compiler: make_program(args.seed, compiler), nothing(), args.steps, args)
    tenth = max(1, args.steps // 10)
    for run in runs:
        lengths = [len(actions) for actions in run.program.parts["played"]]
        run.scores["balanced, first episodes"] = f"{np.mean(lengths[:tenth]):.1f} steps"
        run.scores["balanced, last episodes"] = f"{np.mean(lengths[-tenth:]):.1f} steps"
    print_table(f"CartPole, {args.steps} episodes, seed {args.seed}", runs)
    save_plot(args.plot, "CartPole: loss of each episode, plus 1", runs)
    pairs = zip(*(run.program.parts["played"] for run in runs), strict=True)
    same = next((i for i, (eager, compiled) in enumerate(pairs) if eager != compiled), args.steps)
    if same < args.steps:
        print(f"from episode {same} on the runs choose other actions")
    if not same:
        sys.exit("the runs disagree about the first episode")
    check_losses(*runs, rtol=LOSS_RTOL, steps=same)


if __name__ == "__main__":
    main()
