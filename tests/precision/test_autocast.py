"""Autocast and gradient scaling beside PyTorch's: dtypes of every listed operator, training, compiled functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.ops.autocast import FLOAT32, LOWER_PRECISION, LOWER_PRECISION_FUNCTIONS

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(0)
SQUARE = RANDOM.normal(size=(4, 4)).astype("f4") + 4 * np.eye(4, dtype="f4")
VECTOR = RANDOM.normal(size=4).astype("f4")
IMAGE = RANDOM.normal(size=(1, 2, 8, 8)).astype("f4")
FILTERS = RANDOM.normal(size=(3, 2, 3, 3)).astype("f4")
CLASSES = np.array([0, 1, 2, 3])

# Each gets the library, and the floating-point arrays above in one dtype.
CALLS: dict[str, Callable[..., Any]] = {
    "mm": lambda m, a, v, x, w: m.mm(a, a),
    "@": lambda m, a, v, x, w: a @ a,
    "matrix @ vector": lambda m, a, v, x, w: a @ v,
    "vector @ vector": lambda m, a, v, x, w: v @ v,
    "bmm": lambda m, a, v, x, w: m.bmm(a[None], a[None]),
    "addmm": lambda m, a, v, x, w: m.addmm(a, a, a),
    "addbmm": lambda m, a, v, x, w: m.addbmm(a, a[None], a[None]),
    "baddbmm": lambda m, a, v, x, w: m.baddbmm(a[None], a[None], a[None]),
    "dot": lambda m, a, v, x, w: m.dot(v, v),
    "mv": lambda m, a, v, x, w: m.mv(a, v),
    "outer": lambda m, a, v, x, w: m.outer(v, v),
    "inner": lambda m, a, v, x, w: m.inner(a, a),
    "einsum": lambda m, a, v, x, w: m.einsum("ij,jk->ik", a, a),
    "linear": lambda m, a, v, x, w: m.nn.functional.linear(a, a, v),
    "conv2d": lambda m, a, v, x, w: m.nn.functional.conv2d(x, w),
    "conv1d": lambda m, a, v, x, w: m.nn.functional.conv1d(x[0], w[:, :, 0]),
    "conv_transpose2d": lambda m, a, v, x, w: m.nn.functional.conv_transpose2d(x, w.transpose(0, 1).contiguous()),
    "attention": lambda m, a, v, x, w: m.nn.functional.scaled_dot_product_attention(a[None], a[None], a[None]),
    "prelu": lambda m, a, v, x, w: m.nn.functional.prelu(a, v),
    "prelu of two dtypes": lambda m, a, v, x, w: m.nn.functional.prelu(a @ a, v.float()),
    "softmax": lambda m, a, v, x, w: a.softmax(-1),
    "log_softmax": lambda m, a, v, x, w: a.log_softmax(-1),
    "layer_norm": lambda m, a, v, x, w: m.nn.functional.layer_norm(a, (4,)),
    "batch_norm": lambda m, a, v, x, w: m.nn.functional.batch_norm(a, None, None, training=True),
    "exp": lambda m, a, v, x, w: a.exp(),
    "sum": lambda m, a, v, x, w: a.sum(),
    "mean": lambda m, a, v, x, w: a.mean(),
    "prod": lambda m, a, v, x, w: a.prod(),
    "cumsum": lambda m, a, v, x, w: a.cumsum(0),
    "norm": lambda m, a, v, x, w: a.norm(),
    "pow": lambda m, a, v, x, w: a**2,
    "gelu": lambda m, a, v, x, w: m.nn.functional.gelu(a),
    "mse_loss": lambda m, a, v, x, w: m.nn.functional.mse_loss(a, a),
    "l1_loss": lambda m, a, v, x, w: m.nn.functional.l1_loss(a, a),
    "huber_loss": lambda m, a, v, x, w: m.nn.functional.huber_loss(a, a),
    "smooth_l1_loss": lambda m, a, v, x, w: m.nn.functional.smooth_l1_loss(a, a),
    "nll_loss": lambda m, a, v, x, w: m.nn.functional.nll_loss(a, m.from_numpy(CLASSES)),
    "cross_entropy": lambda m, a, v, x, w: m.nn.functional.cross_entropy(a, m.from_numpy(CLASSES)),
    "kl_div": lambda m, a, v, x, w: m.nn.functional.kl_div(a, a.abs(), reduction="sum"),
    "bce": lambda m, a, v, x, w: m.nn.functional.binary_cross_entropy(a.sigmoid(), a.sigmoid()),
    "bce with logits": lambda m, a, v, x, w: m.nn.functional.binary_cross_entropy_with_logits(a, a.sigmoid()),
    "triplet": lambda m, a, v, x, w: m.nn.functional.triplet_margin_loss(a, a + 1, a * 2),
    "module loss": lambda m, a, v, x, w: m.nn.MSELoss()(a, a * 2),
    "multi margin": lambda m, a, v, x, w: m.nn.functional.multi_margin_loss(a, m.from_numpy(CLASSES)),
    "reflection": lambda m, a, v, x, w: m.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "zeros around": lambda m, a, v, x, w: m.nn.functional.pad(x, (1, 1, 1, 1)),
    "avg_pool2d": lambda m, a, v, x, w: m.nn.functional.avg_pool2d(x, 2),
    "trace": lambda m, a, v, x, w: a.trace(),
    "inverse": lambda m, a, v, x, w: a.inverse(),
    "inv": lambda m, a, v, x, w: m.linalg.inv(a),
    "svdvals": lambda m, a, v, x, w: m.linalg.svdvals(a),
    "qr": lambda m, a, v, x, w: m.linalg.qr(a)[1].abs(),
    "solve": lambda m, a, v, x, w: m.linalg.solve(a, v),
    "cdist": lambda m, a, v, x, w: m.cdist(a, a * 2),
    "quantile": lambda m, a, v, x, w: a.quantile(0.5),
    "rfft": lambda m, a, v, x, w: m.fft.rfft(v),
    "stack": lambda m, a, v, x, w: m.stack([a, a.float()]),
    "cat": lambda m, a, v, x, w: m.cat([a, a.float()]),
    "index_copy": lambda m, a, v, x, w: a.index_copy(0, m.from_numpy(CLASSES), a.float()),
}


def call(module: Any, name: str, dtype: str, to: str = "bfloat16", enabled: bool = True) -> Any:
    given = [module.from_numpy(a).to(getattr(module, dtype)) for a in (SQUARE, VECTOR, IMAGE, FILTERS)]
    with module.autocast("cpu", dtype=getattr(module, to), enabled=enabled):
        return CALLS[name](module, *given)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_dtypes_and_values_are_torchs(name: str, dtype: str) -> None:
    try:
        wanted = call(torch, name, dtype)
    except Exception as error:
        with pytest.raises(Exception) as caught:
            call(graphtorch, name, dtype)
        assert type(caught.value).__name__ == type(error).__name__
        return
    got = call(graphtorch, name, dtype)
    assert repr(got.dtype) == repr(wanted.dtype)
    coarse = "bfloat16" in (got.dtype.name, dtype)
    numbers = [np.asarray(t.to(m.complex64 if t.is_complex() else m.float64)) for m, t in
               ((graphtorch, got), (torch, wanted))]  # fmt: skip
    np.testing.assert_allclose(*numbers, rtol=0.03 if coarse else 2e-4, atol=0.03 if coarse else 2e-4)


def test_every_name_of_the_lists_is_an_operator() -> None:
    for name in (*FLOAT32, *LOWER_PRECISION_FUNCTIONS, *LOWER_PRECISION):
        assert callable(getattr(graphtorch.ops, name))


def test_regions_nest_and_restore(recwarn: pytest.WarningsRecorder) -> None:
    a = graphtorch.ones(2, 2)
    assert not graphtorch.is_autocast_enabled("cpu")
    assert graphtorch.get_autocast_dtype("cpu") is graphtorch.bfloat16
    assert graphtorch.get_autocast_dtype("cuda") is graphtorch.float16
    with graphtorch.autocast("cpu", dtype=graphtorch.float16):
        assert graphtorch.is_autocast_enabled("cpu") and graphtorch.get_autocast_dtype("cpu") is graphtorch.float16
        assert (a @ a).dtype is graphtorch.float16
        with graphtorch.autocast("cpu", enabled=False):
            assert (a @ a).dtype is graphtorch.float32
        assert (a @ a).dtype is graphtorch.float16
    assert (a @ a).dtype is graphtorch.float32

    @graphtorch.autocast("cpu")
    def product(a: Any) -> Any:
        return a @ a

    assert product(a).dtype is graphtorch.bfloat16
    with graphtorch.cpu.amp.autocast():
        assert (a @ a).dtype is graphtorch.bfloat16
    assert not recwarn.list
    with (
        pytest.warns(UserWarning, match="target dtype is not supported"),
        graphtorch.autocast("cpu", dtype=graphtorch.float64),
    ):
        assert (a @ a).dtype is graphtorch.float32
    with pytest.warns(UserWarning, match="CUDA is not available"):
        graphtorch.autocast("cuda")
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'"):
        graphtorch.autocast("tpu")
    with pytest.raises(ValueError, match="of type `str`"):
        graphtorch.autocast(3)  # type: ignore[arg-type]


def test_a_region_belongs_to_its_thread() -> None:
    found: list[bool] = []
    with graphtorch.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append(graphtorch.is_autocast_enabled("cpu")))
        thread.start()
        thread.join()
    assert found == [False]


def test_setters() -> None:
    try:
        graphtorch.set_autocast_enabled("cpu", True)
        graphtorch.set_autocast_dtype("cpu", graphtorch.float16)
        assert (graphtorch.ones(2, 2) @ graphtorch.ones(2, 2)).dtype is graphtorch.float16
    finally:
        graphtorch.set_autocast_enabled("cpu", False)
        graphtorch.set_autocast_dtype("cpu", graphtorch.bfloat16)
    assert (graphtorch.ones(2, 2) @ graphtorch.ones(2, 2)).dtype is graphtorch.float32


def test_a_parameter_that_changes_inside_a_region_is_cast_again() -> None:
    """PyTorch's cache gives the old value here; a changed parameter must count at once."""
    weight = graphtorch.nn.Parameter(graphtorch.ones(2, 2))
    x = graphtorch.ones(2, 2)
    with graphtorch.autocast("cpu"):
        first = x @ weight
        assert len(graphtorch.amp.autocast_mode._settings.cache) == 1
        x @ weight
        assert len(graphtorch.amp.autocast_mode._settings.cache) == 1
        with graphtorch.no_grad():
            weight.mul_(3)
        second = x @ weight
    assert first.tolist()[0][0] == 2 and second.tolist()[0][0] == 6
    assert not graphtorch.amp.autocast_mode._settings.cache


