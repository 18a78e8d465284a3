"""When Python looks for garbage: not while something is compiled, and every so often for compiled functions that were
dropped."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

COLLECTED_EVERY = 256  # compilations: a compiled function that is no longer used holds some 100 KiB
_compilations = 0


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Compiling makes many objects that stay; looking for cycles among them again and again takes a tenth of the
    time. Python does not count them, so that every so often what has been dropped is looked for here."""
    global _compilations
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                # What was made goes straight to the oldest generation, where it would be after three looks at it.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
            _compilations += 1
            if _compilations % COLLECTED_EVERY == 0:
                gc.collect()
