"""CUDA graphs that programs record themselves, with PyTorch's names.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. What a recording does, and what it can't hold, is
said in `runtime/cuda/graphs.py`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.autograd.engine import grad
from graphtorch.autograd.function import Function
from graphtorch.cuda.memory import empty_cache
from graphtorch.runtime.cuda import devices, graphs
from graphtorch.runtime.cuda.memory import POOLS, MemoryPool
from graphtorch.runtime.cuda.streams import Stream, StreamContext, current_stream
from graphtorch.tensor.tensor import Tensor

__all__ = ["CUDAGraph", "graph", "graph_pool_handle", "is_current_stream_capturing", "make_graphed_callables"]

Handle = tuple[int, int]
_reserved: dict[Handle, MemoryPool] = {}  # of `graph_pool_handle`, until a graph uses them


def _need_device(name: str) -> None:
    if not devices.count():
        raise RuntimeError(f"Tried to instantiate dummy base class {name}")


def is_current_stream_capturing() -> bool:
    """Whether what is sent to the current stream is recorded. Raises RuntimeError without a device."""
    _need_device("_cuda_isCurrentStreamCapturing")
    return graphs.of_stream(devices.stream_of(devices.device())) is not None


def graph_pool_handle() -> Handle:
    """A name for memory that several graphs share, if they are replayed in the order in which they were recorded.
    Raises RuntimeError without a device."""
    _need_device("_graph_pool_handle")
    pool = MemoryPool()
    _reserved[pool.id] = pool
    return pool.id


def _pool_of(handle: Any) -> MemoryPool:
    """The pool of a handle; a new one for None, and for one whose graphs are gone."""
    if handle is None:
        return MemoryPool()
    found = POOLS.get(tuple(handle))
    _reserved.pop(tuple(handle), None)
    return MemoryPool() if found is None else found


class CUDAGraph:
    """What was sent to a stream between `capture_begin` and `capture_end`, to be sent again by `replay`.

    The tensors that were read are read where they were: new inputs are copied into them. Tensors that were made lie in
    memory of the graph, and hold what the last replay wrote. Random numbers are new ones in each replay. See
    torch.cuda.CUDAGraph; `keep_graph` is accepted and changes nothing.

    Raises RuntimeError without a device.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        _need_device("CUDAGraph")
        self._capture: graphs.Capture | None = None
        self._graph: Any = None
        self._written = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """Begin to record the current stream.

        pool                 another graph's `pool()`, or a `graph_pool_handle()`, to share memory with
        capture_error_mode   "relaxed" lets the thread wait for streams that are not recorded meanwhile

        Raises RuntimeError on a default stream, or if there is a graph already.
        """
        if capture_error_mode not in graphs.MODES:
            raise RuntimeError(
                "Unknown capture error mode. Expected `global`, `thread_local`, or `relaxed`, got " + capture_error_mode
            )
        if self._capture is not None:
            raise RuntimeError(
                "This CUDAGraph instance already owns a captured graph. To capture a new graph, create a new instance."
            )
        where = devices.device()
        stream = devices.stream_of(where)
        if stream is where.stream:
            raise RuntimeError(
                "CUDA graphs must be captured on a non-default stream. (However, after capture, it's ok to replay "
                "them on the default stream.)"
            )
        shared = _pool_of(pool)
        self._capture = graphs.begin(where, stream, shared, capture_error_mode)
        shared.users += 1

    def capture_end(self) -> None:
        """End the recording. Raises RuntimeError on another stream, or where something in the recording failed."""
        capture = self._capture
        if capture is None or self._graph is not None or graphs.current() is not capture:
            raise RuntimeError("CUDA error: the operation cannot be performed in the present state")
        if devices.stream_of(capture.where) is not capture.stream:
            raise RuntimeError("Capture must end on the same stream it began on.")
        try:
            self._graph = graphs.end(capture)
        except BaseException:
            self.reset()
            raise

    def instantiate(self) -> None:
        """Nothing: a recording that has ended is ready."""
        self._made("instantiate")

    def replay(self) -> None:
        """Send the recording to the current stream."""
        capture = self._made("replay")
        graphs.replay(capture, self._graph, not self._written)
        self._written = True

    def reset(self) -> None:
        """Delete the recording; its memory is free where no tensor lies in it."""
        capture, self._capture, self._graph, self._written = self._capture, None, None, False
        if capture is not None:
            capture.close()
            capture.pool.users -= 1

    def pool(self) -> Handle:
        """What lets another graph share this one's memory."""
        return self._made("pool").pool.id

    def register_generator_state(self, generator: Any) -> None:
        """Nothing: the generators that are drawn from are known."""

    def _made(self, asked: str) -> graphs.Capture:
        if self._capture is None or self._graph is None:
            raise RuntimeError(f"Called CUDAGraph::{asked} without a preceding successful capture.")
        return self._capture

    def __del__(self) -> None:
        if getattr(self, "_capture", None) is not None and self._graph is not None:
            self.reset()


