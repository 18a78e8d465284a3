"""`SummaryWriter` for TensorBoard: that of the package tensorboardX, which takes this library's tensors here.

Needs `pip install tensorboardX`. See https://docs.pytorch.org/docs/stable/tensorboard.html
"""

from __future__ import annotations

from typing import Any

from graphtorch.tensor.tensor import Tensor

try:
    from tensorboardX import SummaryWriter as _Writer
except ImportError as error:
    raise ImportError("graphtorch.utils.tensorboard needs tensorboardX: pip install tensorboardX") from error

__all__ = ["SummaryWriter"]


def _plain(value: Any) -> Any:
    """Tensors as arrays, inside containers too."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return value


class SummaryWriter(_Writer):  # type: ignore[misc]
    """Writes scalars, histograms, images, text and the rest into a log directory. See
    torch.utils.tensorboard.SummaryWriter; `add_graph`, which traces PyTorch modules, is not offered."""

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("add_graph traces modules of PyTorch; `graphtorch dump` shows a step's graph")


def _taking_tensors(name: str) -> Any:
    method = getattr(_Writer, name)

    def add(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *[_plain(a) for a in args], **{k: _plain(v) for k, v in kwargs.items()})

    add.__name__, add.__doc__ = name, method.__doc__
    return add


for _name in (
    "add_scalar", "add_scalars", "add_histogram", "add_image", "add_images", "add_image_with_boxes", "add_video",
    "add_audio", "add_text", "add_pr_curve", "add_embedding", "add_hparams", "add_mesh",
):  # fmt: skip
    if hasattr(_Writer, _name):
        setattr(SummaryWriter, _name, _taking_tensors(_name))
