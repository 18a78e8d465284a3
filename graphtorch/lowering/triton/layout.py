"""Images of convolutions in channels-last memory: a rewrite of the schedule.

A convolution sums over channels, which row-major images (N, C, H, W) have far apart. A temporary image that a
convolution reads or writes gets its channels side by side, (N, H, W, C), if everything else that touches it can follow:
kernels do by other strides, and by splitting an axis that runs over channels and pixels at once; calls that read views
of any strides do by other strides. Kernels of convolutions (weights) are copied to that order once, for all calls that
read them, and so are images that the caller gave. Pooling goes along: its windows then lie beside each other as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.lowering.kernel import (
    Access,
    Axis,
    Buffer,
    Expr,
    ExternCall,
    Index,
    Kernel,
    Load,
    Schedule,
    Store,
    View,
)
from graphtorch.lowering.triton.placement import Coordinate, Piece, pieces_of
from graphtorch.lowering.triton.rewriting import loads_of, rebuilder
from graphtorch.lowering.triton.shapes import DOT
from graphtorch.lowering.triton.tiling import is_one, is_zero
from graphtorch.ops.record import lookup
from graphtorch.schedule.indexing import estimate, product, row_major
from graphtorch.schedule.primitives import copy_node
from graphtorch.schedule.report import describe
from graphtorch.tensor.symint import same_shape
from graphtorch.tensor.type import TensorType

IMAGES_OF = {"conv2d": (0,), "conv2d_input_grad": (0,), "conv2d_weight_grad": (0, 1)}  # operands that are images
MAKE_IMAGES = ("conv2d", "conv2d_input_grad")
FOLLOW = ("max_pool2d_with_indices", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward")
FEWEST_CHANNELS = 16  # a block of a sum: fewer would leave it empty in part


class ChannelsLast(Buffer):
    """An image of shape (N, C, H, W), with anything before that, whose memory is in the order (N, H, W, C)."""

    __slots__ = ()


def channels_last_strides(shape: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of (N, C, H, W) in that memory."""
    _, c, h, w = shape
    return (c * h * w, 1, w * c, c)


def use_channels_last(schedule: Schedule) -> Schedule:
    """The same computation with channels-last temporaries around convolutions."""
    calls = [s for s in schedule.steps if isinstance(s, ExternCall) and s.op.name in IMAGES_OF]
    wanted = _wanted(calls)
    schedule = _with_copies(_with_copies_of_callers(schedule, wanted), wanted)
    if not wanted:
        return schedule
    at_convolutions = set(wanted)
    _add_neighbours(schedule, wanted)
    splits = _possible(schedule, wanted)
    if not wanted & at_convolutions:
        return schedule
    images: dict[Buffer, Buffer] = {
        b: ChannelsLast(b.name, b.dtype, b.shape, b.kind, b.value) for b in schedule_order(schedule, wanted)
    }
    steps: list[Kernel | ExternCall] = []
    weights: dict[tuple[Buffer, Any], View] = {}
    for step in schedule.steps:
        if isinstance(step, Kernel):
            steps.append(_kernel(step, images, splits.get(id(step), {})))
            continue
        args = tuple(_view(a, images) for a in step.args)
        if step.op.name in MAKE_IMAGES and _reads_channels_last(args[0]) and not is_one(product(args[1].shape[2:])):
            args = (args[0], _weights(args[1], schedule, steps, weights), *args[2:])
        made = replace(step, args=args, outputs=tuple(None if o is None else images.get(o, o) for o in step.outputs))
        steps.append(made)
    names = ", ".join(b.name for b in images)
    line = f"{names} | images between convolutions have their channels side by side ({describe(calls[0].nodes[0])})"
    return replace(schedule, steps=steps, report=[*schedule.report, line])


def schedule_order(schedule: Schedule, wanted: set[Buffer]) -> list[Buffer]:
    """Those buffers, in the order in which they are written."""
    return [b for b in dict.fromkeys(b for s in schedule.steps for b in s.writes()) if b in wanted]


def _wanted(calls: Sequence[ExternCall]) -> set[Buffer]:
    """Temporary images of enough channels at convolutions."""
    found: set[Buffer] = set()
    for call in calls:
        images = [call.args[i].buffer for i in IMAGES_OF[call.op.name] if isinstance(call.args[i], View)]
        if call.op.name in MAKE_IMAGES:
            images += [o for o in call.outputs if o is not None]
        for image in images:
            if image.kind == "temporary" and _has_channels(image):
                found.add(image)
    return found


