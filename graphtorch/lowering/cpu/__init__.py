"""The backend "cpu": kernels become LLVM IR, compiled in process for the host; a step is one native call.

    assembly, transcendental, instructions, helpers   LLVM text of scalar instructions on vectors
    nest, emitter                           loop structure and code of a Kernel
    launch, blas, pool                      the native program around the kernels
    translation, compiler, cache            from a schedule to text, from text to code, and the code on disk
    executable, stored                      running; programs that were compiled before

docs/cpu-backend.md tells the whole story."""

from graphtorch.lowering.backend import register
from graphtorch.lowering.cpu.backend import CpuBackend
from graphtorch.lowering.cpu.executable import CpuExecutable

register(CpuBackend())

__all__ = ["CpuBackend", "CpuExecutable"]
