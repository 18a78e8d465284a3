"""Random modules beside PyTorch: results, gradients, state after a call, names and repr; eager and compiled.

GRAPHTORCH_MODULE_SEEDS="0:5000" runs that range instead of the short default."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from module_cases import Case, case

import graphtorch

torch = pytest.importorskip("torch")
FIRST, LAST = map(int, os.environ.get("GRAPHTORCH_MODULE_SEEDS", "0:240").split(":"))
BOTH = (torch, graphtorch)


def draw(rng, spec, dtype):
    """An input array of a shape, or of a kind."""
    if isinstance(spec[0], int):
        return rng.normal(size=spec).astype(dtype)
    kind, *rest = spec
    shape = rest[-1]
    if kind == "integers":
        return rng.integers(0, rest[0], shape)
    if kind == "labels":
        return np.stack([rng.permutation(rest[0]) for _ in range(shape[0])]) - (rng.random(shape) < 0.3)
    if kind == "signs":
        return rng.choice([-1.0, 1.0], shape).astype(dtype)
    if kind == "counts":
        return rng.poisson(2.0, shape).astype(dtype)
    return rng.uniform(0.1, 0.9, shape).astype(dtype)


def tensors(found):
    """The tensors of a nest of results."""
    if isinstance(found, tuple | list):
        return [t for part in found for t in tensors(part)]
    return [] if found is None else [found]


def array_like(library, rng, tensor):
    """Weights of a result in the loss: without them a normalisation's gradient would be 0 but for rounding."""
    return library.from_numpy(np.asarray(rng.normal(size=tuple(tensor.shape)))).to(tensor.dtype)


def run(library, what: Case, arrays, compile=None):
    library.manual_seed(1)
    module = getattr(library.nn, what.name)(*what.args, **what.kwargs).to(getattr(library, what.dtype))
    module.train(what.train)
    inputs = [library.from_numpy(a.copy()) for a in arrays]
    leaves = [x.requires_grad_() for x in inputs[: 1 if "Loss" in what.name else None] if x.is_floating_point()]

    def call(*given):
        return module(*given)

    function = call if compile is None else compile(call)
    library.manual_seed(2)
    results = tensors(function(*inputs))
    weights = np.random.default_rng(3)
    loss = sum((r * array_like(library, weights, r)).sum() for r in results if r.is_floating_point())
    parameters = [p for p in module.parameters()]
    wanted = [t for t in (*leaves, *parameters) if t.requires_grad]
    gradients = library.autograd.grad(loss, wanted, allow_unused=True) if getattr(loss, "requires_grad", False) else []
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    return {
        "results": [r.detach().numpy() for r in results],
        "gradients": [None if g is None else g.detach().numpy() for g in gradients],
        "state": state,
        "repr": repr(module),
    }


def compare(ours, theirs, rtol, what):
    assert ours["repr"] == theirs["repr"]
    assert list(ours["state"]) == list(theirs["state"]), what
    for key in ("results", "gradients"):
        assert len(ours[key]) == len(theirs[key]), (what, key)
        for a, e in zip(ours[key], theirs[key], strict=True):
            assert (a is None) == (e is None), (what, key)
            if e is not None:
                assert a.dtype == e.dtype and a.shape == e.shape, (what, key, a.dtype, e.dtype, a.shape, e.shape)
                scale = np.abs(e[np.isfinite(e)]).max(initial=0.0)
                np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * (scale + 0.1), err_msg=f"{what} {key}")
    for name, e in theirs["state"].items():
        np.testing.assert_allclose(ours["state"][name], e, rtol=rtol, atol=rtol, err_msg=f"{what} {name}")


@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_module_is_pytorchs(seed):
    what = case(seed)
    rng = np.random.default_rng(seed)
    arrays = [draw(rng, spec, what.dtype) for spec in what.inputs]
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in BOTH:
            try:
                outcomes.append(run(library, what, arrays))
            except Exception as error:
                outcomes.append(error)
        theirs, ours = outcomes
        if isinstance(theirs, Exception):
            assert isinstance(ours, Exception) and type(ours).__name__ == type(theirs).__name__, (
                f"{what}: {ours!r} {theirs!r}"
            )
            return
        assert not isinstance(ours, Exception), f"{what}: {ours!r}"
        rtol = 3e-5 if what.dtype == "float32" else 1e-9
        if what.name == "Hardsigmoid":
            rtol = max(rtol, 1e-7)  # PyTorch's gradient has 1 / 6 in float32
        compare(ours, theirs, rtol, str(what))
        backend = "cpu" if seed % 2 else "numpy"
        compiled = run(graphtorch, what, arrays, lambda f: graphtorch.compile(f, backend=backend))
        compare(compiled, theirs, 4 * rtol, f"{what} compiled, {backend}")
