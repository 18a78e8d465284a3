"""The backend "cpu": kernels become LLVM IR, compiled in process for the host; a step is one native call.

    assembly, transcendental, instructions, helpers   LLVM text of scalar instructions on vectors
    nest, emitter                           loop structure and code of a Kernel
    launch, blas, pool                      the native program around the kernels
    compiler, executable                    compilation, the object cache, and running

docs/cpu-backend.md tells the whole story."""

from graphtorch.lowering.backend import register
from graphtorch.lowering.cpu.executable import CpuBackend, CpuExecutable

register(CpuBackend())

__all__ = ["CpuBackend", "CpuExecutable"]
