"""`swap_in_optimizer_params_and_state` beside PyTorch's."""

import copy

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")


def trained(library):
    p, q = library.nn.Parameter(library.ones(3)), library.nn.Parameter(library.ones(2) * 2)
    update = library.optim.Adam([{"params": [p]}, {"params": [q], "lr": 0.1}], lr=0.01)
    return p, q, update


def step(update, a, b):
    update.zero_grad()
    (a.square().sum() + b.pow(3).sum()).backward()
    update.step()


def test_steps_inside_and_after():
    found = []
    for library in (gt, torch):
        p, q, update = trained(library)
        step(update, p, q)
        state = copy.deepcopy(update.state_dict())
        state["param_groups"][0]["lr"] = 0.5
        others = {"p": library.nn.Parameter(library.zeros(3) + 5), "q": library.nn.Parameter(library.zeros(2) + 7)}
        with library.optim.swap_in_optimizer_params_and_state(update, others, state):
            step(update, *others.values())
        inside = [t.detach().numpy().copy() for t in (p, q, *others.values(), state["state"][0]["exp_avg"])]
        assert update.param_groups[0]["lr"] == 0.01 and update.param_groups[0]["params"][0] is p
        step(update, p, q)
        found.append([*inside, p.detach().numpy(), update.state[p]["step"].item()])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_what_does_not_fit():
    for library in (gt, torch):
        p, q, update = trained(library)
        with pytest.raises(RuntimeError, match="initialized optimizer state"):
            library.optim.swap_in_optimizer_params_and_state(update, {"p": p}, update.state_dict()).__enter__()
        step(update, p, q)
        state = update.state_dict()
        strange = {**state, "state": {**state["state"], 7: {}}}
        for parameters, given in (({"p": p}, state), ({"p": p, "q": q}, strange), ({"p": p, "q": q}, {"state": {}})):
            with pytest.raises(RuntimeError):
                library.optim.swap_in_optimizer_params_and_state(update, parameters, given).__enter__()
        assert update.param_groups[0]["params"][0] is p
