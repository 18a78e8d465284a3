"""Steps of a schedule that the host runs: operators without a kernel, on copies of what lies on the device, and control
flow, whose operands stay there. The host decides how a condition turns out; the regions are programs of the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphtorch.ir.region import Region
from graphtorch.lowering.binding import concrete
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, View
from graphtorch.lowering.triton.launch import HostCall
from graphtorch.lowering.triton.strided import strided_view, with_generator, write_into
from graphtorch.tensor.devices import device as device_class
from graphtorch.tensor.remote import DeviceArray

Array = np.ndarray[Any, Any]
ArrayOf = Callable[[Buffer], DeviceArray]


def runs_regions(call: ExternCall | Kernel) -> bool:
    """Whether a step is control flow."""
    return isinstance(call, ExternCall) and any(type(arg) is Region for arg in call.args)


def own_kernel(call: ExternCall | Kernel) -> Callable[..., Any] | None:
    """What a custom operator has for CUDA devices (`register_kernel("cuda")`): a function of arrays where they lie."""
    return call.op.kernels.get("cuda") if isinstance(call, ExternCall) else None


def on_host(
    step: HostCall, bindings: Mapping[str, int], place: device_class, array_of: ArrayOf
) -> Callable[[Any, Any], None]:
    """A function `run(stream, arguments)` for a step, in the place of a launcher.

    array_of    what lies in a buffer now
    """
    call = step.call
    if isinstance(call, Kernel):
        return _kernel(call, bindings, array_of)
    arguments = with_generator(call.op, call.args, place)
    own = own_kernel(call)
    stays, function = runs_regions(call) or own is not None, own or call.op.numpy

    def value(arg: Any) -> Any:
        if isinstance(arg, View):
            shape, strides, offset = (concrete(x, bindings) for x in (arg.shape, arg.strides, arg.offset))
            array = strided_view(array_of(arg.buffer), shape, strides, offset)
            if arg.buffer.value.type.is_number:
                return array.item()
            return array if stays else array.host()
        return tuple(map(value, arg)) if type(arg) is tuple else concrete(arg, bindings)

    def run(stream: Any, _: Any) -> None:
        with np.errstate(all="ignore"):
            made = function(*map(value, arguments))
        for buffer, result in zip(call.outputs, made if type(made) is tuple else (made,), strict=True):
            if buffer is None:
                continue
            if type(result) is not DeviceArray:
                packed = np.empty(concrete(buffer.shape, bindings), buffer.dtype.numpy)
                if np.size(result) == packed.size:  # operands may be views with more dimensions than the value has
                    result = np.reshape(result, packed.shape)
                np.copyto(packed, result, casting="unsafe")
                result = packed
            write_into(array_of(buffer), result)

    return run


def _kernel(kernel: Kernel, bindings: Mapping[str, int], array_of: ArrayOf) -> Callable[[Any, Any], None]:
    from graphtorch.lowering.numpy.codegen import Slot, lower_kernel

    lowered = lower_kernel(kernel, bindings)

    def run(stream: Any, _: Any) -> None:
        held = {b: array_of(b).host() for b in {*kernel.reads(), *kernel.writes()}}

        def array(slot: Slot) -> Array:
            flat = held[slot.buffer].reshape(-1)[slot.offset :]
            steps = [s * flat.itemsize for s in slot.strides]
            return np.lib.stride_tricks.as_strided(flat, slot.shape, steps)

        registers = [np.empty(r.shape, r.dtype.numpy) for r in lowered.registers]
        loads, stores = map(array, lowered.loads), map(array, lowered.stores)
        with np.errstate(all="ignore"):
            lowered.function(*loads, *lowered.indices, *stores, *registers, *lowered.sizes)
        for buffer in kernel.writes():
            write_into(array_of(buffer), held[buffer])

    return run
