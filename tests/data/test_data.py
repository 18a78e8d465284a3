"""Datasets, samplers, collation and the DataLoader; orders are PyTorch's for one seed."""

import itertools
import random
import warnings
from collections import namedtuple

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.utils import data
from graphtorch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset


class Squares(Dataset):
    def __init__(self, size=10):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return index * index


class Count(IterableDataset):
    def __init__(self, size):
        self.size = size

    def __iter__(self):
        info = data.get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(start, self.size, step))

    def __len__(self):
        return self.size


class Failing(Squares):
    def __getitem__(self, index):
        if index == 3:
            raise KeyError("three")
        return index


class Seeds(Squares):
    def __getitem__(self, index):
        return data.get_worker_info().seed, gt.rand(1).item(), random.random(), np.random.rand()


def batches(loader):
    return [b.tolist() for b in loader]


def test_sequential_batches():
    assert batches(DataLoader(Squares(5), batch_size=2)) == [[0, 1], [4, 9], [16]]
    assert batches(DataLoader(Squares(5), batch_size=2, drop_last=True)) == [[0, 1], [4, 9]]
    assert len(DataLoader(Squares(5), batch_size=2)) == 3
    assert len(DataLoader(Squares(5), batch_size=2, drop_last=True)) == 2
    assert list(DataLoader(Squares(3), batch_size=None)) == [0, 1, 4]
    assert batches(DataLoader(Squares(5), batch_sampler=[[0, 1], [2]])) == [[0, 1], [4]]
    assert batches(DataLoader(Squares(5), sampler=[3, 1], batch_size=2)) == [[9, 1]]


@pytest.mark.parametrize("size", [1, 7, 30])
@pytest.mark.parametrize("own_generator", [True, False])
def test_shuffle_is_pytorchs(size, own_generator):
    torch = pytest.importorskip("torch")
    results = []
    for library, loader in ((gt, DataLoader), (torch, torch.utils.data.DataLoader)):
        library.manual_seed(3)
        options = {"generator": library.Generator().manual_seed(7)} if own_generator else {}
        made = loader(Squares(size), batch_size=4, shuffle=True, **options)
        epochs = [[b.tolist() for b in made] for _ in range(3)]
        results.append((epochs, library.rand(2).tolist()))
    assert results[0] == results[1]


def test_samplers_are_pytorchs():
    torch = pytest.importorskip("torch")
    results = []
    for library, d in ((gt, data), (torch, torch.utils.data)):
        library.manual_seed(1)
        samplers = [
            d.SequentialSampler(range(5)),
            d.RandomSampler(range(9)),
            d.RandomSampler(range(9), replacement=True, num_samples=70),
            d.RandomSampler(range(4), num_samples=11),
            d.SubsetRandomSampler([3, 5, 8, 13]),
            d.WeightedRandomSampler([0.1, 0.7, 0.2], 20),
            d.WeightedRandomSampler([0.1, 0.7, 0.2, 3.0], 3, replacement=False),
            d.BatchSampler(d.RandomSampler(range(9)), 4, False),
            d.BatchSampler(range(9), 4, True),
        ]
        results.append([(len(s), list(s)) for s in samplers])
    assert results[0] == results[1]


@pytest.mark.parametrize("lengths", [[3, 5, 2], [0.5, 0.3, 0.2], [0.25, 0.75]])
def test_random_split_is_pytorchs(lengths):
    torch = pytest.importorskip("torch")
    results = []
    for library, d in ((gt, data), (torch, torch.utils.data)):
        library.manual_seed(2)
        results.append([list(s.indices) for s in d.random_split(range(10), lengths)])
        generator = library.Generator().manual_seed(4)
        results[-1] += [list(s.indices) for s in d.random_split(range(10), lengths, generator)]
    assert results[0] == results[1]


def test_random_split_without_reference():
    parts = data.random_split(Squares(10), [0.61, 0.39])
    assert [len(p) for p in parts] == [7, 3]
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        data.random_split(Squares(10), [3, 3])


def test_datasets():
    x, y = gt.arange(6.0).reshape(3, 2), gt.tensor([7, 8, 9])
    pairs = TensorDataset(x, y)
    assert len(pairs) == 3 and pairs[1][0].tolist() == [2, 3] and pairs[1][1].item() == 8
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(x, gt.ones(2))
    subset = data.Subset(Squares(), [4, 2])
    assert len(subset) == 2 and subset[0] == 16 and subset.__getitems__([1, 0]) == [4, 16]
    both = Squares(3) + Squares(4)
    assert len(both) == 7 and both[3] == 0 and both[-1] == 9
    with pytest.raises(ValueError, match="absolute value of index"):
        both[-8]
    assert list(Count(2) + Count(3)) == [0, 1, 0, 1, 2]
    stacked = data.StackDataset(a=Squares(3), b=Squares(3))
    assert stacked[2] == {"a": 4, "b": 4} and len(stacked) == 3
    assert data.StackDataset(Squares(3), Squares(3))[1] == (1, 1)


