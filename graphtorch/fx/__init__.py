"""`torch.fx`: modules as graphs of Python calls, to be looked at and rewritten.

`symbolic_trace(module).graph` is such a graph; a `GraphModule` runs one. They are no part of the compiler, which
captures a rewritten module like any other. See https://docs.pytorch.org/docs/stable/fx.html."""

from graphtorch.fx import node, proxy, subgraph_rewriter
from graphtorch.fx.graph import Graph
from graphtorch.fx.graph_module import GraphModule
from graphtorch.fx.interpreter import Interpreter, Transformer
from graphtorch.fx.node import Node, map_arg
from graphtorch.fx.proxy import Proxy
from graphtorch.fx.subgraph_rewriter import replace_pattern
from graphtorch.fx.tracer import Tracer, symbolic_trace, wrap

__all__ = [
    "Graph",
    "GraphModule",
    "Interpreter",
    "Node",
    "Proxy",
    "Tracer",
    "Transformer",
    "map_arg",
    "replace_pattern",
    "symbolic_trace",
    "wrap",
]
