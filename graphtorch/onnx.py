"""`torch.onnx`'s question: models ask whether they are being exported. They never are."""

from __future__ import annotations

from typing import Any, NoReturn


def is_in_onnx_export() -> bool:
    """Whether a model runs in order to be exported."""
    return False


def export(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises RuntimeError: there is no such export. `graphtorch.export` writes programs in this library's own form."""
    raise RuntimeError("graphtorch writes no ONNX files; graphtorch.export keeps programs in a form of its own")
