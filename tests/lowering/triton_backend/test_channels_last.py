"""Images between convolutions with channels side by side: values, what follows and what does not, machine code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import HERE, arrays, close, trace

from graphtorch.autodiff.reverse import append_gradients
from graphtorch.ir.builder import GraphBuilder, wrap
from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.kernel import ExternCall, Kernel
from graphtorch.lowering.triton import convolution
from graphtorch.lowering.triton.autotune import candidates
from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, resources
from graphtorch.lowering.triton.layout import ChannelsLast, use_channels_last
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.shapes import Config
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256)
TOLERANCE = {"float32": 3e-5, "bfloat16": 6e-2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def with_gradients(function: Any, *types: TensorType) -> Graph:
    """The sum of a function's result, and the gradients in all operands."""
    graph = Graph("step")
    inputs = [graph.add_input(t, f"x{i}", "parameter") for i, t in enumerate(types)]
    builder = GraphBuilder(graph, HERE)
    with builder:
        result = wrap(builder.value_of(function(*map(wrap, inputs))))
        loss = builder.value_of((result.float() * result.float()).sum())
    made = append_gradients(graph, (loss,), (None,), tuple(inputs), builder)
    graph.add_output(loss, "loss")
    for i, value in enumerate(made):
        assert value is not None
        graph.add_output(value, f"grad{i}")
    return graph


def check(graph: Graph, tolerance: float, limits: Limits | None = SMALL, bindings: Any = None) -> TritonExecutable:
    inputs = arrays(graph, bindings=bindings)
    expected = interpret(graph, [np.array(x) for x in inputs])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(inputs), expected, strict=True):
        scale = max(float(np.abs(wanted.astype(np.float64)).max(initial=1.0)), 1.0)
        close(actual, wanted, tolerance, tolerance * scale)
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


def images(executable: TritonExecutable) -> set[str]:
    """The channels-last temporaries, without the copies of kernels."""
    assert executable.schedule is not None
    found = {b for s in executable.schedule.steps for b in s.writes() if isinstance(b, ChannelsLast)}
    return {b.name for b in found if not b.name.endswith("_by_channel")}


def network(stride: int = 1, groups: int = 1, dilation: int = 1) -> Any:
    def run(x: Any, first: Any, second: Any, third: Any, scale: Any) -> Any:
        made = (F.conv2d(x, first, None, 1, 1) * 0.1).tanh()
        made = F.conv2d(made, second, None, stride, dilation, dilation, groups) * 0.1
        mean = made.float().mean((0, 2, 3), True).to(made.dtype)
        made = ((made - mean) * scale.view(1, -1, 1, 1)).tanh()
        return F.conv2d(made, third)

    return run


