"""Pruning, orthogonal parametrizations and other helpers on modules, beside PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")
BOTH = (torch, graphtorch)


def array(tensor):
    return tensor.detach().numpy()


def layer(library, kind="Linear", *sizes):
    library.manual_seed(0)
    return getattr(library.nn, kind)(*(sizes or (6, 5)))


PRUNINGS = [
    lambda p, m, t: p.l1_unstructured(m, "weight", 0.3),
    lambda p, m, t: p.l1_unstructured(m, "weight", 7),
    lambda p, m, t: p.random_unstructured(m, "weight", 0.5),
    lambda p, m, t: p.random_structured(m, "weight", 2, 1),
    lambda p, m, t: p.ln_structured(m, "weight", 0.4, 2, 0),
    lambda p, m, t: p.ln_structured(m, "weight", 1, float("inf"), -1),
    lambda p, m, t: p.identity(m, "bias"),
    lambda p, m, t: p.custom_from_mask(m, "bias", t.tensor([1, 0, 1, 1, 0])),
    lambda p, m, t: p.l1_unstructured(p.ln_structured(m, "weight", 1, 2, 0), "weight", 0.25),
    lambda p, m, t: p.ln_structured(p.random_unstructured(m, "weight", 0.5), "weight", 0.5, 1, 1),
    lambda p, m, t: p.l1_unstructured(m, "weight", 0.3, importance_scores=t.arange(30.0).view(5, 6)),
    lambda p, m, t: p.global_unstructured([(m, "weight"), (m, "bias")], pruning_method=p.L1Unstructured, amount=0.5),
]


@pytest.mark.parametrize("prune", PRUNINGS)
def test_pruning(prune):
    results = []
    for library in BOTH:
        module = layer(library)
        methods = library.nn.utils.prune
        prune(methods, module, library)
        module(library.ones(2, 6)).sum().backward()
        results.append(
            {
                "state": {k: array(v) for k, v in module.state_dict().items()},
                "grads": {k: None if v.grad is None else array(v.grad) for k, v in module.named_parameters()},
                "weight": array(module.weight),
                "pruned": methods.is_pruned(module),
            }
        )
        name = "bias" if "bias_mask" in results[-1]["state"] else "weight"
        methods.remove(module, name)
        results[-1]["removed"] = {k: array(v) for k, v in module.state_dict().items()}
    theirs, ours = results
    assert ours["pruned"] is theirs["pruned"] is True
    for key in ("state", "grads", "removed"):
        assert list(ours[key]) == list(theirs[key])
        for name, expected in theirs[key].items():
            np.testing.assert_allclose(ours[key][name], expected, rtol=1e-5, err_msg=f"{key} {name}")
    np.testing.assert_array_equal(ours["weight"], theirs["weight"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p, m: p.l1_unstructured(m, "weight", 1.5),
        lambda p, m: p.l1_unstructured(m, "weight", "a"),
        lambda p, m: p.l1_unstructured(m, "weight", 31),
        lambda p, m: p.random_structured(m, "bias", 1, 0),
        lambda p, m: p.ln_structured(m, "weight", 1, 2, 5),
        lambda p, m: p.remove(m, "weight"),
        lambda p, m: p.global_unstructured([(m, "weight")], p.LnStructured, amount=1, n=2),
    ],
)
def test_errors_leave_the_module_as_it_was(wrong):
    raised = []
    for library in BOTH:
        module = layer(library)
        before = list(module.state_dict())
        with pytest.raises((ValueError, TypeError, IndexError)) as error:
            wrong(library.nn.utils.prune, module)
        raised.append(error.type)
        if library is graphtorch:  # PyTorch exchanges the order
            assert list(module.state_dict()) == before
        assert not library.nn.utils.prune.is_pruned(module)
    assert raised[0] is raised[1]


@pytest.mark.parametrize("map_name", [None, "matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("sizes", [(5, 5), (4, 6), (6, 4)])
@pytest.mark.parametrize("trivialization", [True, False])
def test_orthogonal(sizes, map_name, trivialization):
    results = []
    for library in BOTH:
        module = layer(library, "Linear", *sizes)
        library.manual_seed(1)
        try:
            library.nn.utils.parametrizations.orthogonal(module, "weight", map_name, use_trivialization=trivialization)
        except NotImplementedError as error:
            results.append(str(error))
            continue
        optimizer = library.optim.SGD(module.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = module(library.ones(2, sizes[0])).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        weight = array(module.weight)
        small = weight.T if weight.shape[0] < weight.shape[1] else weight
        np.testing.assert_allclose(small.T @ small, np.eye(min(sizes)), atol=1e-4)
        results.append((weight, losses, list(module.state_dict())))
    theirs, ours = results
    if isinstance(theirs, str):
        assert ours == theirs
        return
    assert ours[2] == theirs[2]
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-4)


def test_orthogonal_refuses_vectors_and_unknown_maps():
    orthogonal = graphtorch.nn.utils.parametrizations.orthogonal
    with pytest.raises(ValueError, match="Expected a matrix"):
        orthogonal(graphtorch.nn.Linear(2, 2), "bias")
    with pytest.raises(ValueError, match="orthogonal_map has to be one of"):
        orthogonal(graphtorch.nn.Linear(2, 2), orthogonal_map="qr")


def test_functional_call_and_memory_formats():
    module = layer(graphtorch)
    call = graphtorch.nn.utils.stateless.functional_call
    found = call(module, {"weight": graphtorch.zeros(5, 6)}, graphtorch.ones(2, 6))
    np.testing.assert_array_equal(array(found), np.tile(array(module.bias), (2, 1)))
    conv = graphtorch.nn.Sequential(graphtorch.nn.Conv2d(4, 6, 3))
    graphtorch.nn.utils.convert_conv2d_weight_memory_format(conv, graphtorch.channels_last)
    assert conv[0].weight.is_contiguous(memory_format=graphtorch.channels_last)
    with pytest.warns(FutureWarning, match="deprecated"):
        graphtorch.nn.utils.clip_grad_norm(module.parameters(), 1.0)
