"""Triton source for functions of elements that are no scalar instruction: special functions, polynomials, integers.

Floating-point ones compute in float64 and round once, as the reference does; a GPU's library has some of them, the
others are series, continued fractions and recurrences. They run as calls of their own and take part in no fusion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import convert, memory, register
from graphtorch.lowering.triton.special import POLYNOMIALS
from graphtorch.lowering.triton.writer import Writer
from graphtorch.schedule.indexing import row_major
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.symint import same_shape

# Operator -> its value as source, of its operands in float64 and, after them, its attributes.
FUNCTIONS_OF_DOUBLES: dict[str, str] = {
    "lgamma": "libdevice.lgamma({0})",
    "erfinv": "libdevice.erfinv({0})",
    "digamma": "_digamma({0})",
    "polygamma": "_polygamma({0}, {1})",
    "igamma": "_incomplete_gamma({0}, {1}, False)",
    "igammac": "_incomplete_gamma({0}, {1}, True)",
    "i0": "_modified_bessel({0}, 0, False)",
    "special_i0e": "_modified_bessel({0}, 0, True)",
    "special_i1": "_modified_bessel({0}, 1, False)",
    "special_i1e": "_modified_bessel({0}, 1, True)",
    "special_modified_bessel_i0": "_modified_bessel({0}, 0, False)",
    "special_modified_bessel_i1": "_modified_bessel({0}, 1, False)",
    "special_modified_bessel_k0": "_bessel_k({0}, 0, False)",
    "special_modified_bessel_k1": "_bessel_k({0}, 1, False)",
    "special_scaled_modified_bessel_k0": "_bessel_k({0}, 0, True)",
    "special_scaled_modified_bessel_k1": "_bessel_k({0}, 1, True)",
    "special_bessel_j0": "libdevice.j0({0})",
    "special_bessel_j1": "libdevice.j1({0})",
    "special_bessel_y0": "libdevice.y0({0})",
    "special_bessel_y1": "libdevice.y1({0})",
    "special_spherical_bessel_j0": "_spherical_bessel({0})",
    "special_erfcx": "libdevice.erfcx({0})",
    "special_ndtri": "_normal_quantile({0})",
    "special_zeta": "_zeta({0}, {1})",
    **{f"special_{name}": f"_{name}({{0}}, {{1}})" for name in POLYNOMIALS},
}


def _operand(w: Writer, value: Any, rank: int) -> tuple[str, dtype]:
    """An operand at the element's place, broadcast, in its register type; a number as it is."""
    if not isinstance(value, View):
        of = dtypes.float64 if isinstance(value, float) else dtypes.int64
        return f"tl.full([BLOCK], {value!r}, {register(of)})", of
    own = ["0" if type(n) is int and n == 1 else f"i{rank - len(value.shape) + d}" for d, n in enumerate(value.shape)]
    of = value.buffer.dtype
    loaded = w.load(value, own)
    return (f"({loaded} != 0)" if of is dtypes.bool_ else f"{loaded}.to({register(of)})"), of


def _of_doubles(text: str) -> Callable[..., list[Generated]]:
    def template(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
        w = writer(out.shape)
        names = []
        for i, arg in enumerate(args):
            loaded, of = _operand(w, arg, len(out.shape))
            names.append(w.let(f"x{i}", convert(loaded, of, dtypes.float64)))
        value = w.let("value", text.format(*names))
        w.store(out, f"{convert(value, dtypes.float64, out.dtype)}.to({memory(out.dtype)})")
        return [w.finish()]

    return template


def _of_two(name: str) -> Callable[..., list[Generated]]:
    """A function of two operands in the result's dtype."""

    def template(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
        w = writer(out.shape)
        names = []
        for i, arg in enumerate(args):
            loaded, of = _operand(w, arg, len(out.shape))
            names.append(w.let(f"x{i}", convert(loaded, of, out.dtype)))
        if name == "_next_after":
            bits = {2: "tl.int16", 4: "tl.int32", 8: "tl.int64"}[out.dtype.itemsize]
            w.store(out, f"_next_after({', '.join(names)}, {memory(out.dtype)}, {bits})")
        else:
            w.store(out, f"{name}({', '.join(names)}).to({memory(out.dtype)})")
        return [w.finish()]

    return template


def generate_frexp(writer: Callable[..., Writer], call: ExternCall) -> list[Generated]:
    """Mantissas in [0.5, 1) and exponents."""
    (source,) = call.args
    mantissa, exponent = call.outputs
    w = writer(source.shape)
    of = source.buffer.dtype
    wide = of is dtypes.float64
    loaded, _ = _operand(w, source, len(source.shape))
    w.let("x", loaded)
    w.add_line("value, power = _split_double(x)" if wide else "value, power = _split_single(x)")
    if mantissa is not None:
        w.store(mantissa, f"value.to({memory(of)})")
    if exponent is not None:
        w.store(exponent, "power")
    return [w.finish()]


def generate_view_dtype(writer: Callable[..., Writer], args: tuple[Any, ...], out: Buffer) -> list[Generated]:
    """The same bytes as elements of another dtype."""
    source = args[0]
    if not same_shape(source.strides, row_major(source.shape)):
        raise UnsupportedError("a view of strided memory as another dtype")
    w = writer(out.shape)
    begin = f"{w.pointer(source.buffer)} + {w.sizes.text(source.offset)}"
    w.store(out, f"tl.load(({begin}).to(tl.pointer_type({memory(out.dtype)}), bitcast=True) + n, mask=mask)")
    return [w.finish()]


ELEMENTWISE: dict[str, Callable[..., list[Generated]]] = {
    **{name: _of_doubles(text) for name, text in FUNCTIONS_OF_DOUBLES.items()},
    "gcd": _of_two("_gcd"),
    "lcm": _of_two("_lcm"),
    "nextafter": _of_two("_next_after"),
    "view_dtype": generate_view_dtype,
}
