"""`utils.tensorboard`: tensors reach tensorboardX as numbers and arrays."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphtorch


def test_tensors_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from graphtorch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss", graphtorch.tensor(0.5, requires_grad=True), 1)
        writer.add_scalars("both", {"a": graphtorch.tensor(1.0), "b": 2.0}, 1)
        writer.add_histogram("weights", graphtorch.randn(100), 1)
        writer.add_image("image", graphtorch.rand(3, 8, 8), 1)
        writer.add_text("note", "text", 1)
    (path,) = tmp_path.glob("events*")
    assert path.stat().st_size > 500
    with pytest.raises(NotImplementedError, match="graphtorch dump"):
        writer.add_graph(graphtorch.nn.Linear(1, 1))