class graph:
    """`with torch.cuda.graph(g):` records what the body sends to a side stream into `g`. See torch.cuda.graph."""

    default_capture_stream: Stream | None = None

    def __init__(
        self,
        cuda_graph: CUDAGraph,
        pool: Any = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ) -> None:
        if not devices.count():
            raise RuntimeError("torch.cuda.Stream requires CUDA support")
        self.cuda_graph = cuda_graph
        self.pool = pool
        self.capture_error_mode = capture_error_mode
        self.capture_stream = self._side_stream() if stream is None else stream
        self.stream_ctx = StreamContext(self.capture_stream)

    @classmethod
    def _side_stream(cls) -> Stream:
        known, where = cls.default_capture_stream, devices.device()
        if known is None or known._device is not where:
            known = cls.default_capture_stream = Stream(where.index)
        return known

    def __enter__(self) -> None:
        graphs.refuse()
        where = devices.device()
        where.driver.wait_device(where.index)
        gc.collect()
        empty_cache()
        self.stream_ctx.__enter__()
        try:
            self.cuda_graph.capture_begin(self.pool, self.capture_error_mode)
        except BaseException:
            self.stream_ctx.__exit__(None, None, None)
            raise

    def __exit__(self, *exception: Any) -> None:
        try:
            self.cuda_graph.capture_end()
        finally:
            self.stream_ctx.__exit__(None, None, None)


# -- callables --------------------------------------------------------------------------------------------------------


def make_graphed_callables(
    callables: Any,
    sample_args: Any,
    num_warmup_iters: int = 3,
    allow_unused_input: bool = False,
    pool: Any = None,
) -> Any:
    """Functions or modules, one or a tuple of them, whose forward and backward passes are replayed CUDA graphs.

    callables             modules get a new `forward` for the mode (training or not) that they are in now
    sample_args           of each, a tuple of tensors like those of the calls to come
    num_warmup_iters      runs before the recording
    allow_unused_input    whether arguments may have no part in the results
    pool                  memory to share with other graphs

    What a call returns is overwritten by the next one. See torch.cuda.make_graphed_callables.

    Raises RuntimeError under autocast with a cache, for modules with hooks or buffers that require gradients, for
    arguments that are no tensors, and without a device.
    """
    from graphtorch.amp import autocast_mode

    if autocast_mode.is_autocast_enabled() and autocast_mode.is_autocast_cache_enabled():
        raise RuntimeError(
            "make_graphed_callables does not support the autocast caching. Please set `cache_enabled=False`."
        )
    single = not isinstance(callables, tuple)
    functions: tuple[Any, ...] = (callables,) if single else callables
    samples: tuple[tuple[Tensor, ...], ...] = (sample_args,) if single else sample_args
    recorded = [_Recorded(f, s) for f, s in zip(functions, samples, strict=True)]
    _need_device("CUDAGraph")
    handle = graph_pool_handle() if pool is None else pool
    here, side = current_stream(), Stream()
    side.wait_stream(here)
    with StreamContext(side):
        for one in recorded:
            for _ in range(num_warmup_iters):
                one.warm_up(allow_unused_input)
    here.wait_stream(side)
    for one in recorded:
        one.record_forward(handle)
    for one in reversed(recorded):
        one.record_backward(handle, allow_unused_input)
    made = [one.finished() for one in recorded]
    return made[0] if single else tuple(made)