def mlp(m: Any) -> tuple[Any, Any, Any]:
    model = m.nn.Sequential(m.nn.Linear(4, 8), m.nn.ReLU(), m.nn.LayerNorm(8), m.nn.Linear(8, 3))
    for i, p in enumerate(model.parameters()):
        values = np.random.default_rng(i).normal(size=tuple(p.shape)).astype("f4") * 0.5
        with m.no_grad():
            p.copy_(m.from_numpy(values))
    x = m.from_numpy(np.random.default_rng(9).normal(size=(16, 4)).astype("f4"))
    return model, x, m.from_numpy(np.random.default_rng(8).integers(0, 3, 16))


def train(m: Any, wrap: Callable[..., Any] = lambda f: f, inside: bool = True, steps: int = 5) -> list[float]:
    model, x, y = mlp(m)
    optimizer = m.optim.SGD(model.parameters(), lr=0.1)

    def forward() -> Any:
        return m.nn.functional.cross_entropy(model(x), y)

    def step() -> Any:
        optimizer.zero_grad()
        if inside:
            with m.autocast("cpu"):
                loss = forward()
        else:
            loss = forward()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = wrap(step)
    losses = []
    for _ in range(steps):
        if inside:
            losses.append(run().item())
        else:
            with m.autocast("cpu"):
                losses.append(run().item())
    return losses


