"""Sparse matrices, and SparseAdam with embeddings, beside PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch
from graphtorch.sparse import SparseTensor

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)
RNG = np.random.default_rng(0)
INDICES = np.array([[0, 1, 1, 3, 0], [2, 0, 0, 1, 2]])
VALUES = RNG.normal(size=5).astype(np.float32)
DENSE = RNG.normal(size=(3, 6)).astype(np.float32)


def array(tensor):
    return tensor.detach().numpy()


def make(library, requires_grad=False):
    values = library.from_numpy(VALUES.copy()).requires_grad_(requires_grad)
    return library.sparse_coo_tensor(library.from_numpy(INDICES), values, (4, 3)), values


USES = {
    "to_dense": lambda t, s, d: s.to_dense(),
    "coalesce": lambda t, s, d: s.coalesce().values(),
    "places": lambda t, s, d: s.coalesce().indices(),
    "add": lambda t, s, d: (s + s).to_dense(),
    "scale": lambda t, s, d: (s * 2.5).to_dense(),
    "transpose": lambda t, s, d: s.t().to_dense(),
    "mm": lambda t, s, d: t.sparse.mm(s, d),
    "matmul": lambda t, s, d: s @ d,
    "mv": lambda t, s, d: s.mv(d[:, 0]),
    "addmm": lambda t, s, d: t.sparse.addmm(t.ones(4, 6), s, d, beta=0.5, alpha=2.0),
    "sparse product": lambda t, s, d: t.sparse.mm(s, s.t()).to_dense(),
    "sum": lambda t, s, d: t.sparse.sum(s),
    "sum of rows": lambda t, s, d: t.sparse.sum(s, 1).to_dense(),
    "softmax": lambda t, s, d: t.sparse.softmax(s, 1).to_dense(),
    "from dense": lambda t, s, d: d.relu().to_sparse().to_dense(),
}


@pytest.mark.parametrize("use", USES)
def test_values_and_gradients(use):
    results = []
    for library in BOTH:
        sparse, values = make(library, requires_grad=True)
        dense = library.from_numpy(DENSE.copy()).requires_grad_()
        found = USES[use](library, sparse, dense)
        gradients = []
        if found.requires_grad and use != "coalesce":  # PyTorch's values() of a coalesced tensor has no gradient
            gradients = library.autograd.grad(found.square().sum(), [values, dense], allow_unused=True)
        results.append([array(found), *(None if g is None else array(g) for g in gradients)])
    for expected, actual in zip(*results, strict=True):
        assert (expected is None) == (actual is None)
        if expected is not None:
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_facts_and_dense_dimensions():
    rows = RNG.normal(size=(5, 7)).astype(np.float32)
    facts = []
    for library in BOTH:
        s = library.sparse_coo_tensor(library.from_numpy(INDICES), library.from_numpy(rows), (4, 3, 7))
        facts.append((s.sparse_dim(), s.dense_dim(), s._nnz(), s.coalesce()._nnz(), s.is_coalesced(), tuple(s.shape)))
        facts.append(array(s.to_dense()))
    assert facts[2] == facts[0]
    np.testing.assert_allclose(facts[3], facts[1], rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda t: t.sparse_coo_tensor([[0, 5]], [1.0, 2.0], (3,)),
        lambda t: t.sparse_coo_tensor([[0, -1]], [1.0, 2.0], (3,)),
        lambda t: t.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (3, 3)),
        lambda t: make(t)[0].indices(),
        lambda t: t.sparse.mm(make(t)[0], t.ones(4, 4)),
    ],
)
def test_errors(wrong):
    with pytest.raises(RuntimeError):  # PyTorch 2.13 checks indices only where it is told to
        wrong(graphtorch)


def test_a_graph_convolution_compiles():
    adjacency = graphtorch.sparse_coo_tensor(INDICES, VALUES, (4, 4))
    assert isinstance(adjacency, SparseTensor)

    def layer(weight):
        return (adjacency @ (graphtorch.ones(4, 3) @ weight)).relu().sum()

    weights = [graphtorch.from_numpy(DENSE.copy()).requires_grad_() for _ in range(2)]
    losses = [layer(weights[0]), graphtorch.compile(layer, fullgraph=True)(weights[1])]
    for loss in losses:
        loss.backward()
    np.testing.assert_allclose(losses[1].item(), losses[0].item(), rtol=1e-5)
    np.testing.assert_allclose(array(weights[1].grad), array(weights[0].grad), rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["SparseAdam", "SGD", "Adagrad"])
def test_embeddings_train_as_with_sparse_gradients(name, compiled):
    results = []
    for library in BOTH:
        library.manual_seed(0)
        embedding = library.nn.Embedding(20, 4, sparse=True)
        optimizer = getattr(library.optim, name)(embedding.parameters(), lr=0.05)

        def step(tokens, lib=library, embedding=embedding, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (embedding(tokens) - lib.arange(4.0)).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = graphtorch.compile(step, fullgraph=True) if compiled and library is graphtorch else step
        rng = np.random.default_rng(1)
        losses = [run(library.from_numpy(rng.integers(0, 20, 6))).item() for _ in range(8)]
        results.append((losses, array(embedding.weight), optimizer))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-5)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-5, atol=1e-6)
    if name == "SparseAdam":
        theirs, ours = (r[2].state_dict() for r in results)
        assert ours["param_groups"][0].keys() == theirs["param_groups"][0].keys()
        assert ours["state"][0].keys() == theirs["state"][0].keys()
        assert int(ours["state"][0]["step"]) == theirs["state"][0]["step"]


def test_sparse_adam_checks_its_options():
    weight = [graphtorch.ones(2, requires_grad=True)]
    for options in ({"lr": 0.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}):
        with pytest.raises(ValueError, match="Invalid"):
            graphtorch.optim.SparseAdam(weight, **options)