class _Recorded:
    """One function or module, its graphs, and the tensors that these read and write."""

    def __init__(self, function: Any, sample: tuple[Tensor, ...]) -> None:
        from graphtorch.nn.modules.module import Module
        from graphtorch.utils._pytree import tree_flatten

        self.function = function
        self.is_module = isinstance(function, Module)
        parameters: tuple[Tensor, ...] = ()
        if self.is_module:
            if function._forward_hooks or function._forward_pre_hooks or function._backward_hooks:
                raise RuntimeError(
                    "Modules must not have hooks registered at the time they are passed. However, registering hooks "
                    "on modules after passing them through make_graphed_callables is allowed."
                )
            if any(b.requires_grad for b in function.buffers()):
                raise RuntimeError(
                    "In any :class:`~torch.nn.Module` passed to :func:`~make_graphed_callables`, only parameters may "
                    "be trainable. All buffers must have ``requires_grad=False``."
                )
            parameters = tuple(function.parameters())
        flat, self.structure = tree_flatten(tuple(sample))
        if not all(isinstance(a, Tensor) for a in flat):
            raise RuntimeError(
                "In the beta API, sample_args for each callable must contain only Tensors. Other types are not allowed."
            )
        self.sample = sample
        self.arguments: list[Tensor] = flat
        self.surface: list[Tensor] = [*flat, *parameters]
        self.parameters = parameters
        self.forward = CUDAGraph()
        self.backward = CUDAGraph()
        self.outputs: list[Tensor] = []
        self.output_structure: Any = None
        self.given: list[Tensor | None] = []  # gradients of the outputs
        self.gradients: list[Tensor | None] = []  # of the surface

    def _run(self) -> list[Tensor]:
        from graphtorch.utils._pytree import tree_flatten

        flat, self.output_structure = tree_flatten(self.function(*self.sample))
        return list(flat)

    def _derive(self, outputs: Sequence[Tensor], given: Sequence[Tensor | None], unused: bool) -> list[Tensor | None]:
        wanted = [t for t in self.surface if t.requires_grad]
        pairs = [(o, g) for o, g in zip(outputs, given, strict=True) if g is not None]
        if not wanted or not pairs:
            return [None] * len(self.surface)
        found = iter(grad([o for o, _ in pairs], wanted, [g for _, g in pairs], only_inputs=True, allow_unused=unused))
        return [next(found) if t.requires_grad else None for t in self.surface]

    @staticmethod
    def _like(outputs: Sequence[Tensor]) -> list[Tensor | None]:
        return [o.detach().new_empty(o.shape) if o.requires_grad else None for o in outputs]

    def warm_up(self, unused: bool) -> None:
        outputs = self._run()
        self._derive(outputs, self._like(outputs), unused)

    def record_forward(self, pool: Any) -> None:
        with graph(self.forward, pool=pool):
            self.outputs = self._run()

    def record_backward(self, pool: Any, unused: bool) -> None:
        self.given = self._like(self.outputs)
        with graph(self.backward, pool=pool):
            self.gradients = self._derive(self.outputs, self.given, unused)

    def finished(self) -> Any:
        """The function, or the module, that replays the graphs."""
        replayed = self._replayed()
        function = self.function
        if not self.is_module:
            return replayed
        training, plain = function.training, function.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            return replayed(*args) if function.training == training else plain(*args, **kwargs)

        function.forward = forward
        return function

    def _replayed(self) -> Callable[..., Any]:
        from graphtorch.utils._pytree import tree_flatten, tree_unflatten

        recorded, count = self, len(self.arguments)

        class Graphed(Function):
            @staticmethod
            def forward(context: Any, *inputs: Any) -> Any:
                for place, value in zip(recorded.arguments, inputs[:count], strict=True):
                    if place.data_ptr() != value.data_ptr():
                        place.detach().copy_(value)
                recorded.forward.replay()
                outputs = tuple(o.detach() for o in recorded.outputs)
                context.mark_non_differentiable(
                    *(made for made, o in zip(outputs, recorded.outputs, strict=True) if not o.requires_grad)
                )
                return outputs

            @staticmethod
            def backward(context: Any, *grads: Any) -> Any:
                for place, value in zip(recorded.given, grads, strict=True):
                    if place is not None and value.data_ptr() != place.data_ptr():
                        place.copy_(value)
                recorded.backward.replay()
                return tuple(None if g is None else g.detach() for g in recorded.gradients)

        def call(*args: Any) -> Any:
            flat, structure = tree_flatten(tuple(args))
            if len(flat) != count or structure != recorded.structure:
                raise RuntimeError("a graphed callable takes arguments of the structure that it was made for")
            made = Graphed.apply(*flat, *recorded.parameters)
            return tree_unflatten(list(made), recorded.output_structure)

        return call
