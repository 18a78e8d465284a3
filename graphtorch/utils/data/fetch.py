"""Getting the samples of one batch from a dataset and collating them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Fetcher"]


class Fetcher:
    """Fetches batches (with ``auto_collation``) or single samples from a dataset or, if ``iterable``, from a stream."""

    def __init__(
        self, dataset: Any, iterable: bool, auto_collation: bool, collate_fn: Callable[[Any], Any], drop_last: bool
    ) -> None:
        self.dataset = dataset
        self.auto_collation = auto_collation
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.stream = iter(dataset) if iterable else None
        self.ended = False

    def fetch(self, index: Any) -> Any:
        """The batch at a list of indices, or the sample at one; of a stream the next one.

        Raises:
            StopIteration: the stream has ended.
        """
        samples = self._from_dataset(index) if self.stream is None else self._from_stream(index)
        return self.collate_fn(samples)

    def _from_dataset(self, index: Any) -> Any:
        if not self.auto_collation:
            return self.dataset[index]
        if getattr(self.dataset, "__getitems__", None):
            return self.dataset.__getitems__(index)
        return [self.dataset[i] for i in index]

    def _from_stream(self, index: Any) -> Any:
        assert self.stream is not None
        if not self.auto_collation:
            return next(self.stream)
        if self.ended:
            raise StopIteration
        samples = []
        for _ in index:
            try:
                samples.append(next(self.stream))
            except StopIteration:
                self.ended = True
                break
        if not samples or (self.drop_last and len(samples) < len(index)):
            raise StopIteration
        return samples
