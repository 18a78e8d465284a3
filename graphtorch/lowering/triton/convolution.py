"""Triton source for two-dimensional convolutions and their gradients: matrix products whose operands are read where
they lie, without unfolding them in memory (implicit GEMM).

                m                  n               summed
    forward     image, row, col    output channel  input channel, kernel place
    input       image, row, col    input channel   output channel, kernel place
    weight      output channel     input channel,  image, row, col of the result
                                   kernel place

A group of channels is one product of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.fused import coordinate_sizes, extents, result_shape
from graphtorch.lowering.triton.instructions import register
from graphtorch.lowering.triton.placement import WHOLE, Coordinate
from graphtorch.lowering.triton.products import Operands, Product, choose, product_of, reach
from graphtorch.lowering.triton.shapes import Config
from graphtorch.lowering.triton.tiling import Limits, is_zero
from graphtorch.schedule.indexing import row_major
from graphtorch.tensor.precision import convolution_precision

_M, _N = "m_mask[:, None]", "n_mask[None, :]"
CONVOLUTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


def generate_convolution(
    call: ExternCall, bindings: Mapping[str, int], limits: Limits | None, config: Config | None = None
) -> Generated:
    """The source of a convolution or one of its gradients."""
    if call.outputs[0] is None or any(len(v.shape) != 4 for v in call.args[:2]):
        raise UnsupportedError(f"{call.op.name} of other than images in a batch")
    register(product_of(call).dtype)
    chosen = config or choose(call, extents(call)[:3], bindings, limits, convolution_precision() == "tf32")
    return _Convolution(call, bindings, chosen).product().generate()


class _Convolution:
    def __init__(self, call: ExternCall, bindings: Mapping[str, int], config: Config) -> None:
        self.call = call
        self.bindings = bindings
        self.config = config
        self.operands = Operands(call, bindings)
        self.sizes = self.operands.sizes
        self.shape = result_shape(call)
        first, second = call.args[:2]
        self.first: View = first
        self.second: View = second
        self.stride, self.padding, self.dilation, self.groups = call.args[-4:]

    def product(self) -> Product:
        name = self.call.op.name
        if name == "conv2d":
            if self.call.args[2] is not None:
                raise UnsupportedError("conv2d with a bias that was not made an addition")
            return self._forward(self.first, self.second)
        if name == "conv2d_input_grad":
            return self._input_grad(self.first, self.second)
        return self._weight_grad(self.first, self.second)

    def _forward(self, x: View, w: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        images, channels, oh, ow = self.shape
        inputs, kh, kw = w.shape[1:]
        outputs = channels // self.groups
        return self._made(
            (images * oh * ow, outputs, inputs * kh * kw),
            setup=[
                f"image = (m // {f(oh * ow)})[:, None]",
                f"top = (m // {f(ow)} % {f(oh)} * {sh} - {ph})[:, None]",
                f"left = (m % {f(ow)} * {sw} - {pw})[:, None]",
            ],
            inner=[
                *self._kernel_place("rest", kh, kw),
                f"down = top + (i * {dh})[None, :]",
                f"across = left + (j * {dw})[None, :]",
                "x_mask = m_mask[:, None] & (rest < K)[None, :]",
                f"x_mask = x_mask & (down >= 0) & (down < {t(x.shape[2])})",
                f"x_mask = x_mask & (across >= 0) & (across < {t(x.shape[3])})",
                *self._load(
                    "x",
                    x,
                    ["image", f"({self._grouped('channel', inputs)})[None, :]", "down", "across"],
                    [_M, "(rest < K)[None, :]", WHOLE, WHOLE],
                ),
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                *self._load(
                    "y",
                    w,
                    [f"({self._grouped('n', outputs)})[None, :]", *_columns("channel", "i", "j")],
                    [_N, *["(rest < K)[:, None]"] * 3],
                ),
            ],
            place=f"(image * {f(channels)} + ({self._grouped('n', outputs)})[None, :]) * {f(oh * ow)}"
            f" + (m % {f(oh * ow)})[:, None]",
            texts=["image", f"({self._grouped('n', outputs)})[None, :]", f"(m % {f(oh * ow)})[:, None]"],
            masks=[_M, _N, _M],
        )

    def _input_grad(self, g: View, w: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        images, channels, h, width = self.shape
        inputs, kh, kw = w.shape[1:]
        outputs = w.shape[0] // self.groups
        oh, ow = g.shape[2:]
        return self._made(
            (images * h * width, inputs, outputs * kh * kw),
            setup=[
                f"image = (m // {f(h * width)})[:, None]",
                f"row = (m // {f(width)} % {f(h)} + {ph})[:, None]",
                f"column = (m % {f(width)} + {pw})[:, None]",
            ],
            inner=[
                *self._kernel_place("rest", kh, kw),
                "# Only every stride-th place of the input was under this place of the kernel.",
                f"down = row - (i * {dh})[None, :]",
                f"across = column - (j * {dw})[None, :]",
                "x_mask = m_mask[:, None] & (rest < K)[None, :] & (down >= 0) & (across >= 0)",
                f"x_mask = x_mask & (down % {sh} == 0) & (across % {sw} == 0)",
                f"x_mask = x_mask & (down < {t(oh * sh)}) & (across < {t(ow * sw)})",
                *self._load(
                    "x",
                    g,
                    [
                        "image",
                        f"({self._grouped('channel', outputs)})[None, :]",
                        f"(down // {sh})",
                        f"(across // {sw})",
                    ],
                    [_M, "(rest < K)[None, :]", WHOLE, WHOLE],
                ),
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                *self._load(
                    "y",
                    w,
                    [f"({self._grouped('channel', outputs)})[:, None]", "n[None, :]", *_columns("i", "j")],
                    ["(rest < K)[:, None]", _N, *["(rest < K)[:, None]"] * 2],
                ),
            ],
            place=f"(image * {f(channels)} + ({self._grouped('n', inputs)})[None, :]) * {f(h * width)}"
            f" + (m % {f(h * width)})[:, None]",
            texts=["image", f"({self._grouped('n', inputs)})[None, :]", f"(m % {f(h * width)})[:, None]"],
            masks=[_M, _N, _M],
        )

    def _weight_grad(self, x: View, g: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        channels, inputs, kh, kw = self.shape
        outputs = channels // self.groups
        images, _, oh, ow = g.shape
        return self._made(
            (outputs, inputs * kh * kw, images * oh * ow),
            setup=[
                *self._kernel_place("n", kh, kw),
                f"top = (i * {dh} - {ph})[None, :]",
                f"left = (j * {dw} - {pw})[None, :]",
            ],
            inner=[
                f"image = rest // {f(oh * ow)}",
                f"row = rest // {f(ow)} % {f(oh)}",
                f"column = rest % {f(ow)}",
                "x_mask = m_mask[:, None] & (rest < K)[None, :]",
                *self._load(
                    "x",
                    g,
                    ["image[None, :]", f"({self._grouped('m', outputs)})[:, None]", "row[None, :]", "column[None, :]"],
                    ["(rest < K)[None, :]", _M, *["(rest < K)[None, :]"] * 2],
                ),
                f"down = (row * {sh})[:, None] + top",
                f"across = (column * {sw})[:, None] + left",
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                f"y_mask = y_mask & (down >= 0) & (down < {t(x.shape[2])})",
                f"y_mask = y_mask & (across >= 0) & (across < {t(x.shape[3])})",
                *self._load(
                    "y",
                    x,
                    ["image[:, None]", f"({self._grouped('channel', inputs)})[None, :]", "down", "across"],
                    ["(rest < K)[:, None]", _N, WHOLE, WHOLE],
                ),
            ],
            place=f"({self._grouped('m', outputs)})[:, None] * N + n[None, :]",
            texts=[f"({self._grouped('m', outputs)})[:, None]", "n[None, :]"],
            masks=[_M, _N],
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _made(
        self,
        sizes: tuple[Any, Any, Any],
        setup: list[str],
        inner: list[str],
        place: str,
        texts: Sequence[str],
        masks: Sequence[str],
    ) -> Product:
        head = [f"{name} = {self.sizes.text(size)}" for name, size in zip("MNK", sizes, strict=True)]
        elements = 1
        for size in concrete(product_of(self.call).shape, self.bindings):
            elements *= size
        wide = max(reach((self.first, self.second), self.bindings), elements) >= 2**31
        extent = coordinate_sizes(self.call)
        return Product(
            self.call.op.name,
            *sizes,
            self.groups if self.groups > 1 else None,
            self.operands,
            {},
            frozenset(),
            wide or self.operands.wide,
            self.config,
            inner,
            place,
            [Coordinate(*c) for c in zip(texts, extent, row_major(extent), masks, strict=True)],
            head,
            setup,
            convolution_precision(),
        )

    def _kernel_place(self, of: str, kh: Any, kw: Any) -> list[str]:
        """The channel, and the row and column in the kernel, that an index runs over."""
        f = self.sizes.factor
        return [f"channel = {of} // {f(kh * kw)}", f"i = {of} // {f(kw)} % {f(kh)}", f"j = {of} % {f(kw)}"]

    def _grouped(self, index: str, size: Any) -> str:
        """A channel of the whole tensor from one of a group."""
        return f"batch * {self.sizes.factor(size)} + {index}" if self.groups > 1 else index

    def _load(self, name: str, view: View, indices: Sequence[str], masks: Sequence[str]) -> list[str]:
        position = 0 if view is self.first else 1
        if position in self.operands.prologues:
            coordinates = [
                Coordinate(index, size, stride, mask)
                for index, size, stride, mask in zip(indices, view.shape, view.strides, masks, strict=True)
            ]
            return self.operands.computed(name, position, coordinates, f"{name}_mask")
        pointer = "ab"[position]
        terms = [pointer] if is_zero(view.offset) else [pointer, self.sizes.text(view.offset)]
        for stride, index in zip(view.strides, indices, strict=True):
            unit = type(stride) is int and stride == 1
            terms.append(index if unit else f"{self.sizes.factor(stride)} * {index}")
        return [f"{name} = tl.load({' + '.join(terms)}, mask={name}_mask, other=0)"]


def _columns(*names: str) -> list[str]:
    return [f"{name}[:, None]" for name in names]
