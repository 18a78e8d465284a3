"""What compiled code could not compute (an index out of range, a singular matrix), said as eager execution says it.

Kernels know what failed and not for whom. Where a call changes nothing, the function runs eagerly instead: it raises
the error at the user's line, or the user's own handler deals with it. Otherwise the graph is interpreted up to the
operator that fails, which knows its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphtorch.autograd.state import recorder_paused
from graphtorch.diagnostics import advice
from graphtorch.frontend.decisions import generators_of
from graphtorch.ir.graph import Node
from graphtorch.tensor.remote import readable
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.frontend.specialization import Specialization

EXPECTED = (IndexError, RuntimeError, ValueError, ArithmeticError)  # what operators raise for data


def is_repeatable(specialization: Specialization) -> bool:
    """Whether a call that failed left nothing behind and draws no random numbers."""
    captured = specialization.captured
    changes: Sequence[Any] = captured.written or captured.grads or captured.own_grads or captured.flags
    changes = changes or captured.histories or captured.changes
    return not changes and not any(node.op.random for node in captured.graph.nodes)


def explained(error: Exception, specialization: Specialization, leaves: Sequence[Any]) -> Exception:
    """The error with the operator and the user's line, as eager execution has it; itself where these are not found."""
    from graphtorch.lowering.numpy.interpreter import interpret

    graph = specialization.compiled.stages.joint
    found: list[tuple[Node, Exception]] = []
    held = [(g, g.state_array()) for g in generators_of(graph.nodes)]
    try:
        tensors = [source.fetch(leaves) for source in specialization.captured.sources]
        with recorder_paused():
            inputs = [readable(t._data) if isinstance(t, Tensor) else t for t in tensors]
            interpret(graph, inputs, lambda node, cause: found.append((node, cause)))
    except Exception:
        if not found:
            return error
    finally:
        for generator, saved in held:
            generator.set_state(saved)
    if not found:
        return error
    node, cause = found[0]
    message = str(cause.args[0]) if cause.args else str(cause)
    operands = [f"{p.name}={_described(a)}" for p, a in zip(node.op.parameters, node.args, strict=True)]
    where = f"{node.location}: {node.location.text}" if node.location.text else str(node.location)
    made = type(cause)(f"{message}\n  in {node.op.name}({', '.join(operands)})\n  at {where}{advice(message)}")
    made._graphtorch_located = True  # type: ignore[attr-defined]
    return made


def _described(arg: Any) -> str:
    if hasattr(arg, "type"):
        return str(arg.type)
    if type(arg) is tuple and any(hasattr(a, "type") for a in arg):
        return f"[{', '.join(_described(a) for a in arg)}]"
    return repr(arg)
