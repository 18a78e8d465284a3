"""A Dataset with transforms, a DataLoader, samplers and collation."""

import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

torch.manual_seed(0)


class FaceLandmarks(Dataset):
    def __init__(self, count, transform=None):
        self.points = torch.arange(count * 4.0).reshape(count, 2, 2)
        self.transform = transform

    def __len__(self):
        return len(self.points)

    def __getitem__(self, idx):
        if torch.is_tensor(idx):
            idx = idx.tolist()
        sample = {"image": torch.full((3, 3), float(idx)), "landmarks": self.points[idx], "name": f"face{idx}"}
        return self.transform(sample) if self.transform else sample


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, sample):
        return {**sample, "landmarks": sample["landmarks"] * self.factor}


data = FaceLandmarks(7, transform=Scale(0.5))
for i in range(2):
    sample = data[i]
    print(i, sample["image"].size(), sample["landmarks"], sample["name"])
loader = DataLoader(data, batch_size=3, shuffle=True, num_workers=0)
print(len(loader))
for i_batch, batch in enumerate(loader):
    print(i_batch, batch["image"].size(), batch["landmarks"].size(), batch["name"])
    print(batch["landmarks"][:, 0])
xy = TensorDataset(torch.arange(10), torch.arange(10) ** 2)
print(xy[3], len(xy))
train, test = random_split(xy, [0.7, 0.3], generator=torch.Generator().manual_seed(42))
print(len(train), len(test), train.indices, test.indices)
print([x.tolist() for x, _ in DataLoader(train, batch_size=4, drop_last=True)])
print(list(SequentialSampler(range(4))), list(RandomSampler(range(6))))
print(list(BatchSampler(SequentialSampler(range(7)), batch_size=3, drop_last=False)))
print(list(WeightedRandomSampler([0.1, 0.9, 0.4, 0.7], 5, replacement=True)))
print(len(ConcatDataset([xy, train])), ConcatDataset([xy, train])[12], len(Subset(xy, [1, 2])))


class Counter(IterableDataset):
    def __init__(self, start, end):
        self.start, self.end = start, end

    def __iter__(self):
        return iter(range(self.start, self.end))


print(list(DataLoader(Counter(3, 8), batch_size=2)))
print(list(DataLoader([1, 2, 3], collate_fn=lambda items: sum(items), batch_size=2)))
nested = [{"a": (i, torch.tensor([i, i])), "b": [1.5 * i, "t"]} for i in range(2)]
print(next(iter(DataLoader(nested, batch_size=2))))
print(next(iter(DataLoader(xy, batch_size=None))))
g = torch.Generator()
g.manual_seed(5)
print([b.tolist() for b in DataLoader(torch.arange(8), batch_size=3, shuffle=True, generator=g)])
