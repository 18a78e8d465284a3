"""CIFAR-10 and CIFAR-100 in their "python version" form, read without executing anything from the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graphtorch.serialization.arrays import load_arrays
from graphtorch.vision._pillow import from_array
from graphtorch.vision.datasets.utils import check_integrity, download_and_extract_archive
from graphtorch.vision.datasets.vision import Transform, VisionDataset


def read_batch(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of one file; of CIFAR-100, the fine labels.

    Raises pickle.UnpicklingError for a file that holds anything but data, ValueError for data of another form.
    """
    batch = load_arrays(Path(path).read_bytes())
    if not isinstance(batch, dict) or "data" not in batch or not {"labels", "fine_labels"} & batch.keys():
        raise ValueError("not a CIFAR batch: expected a dict with 'data' and 'labels'")
    data = batch["data"]
    labels = np.asarray(batch["labels"] if "labels" in batch else batch["fine_labels"], dtype=np.int64)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (labels.size, 3 * 32 * 32):
        raise ValueError("not a CIFAR batch: expected uint8 data of shape (number of labels, 3072)")
    return data.reshape(-1, 3, 32, 32), labels


class CIFAR10(VisionDataset):
    """60,000 colour images of 32 x 32 in ten classes, 10,000 of them for testing. Samples are (image, label).

    `data` is a uint8 array (N, 32, 32, 3), `targets` a list of ints. Files lie in `root/cifar-10-batches-py`.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    See https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.CIFAR10.html.
    """

    base_folder = "cifar-10-batches-py"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    filename = "cifar-10-python.tar.gz"
    tgz_md5 = "c58f30108f718f92721af3b95e74349a"
    train_list: ClassVar[list[list[str]]] = [
        ["data_batch_1", "c99cafc152244af753f735de768cd75f"],
        ["data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"],
        ["data_batch_3", "54ebc095f3ab1f0389bbae665268c751"],
        ["data_batch_4", "634d18415352ddfa80567beed471001a"],
        ["data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"],
    ]
    test_list: ClassVar[list[list[str]]] = [["test_batch", "40351d587109b95175f43aff81a1287e"]]
    meta: ClassVar[dict[str, str]] = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": "5ff9c542aee3614f3951f8cda6e48888",
    }

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        if download:
            self.download()
        if not self._check_integrity():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        batches = [read_batch(self._path(name)) for name, _ in (self.train_list if train else self.test_list)]
        images = np.concatenate([data for data, _ in batches])
        self.data = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.targets: list[int] = [label for _, labels in batches for label in labels.tolist()]
        if not check_integrity(self._path(self.meta["filename"]), self.meta["md5"]):
            raise RuntimeError("Dataset metadata file not found or corrupted. You can use download=True to download it")
        self.classes: list[str] = load_arrays(Path(self._path(self.meta["filename"])).read_bytes())[self.meta["key"]]
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}

    def _path(self, name: str) -> str:
        return os.path.join(str(self.root), self.base_folder, name)

    def _check_integrity(self) -> bool:
        return all(check_integrity(self._path(name), md5) for name, md5 in self.train_list + self.test_list)

    def download(self) -> None:
        """Download and unpack the archive unless all files are there. Raises RuntimeError if that fails."""
        if not self._check_integrity():
            download_and_extract_archive(self.url, str(self.root), filename=self.filename, md5=self.tgz_md5)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._transformed(from_array(self.data[index]), self.targets[index])

    def __len__(self) -> int:
        return len(self.data)

    def extra_repr(self) -> str:
        """Which split it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class CIFAR100(CIFAR10):
    """CIFAR-10's form with 100 classes; labels are the fine ones."""

    base_folder = "cifar-100-python"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    filename = "cifar-100-python.tar.gz"
    tgz_md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    train_list: ClassVar[list[list[str]]] = [["train", "16019d7e3df5f24257cddd939b257f8d"]]
    test_list: ClassVar[list[list[str]]] = [["test", "f0ef6b0ae62326f3e7ffdfab6717acfc"]]
    meta: ClassVar[dict[str, str]] = {
        "filename": "meta",
        "key": "fine_label_names",
        "md5": "7973b15100ade9c7d40fb424638fde48",
    }
