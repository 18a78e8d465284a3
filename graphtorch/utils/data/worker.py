"""Worker processes of a DataLoader: what runs in them and what passes between them and the loader."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.tensor.generator import default_generator
from graphtorch.utils.data.fetch import Fetcher

__all__ = ["WorkerInfo", "get_worker_info"]


@dataclass(frozen=True)
class WorkerInfo:
    """What a dataset may ask about the worker process that it runs in.

    ``id`` counts from 0 to ``num_workers - 1``; ``seed`` is this worker's own; ``dataset`` is its copy of the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The WorkerInfo of this process; None in the main process."""
    return _worker_info


@dataclass(frozen=True)
class Failure:
    """An exception on its way from a worker to the loader."""

    kind: type[BaseException]
    text: str

    def reraise(self) -> None:
        """Raise it here, with the worker's traceback in the message."""
        try:
            error = self.kind(self.text)
        except TypeError:  # an exception class that takes other arguments
            error = RuntimeError(self.text)
        raise error


@dataclass(frozen=True)
class Exhausted:
    """A worker's stream of samples has ended."""

    worker_id: int


class Restart:
    """Tells a persistent worker that a new epoch begins."""


def run(
    make_fetcher: Callable[[], Fetcher],
    dataset: Any,
    tasks: Any,
    results: Any,
    base_seed: int,
    init_fn: Callable[[int], None] | None,
    worker_id: int,
    num_workers: int,
) -> None:
    """The loop of a worker: take (number, indices) from ``tasks``, put (number, batch) into ``results``.

    None ends it. Errors travel to the loader as a Failure.
    """
    global _worker_info
    seed = base_seed + worker_id
    random.seed(seed)
    default_generator.manual_seed(seed)
    np.random.seed(numpy_seed(base_seed, worker_id))
    _worker_info = WorkerInfo(worker_id, num_workers, seed, dataset)
    fetcher: Fetcher | None = None
    problem: Failure | None = None
    try:
        if init_fn is not None:
            init_fn(worker_id)
        fetcher = make_fetcher()
    except Exception as error:
        problem = _failure(error, worker_id)
    while True:
        task = tasks.get()
        if task is None:
            return
        if isinstance(task, Restart):
            fetcher = make_fetcher()
            continue
        number, indices = task
        if problem is not None or fetcher is None:
            results.put((number, problem))
            continue
        try:
            batch = fetcher.fetch(indices)
        except StopIteration:
            results.put((number, Exhausted(worker_id)))
        except Exception as error:
            results.put((number, _failure(error, worker_id)))
        else:
            results.put((number, batch))


def _failure(error: Exception, worker_id: int) -> Failure:
    return Failure(
        type(error),
        f"Caught {type(error).__name__} in DataLoader worker process {worker_id}.\n{traceback.format_exc()}",
    )


def numpy_seed(base_seed: int, worker_id: int) -> Any:
    """The state with which PyTorch seeds NumPy's global generator in a worker."""
    words = [worker_id, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    return np.random.SeedSequence(words).generate_state(4)
