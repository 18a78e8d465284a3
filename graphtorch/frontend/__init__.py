"""`@compile`: capture of a Python function as one graph, guards and the specialisation cache."""

from graphtorch.frontend.compiler import CompiledFunction, compile
from graphtorch.frontend.errors import CaptureError

__all__ = ["CaptureError", "CompiledFunction", "compile"]
