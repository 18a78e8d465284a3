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
from graphtorch.lowering.kernel import Buffer, ExternCall, View
from graphtorch.lowering.triton.codegen import Generated, Sizes
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.instructions import register
from graphtorch.lowering.triton.products import Product, reach
from graphtorch.lowering.triton.tiling import Limits, is_zero

CONVOLUTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


def generate_convolution(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None) -> Generated:
    """The source of a convolution or one of its gradients."""
    out = call.outputs[0]
    if out is None or any(len(v.shape) != 4 for v in call.args[:2]):
        raise UnsupportedError(f"{call.op.name} of other than images in a batch")
    register(out.dtype)
    return _Convolution(call, out, bindings).product().generate(call, bindings, limits)


class _Convolution:
    def __init__(self, call: ExternCall, out: Buffer, bindings: Mapping[str, int]) -> None:
        self.call = call
        self.out = out
        self.bindings = bindings
        self.sizes = Sizes()
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
        images, channels, oh, ow = self.out.shape
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
                self._load("x", x, ["image", f"({self._grouped('channel', inputs)})[None, :]", "down", "across"]),
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                self._load("y", w, [f"({self._grouped('n', outputs)})[None, :]", *_columns("channel", "i", "j")]),
            ],
            place=f"(image * {f(channels)} + ({self._grouped('n', outputs)})[None, :]) * {f(oh * ow)}"
            f" + (m % {f(oh * ow)})[:, None]",
        )

    def _input_grad(self, g: View, w: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        images, channels, h, width = self.out.shape
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
                self._load(
                    "x",
                    g,
                    [
                        "image",
                        f"({self._grouped('channel', outputs)})[None, :]",
                        f"(down // {sh})",
                        f"(across // {sw})",
                    ],
                ),
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                self._load(
                    "y", w, [f"({self._grouped('channel', outputs)})[:, None]", "n[None, :]", *_columns("i", "j")]
                ),
            ],
            place=f"(image * {f(channels)} + ({self._grouped('n', inputs)})[None, :]) * {f(h * width)}"
            f" + (m % {f(h * width)})[:, None]",
        )

    def _weight_grad(self, x: View, g: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        channels, inputs, kh, kw = self.out.shape
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
                self._load(
                    "x",
                    g,
                    ["image[None, :]", f"({self._grouped('m', outputs)})[:, None]", "row[None, :]", "column[None, :]"],
                ),
                f"down = (row * {sh})[:, None] + top",
                f"across = (column * {sw})[:, None] + left",
                "y_mask = (rest < K)[:, None] & n_mask[None, :]",
                f"y_mask = y_mask & (down >= 0) & (down < {t(x.shape[2])})",
                f"y_mask = y_mask & (across >= 0) & (across < {t(x.shape[3])})",
                self._load(
                    "y", x, ["image[:, None]", f"({self._grouped('channel', inputs)})[None, :]", "down", "across"]
                ),
            ],
            place=f"({self._grouped('m', outputs)})[:, None] * N + n[None, :]",
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _made(self, extents: tuple[Any, Any, Any], setup: list[str], inner: list[str], place: str) -> Product:
        head = [f"{name} = {self.sizes.text(size)}" for name, size in zip("MNK", extents, strict=True)]
        elements = 1
        for size in concrete(self.out.shape, self.bindings):
            elements *= size
        wide = max(reach((self.first, self.second), self.bindings), elements) >= 2**31
        return Product(
            self.call.op.name,
            *extents,
            self.groups if self.groups > 1 else None,
            {"a": self.first.buffer, "b": self.second.buffer},
            self.out,
            dict(self.sizes.arguments()),
            self.sizes.divisible(self.bindings),
            wide,
            inner,
            place,
            head,
            setup,
        )

    def _kernel_place(self, of: str, kh: Any, kw: Any) -> list[str]:
        """The channel, and the row and column in the kernel, that an index runs over."""
        f = self.sizes.factor
        return [f"channel = {of} // {f(kh * kw)}", f"i = {of} // {f(kw)} % {f(kh)}", f"j = {of} % {f(kw)}"]

    def _grouped(self, index: str, size: Any) -> str:
        """A channel of the whole tensor from one of a group."""
        return f"batch * {self.sizes.factor(size)} + {index}" if self.groups > 1 else index

    def _load(self, name: str, view: View, indices: Sequence[str]) -> str:
        pointer = "a" if view is self.first else "b"
        terms = [pointer] if is_zero(view.offset) else [pointer, self.sizes.text(view.offset)]
        for stride, index in zip(view.strides, indices, strict=True):
            unit = type(stride) is int and stride == 1
            terms.append(index if unit else f"{self.sizes.factor(stride)} * {index}")
        return f"{name} = tl.load({' + '.join(terms)}, mask={name}_mask, other=0)"


def _columns(*names: str) -> list[str]:
    return [f"{name}[:, None]" for name in names]
