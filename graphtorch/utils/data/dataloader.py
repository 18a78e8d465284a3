"""DataLoader: iterates over a dataset in batches, in this process or with worker processes."""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import queue
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.utils.data import worker
from graphtorch.utils.data.collate import default_collate, default_convert
from graphtorch.utils.data.dataset import IterableDataset
from graphtorch.utils.data.fetch import Fetcher
from graphtorch.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed
from graphtorch.utils.data.worker import get_worker_info

__all__ = ["DataLoader", "get_worker_info"]

# How long to wait for a batch before looking whether all workers are alive, in seconds.
_LIVENESS_INTERVAL = 5.0


class _Endless(Sampler[None]):
    """The sampler of a stream, which has no indices."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class DataLoader:
    """Iterates over a dataset in batches.

    Args:
        dataset: a Dataset, or an IterableDataset, which gives its own order.
        batch_size: samples a batch; None gives single samples.
        shuffle: random order, anew in each epoch.
        sampler: the order of indices, in place of ``shuffle``.
        batch_sampler: lists of indices, in place of ``batch_size``, ``shuffle``, ``sampler`` and ``drop_last``.
        num_workers: processes that load; 0 loads in this one.
        collate_fn: makes a batch of a list of samples. Default: :func:`default_collate`.
        drop_last: leave out a last batch that is not full.
        timeout: seconds to wait for a batch from the workers; 0 waits for ever.
        worker_init_fn: called with the worker's number in each worker.
        generator: source of the random order and of the workers' seeds.
        prefetch_factor: batches each worker loads ahead. Default: 2.
        persistent_workers: keep the workers for the next epoch.
        in_order: give the batches of the workers in the sampler's order.

    Raises:
        ValueError: options contradict each other.

    See https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
    """

    _initialized = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.iterable = isinstance(dataset, IterableDataset)
        _check_sampling_options(self.iterable, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size = None
        if sampler is None:
            if self.iterable:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)
            else:
                sampler = SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self._promised_length: int | None = None
        self._iterator: _WorkerIterator | None = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        frozen = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
        if self._initialized and name in frozen:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def _make_fetcher(self) -> Callable[[], Fetcher]:
        return functools.partial(
            Fetcher, self.dataset, self.iterable, self.batch_sampler is not None, self.collate_fn, self.drop_last
        )

    def _indices(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[Any]:
        note = getattr(state.recorder, "note_effect", None)
        if note is not None:
            note("iterates over a DataLoader")
        if self.pin_memory and not is_available():
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be "
                "used.",
                stacklevel=2,
            )
        if self.num_workers == 0:
            return _LocalIterator(self)
        if not self.persistent_workers:
            return _WorkerIterator(self)
        if self._iterator is None:
            self._iterator = _WorkerIterator(self)
        else:
            self._iterator.restart(self)
        return self._iterator

    def __len__(self) -> int:
        if not self.iterable:
            return len(self._indices())
        length = self._promised_length = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else math.ceil(length / self.batch_size)


class _LoaderIterator:
    """One pass over the data. The draw of ``base_seed`` at its start is part of what a seed means."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._start(loader)
        self._base_seed = draw_seed(loader.generator)

    def _start(self, loader: DataLoader) -> None:
        self._index_iterator = iter(loader._indices())
        self._yielded = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._loader._indices())

    def _next(self) -> Any:
        raise NotImplementedError

    def __next__(self) -> Any:
        batch = self._next()
        if self._loader.pin_memory and is_available():
            batch = _pinned(batch)
        self._yielded += 1
        promised = self._loader._promised_length
        if self._loader.iterable and promised is not None and self._yielded > promised:
            warnings.warn(
                f"Length of IterableDataset {self._loader.dataset} was reported to be {promised}"
                f"(when accessing len(dataloader)), but {self._yielded} samples have been fetched. ",
                stacklevel=2,
            )
        return batch


class _LocalIterator(_LoaderIterator):
    """Loads in this process."""

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(loader)
        self._fetcher = loader._make_fetcher()()

    def _next(self) -> Any:
        return self._fetcher.fetch(next(self._index_iterator))


