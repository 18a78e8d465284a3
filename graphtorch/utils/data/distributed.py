"""The share of a data set that one of several processes loads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

from graphtorch import ops
from graphtorch.tensor.generator import Generator
from graphtorch.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every ``num_replicas``-th index from ``rank`` on, of all indices in one order for all processes.

    The order is shuffled by ``seed`` plus the epoch that :meth:`set_epoch` sets. The last indices are repeated from the
    start, or with ``drop_last`` left out, so that every process gets as many. There are no process groups here: the
    number and the rank are given, or are those of a single process.

    Raises:
        ValueError: the rank is not below the number of processes.

    See https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.num_replicas = 1 if num_replicas is None else num_replicas
        self.rank = 0 if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"Invalid rank {self.rank}, rank should be in the interval [0, {self.num_replicas - 1}]")
        self.dataset, self.shuffle, self.seed, self.drop_last = dataset, shuffle, seed, drop_last
        self.epoch = 0
        count = len(dataset)
        if drop_last and count % self.num_replicas:
            self.num_samples = math.ceil((count - self.num_replicas) / self.num_replicas)
        else:
            self.num_samples = math.ceil(count / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        indices: list[Any] = list(range(len(self.dataset)))
        if self.shuffle:
            order = Generator().manual_seed(self.seed + self.epoch)
            indices = ops.randperm(len(indices), device=order.device, generator=order).tolist()
        if not self.drop_last and indices:
            indices = [indices[i % len(indices)] for i in range(self.total_size)]
        return iter(indices[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Shuffle in another order."""
        self.epoch = epoch
