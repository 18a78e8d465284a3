"""The NumPy backends: "numpy" runs kernels as blocked NumPy code, "interpreter" runs a graph node by node (the
reference)."""

from graphtorch.lowering.backend import register
from graphtorch.lowering.numpy.executor import NumpyBackend
from graphtorch.lowering.numpy.interpreter import InterpreterBackend

register(NumpyBackend())
register(InterpreterBackend())