def test_collate_types():
    Point = namedtuple("Point", ["x", "y"])
    collate = data.default_collate
    assert collate([1, 2]).dtype is gt.int64
    assert collate([1.5, 2]).dtype is gt.float64
    assert collate([True, False]).dtype is gt.bool
    assert collate(["a", "b"]) == ["a", "b"]
    assert collate([np.float32(1), np.float32(2)]).dtype is gt.float32
    assert tuple(collate([np.zeros((2, 3), np.float32)] * 4).shape) == (4, 2, 3)
    assert tuple(collate([gt.zeros(2)] * 3).shape) == (3, 2)
    assert collate([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}])["b"] == ["x", "y"]
    pair = collate([(1, 2.0), (3, 4.0)])
    assert isinstance(pair, list) and pair[0].tolist() == [1, 3] and pair[1].tolist() == [2, 4]
    point = collate([Point(1, 2), Point(3, 4)])
    assert isinstance(point, Point) and point.y.tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal size"):
        collate([[1], [1, 2]])
    with pytest.raises(TypeError, match="batch must contain tensors, numpy arrays, numbers, dicts or lists"):
        collate([object()])
    converted = data.default_convert({"a": np.ones(2), "b": [1, "x"]})
    assert isinstance(converted["a"], gt.Tensor) and converted["b"] == [1, "x"]


def test_iterable_datasets():
    assert batches(DataLoader(Count(5), batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert batches(DataLoader(Count(5), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(3), batch_size=None)) == [0, 1, 2]
    assert len(DataLoader(Count(5), batch_size=2)) == 3
    loader = DataLoader(Count(5))
    loader.dataset.__class__.__len__ = lambda self: 2
    try:
        assert len(loader) == 2
        with pytest.warns(UserWarning, match="was reported to be 2"):
            list(loader)
    finally:
        loader.dataset.__class__.__len__ = lambda self: self.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers option should be non-negative"),
        ({"timeout": -1}, "timeout option should be non-negative"),
        ({"prefetch_factor": 2}, "prefetch_factor option could only be specified in multiprocessing"),
        ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
        ({"sampler": [1], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
        ({"batch_size": 0}, "batch_size should be a positive integer value, but got batch_size=0"),
    ],
)
def test_option_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(Squares(), **options)


def test_more_errors():
    with pytest.raises(ValueError, match="expected unspecified shuffle option, but got shuffle=True"):
        DataLoader(Count(3), shuffle=True)
    loader = DataLoader(Squares())
    with pytest.raises(ValueError, match="batch_size attribute should not be set after DataLoader is initialized"):
        loader.batch_size = 3
    with pytest.raises(ValueError, match="num_samples should be a positive integer value, but got num_samples=0"):
        DataLoader([], shuffle=True)
    with pytest.raises(KeyError, match="three"):
        list(DataLoader(Failing()))


def test_workers_give_the_same_batches_in_order():
    gt.manual_seed(0)
    alone = batches(DataLoader(Squares(23), batch_size=4, shuffle=True))
    gt.manual_seed(0)
    assert batches(DataLoader(Squares(23), batch_size=4, shuffle=True, num_workers=2)) == alone


def test_workers_with_streams_and_failures():
    found = batches(DataLoader(Count(9), batch_size=2, num_workers=2))
    assert sorted(number for batch in found for number in batch) == list(range(9))
    with pytest.raises(KeyError, match="Caught KeyError in DataLoader worker process"):
        list(DataLoader(Failing(), num_workers=2))


def test_persistent_workers_and_early_exit():
    loader = DataLoader(Squares(8), batch_size=2, num_workers=2, persistent_workers=True)
    assert next(iter(loader)).tolist() == [0, 1]
    processes = [p.pid for p in loader._iterator._workers]
    assert batches(loader) == batches(loader) == [[0, 1], [4, 9], [16, 25], [36, 49]]
    assert [p.pid for p in loader._iterator._workers] == processes
    loader._iterator.close()


def test_worker_seeds_are_pytorchs():
    torch = pytest.importorskip("torch")
    gt.manual_seed(5)
    base = gt.empty((), dtype=gt.int64).random_().item()
    gt.manual_seed(5)
    rows = list(DataLoader(Seeds(2), batch_size=None, num_workers=2))
    for worker, (seed, ours, python, numpy) in enumerate(rows):
        assert seed == base + worker
        torch.manual_seed(seed)
        assert ours == torch.rand(1).item()
        assert python == random.Random(seed).random()
        words = torch.utils.data._utils.worker._generate_state(base, worker)
        assert numpy == np.random.RandomState(words).rand()


def test_pin_memory_warns():
    with pytest.warns(UserWarning, match="no accelerator is found"):
        iter(DataLoader(Squares(), pin_memory=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iter(DataLoader(Squares()))


def test_the_package_loads_on_first_use():
    assert gt.utils.data.DataLoader is DataLoader
    assert gt.utils.hooks.RemovableHandle is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        gt.utils.nothing  # noqa: B018


def test_distributed_sampler_is_pytorchs():
    torch = pytest.importorskip("torch")
    for size, replicas, drop, shuffle in itertools.product((10, 11, 3), (1, 2, 4), (False, True), (False, True)):
        for rank in range(replicas):
            found = []
            for library in (torch, gt):
                sampler = library.utils.data.DistributedSampler(range(size), replicas, rank, shuffle, 3, drop)
                sampler.set_epoch(2)
                found.append((list(sampler), len(sampler)))
            assert found[0] == found[1]
    with pytest.raises(ValueError, match="Invalid rank 2"):
        gt.utils.data.DistributedSampler(range(3), 2, 2)