@pytest.mark.parametrize("inside", [True, False])
def test_training_is_torchs_and_the_compiled_step_is_the_eager_one(inside: bool) -> None:
    wanted = train(torch, inside=inside)
    eager = train(graphtorch, inside=inside)
    np.testing.assert_allclose(eager, wanted, rtol=0.02)
    made: list[Any] = []

    def wrap(step: Any) -> Any:
        made.append(graphtorch.compile(step, fullgraph=True))
        return made[0]

    compiled = train(graphtorch, wrap, inside)
    np.testing.assert_allclose(compiled, eager, rtol=2e-3)
    assert len(made[0].specializations) == 1


def test_a_region_around_a_compiled_function_is_an_assumption() -> None:
    f = graphtorch.compile(lambda a: a @ a, fullgraph=True)
    a = graphtorch.ones(2, 2)
    for _ in range(2):
        assert f(a).dtype is graphtorch.float32
        with graphtorch.autocast("cpu"):
            assert f(a).dtype is graphtorch.bfloat16
        with graphtorch.autocast("cpu", dtype=graphtorch.float16):
            assert f(a).dtype is graphtorch.float16
    assert len(f.specializations) == 3
    assert "autocast was" in f.specializations[1].reason


def test_casts_are_nodes_of_the_graph() -> None:
    @graphtorch.compile(fullgraph=True)
    def f(a: Any) -> Any:
        with graphtorch.autocast("cpu"):
            return (a @ a).sum()

    f(graphtorch.ones(2, 2))
    assert [n.op.name for n in f.specializations[0].captured.graph.nodes].count("cast") >= 1
    assert "bf16" in str(f.specializations[0].captured.graph)
    assert not graphtorch.is_autocast_enabled("cpu")