def _has_channels(image: Buffer) -> bool:
    """Whether they are worth it: a block of a sum, whole pieces of sixteen bytes."""
    if len(image.shape) != 4 or image.dtype not in DOT:
        return False
    channels = image.shape[1]
    return type(channels) is int and channels >= FEWEST_CHANNELS and channels % 8 == 0


def _with_copies_of_callers(schedule: Schedule, wanted: set[Buffer]) -> Schedule:
    """Images that the caller gave, or gets, lie row by row. Convolutions of several places read copies: what lies under
    the next place is no whole piece of memory. `wanted` then has the copies."""
    copies: dict[tuple[Buffer, int], Buffer] = {}
    written: dict[Buffer, int] = {}
    steps: list[Kernel | ExternCall] = []
    for step in schedule.steps:
        if isinstance(step, ExternCall) and step.op.name in IMAGES_OF and _places(step) > 1:
            for i in IMAGES_OF[step.op.name]:
                view = step.args[i]
                if not isinstance(view, View) or not is_plain(view):
                    continue
                image = view.buffer
                fixed = all(type(n) is int for n in image.shape[1:])
                if image.kind == "temporary" or not fixed or not _has_channels(image):
                    continue
                version = image, written.get(image, 0)
                if version not in copies:
                    name = f"{image.name}_by_channel{f'_{version[1]}' if version[1] else ''}"
                    copies[version] = _copied(image, name, f"c{len(copies)}", steps)
                step = replace(step, args=(*step.args[:i], replace(view, buffer=copies[version]), *step.args[i + 1 :]))
        steps.append(step)
        for buffer in step.writes():
            written[buffer] = written.get(buffer, 0) + 1
    wanted.update(copies.values())
    return replace(schedule, steps=steps) if copies else schedule


def _places(call: ExternCall) -> int:
    """How many places a convolution's kernel has."""
    kernel = call.outputs[0].shape if call.op.name == "conv2d_weight_grad" and call.outputs[0] else call.args[1].shape
    return int(estimate(product(kernel[2:])))


def _copied(image: Buffer, name: str, step: str, steps: list[Kernel | ExternCall]) -> Buffer:
    """A copy of an image, element by element; the kernel that makes it is the next step."""
    copy = Buffer(name, image.dtype, image.shape, "temporary", Value(image.value.type, name))
    store = Store(Access(copy, 0, (1,)), Load(Access(image, 0, (1,))))
    node = copy_node(lookup("clone"), image.value, origin="an image by channels")
    flat = (Axis("i0", product(image.shape)),)
    steps.append(Kernel(step, flat, [store], [node], ["the order that convolutions read"]))
    return copy


def _with_copies(schedule: Schedule, wanted: set[Buffer]) -> Schedule:
    """Images that come from other calls are copied for convolutions, which read them once for every place of the
    kernel. `wanted` then has the copies."""
    copies: dict[Buffer, Buffer] = {}
    seen = {view.buffer for view in schedule.outputs}
    steps: list[Kernel | ExternCall] = []
    for step in schedule.steps:
        if isinstance(step, ExternCall) and step.op.name in IMAGES_OF:
            step = replace(step, args=tuple(_of_copy(a, copies) for a in step.args))
        steps.append(step)
        if not isinstance(step, ExternCall) or step.op.name in MAKE_IMAGES:
            continue
        for made in step.writes():
            if made in wanted and (step.op.name not in FOLLOW or made in seen):
                copies[made] = _copied(made, f"{made.name}_by_channel", f"i{len(copies) + 1}", steps)
                wanted.remove(made)
                wanted.add(copies[made])
    return replace(schedule, steps=steps) if copies else schedule


def _of_copy(arg: Any, copies: Mapping[Buffer, Buffer]) -> Any:
    if isinstance(arg, View) and arg.buffer in copies and is_plain(arg):
        return replace(arg, buffer=copies[arg.buffer])
    return arg


def _add_neighbours(schedule: Schedule, wanted: set[Buffer]) -> None:
    """Temporaries that kernels read or write beside such images, element by element, had better lie alike; so had those
    on both sides of pooling."""
    kernels = [s for s in schedule.steps if isinstance(s, Kernel)]
    touched = {id(k): [b for b in dict.fromkeys([*k.reads(), *k.writes()]) if b.kind == "temporary"] for k in kernels}
    pooled = [s for s in schedule.steps if isinstance(s, ExternCall) and s.op.name in FOLLOW]
    around = [[b for b in (*s.reads(), *s.writes()) if b.kind == "temporary" and len(b.shape) == 4] for s in pooled]
    grown = True
    while grown:
        grown = False
        for kernel in kernels:
            shapes = [b.shape for b in touched[id(kernel)] if b in wanted]
            for buffer in touched[id(kernel)] if shapes else ():
                if buffer not in wanted and any(same_shape(buffer.shape, shape) for shape in shapes):
                    wanted.add(buffer)
                    grown = True
        for images in around:
            if not wanted.issuperset(images) and any(b in wanted for b in images):
                wanted.update(images)
                grown = True


