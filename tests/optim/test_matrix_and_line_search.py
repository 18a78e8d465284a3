"""Muon and LBFGS, complex parameters, differentiable steps and the options' errors."""

import copy

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn, optim


def matrices(library, options, steps, maker="Muon"):
    rng = np.random.default_rng(1)
    parameters = [library.nn.Parameter(library.tensor(rng.standard_normal(s))) for s in ((6, 3), (3, 5), (4, 4))]
    optimizer = getattr(library.optim, maker)(parameters, **options)
    for _ in range(steps):
        for p in parameters:
            p.grad = library.tensor(rng.standard_normal(tuple(p.shape)))
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.0, "nesterov": False, "ns_steps": 3},
        {"lr": 0.1, "momentum": 0.5, "adjust_lr_fn": "match_rms_adamw", "ns_coefficients": (2.0, -1.5, 0.5)},
    ],
)
def test_muon_is_pytorchs(options):
    torch = pytest.importorskip("torch")
    (ours, optimizer), (theirs, their_optimizer) = matrices(gt, options, 3), matrices(torch, options, 3)
    for a, b in zip(ours, theirs, strict=True):
        # The iterations are in bfloat16, whose relative rounding is 2**-8.
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=0.02)
    assert optimizer.state_dict()["param_groups"] == their_optimizer.state_dict()["param_groups"]
    for own, other in zip(optimizer.state.values(), their_optimizer.state.values(), strict=True):
        assert list(own) == list(other)
        np.testing.assert_allclose(own["momentum_buffer"].numpy(), other["momentum_buffer"].numpy(), rtol=1e-12)


def test_muons_update_is_almost_orthogonal():
    p = nn.Parameter(gt.zeros(8, 5))
    p.grad = gt.tensor(np.random.default_rng(0).standard_normal((8, 5)), dtype=gt.float32)
    optim.Muon([p], lr=1.0, weight_decay=0.0, adjust_lr_fn="original").step()
    values = np.linalg.svd(p.detach().numpy() / (8 / 5) ** 0.5, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3


def test_compiled_muon_equals_eager():
    results = []
    for compiled in (False, True):
        gt.manual_seed(0)
        layer = nn.Linear(6, 3, bias=False)
        optimizer = optim.Muon(layer.parameters(), lr=0.1)
        x = gt.randn(5, 6)

        def step(x, layer=layer, optimizer=optimizer):
            optimizer.zero_grad()
            loss = layer(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        run = gt.compile(step, fullgraph=True) if compiled else step
        results.append([run(x).item() for _ in range(4)])
    np.testing.assert_allclose(results[1], results[0], rtol=0.02)


def rosenbrock(library, options, steps, state=None):
    parameters = [library.nn.Parameter(library.tensor([v], dtype=library.float64)) for v in (-1.2, 1.0)]
    optimizer = library.optim.LBFGS(parameters, **options)
    losses = []

    def closure():
        optimizer.zero_grad()
        x, y = parameters
        loss = ((1 - x) ** 2 + 100 * (y - x**2) ** 2).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        if state is not None:  # as a checkpoint would
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return losses, parameters, optimizer


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"line_search_fn": "strong_wolfe"}, 3),
        ({"line_search_fn": "strong_wolfe", "history_size": 3, "max_iter": 4}, 8),
        ({"line_search_fn": "strong_wolfe", "max_eval": 5, "lr": 0.1}, 6),
        ({"lr": 0.1, "max_iter": 6}, 5),
    ],
)
def test_lbfgs_evaluates_where_pytorch_does(options, steps):
    torch = pytest.importorskip("torch")
    ours, parameters, optimizer = rosenbrock(gt, options, steps)
    theirs, their_parameters, their_optimizer = rosenbrock(torch, options, steps)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)
    for a, b in zip(parameters, their_parameters, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-6)
    mine, other = optimizer.state_dict(), their_optimizer.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert mine["state"][0].keys() == other["state"][0].keys()
    for key in ("func_evals", "n_iter"):
        assert mine["state"][0][key] == other["state"][0][key]


def test_lbfgs_finds_the_minimum_and_resumes():
    options = {"line_search_fn": "strong_wolfe", "max_iter": 10, "tolerance_change": 1e-14}
    losses, parameters, _ = rosenbrock(gt, options, 12)
    assert [p.item() for p in parameters] == pytest.approx([1.0, 1.0], abs=1e-6)
    resumed, _, _ = rosenbrock(gt, options, 12, state="reload")
    assert resumed == losses


