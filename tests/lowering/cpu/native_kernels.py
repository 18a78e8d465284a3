"""Kernels compiled by the cpu backend and run by hand."""

from __future__ import annotations

import ctypes

import numpy as np


def run_kernel(kernel, arrays, low=None, high=None, register_bits=None):
    """Run a kernel of static sizes on arrays by buffer; returns its Function."""
    from graphtorch.lowering.cpu.compiler import Library, host, module_text
    from graphtorch.lowering.cpu.emitter import emit_kernel

    target = host()
    function = emit_kernel(kernel, register_bits or target.register_bits, target.fma)
    library = Library([module_text([function])], [function.name])
    native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(library.addresses[function.name])
    pointers = (ctypes.c_int64 * len(function.buffers))(*[arrays[b].ctypes.data for b in function.buffers])
    native(pointers, 0 if low is None else low, function.extent if high is None else high)
    return function


def ulps(result, exact):
    """The distance of float32 results from exact float64 values, in units in the last place of the exact value."""
    rounded = exact.astype(np.float32)
    spacing = np.spacing(np.abs(rounded)).astype(np.float64)
    return np.abs(result.astype(np.float64) - exact) / spacing