# -- what can follow --------------------------------------------------------------------------------------------------


def _possible(schedule: Schedule, wanted: set[Buffer]) -> dict[int, dict[int, list[Piece]]]:
    """Drop from `wanted` what something can't follow; for each kernel, by axis, the digits that it is split into."""
    for view in schedule.outputs:
        wanted.discard(view.buffer)
    for step in schedule.steps:
        if isinstance(step, ExternCall):
            own = step.op.kernels.get("triton") is not None  # a user's kernel reads what it was told to
            for buffer in step.writes():
                if own or step.op.name not in (*MAKE_IMAGES, *FOLLOW):
                    wanted.discard(buffer)
            for arg in step.args:
                for view in arg if type(arg) is tuple else (arg,):
                    if isinstance(view, View) and (own or not is_plain(view)):
                        wanted.discard(view.buffer)
    while True:
        splits: dict[int, dict[int, list[Piece]]] = {}
        refused: set[Buffer] = set()
        for step in schedule.steps:
            if isinstance(step, Kernel):
                splits[id(step)] = _splits(step, wanted, refused)
        if not refused:
            return splits
        wanted -= refused


def is_plain(view: View) -> bool:
    """Whether a view sees its whole buffer, row by row."""
    return (
        is_zero(view.offset)
        and same_shape(view.shape, view.buffer.shape)
        and same_shape(view.strides, row_major(view.buffer.shape))
    )


def _accesses(kernel: Kernel) -> list[Access]:
    return [*(e.access for e in loads_of(kernel)), *(s.access for s in kernel.stores)]


def _digits(kernel: Kernel, access: Access) -> dict[int, list[Piece]] | None:
    """By axis, the digits of (image, channel, pixel) that it runs over; None if they are none."""
    n, c, h, w = access.buffer.shape
    pixels = h * w
    coordinates = [Coordinate("", n, c * pixels, ""), Coordinate("", c, pixels, ""), Coordinate("", pixels, 1, "")]
    axes = [i for i, stride in enumerate(access.strides) if not is_zero(stride)]
    pieces = pieces_of([(kernel.axes[i].size, access.strides[i]) for i in axes], coordinates)
    if pieces is None or not is_zero(access.offset):
        return None
    return dict(zip(axes, pieces, strict=True))


def _splits(kernel: Kernel, wanted: set[Buffer], refused: set[Buffer]) -> dict[int, list[Piece]]:
    """The digits of the axes of one kernel; what does not agree with what came before is refused."""
    found: dict[int, list[Piece]] = {}
    for access in _accesses(kernel):
        if access.buffer not in wanted:
            continue
        digits = _digits(kernel, access)
        if digits is None or any(
            i in found and not same_shape(tuple(p.size for p in found[i]), tuple(p.size for p in run))
            for i, run in digits.items()
        ):
            refused.add(access.buffer)
            continue
        for i, run in digits.items():
            found.setdefault(i, run)
    return found


# -- steps anew -------------------------------------------------------------------------------------------------------


