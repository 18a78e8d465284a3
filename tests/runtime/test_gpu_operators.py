"""On a GPU (`pytest -m gpu`): every operator record, eagerly and compiled, against the same computation in float64.

What an operator may be off by follows from its dtype: the spacing of numbers there, times a factor for sums. Random
operators are compared with the reference of the random streams instead. Elsewhere these tests are skipped."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.cli.graphs import load_records
from graphtorch.ops.record import REGISTRY, Operator
from graphtorch.ops.testing import Sampler
from graphtorch.runtime.cuda.driver import driver, unavailable
from graphtorch.tensor import dtypes
from graphtorch.tensor.tensor import Tensor

load_records()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(unavailable() is not None, reason="there is no CUDA device")]
TOY = unavailable() is None and driver().interprets

# Relative and absolute differences from float64: some units in the last place of a few roundings.
TOLERANCES = {
    dtypes.float64: (1e-10, 1e-10),
    dtypes.float32: (3e-5, 3e-5),
    dtypes.float16: (6e-3, 6e-3),
    dtypes.bfloat16: (5e-2, 5e-2),
}
RECORDS = sorted(
    name
    for name, op in REGISTRY.items()
    if op.samples is not None
    and op.type_rule.__module__.startswith("graphtorch.ops")
    and not op.random
    and name not in ("to_device", "full", "arange", "view_dtype", "nextafter")  # devices; other bits in another dtype
)


def changed(value: Any, how: Any) -> Any:
    if isinstance(value, Tensor):
        return how(value)
    if isinstance(value, tuple | list):
        return type(value)(changed(v, how) for v in value)
    return value


def widened(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def cases() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in RECORDS:
        letters = REGISTRY[name].categories
        found += [(name, d) for d in TOLERANCES] if "f" in letters else []
        found += [(name, dtypes.int64)] if "i" in letters else []
        found += [(name, dtypes.bool_)] if "b" in letters else []
    return found


def compare(found: Any, wanted: Any, of: Any) -> None:
    assert found.is_cuda and tuple(found.shape) == tuple(wanted.shape)
    mine, theirs = found.cpu(), wanted
    if found.dtype.is_floating_point or found.dtype.is_complex:
        relative, absolute = TOLERANCES[of if of in TOLERANCES else dtypes.float32]
        a = np.asarray((mine.double() if not mine.is_complex() else mine)._data)
        b = np.asarray(theirs._data)
        if found.dtype.is_floating_point:
            with np.errstate(over="ignore"):  # what is beyond the largest number of the dtype
                b = np.where(np.isinf(b.astype(found.dtype.numpy)), np.copysign(np.inf, b), b)
        np.testing.assert_allclose(a, b, relative, absolute)
    else:
        np.testing.assert_array_equal(np.asarray(mine._data), np.asarray(theirs._data))


def is_discontinuous(op: Operator) -> bool:
    """Whether a rounding of the operands may change the result by a whole step."""
    return op.name in ("floor_divide", "remainder", "fmod", "floor", "ceil", "round", "trunc", "frac", "sign", "sgn")


@pytest.mark.parametrize("how", ["eager", "compiled"])
@pytest.mark.parametrize(("name", "of"), cases(), ids=lambda v: getattr(v, "name", v))
def test_operator(name: str, of: Any, how: str) -> None:
    op = REGISTRY[name]
    assert op.samples is not None and op.function is not None
    try:
        samples = list(op.samples(Sampler(of)))
    except NotImplementedError:
        pytest.skip("no samples of this dtype")
    if of in (dtypes.float16, dtypes.bfloat16) and is_discontinuous(op):
        pytest.skip("a rounding away from another result")
    for sample in samples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wanted = op.function(
                    *changed(sample.args, widened), **{k: changed(v, widened) for k, v in sample.kwargs.items()}
                )
                op.function(*sample.args, **sample.kwargs)
            except (RuntimeError, NotImplementedError, TypeError):
                continue  # not for this dtype
            args = changed(sample.args, lambda x: x.cuda())
            kwargs = {k: changed(v, lambda x: x.cuda()) for k, v in sample.kwargs.items()}
            function = op.function
            run = torch.compile(lambda *a, **k: function(*a, **k)) if how == "compiled" else function
            found = run(*args, **kwargs)
        for mine, theirs in zip(
            found if isinstance(found, tuple) else (found,),
            wanted if isinstance(wanted, tuple) else (wanted,),
            strict=True,
        ):
            compare(mine, theirs, of)


@pytest.mark.parametrize("mode", ["eager", "default", "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_training_step(mode: str, optimizer: str) -> None:
    def train(device: str, wide: bool, wrap: Any) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 10))
        x, y = torch.randn(96, 64), torch.arange(96) % 10
        model, x, y = model.to(device), x.to(device), y.to(device)
        if wide:
            model, x = model.double(), x.double()
        made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05)

        def step(x: Any, y: Any) -> Any:
            made.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            made.step()
            return loss

        run = wrap(step)
        return [run(x, y).item() for _ in range(8)]

    wrap = (lambda f: f) if mode == "eager" else lambda f: torch.compile(f, mode=mode)
    np.testing.assert_allclose(train("cuda", False, wrap), train("cpu", True, lambda f: f), 1e-4)


@pytest.mark.parametrize("function", ["rand", "randn"])
def test_random_streams(function: str) -> None:
    """The numbers that the interpreter gives, which are tested against the NumPy reference of the streams."""
    from graphtorch.ir.builder import GraphBuilder
    from graphtorch.ir.graph import Graph
    from graphtorch.lowering.triton.backend import InterpretedBackend

    torch.manual_seed(3)
    mine = getattr(torch, function)(5000, device="cuda").cpu()
    torch.manual_seed(3)
    graph = Graph("draw")
    builder = GraphBuilder(graph)
    with builder:
        graph.add_output(builder.value_of(getattr(torch, function)(5000)))
    (theirs,) = InterpretedBackend().compile(graph).run([])
    np.testing.assert_allclose(mine.numpy(), theirs, 1e-5, 1e-6)


@pytest.mark.skipif(TOY, reason="there is nothing to time")
def test_memory_bandwidth_of_a_copy() -> None:
    """A clone of a gigabyte takes no more than twice as long as the driver's own copy."""
    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)

    def seconds(run: Any) -> float:
        times = []
        for _ in range(5):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return min(times)

    assert seconds(lambda: torch.mul(x, 2.0)) < 2 * seconds(lambda: y.copy_(x))