def shapes(channels: int, groups: int = 1) -> list[tuple[int, ...]]:
    weights = [(channels, 3, 3, 3), (channels, channels // groups, 3, 3), (4, channels, 1, 1)]
    return [(2, 3, 7, 6), *weights, (channels,)]


@pytest.mark.parametrize(
    ("kind", "channels", "stride", "groups", "dilation"),
    [
        ("float32", 16, 1, 1, 1),
        ("bfloat16", 24, 2, 1, 1),
        ("float32", 24, 2, 1, 1),
        ("float32", 32, 1, 2, 1),
        ("float32", 16, 1, 1, 2),
    ],
)
def test_values_and_gradients(kind: str, channels: int, stride: int, groups: int, dilation: int) -> None:
    graph = with_gradients(network(stride, groups, dilation), *(typed(kind, *s) for s in shapes(channels, groups)))
    executable = check(graph, TOLERANCE[kind] * 4)
    assert len(images(executable)) >= 4
    assert any("channels side by side" in line for line in executable.schedule.report)


@pytest.mark.parametrize(
    ("kind", "channels", "stride", "groups", "dilation"),
    [
        ("bfloat16", 32, 1, 1, 1),
        ("bfloat16", 24, 2, 1, 1),
        ("float32", 32, 2, 1, 1),
        ("float32", 16, 1, 1, 2),
        ("bfloat16", 32, 1, 2, 1),
    ],
)
def test_operands_through_tensor_descriptors(
    kind: str, channels: int, stride: int, groups: int, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, gradients of results, and images under kernels of one place, where their rows allow."""
    monkeypatch.setattr(convolution, "choose_blocks", lambda *_: Config(16, 16, 16, descriptors=True))
    graph = with_gradients(network(stride, groups, dilation), *(typed(kind, *s) for s in shapes(channels, groups)))
    executable = check(graph, TOLERANCE[kind] * 4)
    (made,) = executable._programs.values()
    described: dict[str, list[int]] = {}
    for launch in made.launches.launches:
        name = launch.function.name.removesuffix("_mul").removesuffix("_mul_tanh")
        if name.startswith("conv2d"):
            described.setdefault(name, []).append(launch.function.source.count("make_tensor_descriptor"))
    # Three convolutions: of the caller's image, of images with channels side by side, and of one place.
    one = int(groups == 1)
    assert described["conv2d"] == [0, one * (channels % 16 == 0), 1 + (channels % 16 == 0)]
    assert sorted(described["conv2d_weight_grad"])[1:] == sorted([one, 1])
    assert sorted(described["conv2d_input_grad"]) == sorted([0, 0, one])


def test_default_blocks() -> None:
    graph = with_gradients(network(2), *(typed("float32", *s) for s in shapes(40)))
    assert images(check(graph, 2e-4, None))


def test_symbolic_batch() -> None:
    batch = symbol("batch", hint=2)
    types = [typed("float32", *s) for s in shapes(16)]
    graph = trace(network(), types[0].with_shape((batch, 3, 7, 6)), *types[1:])
    for n in (2, 3):
        assert images(check(graph, 1e-4, SMALL, {"batch": n}))


def test_flat_kernels_and_views_follow() -> None:
    """A pointwise kernel has one axis for a whole image; other calls read the image through strides."""

    def run(x: Any, w: Any, v: Any, y: Any) -> Any:
        made = F.conv2d(x, w)
        twice = made * 2 + 1
        return F.conv2d(twice, v), F.max_pool2d(twice, 2), twice.transpose(1, 3) + y, twice.flatten(2).softmax(-1)

    types = [(1, 16, 6, 6), (16, 16, 1, 1), (16, 16, 3, 3), (1, 6, 6, 16)]
    executable = check(trace(run, *(typed("float32", *s) for s in types)), 1e-4)
    assert images(executable)


def pooled(x: Any, w: Any, v: Any, u: Any) -> Any:
    made = F.max_pool2d((F.conv2d(x, w) * 0.1).tanh(), 3, 2, 1)
    return F.conv2d((F.conv2d(made, v, None, 1, 1) * 0.1 + made).tanh(), u)


def averaged(x: Any, w: Any, v: Any, u: Any) -> Any:
    made = F.avg_pool2d((F.conv2d(x, w) * 0.1).tanh(), 3, 2, 1)
    return F.conv2d((F.conv2d(made, v, None, 1, 1) * 0.1 + made).tanh(), u)


# Rounding decides which of two nearly equal numbers is the maximum: no comparison in bfloat16.
@pytest.mark.parametrize(("run", "kind"), [(pooled, "float32"), (averaged, "float32"), (averaged, "bfloat16")])
def test_pooling_goes_along(run: Any, kind: str) -> None:
    """Forward and backward, with no copy between it and the convolutions."""
    types = [(2, 3, 9, 8), (16, 3, 1, 1), (16, 16, 3, 3), (4, 16, 1, 1)]
    graph = with_gradients(run, *(typed(kind, *s) for s in types))
    executable = check(graph, 1e-4 if kind == "float32" else 6e-2)
    assert executable.schedule is not None
    steps = executable.schedule.steps
    assert not [s for s in steps if any("image by channels" in n.origin for n in s.nodes)]
    pools = [s for s in steps if isinstance(s, ExternCall) and "pool2d" in s.op.name]
    assert len(pools) == 2 and all(isinstance(b, ChannelsLast) for s in pools for b in s.writes())


def test_pools_that_somebody_sees_lie_in_rows() -> None:
    """What is returned stays as it was, positions in 64 bits."""

    def run(x: Any, w: Any, v: Any) -> Any:
        values, at = F.max_pool2d(F.conv2d(x, w), 2, return_indices=True)
        return values, at, F.conv2d(values, v)

    types = [(2, 3, 8, 8), (16, 3, 1, 1), (16, 16, 3, 3)]
    executable = check(trace(run, *(typed("float32", *s) for s in types)), 1e-4)
    assert executable.schedule is not None
    (pool,) = [s for s in executable.schedule.steps if isinstance(s, ExternCall) and "pool2d" in s.op.name]
    assert not any(isinstance(b, ChannelsLast) for b in pool.writes())
    assert [b.dtype for b in pool.writes()] == [dtypes.float32, dtypes.int64]


def test_windows_are_read_sixteen_bytes_at_a_time() -> None:
    """Of neighbouring channels; and where maxima were takes a byte."""
    types = [(64, 3, 56, 56), (64, 3, 3, 3), (64, 64, 3, 3), (64, 64, 1, 1)]
    plan = plan_for(build_schedule(with_gradients(pooled, *(typed("bfloat16", *s) for s in types))))
    for name, loads in (("max_pool2d_with_indices", 9), ("max_pool2d_backward", 4)):
        (launch,) = [s for s in plan.launches if s.function.name == name]
        assert [b.dtype for b in launch.function.buffers].count(dtypes.int8) == 1
        for compiled in compile_all([launch.function] * 2, "sm_90")[:1]:
            assert resources(compiled).registers <= 64 and resources(compiled).stack == 0
            assert compiled.assembly.count("ld.global.v4.b32") == loads
            assert "ld.global.b16" not in compiled.assembly


def test_what_the_caller_sees_stays_as_it_is() -> None:
    graph = trace(lambda x, w: F.conv2d(x, w), typed("float32", 1, 16, 6, 6), typed("float32", 16, 16, 1, 1))
    schedule = build_schedule(graph)
    assert use_channels_last(schedule) is schedule

    def sliced(x: Any, w: Any, v: Any) -> Any:
        made = F.conv2d(x, w)
        return F.conv2d(made[:, :, 1:], v), made.sum()

    types = [(1, 16, 6, 6), (16, 16, 1, 1), (16, 16, 1, 1)]
    check(trace(sliced, *(typed("float32", *s) for s in types)), 1e-4)
    few = trace(network(), *(typed("float32", *s) for s in shapes(8)))
    assert not images(check(few, 1e-4))


def test_weights_are_copied_once_for_all_that_read_them() -> None:
    graph = with_gradients(network(), *(typed("float32", *s) for s in shapes(16)))
    (schedule,) = [use_channels_last(build_schedule(graph))]
    copies = [s for s in schedule.steps if isinstance(s, Kernel) and s.name.startswith("w")]
    assert len(copies) == 2  # of the first two kernels, though the second is read twice; the third has one place


def test_rows_of_channels_are_loaded_sixteen_bytes_wide() -> None:
    def run(x: Any, w: Any, v: Any) -> Any:
        return F.conv2d(F.conv2d(x, w).relu() * 2, v, None, 1, 1)

    types = [(8, 64, 28, 28), (64, 64, 1, 1), (64, 64, 3, 3)]
    graph = trace(run, *(typed("bfloat16", *s) for s in types))
    functions = [s.function for s in plan_for(build_schedule(graph)).launches if "conv2d" in s.function.name]
    *_, compiled = compile_all(functions, "sm_90")
    assert "cp.async.cg.shared.global" in compiled.assembly  # 16 bytes: the only size that it has
    assert "wgmma.mma_async" in compiled.assembly
    assert resources(compiled).stack == 0


def test_gradients_compile_without_spills() -> None:
    types = [typed("bfloat16", *s) for s in shapes(128)]
    graph = with_gradients(network(2), types[0].with_shape((16, 3, 28, 28)), *types[1:])
    functions = [s.function for s in plan_for(build_schedule(graph)).launches if "conv2d" in s.function.name]
    assert any(f.constants.get("BLOCK_M", 0) * f.constants.get("BLOCK_N", 0) >= 64 * 128 for f in functions)
    # The gradient of the first kernel reads the caller's image row by row; the last input's gradient, rows of channels.
    chosen = [[f for f in functions if f.name.startswith(name)][-1] for name in ("conv2d_weight", "conv2d_input")]
    for compiled in compile_all(chosen, "sm_90"):
        assert resources(compiled).stack == 0, compiled.name


def test_large_blocks_of_weight_gradients_compile_without_spills() -> None:
    """As many columns as fit are of the image, whose addresses take registers: fewer than rows of the other operand."""

    def run(x: Any, first: Any, second: Any) -> Any:
        return F.conv2d(F.conv2d(x, first, None, 1, 1), second, None, 2, 1)

    sizes = [(256, 64, 14, 14), (256, 64, 3, 3), (512, 256, 3, 3)]
    plan = plan_for(build_schedule(with_gradients(run, *(typed("bfloat16", *s) for s in sizes))))
    found = [s.function for s in plan.launches if s.function.name.startswith("conv2d_weight_grad")]
    large = [f for f in found if (f.constants["BLOCK_M"], f.constants["BLOCK_N"]) == (256, 128)]
    assert large
    for compiled in compile_all(large, "sm_90"):
        assert resources(compiled).stack == 0


def test_kernels_of_one_place_are_loaded_sixteen_bytes_wide() -> None:
    """Also where the sum takes several steps: forward, and the gradients, of a strided convolution."""

    def run(x: Any, w: Any, v: Any, u: Any) -> Any:
        return F.conv2d(F.conv2d(F.conv2d(x, w, None, 1, 1), v, None, 2), u, None, 1, 1)

    types = [(32, 64, 28, 28), (128, 64, 3, 3), (256, 128, 1, 1), (64, 256, 3, 3)]
    plan = plan_for(build_schedule(with_gradients(run, *(typed("bfloat16", *s) for s in types))))
    names = ("conv2d", "conv2d_input_grad")
    found = [s for s in plan.launches if s.function.name in names and "i = 0" in s.function.source]
    assert len(found) == 2
    for compiled in compile_all([s.function for s in found], "sm_90"):
        assert "ld.global.b16" not in compiled.assembly and "cp.async.cg" in compiled.assembly


def test_sums_that_wait_for_each_element_have_many_programs() -> None:
    """The gradient of a first layer's kernel: two channels, which do not lie side by side, and all pixels."""
    types = [(64, 2, 112, 112), (64, 2, 7, 7), (64, 64, 3, 3)]
    graph = with_gradients(
        lambda x, w, v: F.conv2d(F.conv2d(x, w, None, 2, 3), v, None, 1, 1), *(typed("bfloat16", *s) for s in types)
    )
    launches = plan_for(build_schedule(graph)).launches
    (first,) = [
        s
        for s in launches
        if s.function.name == "conv2d_weight_grad" and types[0] in {b.shape for b in s.function.buffers}
    ]
    assert 3 * 132 <= first.grid[0] <= 4 * 132


def test_tensor_descriptors_are_candidates_and_copy_through_the_tensor_memory_accelerator() -> None:
    def run(x: Any, first: Any, second: Any, third: Any) -> Any:
        return F.conv2d(F.conv2d(F.conv2d(x, first, None, 1, 1), second, None, 1, 1), third)

    sizes = [(16, 3, 56, 56), (64, 3, 3, 3), (128, 64, 3, 3), (64, 128, 1, 1)]
    graph = with_gradients(run, *(typed("bfloat16", *s) for s in sizes))
    found = []
    for step in prepare_schedule(build_schedule(graph)).steps:
        if isinstance(step, ExternCall) and step.op.name.startswith("conv2d"):
            offered = candidates(step, {})
            assert "make_tensor_descriptor" not in offered[0].functions[0].source  # never the default
            described = [c.functions[0] for c in offered if "make_tensor_descriptor" in c.functions[0].source]
            assert all("descriptors" in c.label for c in offered if c.functions[0] in described)
            assert described or 3 in (step.args[0].shape[1], step.args[1].shape[1])
            found += described[:1]
    assert len(found) >= 6
    for compiled in compile_all(found, "sm_90"):
        assert "cp.async.bulk.tensor" in compiled.assembly and "wgmma.mma_async" in compiled.assembly
        assert resources(compiled).stack == 0
        assert compiled.global_scratch > 0  # where the descriptors lie


@pytest.mark.parametrize("stride", [1, 2])
def test_pixels_one_after_the_other_are_one_number_of_an_address(stride: int) -> None:
    """Of the result always, of the image where it has as many; and what the loop does not change is before it."""

    def run(x: Any, w: Any, v: Any) -> Any:
        return F.conv2d(F.conv2d(x, w, None, 1, 1), v, None, stride, 1)

    types = [(8, 64, 28, 28), (128, 64, 3, 3), (128, 128, 3, 3)]
    plan = plan_for(build_schedule(with_gradients(run, *(typed("bfloat16", *s) for s in types))))
    loops: dict[str, list[str]] = {}
    for step in plan.launches:
        before, _, loop = step.function.source.partition("for k_start in ")
        lines = [line for line in loop.splitlines() if "= tl.load(" in line and "mask=" in line]
        if step.function.name in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
            loops.setdefault(step.function.name, []).append(lines[0])
        if step.function.name == "conv2d_weight_grad" and "N = 1152" in before:  # of the second; x is the caller's
            assert "128 * rest[None, :]" in lines[0] and "image" not in lines[0]  # the result's gradient
            assert ("128 * rest[:, None]" in lines[1]) == (stride == 1)
            assert ("image[:, None]" in lines[1]) == (stride == 2)
            assert "+ start, mask" in lines[1]
    assert loops.keys() == {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}
    for name in ("conv2d", "conv2d_input_grad"):
        last = loops[name][-1]
        assert "start + " in last and "image" not in last and "down" not in last


def test_images_of_the_caller_are_copied_for_convolutions_of_several_places() -> None:
    """Once each, for all that reads them; not for a kernel of one place."""

    def run(x: Any, w: Any) -> Any:
        return F.conv2d(x, w, None, 1, 1)

    graph = with_gradients(run, typed("bfloat16", 2, 32, 7, 6), typed("bfloat16", 16, 32, 3, 3))
    executable = check(graph, TOLERANCE["bfloat16"] * 4)
    copies = [s for s in executable.schedule.steps if isinstance(s, Kernel) and isinstance(s.writes()[0], ChannelsLast)]
    assert sorted(k.reads()[0].name for k in copies).count("x0") == 1
    for step in executable.schedule.steps:
        if isinstance(step, ExternCall) and step.op.name in ("conv2d", "conv2d_weight_grad"):
            assert isinstance(step.args[0].buffer, ChannelsLast)
    flat = with_gradients(run_flat, typed("bfloat16", 2, 32, 7, 6), typed("bfloat16", 16, 32, 1, 1))
    executable = check(flat, TOLERANCE["bfloat16"] * 4)
    assert not any(b.name == "x0_by_channel" for s in executable.schedule.steps for b in s.writes())


def run_flat(x: Any, w: Any) -> Any:
    return F.conv2d(x, w)


def test_default_blocks_on_images_of_the_caller_do_not_spill() -> None:
    """They were read an element at a time, in blocks of half the depth."""

    def run(x: Any, w: Any) -> Any:
        return F.conv2d(x, w, None, 1, 1)

    graph = with_gradients(run, typed("bfloat16", 32, 256, 14, 14), typed("bfloat16", 256, 256, 3, 3))
    plan = plan_for(build_schedule(graph))
    found = [s.function for s in plan.launches if s.function.name.startswith("conv2d")]
    assert len(found) == 3 and all(f.constants["BLOCK_K"] == 64 for f in found)
    for compiled in compile_all(found, "sm_90"):
        assert resources(compiled).spilled == 0 and "cp.async.cg" in compiled.assembly


@pytest.mark.parametrize("size", [(7, 6), (symbol("h", hint=7), symbol("w", hint=6))])
def test_images_of_the_caller_that_change_size(size: Any) -> None:
    batch = symbol("n", hint=3)
    graph = trace(
        lambda x, w: F.conv2d(x, w, None, 1, 1), typed("float32", batch, 16, *size), typed("float32", 8, 16, 3, 3)
    )
    check(graph, TOLERANCE["float32"] * 4, bindings={"n": 3, "h": 7, "w": 6})


def test_steps_of_few_channels_have_one_place_of_the_kernel() -> None:
    """Two places have two addresses: 1,200 instructions a step, and spilled registers."""

    def run(x: Any, w: Any, v: Any) -> Any:
        return F.conv2d(F.conv2d(x, w, None, 1, 1).relu(), v, None, 1, 1)

    types = [typed("bfloat16", *s) for s in ((64, 8, 32, 32), (32, 8, 3, 3), (32, 32, 3, 3))]
    plan = plan_for(build_schedule(with_gradients(run, *types)))
    found = [s.function for s in plan.launches if s.function.name.startswith("conv2d")]
    for function, compiled in zip(found, compile_all(found, "sm_90"), strict=True):
        assert resources(compiled).spilled == 0, compiled.name
        if "weight_grad" not in function.name and "K = 288" in function.source:  # of 32 channels
            assert function.constants["BLOCK_K"] == 32 and "cp.async.cg" in compiled.assembly
            assert resources(compiled).registers <= 128


def test_narrow_blocks_of_elements_that_lie_apart_do_not_spill() -> None:
    """Each element of a block has an address and bounds of its own: they are spread over twice as many threads."""

    def run(x: Any, w: Any, v: Any) -> Any:
        return F.conv2d(F.conv2d(x, w, None, 1, 1).relu(), v, None, 1, 1)

    types = [typed("bfloat16", *s) for s in ((64, 12, 32, 32), (20, 12, 3, 3), (32, 20, 3, 3))]
    plan = plan_for(build_schedule(with_gradients(run, *types)))
    for compiled in compile_all([s.function for s in plan.launches if s.function.name.startswith("conv2d")], "sm_90"):
        assert resources(compiled).spilled == 0, compiled.name
