"""`SummaryWriter` for TensorBoard: that of the package tensorboardX, which takes this library's tensors here.

Needs `pip install tensorboardX`. See https://docs.pytorch.org/docs/stable/tensorboard.html
"""

from __future__ import annotations

from functools import cache
from typing import Any

from graphtorch.tensor.tensor import Tensor

# Methods that take values.
_METHODS = (
    "add_scalar", "add_scalars", "add_histogram", "add_image", "add_images", "add_image_with_boxes", "add_video",
    "add_audio", "add_text", "add_pr_curve", "add_embedding", "add_hparams", "add_mesh",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "SummaryWriter":
        return _summary_writer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _plain(value: Any) -> Any:
    """Tensors as arrays, inside containers too."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return value


@cache
def _summary_writer() -> type:
    """The class: writes scalars, histograms, images, text and the rest into a log directory, as
    torch.utils.tensorboard.SummaryWriter does; `add_graph`, which traces PyTorch modules, is not offered."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("graphtorch.utils.tensorboard needs tensorboardX: pip install tensorboardX") from error

    def taking_tensors(name: str) -> Any:
        method = getattr(SummaryWriter, name)

        def add(self: Any, *args: Any, **kwargs: Any) -> Any:
            return method(self, *[_plain(a) for a in args], **{k: _plain(v) for k, v in kwargs.items()})

        add.__name__, add.__doc__ = name, method.__doc__
        return add

    def add_graph(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("add_graph traces modules of PyTorch; `graphtorch dump` shows a step's graph")

    methods = {name: taking_tensors(name) for name in _METHODS if hasattr(SummaryWriter, name)}
    return type("SummaryWriter", (SummaryWriter,), {"__module__": __name__, "add_graph": add_graph, **methods})
