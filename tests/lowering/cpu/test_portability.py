"""Code for other CPUs: narrower vectors, no fused multiply-add, and 64-bit ARM, which is only compiled here."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernels import run_kernel
from programs import arrays, close, f32, i64, trace

import graphtorch
from graphtorch.lowering.cpu import CpuExecutable, compiler, executable, translation
from graphtorch.lowering.cpu.compiler import Host
from graphtorch.lowering.kernel import Access, Axis, Buffer, Compute, Kernel, Load, Reduce, Store
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes


def program(x, y, w):
    y = y.float()
    h = (x @ w).tanh()
    return (
        graphtorch.softmax(x, 1), graphtorch.log_softmax(x, 0), h, graphtorch.argmax(x, 1), (x.exp() + y).sin(),
        x.half().float().erf(), x.bfloat16() * 2, x.double().log(), x.var(0), x.sum(), (x > 0).any(1), x.t() * 2,
        x.abs().pow(1.7),
    )  # fmt: skip


def graph_and_inputs():
    graph = trace(program, f32(37, 50), i64(50), f32(50, 21))
    return graph, arrays(graph)


@pytest.mark.parametrize("bits", [128, 256, 512])
@pytest.mark.parametrize("fma", [True, False])
def test_any_vector_width(bits, fma, monkeypatch):
    real = compiler.host()
    if fma and not real.fma:
        pytest.skip("the host has no fused multiply-add")
    other = Host(real.triple, real.cpu, real.features, bits, fma)
    monkeypatch.setattr(compiler, "host", lambda: other)
    monkeypatch.setattr(translation, "host", lambda: other)
    graph, inputs = graph_and_inputs()
    made = CpuExecutable(build_schedule(graph))
    assert made.fallbacks == []
    with np.errstate(all="ignore"):
        for actual, wanted in zip(made.run(inputs), interpret(graph, inputs), strict=True):
            tolerance = 2e-2 if actual.dtype.itemsize == 2 else 2e-4
            close(actual, wanted, tolerance, tolerance)


@pytest.mark.parametrize(
    "triple, cpu, features, bits",
    [
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon,+fp-armv8", 128),
        ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma,+f16c", 256),
    ],
)
def test_other_targets_compile(triple, cpu, features, bits, monkeypatch):
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    other = Host(triple, cpu, features, bits, True)
    monkeypatch.setattr(translation, "host", lambda: other)
    graph, _ = graph_and_inputs()
    functions = []
    monkeypatch.setattr(executable, "Library", _NoLibrary)
    with pytest.raises(_NoLibrary.Stop):
        made = CpuExecutable.__new__(CpuExecutable)
        monkeypatch.setattr(translation, "module_parts", lambda fs, text: functions.extend(fs) or [])
        made.__init__(build_schedule(graph))
    monkeypatch.setattr(compiler, "host", lambda: other)
    module = llvm.parse_assembly(compiler.module_text(functions))
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    assert len(functions) > 5
    assert len(machine.emit_object(module)) > 1000


class _NoLibrary:
    class Stop(Exception):
        pass

    def __init__(self, *args, **kwargs):
        raise self.Stop


def test_ranges_of_a_kernel_compute_their_part():
    x, y = (Buffer(n, dtypes.float32, (100, 30), "temporary", None) for n in "xy")
    load = Load(Access(x, 0, (30, 1)))
    total = Reduce("sum", load, (1,), dtypes.float32)
    kernel = Kernel(
        "k",
        (Axis("i", 100), Axis("j", 30, True)),
        [Store(Access(y, 0, (30, 1)), Compute("sub", (load, total), dtypes.float32))],
    )
    given = np.random.default_rng(0).standard_normal((100, 30)).astype(np.float32)
    result = np.zeros_like(given)
    run_kernel(kernel, {x: given, y: result}, 20, 55)
    wanted = given - given.sum(1, keepdims=True)
    np.testing.assert_allclose(result[20:55], wanted[20:55], rtol=1e-4, atol=1e-4)
    assert not result[:20].any() and not result[55:].any()
