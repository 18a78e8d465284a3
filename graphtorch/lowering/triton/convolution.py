"""Triton source for two-dimensional convolutions and their gradients: matrix products whose operands are read where
they lie, without unfolding them in memory (implicit GEMM).

                m                  n               summed
    forward     image, row, col    output channel  input channel, kernel place
    input       image, row, col    input channel   output channel, kernel place
    weight      output channel     input channel,  image, row, col of the result
                                   kernel place

The input gradient of a strided convolution is a product for each phase, the pixels whose rows and columns leave the
same remainders modulo the stride: these are reached by the same places of the kernel, and only those are summed over
(Shi et al.: Is the deconvolution layer the same as a convolutional layer?, 2016). All phases are one launch.

A group of channels is one product of a batch. Where an image's channels lie side by side (`layout.py` sees to that for
temporary ones), the sum goes over the places of the kernel first and over channels inside of them: each program then
finds rows of channels, whose addresses and bounds it computes once a place; else it goes over channels first, as the
elements of a kernel lie.

On request, operands are copied through tensor descriptors where their rows allow: weights with input channels side by
side, the gradient of a result for the weights' gradient, and images under kernels of one place. A block of pixels under
a larger kernel is no box of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import ExternCall, View
from graphtorch.lowering.triton.codegen import Generated
from graphtorch.lowering.triton.errors import UnsupportedError
from graphtorch.lowering.triton.fused import coordinate_extents, extents, places_first, result_shape
from graphtorch.lowering.triton.instructions import register
from graphtorch.lowering.triton.layout import ChannelsLast
from graphtorch.lowering.triton.narrow import MOST_COLUMNS, Framed, run_of
from graphtorch.lowering.triton.placement import WHOLE, Coordinate
from graphtorch.lowering.triton.products import Operands, Product, choose, product_of, reach
from graphtorch.lowering.triton.shapes import Config, blocks
from graphtorch.lowering.triton.sizes import Sizes
from graphtorch.lowering.triton.tiling import Limits, is_one, is_zero, power_of_two
from graphtorch.schedule.indexing import product
from graphtorch.tensor.precision import convolution_precision
from graphtorch.tensor.symint import same_size

_M, _N = "m_mask[:, None]", "n_mask[None, :]"
FILLED = 1.25  # a row of pixels with what fills up its last block
CONVOLUTIONS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")


def generate_convolution(
    call: ExternCall, bindings: Mapping[str, int], limits: Limits | None, config: Config | None = None
) -> Generated:
    """The source of a convolution or one of its gradients."""
    if call.outputs[0] is None or any(len(v.shape) != 4 for v in call.args[:2]):
        raise UnsupportedError(f"{call.op.name} of other than images in a batch")
    register(product_of(call).dtype)
    chosen = config or choose_blocks(call, bindings, limits)
    return _Convolution(call, bindings, chosen).product().generate()


def choose_blocks(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None) -> Config:
    """The default blocks: those of a matrix product, with more registers for addresses and bounds."""
    tf32 = convolution_precision() == "tf32"
    if isinstance(call.args[0].buffer, Framed):
        return _framed_blocks(call, bindings, limits, tf32)
    config = choose(call, extents(call), bindings, limits, tf32)
    image: View = call.args[0]
    if call.op.name != "conv2d_weight_grad" and is_one(image.strides[1]) and limits is None:
        # Steps of the sum of one place of the kernel: two have two addresses, of single elements.
        channels = concrete(image.shape[1], bindings) // call.args[-1]
        if 16 <= channels < config.block_k:
            config = replace(config, block_k=power_of_two(channels + 1) // 2)
    large = config.block_m * config.block_n >= 64 * 128
    apart = not (is_one(image.strides[1]) and is_one(call.args[1].strides[1]))
    if not large and not (apart and max(config.block_m, config.block_n) >= 128):
        return config
    if not is_one(image.strides[1]):  # every element of a block has an address and bounds of its own
        return replace(config, block_k=min(config.block_k, 64 // image.buffer.dtype.itemsize), num_warps=8)
    if not large:
        return replace(config, num_warps=8)
    if call.op.name == "conv2d_weight_grad" and config.block_n > 128:
        # Columns are the image's, with addresses and bounds: as few as rows, or fewer, or Triton 3.6 spills.
        most = 256 if concrete(extents(call)[0], bindings) >= 256 else 128
        config = replace(config, block_m=most, block_n=128)
    return replace(config, num_warps=8) if config.block_m * config.block_n >= 128 * 128 else config


def _framed_blocks(call: ExternCall, bindings: Mapping[str, int], limits: Limits | None, tf32: bool) -> Config:
    """The default blocks where the image lies in a frame."""
    _, n, k, _ = (concrete(e, bindings) for e in extents(call))
    config = choose(call, extents(call), bindings, limits, tf32)
    if call.op.name == "conv2d":
        even = gcd(k, config.block_k)  # a last step that is not full costs as much as the others
        return replace(config, block_k=even) if even >= 32 else config
    if limits is None and (call.args[0].buffer.dtype.itemsize == 2 or tf32):
        # The other image is read once for each block of columns.
        return replace(config, block_n=min(power_of_two(n), MOST_COLUMNS), block_k=32, num_warps=8, num_stages=3)
    return config


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
        self.wide = reach((self.first, self.second), bindings) >= 2**31 or self.operands.wide
        self.described: list[str] = []  # the lines that make tensor descriptors

    def product(self) -> Product:
        name = self.call.op.name
        if name == "conv2d":
            if self.call.args[2] is not None:
                raise UnsupportedError("conv2d with a bias that was not made an addition")
            if isinstance(self.first.buffer, Framed):
                return self._framed_forward(self.first, self.second)
            return self._forward(self.first, self.second)
        if name == "conv2d_input_grad":
            return self._input_grad(self.first, self.second)
        if isinstance(self.first.buffer, Framed):
            return self._framed_weight_grad(self.first, self.second)
        return self._weight_grad(self.first, self.second)

    def _forward(self, x: View, w: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        images, channels, oh, ow = self.shape
        inputs, kh, kw = w.shape[1:]
        outputs = channels // self.groups
        walk = self._walk(x, inputs, kh, kw)
        rows = self._rows(x) if self._flat(kh, kw) else None
        x_tile = self._tile("x", x, (images * oh * ow, inputs, rows), "MK", ("pid_m * BLOCK_M", "k_start"))
        rows = self._weight_rows(w) if walk.one_place and not walk.within else None
        y_tile = self._tile("y", w, (outputs, rows, rows), "NK", ("pid_n * BLOCK_N", "k_start"), True)
        return self._image_made(
            (images * oh * ow, outputs),
            walk.extent,
            channels,
            oh * ow,
            outputs,
            setup=[
                f"image = (m // {f(oh * ow)})[:, None]",
                f"top = (m // {f(ow)} % {f(oh)} * {sh} - {ph})[:, None]",
                f"left = (m % {f(ow)} * {sw} - {pw})[:, None]",
                *([] if x_tile else self._start(x)),
            ],
            inner=[
                *walk.lines,
                *(
                    x_tile
                    or [
                        f"down = top + {walk.row('i', dh)}",
                        f"across = left + {walk.row('j', dw)}",
                        f"inside = m_mask[:, None] & (down >= 0) & (down < {t(x.shape[2])})",
                        f"inside = inside & (across >= 0) & (across < {t(x.shape[3])})",
                        *walk.mask("x", "inside", "[None, :]"),
                        *self._load(
                            "x",
                            x,
                            ["image", f"({self._grouped('channel', inputs)})[None, :]", "down", "across"],
                            [_M, walk.bound("[None, :]"), *walk.place_masks],
                            self._from_start(x, inputs, walk.row("i", dh), walk.row("j", dw)),
                        ),
                    ]
                ),
                *(
                    y_tile
                    or [
                        *walk.mask("y", "n_mask[None, :]", "[:, None]"),
                        *self._load(
                            "y",
                            w,
                            [f"({self._grouped('n', outputs)})[None, :]", "channel[:, None]", *walk.columns("i", "j")],
                            [_N, *[walk.bound("[:, None]")] * 3],
                        ),
                    ]
                ),
            ],
        )

    def _input_grad(self, g: View, w: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        images, channels, h, width = self.shape
        inputs, kh, kw = w.shape[1:]
        outputs = w.shape[0] // self.groups
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        rows = _Phases("i", "row", "top", h, kh, sh, ph, dh)
        columns = _Phases("j", "column", "left", width, kw, sw, pw, dw)
        phases = sh * sw
        quotient = columns.quotient("place", self.sizes) if phases > 1 else ""
        walk = self._walk(g, outputs, rows.count, columns.count, quotient)
        down, across = rows.pixels, columns.pixels
        bounds = [f"({p.name} < {t(p.size)})" for p in (rows, columns) if p.ragged]
        apart = self._rows(g) if self._flat(kh, kw) else None
        x_tile = self._tile("x", g, (images * down * across, outputs, apart), "MK", ("pid_m * BLOCK_M", "k_start"))
        apart = self._weight_rows(w) if walk.one_place else None
        # Columns beyond the input channels are those of the next place, for sums that are not stored.
        place = f"({rows.place} * {f(kw)} + {columns.place}) * {f(inputs)} + pid_n * BLOCK_N"
        y_tile = self._tile("y", w, (outputs, apart, apart), "KN", (walk.start, place))
        return self._image_made(
            (images * down * across, inputs),
            walk.extent,
            channels,
            h * width,
            inputs,
            setup=[
                f"image = (m // {f(down * across)})[:, None]",
                *rows.setup(f"m // {f(across)} % {f(down)}", f"phase // {sw}", self.sizes),
                *columns.setup(f"m % {f(across)}", f"phase % {sw}", self.sizes),
                *([f"m_mask = m_mask & {' & '.join(bounds)}"] if bounds else []),
                *([] if x_tile else self._start(g)),
            ],
            inner=[
                *walk.lines,
                *(
                    x_tile
                    or [
                        f"down = top - {walk.row('i', rows.apart)}",
                        f"across = left - {walk.row('j', columns.apart)}",
                        f"inside = m_mask[:, None] & (down >= 0) & (down < {t(g.shape[2])})",
                        f"inside = inside & (across >= 0) & (across < {t(g.shape[3])})",
                        *walk.mask("x", "inside", "[None, :]"),
                        *self._load(
                            "x",
                            g,
                            ["image", f"({self._grouped('channel', outputs)})[None, :]", "down", "across"],
                            [_M, walk.bound("[None, :]"), *walk.place_masks],
                            self._from_start(
                                g, outputs, f"-{walk.row('i', rows.apart)}", f"-{walk.row('j', columns.apart)}"
                            ),
                        ),
                    ]
                ),
                *(
                    y_tile
                    or [
                        *walk.mask("y", "n_mask[None, :]", "[:, None]"),
                        *self._load(
                            "y",
                            w,
                            [
                                f"({self._grouped('channel', outputs)})[:, None]",
                                "n[None, :]",
                                *walk.columns(rows.place, columns.place),
                            ],
                            [walk.bound("[:, None]"), _N, *[walk.bound("[:, None]")] * 2],
                        ),
                    ]
                ),
            ],
            phases=phases,
        )

    def _weight_grad(self, x: View, g: View) -> Product:
        t, f = self.sizes.text, self.sizes.factor
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        channels, inputs, kh, kw = self.shape
        outputs = channels // self.groups
        images, _, oh, ow = g.shape
        group = f"({self._grouped('m', outputs)})[:, None]"
        texts, masks, place = [group, "n[None, :]"], [_M, _N], f"{group} * N + n[None, :]"
        if not places_first(self.call):
            setup = [*self._kernel_place("n", kh, kw), f"top = (i * {dh} - {ph})[None, :]"]
            setup.append(f"left = (j * {dw} - {pw})[None, :]")
        else:
            if inputs % self.config.block_n == 0:  # one place of the kernel a block
                setup = [
                    f"place = pid_n * BLOCK_N // {inputs}",
                    f"channel = pid_n * BLOCK_N - place * {inputs} + tl.arange(0, BLOCK_N)",
                    f"top = place // {kw} * {dh} - {ph}",
                    f"left = place % {kw} * {dw} - {pw}",
                ]
                placed = "place"
            else:
                setup = [
                    f"place = n // {inputs}",
                    f"channel = n % {inputs}",
                    f"top = (place // {kw} * {dh} - {ph})[None, :]",
                    f"left = (place % {kw} * {dw} - {pw})[None, :]",
                ]
                placed = "place[None, :]"
            texts, masks = [group, "channel[None, :]", placed], [_M, _N, "" if placed == "place" else _N]
            place = f"{group} * N + channel[None, :] * {kh * kw} + {placed}"
        channel = f"({self._grouped('channel', inputs)})[None, :]"
        pixels = images * oh * ow
        rows = self._rows(g)
        x_tile = self._tile("x", g, (pixels, outputs, rows), "KM", ("k_start", "pid_m * BLOCK_M"), True)
        rows = self._rows(x) if self._flat(kh, kw) else None
        y_tile = self._tile("y", x, (pixels, inputs, rows), "KN", ("k_start", "pid_n * BLOCK_N"))
        setup += [] if y_tile else self._start(x, "")
        return self._made(
            (outputs, inputs * kh * kw),
            self._times(pixels),
            setup=setup,
            inner=[
                f"image = rest // {f(oh * ow)}",
                f"row = rest // {f(ow)} % {f(oh)}",
                f"column = rest % {f(ow)}",
                *(
                    x_tile
                    or [
                        "x_mask = m_mask[:, None] & (rest < K)[None, :]",
                        *self._load(
                            "x",
                            g,
                            ["image[None, :]", group, "row[None, :]", "column[None, :]"],
                            ["(rest < K)[None, :]", _M, *["(rest < K)[None, :]"] * 2],
                            [
                                *self._pixels((g.strides[0], *g.strides[2:]), oh, ow, "[None, :]"),
                                *self._terms(g.strides[1:2], [group]),
                            ],
                        ),
                    ]
                ),
                *(
                    y_tile
                    or [
                        f"down = (row * {sh})[:, None] + top",
                        f"across = (column * {sw})[:, None] + left",
                        f"inside = (rest < K)[:, None] & (down >= 0) & (down < {t(x.shape[2])})",
                        f"inside = inside & (across >= 0) & (across < {t(x.shape[3])})",
                        "y_mask = inside & n_mask[None, :]",
                        *self._load(
                            "y",
                            x,
                            ["image[:, None]", channel, "down", "across"],
                            ["(rest < K)[:, None]", _N, WHOLE, WHOLE],
                            [
                                *self._pixels(
                                    (x.strides[0], x.strides[2] * sh, x.strides[3] * sw), oh, ow, "[:, None]"
                                ),
                                *self._terms(x.strides[1:2], [channel]),
                                "start",
                            ],
                        ),
                    ]
                ),
            ],
            place=place,
            texts=texts,
            masks=masks,
        )

    # -- images of few channels ---------------------------------------------------------------------------------------

    def _framed_forward(self, x: View, w: View) -> Product:
        """The sum goes over the kernel's rows, and over what lies under each: one run of the image's memory."""
        f = self.sizes.factor
        images, outputs, oh, ow = self.shape
        kh, kw = w.shape[2:]
        run = run_of(kw, x.buffer.shape[3])
        return self._image_made(
            (images * oh * ow, outputs),
            str(kh * run),
            outputs,
            oh * ow,
            outputs,
            setup=[
                f"image = (m // {f(oh * ow)})[:, None]",
                f"start = {self._corner(x, 'image', f'(m // {f(ow)} % {f(oh)})[:, None]', f'(m % {f(ow)})[:, None]')}",
            ],
            inner=[
                *self._under_row("rest", x, kw),
                "x_mask = m_mask[:, None] & (under & (rest < K))[None, :]",
                "x = tl.load(a + start + along[None, :], mask=x_mask, other=0)",
                "y_mask = n_mask[None, :] & (rest < K)[:, None]",
                "y = tl.load(b + n[None, :] * K + rest[:, None], mask=y_mask, other=0)",
            ],
        )

    def _framed_weight_grad(self, x: View, g: View) -> Product:
        """Columns are the kernel's rows, and what lies under each in the image."""
        f = self.sizes.factor
        outputs, inputs, kh, kw = self.shape
        slots = x.buffer.shape[3]
        run = run_of(kw, slots)
        images, _, oh, ow = g.shape
        block = self.config.block_k
        width = blocks(ow, block) * block if type(ow) is int else 0
        if 0 < width <= FILLED * ow:  # blocks of one row each, whose place is a number
            summed = self._times(images * oh, width)
            inside = "" if width == ow else f"(column < {ow})"
            lines = [
                f"line = k_start // {width}",
                f"image = line // {f(oh)}",
                f"row = line % {f(oh)}",
                f"column = k_start - line * {width} + k",
            ]
            pixel = ["image", "row", "column[:, None]"]
            indices = ["image", "m[:, None]", "row", "column[None, :]"]
            masks = ["", _M, "", inside and f"{inside}[None, :]"]
        else:
            summed, inside = self._times(images * oh * ow), "(rest < K)"
            lines = [
                f"image = rest // {f(oh * ow)}",
                f"row = rest // {f(ow)} % {f(oh)}",
                f"column = rest % {f(ow)}",
            ]
            pixel = ["image[:, None]", "row[:, None]", "column[:, None]"]
            indices = ["image[None, :]", "m[:, None]", "row[None, :]", "column[None, :]"]
            masks = [f"{inside}[None, :]", _M, f"{inside}[None, :]", f"{inside}[None, :]"]
        return self._made(
            (outputs, kh * run),
            summed,
            setup=[
                *self._under_row("n", x, kw),
                "under = n_mask & under",
                f"channel = n % {slots}",
                f"place = i * {kw} + (n - i * {run}) // {slots}",
                f"n_mask = under & (channel < {inputs})",
            ],
            inner=[
                *lines,
                "x_mask = m_mask[:, None]" + (inside and f" & {inside}[None, :]"),
                *self._load("x", g, indices, masks),
                f"start = {self._corner(x, *pixel)}",
                "y_mask = under[None, :]" + (inside and f" & {inside}[:, None]"),
                "y = tl.load(a + start + along[None, :], mask=y_mask, other=0)",
            ],
            place=f"m[:, None] * {inputs * kh * kw} + channel[None, :] * {kh * kw} + place[None, :]",
            texts=["m[:, None]", "channel[None, :]", "place[None, :]"],
            masks=[_M, _N, _N],
        )

    def _corner(self, x: View, image: str, row: str, column: str) -> str:
        """Where what lies under the kernel begins for a pixel of the result, in a frame as wide as the padding."""
        _, rows, columns, slots = x.buffer.shape
        sh, sw = self.stride
        return f"{image} * {rows * columns * slots} + {row} * {sh * columns * slots} + {column} * {sw * slots}"

    def _under_row(self, of: str, x: View, kw: int) -> list[str]:
        """The lines that give, for a place in the kernel with its rows filled up: the row `i`, whether it lies `under`
        the kernel, and how far it is `along` from the corner."""
        _, _, columns, slots = x.buffer.shape
        run = run_of(kw, slots)
        return [
            f"i = {of} // {run}",
            f"under = {of} - i * {run} < {kw * slots}",
            f"along = i * {self.dilation[0] * columns * slots} + ({of} - i * {run})",
        ]

    # -- parts -------------------------------------------------------------------------------------------------------

    def _image_made(
        self,
        sizes: tuple[Any, Any],
        summed: str,
        channels: Any,
        pixels: Any,
        outputs: Any,
        setup: list[str],
        inner: list[str],
        phases: int = 1,
    ) -> Product:
        """A product whose result is images: rows are pixels of all images, columns are channels."""
        f = self.sizes.factor
        number, pixel = "m[:, None]", f"(m % {f(pixels)})[:, None]"
        if phases > 1:
            pixel = f"(row * {f(self.shape[3])} + column)[:, None]"
            number = f"(image * {f(pixels)} + {pixel})"
        texts = ["image", f"({self._grouped('n', outputs)})[None, :]", pixel]
        if isinstance(product_of(self.call), ChannelsLast):
            place = f"{number} * {f(channels)} + {texts[1]}"
        else:
            place = f"(image * {f(channels)} + {texts[1]}) * {f(pixels)} + {texts[2]}"
        return self._made(sizes, summed, setup, inner, place, texts, [_M, _N, _M], phases)

    def _made(
        self,
        sizes: tuple[Any, Any],
        summed: str,
        setup: list[str],
        inner: list[str],
        place: str,
        texts: Sequence[str],
        masks: Sequence[str],
        phases: int = 1,
    ) -> Product:
        head = [f"{name} = {self.sizes.text(size)}" for name, size in zip("MN", sizes, strict=True)]
        summing = [f"K = {summed}"]
        elements = 1
        for size in concrete(product_of(self.call).shape, self.bindings):
            elements *= size
        setup = [*setup, *self.described]
        return Product(
            self.call.op.name,
            *sizes,
            self.groups if self.groups > 1 else None,
            self.operands,
            {},
            frozenset(),
            self.wide or elements >= 2**31,
            self.config,
            inner,
            place,
            [Coordinate(t, *e, m) for t, e, m in zip(texts, coordinate_extents(self.call), masks, strict=True)],
            head if phases > 1 else [*head, *summing],
            [*setup, *summing] if phases > 1 else setup,  # each phase has a sum of its own
            convolution_precision(),
            phases=phases,
        )

    # -- tensor descriptors ------------------------------------------------------------------------------------------

    def _describes(self, view: View) -> bool:
        """Whether an operand may be copied through a tensor descriptor, if its rows allow."""
        position = 0 if view is self.first else 1
        start = concrete(view.offset, self.bindings) * view.buffer.dtype.itemsize
        free = self.groups == 1 and position not in self.operands.prologues and not self.wide
        return self.config.descriptors and free and is_one(view.strides[1]) and start % 16 == 0

    def _flat(self, kh: Any, kw: Any) -> bool:
        """Whether pixels of the image are those of the result: a kernel of one place, without stride or padding."""
        return is_one(kh * kw) and (*self.stride, *self.padding) == (1, 1, 0, 0)

    def _rows(self, view: View) -> Any:
        """The stride of an image's pixels if they lie row by row, each at a multiple of 16 bytes; else None."""
        (_, _, h, w), (image, _, row, pixel) = (concrete(e, self.bindings) for e in (view.shape, view.strides))
        even = row == w * pixel and image == h * row and pixel * view.buffer.dtype.itemsize % 16 == 0
        return view.strides[3] if even and self._describes(view) else None

    def _weight_rows(self, view: View) -> Any:
        """The stride of output channels if a kernel's places lie one after the other, with its input channels side by
        side; else None."""
        outputs, inputs, kh, kw = concrete(view.shape, self.bindings)
        output, _, row, place = concrete(view.strides, self.bindings)
        apart = inputs
        for size, stride in ((kw, place), (kh, row), (outputs, output)):
            if size != 1 and stride != apart:
                return None
            apart *= size
        aligned = output * view.buffer.dtype.itemsize % 16 == 0
        return view.strides[0] if aligned and self._describes(view) else None

    def _tile(
        self,
        name: str,
        view: View,
        rows: tuple[Any, Any, Any],
        block: str,
        start: tuple[str, str],
        turned: bool = False,
    ) -> list[str]:
        """The line of the loop that copies a block: of an operand that is so many rows of so many elements, so far from
        each other; zero beyond their ends. No line if they have no such distance."""
        if rows[2] is None:
            return []
        letter = "ab"[0 if view is self.first else 1]
        t = self.sizes.text
        base = letter if is_zero(view.offset) else f"{letter} + {t(view.offset)}"
        sides = ", ".join(f"BLOCK_{side}" for side in block)
        self.described.append(
            f"{letter}_blocks = tl.make_tensor_descriptor({base}, shape=[{t(rows[0])}, {t(rows[1])}], "
            f"strides=[{t(rows[2])}, 1], block_shape=[{sides}])"
        )
        return [f"{name} = {letter}_blocks.load([{', '.join(start)}]){'.T' if turned else ''}"]

    def _walk(self, image: View, channels: Any, rows: Any, columns: Any, quotient: str = "") -> _Walk:
        """The order in which the sum goes over channels and `rows` times `columns` places of the kernel: numbers, or
        names of variables with the text of `place // columns`."""
        extent = self._times(rows, columns, channels)
        places = [f"i = {quotient}", f"j = place - i * {columns}"]
        if not (is_one(image.strides[1]) and type(channels) is int and channels >= self.config.block_k):
            size = self._times(channels)
            lines = [f"place = rest // {size}", f"channel = rest % {size}", *places]
            if not quotient:
                lines = self._kernel_place("rest", rows, columns)
            return _Walk(extent, lines, False, "(rest < K)", "k_start")
        block = self.config.block_k
        padded = -(-channels // block) * block
        if not quotient:
            places = [f"i = place // {self._times(columns)}", f"j = place % {self._times(columns)}"]
        lines = [
            f"place = k_start // {padded}",
            *places,
            f"channel = k_start - place * {padded} + k",  # not `%`: of that Triton 3.6 knows no divisibility
        ]
        start = f"k_start - place * {padded}"
        if is_one(product(self.second.shape[2:])):  # written out: the compiler then sees that addresses are multiples
            lines, start = ["i = 0", "j = 0", "channel = k_start + k"], "k_start"
        within = "" if padded == channels else f"(channel < {channels})"
        return _Walk(self._times(rows, columns, padded), lines, True, within, start)

    def _kernel_place(self, of: str, rows: Any, columns: Any) -> list[str]:
        """The channel, and the row and column in the kernel, that an index runs over."""
        f = self.sizes.factor
        return [
            f"channel = {of} // {f(rows * columns)}",
            f"i = {of} // {f(columns)} % {f(rows)}",
            f"j = {of} % {f(columns)}",
        ]

    def _times(self, *factors: Any) -> str:
        """The product of sizes and variables, as source."""
        names = [x for x in factors if type(x) is str]
        known = product([x for x in factors if type(x) is not str])
        return " * ".join([*names, *([] if names and is_one(known) else [self.sizes.factor(known)])])

    def _grouped(self, index: str, size: Any) -> str:
        """A channel of the whole tensor from one of a group."""
        return f"batch * {self.sizes.factor(size)} + {index}" if self.groups > 1 else index

    def _load(
        self,
        name: str,
        view: View,
        indices: Sequence[str],
        masks: Sequence[str],
        terms: Sequence[str] | None = None,
    ) -> list[str]:
        """The line that loads a block. `terms` are those of its addresses, in fewer steps than from the indices."""
        position = 0 if view is self.first else 1
        if position in self.operands.prologues:
            coordinates = [
                Coordinate(index, size, stride, mask)
                for index, size, stride, mask in zip(indices, view.shape, view.strides, masks, strict=True)
            ]
            return self.operands.computed(name, position, coordinates, f"{name}_mask")
        base = ["ab"[position], *([] if is_zero(view.offset) else [self.sizes.text(view.offset)])]
        address = " + ".join([*base, *(self._terms(view.strides, indices) if terms is None else terms)])
        return [f"{name} = tl.load({address}, mask={name}_mask, other=0)"]

    def _terms(self, strides: Sequence[Any], indices: Sequence[str]) -> list[str]:
        """What indices add to an address; "" is none."""
        return [
            index if is_one(stride) else f"{self.sizes.factor(stride)} * {index}"
            for stride, index in zip(strides, indices, strict=True)
            if index
        ]

    def _start(self, view: View, image: str = "image") -> list[str]:
        """The line before the loop that says where what lies under the kernel begins, for a block of pixels."""
        if (0 if view is self.first else 1) in self.operands.prologues:
            return []
        return [f"start = {' + '.join(self._terms(view.strides, [image, '', 'top', 'left']))}"]

    def _from_start(self, view: View, channels: Any, down: str, across: str) -> list[str]:
        """The terms of addresses so far from there: all that changes in the loop are numbers for the whole block."""
        channel = f"({self._grouped('channel', channels)})[None, :]"
        moved = self._terms(view.strides[2:], [down, across])
        return ["start", *self._terms(view.strides[1:2], [channel]), f"({' + '.join(moved)})"]

    def _pixels(self, strides: Sequence[Any], oh: Any, ow: Any, turned: str) -> list[str]:
        """The terms of addresses of the result's pixels, for strides of images, rows and columns: of one number, if the
        pixels lie one after the other."""
        image, row, column = strides
        if same_size(row, ow * column) and same_size(image, oh * row):
            return self._terms([column], [f"rest{turned}"])
        return self._terms(strides, [f"image{turned}", f"row{turned}", f"column{turned}"])


class _Phases:
    """The rows (or columns) of an input's gradient, in phases that the same places of the kernel reach.

    Place i of a kernel reaches row r from row y of the result's gradient if r + padding == y * stride + i * dilation.
    So rows that leave the same remainder are reached by every `step`-th place from a first one on, and this first one
    numbers them, from the phase with most places to that with fewest. Where stride and dilation have a divisor in
    common, some have no place at all: they come last.
    """

    def __init__(
        self, place: str, name: str, start: str, size: Any, places: Any, stride: int, padding: int, dilation: int
    ) -> None:
        self.name, self.start, self.size, self.places = name, start, size, places
        self.stride, self.padding, self.dilation = stride, padding, dilation
        common = gcd(stride, dilation)
        self.step = stride // common  # between places of a phase
        self.apart = dilation // common  # what these reach
        self.pixels = (size + stride - 1) // stride  # of the largest phase
        self.ragged = not is_zero(size % stride)
        self.first, self.counted = f"{place}_first", f"{place}_count"
        self.place = place  # of the kernel, from the one of the phase; the only one is the first one's
        if stride > 1 and not is_one(places):
            self.place = f"({self.first} + {place})" if self.step == 1 else f"({self.first} + {place} * {self.step})"

    @property
    def count(self) -> Any:
        """The places of a phase: a number, or the name of a variable."""
        return self.places if self.stride == 1 else self.counted

    def quotient(self, of: str, sizes: Sizes) -> str:
        """Something divided by the places of a phase: by numbers, since a division by a variable takes long."""
        if self.stride == 1 or type(self.places) is not int:
            return f"{of} // {self.counted if self.stride > 1 else sizes.factor(self.places)}"
        few, more = self.places // self.step, -(-self.places // self.step)
        if few in (0, more):
            return f"{of} // {more}"
        return f"tl.where({self.counted} == {more}, {of} // {more}, {of} // {few})"

    def setup(self, index: str, phase: str, sizes: Sizes) -> list[str]:
        """The lines that give a block's rows, and where the first place of their phase reaches them from."""
        if self.stride == 1:
            return [f"{self.name} = {index}", f"{self.start} = ({self.name} + {self.padding})[:, None]"]
        stride, step, padding = self.stride, self.step, self.padding
        first = phase if step == stride else f"{phase} % {step}"
        count = f"({sizes.factor(self.places)} - {self.first} + {step - 1}) // {step}"
        reached = f"{self.first} * {self.dilation}" if self.dilation > 1 else self.first
        remainder = f"({reached} + {-padding % stride}) % {stride}"
        if step != stride:
            count = f"tl.where({phase} < {step}, {count}, 0)"
            remainder = f"({reached} + {phase} // {step} + {-padding % stride}) % {stride}"
        return [
            f"{self.first} = {first}",
            f"{self.counted} = {count}",
            f"{self.name} = ({index}) * {stride} + {remainder}",
            f"{self.start} = (({self.name} + {padding} - {reached}) // {stride})[:, None]",
        ]


@dataclass(frozen=True)
class _Walk:
    """A loop over input channels and places of the kernel: its extent, the lines that give `channel`, `i` and `j`,
    whether a step has one place (`i` and `j` are then numbers), the mask of what it sums over ("" if it needs none),
    and a step's first channel, if it has one place."""

    extent: str
    lines: list[str]
    one_place: bool
    within: str
    start: str

    def row(self, index: str, dilation: Any) -> str:
        """An index of the place, beside the rows of a block."""
        text = index if dilation == 1 else f"{index} * {dilation}"
        return f"({text})" + ("" if self.one_place else "[None, :]") if text != index or not self.one_place else index

    def columns(self, *names: str) -> list[str]:
        return list(names) if self.one_place else [f"{name}[:, None]" for name in names]

    def bound(self, turned: str) -> str:
        """The mask of the sum's indices."""
        return self.within and f"{self.within}{turned}"

    def mask(self, name: str, other: str, turned: str) -> list[str]:
        """The mask of a whole block."""
        return [f"{name}_mask = {other}" + (f" & {self.bound(turned)}" if self.within else "")]

    @property
    def place_masks(self) -> list[str]:
        """Of the row and the column in the image."""
        return ["inside", "inside"] if self.one_place else [WHOLE, WHOLE]
