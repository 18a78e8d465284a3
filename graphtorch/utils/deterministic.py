"""Whether new memory is filled in deterministic mode, `torch.utils.deterministic.fill_uninitialized_memory`.

Here `empty` always gives what the allocator gives, as PyTorch does in its default mode; the setting is kept for
programs that make it."""

from __future__ import annotations

fill_uninitialized_memory: bool = True