def test_backward_outside_of_a_compiled_forward() -> None:
    model, x, y = mlp(graphtorch)

    def loss() -> Any:
        with graphtorch.autocast("cpu"):
            return graphtorch.nn.functional.cross_entropy(model(x), y)

    loss().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    graphtorch.compile(loss, fullgraph=True)().backward()
    for p, g in zip(model.parameters(), wanted, strict=True):
        assert p.grad.dtype is graphtorch.float32
        np.testing.assert_allclose(p.grad.numpy(), g.numpy(), rtol=0.03, atol=1e-3)


def test_transforms_and_autocast() -> None:
    from graphtorch.func import grad, vmap

    w, x = graphtorch.randn(4, 3), graphtorch.randn(5, 4)
    with graphtorch.autocast("cpu"):
        each = vmap(grad(lambda w, x: (x @ w).float().pow(2).sum()), in_dims=(None, 0))(w, x)
    exact = vmap(grad(lambda w, x: (x @ w).pow(2).sum()), in_dims=(None, 0))(w, x)
    assert each.dtype is graphtorch.float32 and not graphtorch.equal(each, exact)
    np.testing.assert_allclose(each.numpy(), exact.numpy(), rtol=0.1, atol=0.1)


def test_custom_functions() -> None:
    seen: list[Any] = []

    class Product(graphtorch.autograd.Function):
        @staticmethod
        @graphtorch.amp.custom_fwd(device_type="cpu")
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @graphtorch.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, g: Any) -> Any:
            a, b = ctx.saved_tensors
            seen.append(graphtorch.is_autocast_enabled("cpu"))
            return g @ b.T, a.T @ g

    class Exact(graphtorch.autograd.Function):
        @staticmethod
        @graphtorch.amp.custom_fwd(device_type="cpu", cast_inputs=graphtorch.float32)
        def forward(ctx: Any, a: Any) -> Any:
            seen.append((a.dtype, graphtorch.is_autocast_enabled("cpu")))
            return a @ a

    a = graphtorch.ones(2, 2, requires_grad=True)
    with graphtorch.autocast("cpu"):
        out = Product.apply(a, a)
        assert out.dtype is graphtorch.bfloat16
        assert Exact.apply(a.bfloat16()).dtype is graphtorch.float32
    out.sum().backward()
    assert seen == [(graphtorch.float32, False), True] and a.grad.dtype is graphtorch.float32


