"""The names of histories: what `grad_fn=<...>` shows is PyTorch's name, also for what is a composition here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import graphtorch

# Expressions over x (2, 3), y (3, 5), v (3,), c (2, 4, 3) and i (1, 4, 4, 4), all leaves that require grad.
EXPRESSIONS = """
F.linear(x, torch.ones(5, 3), torch.ones(5)); F.linear(c, torch.ones(5, 3), torch.ones(5))
F.linear(x, torch.ones(5, 3)); F.linear(c, torch.ones(5, 3)); F.linear(v, torch.ones(5, 3)); x @ y; c @ c.mT; c @ y
x @ v; v @ v; torch.addmv(torch.ones(2), x, v); F.cross_entropy(x, torch.tensor([0, 1]))
F.cross_entropy(x, x.detach()); F.batch_norm(x, None, None, training=True); F.group_norm(i, 2); F.instance_norm(i)
F.layer_norm(x, (3,)); F.conv2d(i, torch.ones(2, 4, 2, 2)); F.conv_transpose2d(i, torch.ones(4, 2, 2, 2))
F.max_pool2d(i, 2); F.avg_pool2d(i, 2); F.interpolate(i, scale_factor=2)
F.interpolate(i, scale_factor=2, mode="bilinear"); F.pad(x, (1, 1)); F.pad(x, (1, 1), "reflect"); F.glu(c[..., :2])
F.relu(x * 1, inplace=True); F.embedding_bag(torch.tensor([[1, 2]]), y); F.pairwise_distance(x, x)
torch.cdist(x, x); x.reshape(6); x.t().reshape(6); x.T; x.mT; x[:1].squeeze(0); x.squeeze(); x.unsqueeze(0)
x.split(1)[0]; x.chunk(2)[1]; x.unbind()[0]; x.masked_select(x > 0); torch.diag(v); y[:, :3].trace()
torch.einsum("ij,jk->ik", x, y); torch.kron(x, x); torch.rot90(x)
torch.linalg.solve(torch.eye(2).requires_grad_(), torch.ones(2)); torch.linalg.cross(v, v); torch.fft.fft(v)
torch.fft.rfft(v); (v * 1j).real; x.scatter(1, torch.tensor([[0], [1]]), 5.0); (x * 1).zero_(); (x * 1).fill_(1.0)
(x * 1).copy_(x); (x * 1).t_(); (x * 1).unsqueeze_(0); (x * 1).squeeze_(); (x * 1).transpose_(0, 1)
F.soft_margin_loss(v, v.detach()); F.celu(x)
"""


def names(library: str) -> list[tuple[str, str]]:
    torch = importlib.import_module(library)

    def leaf(*shape: int) -> Any:
        return torch.ones(*shape, requires_grad=True)

    scope = {"torch": torch, "F": torch.nn.functional}
    found = []
    for text in EXPRESSIONS.replace("\n", ";").split(";"):
        if text.strip():
            scope |= {"x": leaf(2, 3), "y": leaf(3, 5), "v": leaf(3), "c": leaf(2, 4, 3), "i": leaf(1, 4, 4, 4)}
            found.append((text.strip(), eval(text.strip(), scope).grad_fn.name()))
    return found


def test_names_are_pytorchs() -> None:
    pytest.importorskip("torch")
    assert names("graphtorch") == names("torch")


def test_a_view_of_a_changed_base_is_a_strided_one() -> None:
    base = graphtorch.ones(4, requires_grad=True) * 1
    view = base[1:3]
    view.fill_(5)
    assert "AsStridedBackward0" in repr(view) and "CopySlices" in repr(base)


def test_edges_of_a_linear_layer_come_in_pytorchs_order() -> None:
    x, layer = graphtorch.ones(1, 2, requires_grad=True) * 1, graphtorch.nn.Linear(2, 3)
    first = layer(x).grad_fn.next_functions[0][0]
    assert first.name() == "torch::autograd::AccumulateGrad" and first.variable is layer.bias


def test_saved_values_can_be_seen() -> None:
    x = graphtorch.tensor([1.0, 2.0], requires_grad=True)
    node = (x * x).grad_fn
    assert node._saved_self is x and node._saved_other is x
    result = x.exp()
    assert graphtorch.equal(result.grad_fn._saved_result, result)
    with pytest.raises(AttributeError):
        _ = node._saved_nothing
    result.sum().backward()
    with pytest.raises(RuntimeError, match="already been freed"):
        _ = result.grad_fn._saved_result


def test_generators_run_in_the_mode_and_their_callers_do_not() -> None:
    @graphtorch.no_grad()
    def steps() -> Any:
        try:
            answer = yield graphtorch.is_grad_enabled()
        except ValueError:
            answer = "thrown"
        yield answer, graphtorch.is_grad_enabled()
        return "end"

    running = steps()
    assert next(running) is False and graphtorch.is_grad_enabled()
    assert running.send("sent") == ("sent", False) and graphtorch.is_grad_enabled()
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value == "end"
    running = steps()
    next(running)
    assert running.throw(ValueError()) == ("thrown", False)


def test_hooks_on_several_gradients() -> None:
    from graphtorch.autograd.graph import get_gradient_edge, register_multi_grad_hook, save_on_cpu

    a, b = graphtorch.tensor([1.0], requires_grad=True), graphtorch.tensor([2.0], requires_grad=True)
    seen: list[Any] = []
    handle = register_multi_grad_hook([a, b], lambda gradients: seen.append([g.item() for g in gradients]))
    with save_on_cpu():
        product = (a * b).sum()
    product.backward()
    handle.remove()
    (a * b).sum().backward()
    assert seen == [[2.0, 1.0]]
    assert get_gradient_edge(a).node.name() == "torch::autograd::AccumulateGrad"


def test_a_gradient_has_its_leafs_strides() -> None:
    w = graphtorch.randn(3, 4).t().requires_grad_()
    (graphtorch.ones(2, 4) @ w).sum().backward()
    assert w.grad.stride() == w.stride()
    layer = graphtorch.nn.Linear(4, 3)
    layer(graphtorch.randn(5, 4)).square().sum().backward()
    assert layer.weight.grad.is_contiguous()


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_gradient_of_products_of_a_transpose_has_its_leafs_strides(create_graph: bool) -> None:
    s = graphtorch.ones(4, 2, 2, requires_grad=True)
    turned = s.transpose(0, -1)
    (turned * turned).mean().backward(create_graph=create_graph)
    assert s.grad.stride() == s.stride()
    assert s.grad.requires_grad is create_graph


@pytest.mark.parametrize("other", [(0,), (2,), (2, 3)])
def test_a_gradient_flows_through_cat_to_what_is_empty(other: tuple[int, ...]) -> None:
    """Of zeros, not None: an empty vector goes along with tensors of any shape."""
    p = graphtorch.tensor(-1.0, requires_grad=True)
    graphtorch.cat([p * graphtorch.ones(0), graphtorch.ones(other)]).sum().backward()
    assert p.grad.item() == 0.0
