"""`torch.torch_version`: a version that compares with others as versions do, not as text."""

from __future__ import annotations

import re
from typing import Any

_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)[._-]?(dev|a|b|rc)?", re.IGNORECASE)
_STAGES = {"dev": 0, "a": 1, "b": 2, "rc": 3, None: 4}


class TorchVersion(str):
    """A version's text. `>`, `==` and the like take texts and tuples too: `TorchVersion("2.13.0") >= (1, 6)`.

    Of two versions, the numbers before a suffix count, and whether the version is a finished one. Text that is no
    version compares as text. Source: https://docs.pytorch.org/docs/stable/torch.html (`torch.__version__`)."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        a, b = self._pair(other)
        return bool(a == b)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        a, b = self._pair(other)
        return bool(a < b)

    def __le__(self, other: Any) -> bool:
        a, b = self._pair(other)
        return bool(a <= b)

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    __hash__ = str.__hash__

    def _pair(self, other: Any) -> tuple[Any, Any]:
        own, its = _parsed(str(self)), _parsed(other)
        return (str(self), other) if own is None or its is None else (own, its)


def _parsed(version: Any) -> tuple[tuple[int, ...], int] | None:
    """The numbers of a version, without zeros at the end, and how far it is finished; None for what is no version."""
    stage: str | None = None
    if isinstance(version, str):
        found = _VERSION.match(version)
        if found is None:
            return None
        numbers = [int(n) for n in found[1].split(".")]
        stage = found[2] and found[2].lower()
    elif isinstance(version, tuple | list) and all(isinstance(n, int) for n in version):
        numbers = list(version)
    else:
        return None
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _STAGES[stage]
