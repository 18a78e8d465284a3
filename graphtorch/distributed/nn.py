"""`torch.distributed.nn`: communication that gradients flow through, which programs import before they ask for any."""

from __future__ import annotations

from graphtorch.distributed import _refuse

broadcast = gather = scatter = reduce = reduce_scatter = all_gather = all_to_all = all_reduce = _refuse