def test_lbfgs_with_a_compiled_closure_and_complex_parameters():
    p = nn.Parameter(gt.tensor([1.0 + 2.0j, -3.0j]))
    target = gt.tensor([2.0 - 1.0j, 0.5 + 0.0j])
    optimizer = optim.LBFGS([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p - target).abs().square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), target.numpy(), atol=1e-4)
    with pytest.raises(TypeError, match="'closure'"):
        optimizer.step()

    layer = nn.Linear(3, 1)
    x, y = gt.randn(20, 3), gt.randn(20, 1)
    fit = optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe")

    @gt.compile
    def compiled():
        fit.zero_grad()
        loss = nn.functional.mse_loss(layer(x), y)
        loss.backward()
        return loss

    fit.step(compiled)
    design = np.concatenate([x.numpy(), np.ones((20, 1), np.float32)], axis=1)
    best = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy().reshape(-1), best[:3, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RMSprop", {"momentum": 0.5, "centered": True}),
        ("Adagrad", {"initial_accumulator_value": 0.1}),
        ("Adadelta", {}),
        ("Adamax", {}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Rprop", {}),
        ("ASGD", {"t0": 1}),
    ],
)
def test_complex_parameters(name, options):
    torch = pytest.importorskip("torch")
    results = []
    for library in (gt, torch):
        p = library.nn.Parameter(library.tensor([1.0 + 2.0j, -0.5j, 3.0 + 0.0j]))
        optimizer = getattr(library.optim, name)([p], lr=0.05, **options)
        for grad in ([1.0 - 1.0j, 0.5 + 0j, 2j], [-1.0 - 1.0j, 0.5 + 1j, 1j], [1.0 + 1.0j, -0.5 + 1j, 1j]):
            p.grad = library.tensor(grad)
            optimizer.step()
        results.append([p.detach().numpy(), *(v.numpy() for v in optimizer.state[p].values())])
    for mine, other in zip(*results, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RMSprop", {"momentum": 0.5, "centered": True}),
        ("Adadelta", {}),
        ("Adamax", {}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Rprop", {}),
        ("ASGD", {}),
        ("Adagrad", {}),
    ],
)
def test_differentiable_steps_have_the_gradients_of_finite_differences(name, options):
    def loss(start, scale, differentiable=True):
        p = start.clone()
        optimizer = getattr(optim, name)([p], lr=0.1, differentiable=differentiable, **options)
        for direction in ([1.0, -0.5, 2.0], [1.0, 0.5, 1.0], [0.5, 0.25, -1.0]):
            p.grad = gt.tensor(direction, dtype=gt.float64) * scale
            optimizer.step()
        return p.square().sum()

    points = [np.array([0.5, -1.0, 2.0]), np.array([1.0, 2.0, 0.5])]
    leaves = [gt.tensor(x, requires_grad=True) for x in points]
    loss(*leaves).backward()
    for k, leaf in enumerate(leaves):
        for i in range(3):
            ends = []
            for h in (1e-4, -1e-4):
                moved = [x.copy() for x in points]
                moved[k][i] += h
                ends.append(loss(*(gt.tensor(x) for x in moved), differentiable=False).item())
            assert leaf.grad[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD"])
def test_flags_and_signatures_are_pytorchs(name):
    import inspect

    torch = pytest.importorskip("torch")

    def parameters(library):
        signature = inspect.signature(getattr(library.optim, name)).parameters.values()
        return [(p.name, p.default, p.kind) for p in signature]

    assert parameters(gt) == parameters(torch)
    p = nn.Parameter(gt.ones(2))
    p.grad = gt.ones(2)
    options = {"foreach": True, "maximize": True}
    if name != "Adagrad":
        options["capturable"] = True
    optimizer = getattr(optim, name)([p], lr=gt.tensor(0.1), **options)
    optimizer.step()
    assert (p.detach() > 1).all()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda p: optim.RMSprop([p], alpha=-1), "Invalid alpha value: -1"),
        (lambda p: optim.RMSprop([p], lr=gt.ones(2)), "Tensor lr must be 1-element"),
        (lambda p: optim.Adagrad([p], lr_decay=-0.1), "Invalid lr_decay value: -0.1"),
        (lambda p: optim.Adadelta([p], rho=1.5), "Invalid rho value: 1.5"),
        (lambda p: optim.Adamax([p], betas=(0.5, 1.0)), "Invalid beta parameter at index 1: 1.0"),
        (lambda p: optim.NAdam([p], momentum_decay=-1), "Invalid momentum_decay value: -1"),
        (lambda p: optim.RAdam([p], eps=-1), "Invalid epsilon value: -1"),
        (lambda p: optim.Rprop([p], etas=(1.2, 0.5)), "Invalid eta values: 1.2, 0.5"),
        (lambda p: optim.ASGD([p], lr=-1), "Invalid learning rate: -1"),
        (lambda p: optim.Adafactor([p], d=0.5), "Clipping threshold d should be >= 1 but is: 0.5"),
        (lambda p: optim.Muon([p]), "Muon only supports 2D parameters whereas we found"),
        (lambda p: optim.Muon([p], adjust_lr_fn="x"), "Adjust learning rate function x is not supported"),
        (lambda p: optim.LBFGS([{"params": [p]}, {"params": [nn.Parameter(gt.ones(1))]}]), "per-parameter options"),
    ],
)
def test_errors(action, message):
    with pytest.raises(ValueError) as caught:
        action(nn.Parameter(gt.ones(3)))
    assert message in str(caught.value)