def _kernel(kernel: Kernel, images: Mapping[Buffer, Buffer], splits: Mapping[int, list[Piece]]) -> Kernel:
    """A kernel with its axes split into digits, and images in their new memory."""
    if not any(a.buffer in images for a in _accesses(kernel)):
        return kernel
    runs: list[list[tuple[Any, Any]]] = []  # by axis: (size, weight) of its parts
    for i, axis in enumerate(kernel.axes):
        pieces = splits.get(i, [])
        runs.append([(p.size, p.weight) for p in pieces] if len(pieces) > 1 else [(axis.size, 1)])
    axes = [
        Axis(f"{axis.name}_{n}" if len(run) > 1 else axis.name, size, axis.reduction)
        for axis, run in zip(kernel.axes, runs, strict=True)
        for n, (size, _) in enumerate(run)
    ]
    first = [sum(len(r) for r in runs[:i]) for i in range(len(runs))]

    def plain(strides: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(stride * weight for stride, run in zip(strides, runs, strict=True) for _, weight in run)

    def moved(access: Access) -> Access:
        digits = _digits(kernel, access)
        assert digits is not None
        _, c, h, w = access.buffer.shape
        steps = (c * h * w, 1, c)
        strides: list[Any] = []
        for i, run in enumerate(runs):
            pieces = digits.get(i, [])
            strides += [steps[p.coordinate] * p.divisor for p in pieces] or [0] * len(run)
        return Access(images[access.buffer], 0, tuple(strides))

    def access_of(access: Access) -> Access:
        if access.buffer in images:
            return moved(access)
        return Access(access.buffer, access.offset, plain(access.strides))

    def folded(of: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(first[i] + n for i in of for n in range(len(runs[i])))

    def anew(expr: Expr) -> Expr | None:
        if isinstance(expr, Load):
            return Load(access_of(expr.access))
        return Index(expr.offset, plain(expr.strides), expr.dtype) if isinstance(expr, Index) else None

    rebuild = rebuilder(anew, folded)
    stores = [Store(access_of(s.access), rebuild(s.value)) for s in kernel.stores]
    return _ordered(Kernel(kernel.name, tuple(axes), stores, list(kernel.nodes), list(kernel.reasons)))


def order_axes(schedule: Schedule) -> Schedule:
    """The same computation with the axes of kernels on such images in the order of memory: parts of a kernel that folds
    over pixels come with channels first."""
    steps = [
        _ordered(s)
        if type(s) is Kernel
        and not any(axis.reduction for axis in s.axes)
        and any(isinstance(a.buffer, ChannelsLast) for a in _accesses(s))
        else s
        for s in schedule.steps
    ]
    return replace(schedule, steps=steps)


def _ordered(kernel: Kernel) -> Kernel:
    """Parallel axes in the order of memory, of the first image that is written or, if there is none, read."""
    accesses = [*(s.access for s in kernel.stores), *_accesses(kernel)]
    main = next(a for a in accesses if isinstance(a.buffer, ChannelsLast))

    def key(i: int) -> tuple[Any, ...]:
        axis, stride = kernel.axes[i], main.strides[i]
        return (axis.reduction, is_zero(stride), 0 if axis.reduction else -abs(estimate(stride)), i)

    order = sorted(range(len(kernel.axes)), key=key)
    place = {old: new for new, old in enumerate(order)}

    def permuted(access: Access) -> Access:
        return Access(access.buffer, access.offset, tuple(access.strides[i] for i in order))

    def anew(expr: Expr) -> Expr | None:
        if isinstance(expr, Load):
            return Load(permuted(expr.access))
        if isinstance(expr, Index):
            return Index(expr.offset, tuple(expr.strides[i] for i in order), expr.dtype)
        return None

    rebuild = rebuilder(anew, lambda of: tuple(place[i] for i in of))
    stores = [Store(permuted(s.access), rebuild(s.value)) for s in kernel.stores]
    return Kernel(kernel.name, tuple(kernel.axes[i] for i in order), stores, kernel.nodes, kernel.reasons)


def _view(arg: Any, images: Mapping[Buffer, Buffer]) -> Any:
    if type(arg) is tuple:
        return tuple(_view(a, images) for a in arg)
    if not isinstance(arg, View) or arg.buffer not in images:
        return arg
    return View(images[arg.buffer], arg.shape, channels_last_strides(arg.shape), 0)


def _reads_channels_last(arg: Any) -> bool:
    return isinstance(arg, View) and isinstance(arg.buffer, ChannelsLast)


def _weights(
    view: View, schedule: Schedule, steps: list[Kernel | ExternCall], known: dict[tuple[Buffer, Any], View]
) -> View:
    """A convolution's kernel with its input channels side by side; the copy is made where it is first wanted."""
    if len(view.shape) != 4 or not is_plain(view):
        return view
    # A parameter that the step updates has one value before and another one after that.
    version = sum(view.buffer in s.writes() for s in steps)
    found = known.get((view.buffer, version))
    if found is not None:
        return found
    n, c, h, w = view.shape
    name = f"{view.buffer.name}_by_channel"
    of = view.buffer.dtype
    copy = ChannelsLast(name, of, view.shape, "temporary", Value(TensorType(of, view.shape), name))
    sizes = (("i0", n), ("i1", h * w), ("i2", c))
    axes = tuple(Axis(axis, size) for axis, size in sizes)
    load = Load(Access(view.buffer, 0, (c * h * w, 1, h * w)))
    node = copy_node(lookup("clone"), view.buffer.value, origin="a convolution's kernel, by channels")
    store = Store(Access(copy, 0, (c * h * w, c, 1)), load)
    steps.append(Kernel(f"w{len(steps)}", axes, [store], [node], ["the order that convolutions read"]))
    made = known[view.buffer, version] = View(copy, view.shape, channels_last_strides(view.shape), 0)
    return made