class _WorkerIterator(_LoaderIterator):
    """Loads with worker processes.

    Tasks are numbered and dealt out to the workers in turn; results are given back in the order of the numbers (or as
    they come, without ``in_order``).
    """

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(loader)
        context = loader.multiprocessing_context
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context)
        self._closed = False
        self._results = context.Queue()
        self._tasks: list[Any] = []
        self._workers: list[Any] = []
        for number in range(loader.num_workers):
            tasks = context.Queue()
            tasks.cancel_join_thread()
            process = context.Process(
                target=worker.run,
                args=(
                    loader._make_fetcher(),
                    loader.dataset,
                    tasks,
                    self._results,
                    self._base_seed,
                    loader.worker_init_fn,
                    number,
                    loader.num_workers,
                ),
                daemon=True,
            )
            process.start()
            self._tasks.append(tasks)
            self._workers.append(process)
        self._fill()

    def restart(self, loader: DataLoader) -> None:
        """Begin another epoch with the same workers."""
        while self._owner:  # results of an epoch that was left early
            number, _ = self._receive()
            self._owner.pop(number)
        self._start(loader)
        for tasks in self._tasks:
            tasks.put(worker.Restart())
        self._fill()

    def _fill(self) -> None:
        self._sent = 0
        self._wanted = 0
        self._owner: dict[int, int] = {}  # tasks under way, and who works on them
        self._arrived: dict[int, Any] = {}
        self._turns = itertools.cycle(range(len(self._workers)))
        self._ended: set[int] = set()
        assert self._loader.prefetch_factor is not None
        for _ in range(self._loader.prefetch_factor * len(self._workers)):
            self._send()

    def _send(self) -> None:
        """Give the next indices to the next worker whose stream has not ended."""
        number = next((n for n in itertools.islice(self._turns, len(self._workers)) if n not in self._ended), None)
        if number is None:
            return
        try:
            indices = next(self._index_iterator)
        except StopIteration:
            return
        self._owner[self._sent] = number
        self._tasks[number].put((self._sent, indices))
        self._sent += 1

    def _receive(self) -> tuple[int, Any]:
        timeout = self._loader.timeout
        deadline = time.monotonic() + timeout if timeout > 0 else math.inf
        while True:
            try:
                wait = min(_LIVENESS_INTERVAL, max(deadline - time.monotonic(), 0.0))
                result: tuple[int, Any] = self._results.get(timeout=wait)
                return result
            except queue.Empty:
                dead = [process.pid for process in self._workers if not process.is_alive()]
                if dead:
                    self.close()
                    pids = ", ".join(str(pid) for pid in dead)
                    raise RuntimeError(f"DataLoader worker (pid(s) {pids}) exited unexpectedly") from None
                if time.monotonic() >= deadline:
                    raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None

    def _next(self) -> Any:
        while self._owner or self._arrived:
            if self._wanted in self._arrived:
                data = self._arrived.pop(self._wanted)
                self._wanted += 1
            elif self._arrived and not self._loader.in_order:
                data = self._arrived.pop(next(iter(self._arrived)))
            else:
                number, data = self._receive()
                owner = self._owner.pop(number)
                if isinstance(data, worker.Exhausted):
                    self._ended.add(owner)
                self._arrived[number] = data
                continue
            self._send()
            if isinstance(data, worker.Exhausted):
                continue
            if isinstance(data, worker.Failure):
                data.reraise()
            return data
        if not self._loader.persistent_workers:
            self.close()
        raise StopIteration

    def close(self) -> None:
        """End the workers."""
        if self._closed:
            return
        self._closed = True
        for tasks in self._tasks:
            tasks.put(None)
        for process in self._workers:
            process.join(timeout=_LIVENESS_INTERVAL)
            if process.is_alive():
                process.terminate()
        for channel in (*self._tasks, self._results):
            channel.cancel_join_thread()
            channel.close()

    def __del__(self) -> None:
        if getattr(self, "_workers", None):
            self.close()


def _check_worker_options(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing."
            "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def is_available() -> bool:
    """Whether there is a device for which memory could be page-locked."""
    from graphtorch.runtime.cuda import devices  # loaded where somebody wants pinned memory

    return devices.count() > 0


def _pinned(batch: Any) -> Any:
    """A batch with its tensors in page-locked memory; objects with a `pin_memory` of their own are asked for it."""
    if hasattr(batch, "pin_memory"):
        return batch.pin_memory()
    if isinstance(batch, Mapping):
        moved = {key: _pinned(value) for key, value in batch.items()}
        return moved if type(batch) is dict else type(batch)(moved)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_pinned, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(_pinned, batch))
    return batch


def _check_sampling_options(
    iterable: bool, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    if iterable:
        if shuffle not in {False, None}:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
            )
        for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
            if value is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
                )
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
    elif batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
