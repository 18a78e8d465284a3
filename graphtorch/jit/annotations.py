"""`torch.jit.annotations`: types of `typing` under the names by which TorchScript knows them."""
# ruff: noqa: UP006, UP035 - programs import these very names

from typing import Any, Dict, List, Optional, Tuple, Union

__all__ = [
    "Any",
    "BroadcastingList1",
    "BroadcastingList2",
    "BroadcastingList3",
    "Dict",
    "List",
    "Optional",
    "Tuple",
    "Union",
]

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = List  # or one number for all entries