def scaled(m: Any, wrap: Callable[..., Any] = lambda f: f) -> tuple[list[float], list[float], Any]:
    """Steps of which one overflows: losses, scales, the first parameter."""
    model, x, y = mlp(m)
    optimizer = m.optim.SGD(model.parameters(), lr=0.1)
    scaler = m.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)

    def step(factor: Any) -> Any:
        optimizer.zero_grad()
        loss = m.nn.functional.cross_entropy(model(x), y) * factor
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        m.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    run = wrap(step)
    losses, scales = [], []
    for i in range(7):
        losses.append(run(m.tensor(float("inf") if i == 3 else 1.0)).item())
        scales.append(scaler.get_scale())
    return losses, scales, next(model.parameters()).detach().numpy()


def test_gradient_scaling_is_torchs() -> None:
    losses, scales, weight = scaled(torch)
    mine, own, parameter = scaled(graphtorch)
    np.testing.assert_allclose(mine, losses, rtol=1e-4)
    assert own == scales == [64.0, 128.0, 128.0, 64.0, 64.0, 128.0, 128.0]
    np.testing.assert_allclose(parameter, weight, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
def test_gradient_scaling_in_a_compiled_step() -> None:
    losses, scales, weight = scaled(graphtorch)
    mine, own, parameter = scaled(graphtorch, graphtorch.compile)
    np.testing.assert_allclose(mine, losses, rtol=1e-4)
    assert own == scales
    np.testing.assert_allclose(parameter, weight, rtol=1e-4, atol=1e-6)


def test_scaler_state_and_mistakes() -> None:
    import copy
    import pickle

    scaler = graphtorch.amp.GradScaler("cpu", init_scale=8.0)
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert {k: v for k, v in scaler.state_dict().items()} == theirs.state_dict()
    other = graphtorch.cpu.amp.GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 8.0
    assert pickle.loads(pickle.dumps(scaler)).get_scale() == copy.deepcopy(scaler).get_scale() == 8.0
    parameter = graphtorch.nn.Parameter(graphtorch.ones(2))
    optimizer = graphtorch.optim.SGD([parameter], lr=1.0)
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.step(optimizer)
    scaler.update(4.0)
    assert scaler.get_scale() == 4.0
    scaler.scale(parameter.sum()).backward()
    scaler.unscale_(optimizer)
    assert parameter.grad is not None and parameter.grad.tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="already been called on this optimizer"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="Closure use"):
        scaler.step(optimizer, closure=lambda: None)
    disabled = graphtorch.amp.GradScaler("cpu", enabled=False)
    assert disabled.scale(parameter) is parameter and disabled.state_dict() == {} and disabled.get_scale() == 1.0
    with pytest.raises(RuntimeError, match="state dict is empty"):
        scaler.load_state_dict({})
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert not graphtorch.amp.GradScaler().is_enabled()


def test_older_spellings_for_a_gpu_do_nothing_here() -> None:
    from graphtorch.cuda.amp import GradScaler, autocast

    a = graphtorch.ones(2, 2)
    with pytest.warns(UserWarning, match="CUDA is not available"), autocast():
        assert (a @ a).dtype is graphtorch.float32
    assert not GradScaler(enabled=False).is_enabled()
