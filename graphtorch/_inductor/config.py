"""Settings under PyTorch's names, `torch._inductor.config`; see `graphtorch.compiler.settings`."""

from __future__ import annotations

from graphtorch.compiler.settings import install

install(__name__, "inductor")
