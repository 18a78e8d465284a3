"""Draws, sorts, scans, indexing and grouped updates as machine code for every target, on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import f32, i64, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.ops.dispatch import call
from graphtorch.ops.record import REGISTRY, lookup
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.compiler import TARGETS, compile_all, resources
from graphtorch.lowering.triton.listing import plan_for


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def functions(graph: Graph, donations: dict[int, int] | None = None) -> list[Generated]:
    plan = plan_for(build_schedule(graph, donations))
    assert not plan.unsupported
    return [launch.function for launch in plan.launches]


def draws() -> Graph:
    n = symbol("n", hint=40000)

    def program(x: Any, y: Any, z: Any) -> Any:
        d = dtypes.bfloat16
        noise = call(lookup("randn"), ((n,), dtypes.float32, None, None))
        return (
            graphtorch.dropout(x.to(d)),
            y + noise,
            call(lookup("randn"), ((600,), dtypes.float64, None, None)),
            call(lookup("randint"), (0, 2**40, (600,), dtypes.int64, None, None)),
            call(lookup("randint"), (0, 100, (600,), dtypes.int32, None, None)),
            call(lookup("exponential"), (y, 1.0, None)),
            call(lookup("cauchy"), (y, 0.0, 1.0, None)),
            call(lookup("normal"), (z, 0.0, 1.0, None)),
            call(lookup("randn"), ((1 << 20,), dtypes.float64, None, None)),
            call(lookup("randint"), (0, 2**40, (1 << 20,), dtypes.int64, None, None)),
        )

    return trace(program, f32(1024, 1024), f32(n), f32(symbol("m", hint=1 << 20)))


def sorts() -> Graph:
    def program(x: Any, y: Any, z: Any) -> Any:
        return (*x.sort(1), *y.sort(1, descending=True), *z.sort(0))

    return trace(program, f32(64, 1000), TensorType(dtypes.float64, (600, 100)), f32(100000))


def scans() -> Graph:
    def program(x: Any, y: Any) -> Any:
        return (*x.cummax(1), x.cumprod(0), x.logcumsumexp(1), y.cumsum(0), *y.cummin(0))

    return trace(program, f32(300, 1000), f32(100000))


def special() -> Graph:
    one = ["lgamma", "erfinv", "digamma", "i0", "special_i1e", "special_modified_bessel_k0", "special_bessel_j0"]
    one += ["special_bessel_y1", "special_spherical_bessel_j0", "special_erfcx", "special_ndtri"]

    def program(x: Any, y: Any, i: Any) -> Any:
        made = [REGISTRY[n].function(x) for n in one]  # type: ignore[misc]
        made += [REGISTRY[n].function(x, y) for n in ("igamma", "special_zeta", "nextafter")]  # type: ignore[misc]
        made += [graphtorch.polygamma(2, x), graphtorch.special_legendre_polynomial_p(x, 5), *graphtorch.frexp(x)]
        return [*made, graphtorch.gcd(i, i + 6), graphtorch.nextafter(x.half(), y.half())]

    return trace(program, f32(3000), f32(3000), i64(3000))


def indexing() -> Graph:
    def program(x: Any, i: Any, v: Any) -> Any:
        h = x.to(dtypes.bfloat16)
        return (
            x[i],
            x.index_put((i,), v),
            x.index_put((i,), v, True),
            h.index_add(0, i, v.to(dtypes.bfloat16)),
            x.scatter_reduce(0, i.unsqueeze(1).expand(500, 64), v, "amax"),
            graphtorch.searchsorted(i, i),
            x.unfold(0, 4, 2).sum(),
            graphtorch.histc(v, 10),
        )

    return trace(program, f32(1000, 64), i64(500), f32(500, 64))


PROGRAMS: dict[str, Callable[[], Graph]] = {
    "draws": draws, "sorts": sorts, "scans": scans, "special": special, "indexing": indexing,
}  # fmt: skip
CASES = [(name, to) for name in PROGRAMS for to in TARGETS if name != "special" or to in ("sm_90", "gfx942")]


@pytest.mark.parametrize(("name", "to"), CASES)
def test_compiles_for_every_target(name: str, to: str, early: bool) -> None:
    if early and to == "gfx942" and name in ("draws", "special"):
        pytest.skip("Triton 3.6 lacks library functions for AMD GPUs")
    for compiled in compile_all(functions(PROGRAMS[name]()), to):
        assert compiled.binary.startswith(b"\x7fELF")
        if to.startswith("sm_") and name != "special":  # whose argument reductions work in memory
            assert resources(compiled).stack == 0, f"{compiled.name} spills"
