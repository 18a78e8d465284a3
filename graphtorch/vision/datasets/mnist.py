"""MNIST and the data sets of its form: files of the IDX format, one of images and one of labels a split."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import graphtorch as torch
from graphtorch.vision._pillow import from_array
from graphtorch.vision.datasets.utils import check_integrity, download_and_extract_archive
from graphtorch.vision.datasets.vision import Transform, VisionDataset

_ELEMENTS = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """The array of an IDX file, compressed by gzip or not.

    The format: two zero bytes, a type code, the number of dimensions, each size as a big-endian 32-bit number, data
    (http://yann.lecun.com/exdb/mnist/). Raises ValueError for anything else.
    """
    try:
        data = Path(path).read_bytes()
        if str(path).endswith(".gz"):
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _ELEMENTS or not 1 <= data[3] <= 3:
        raise ValueError(f"{path}: not an IDX file")
    element, rank = np.dtype(_ELEMENTS[data[2]]), data[3]
    start = 4 + 4 * rank
    shape = tuple(int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1))
    if len(data) != start + math.prod(shape) * element.itemsize:
        raise ValueError(f"{path}: {len(data)} bytes can't hold an array of shape {shape} and type {element}")
    return np.frombuffer(data, element, offset=start).reshape(shape).astype(element.newbyteorder("="))


class MNIST(VisionDataset):
    """Handwritten digits: 60,000 images of 28 x 28 for training, 10,000 for testing. Samples are (image, label).

    `data` is a uint8 tensor (N, 28, 28), `targets` int64 (N). Files are searched, unpacked or as .gz, in
    `root/MNIST/raw`, where `download=True` puts them, and in `root` itself.
    Source: LeCun et al., 1998. See https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.MNIST.html.
    """

    mirrors: ClassVar[list[str]] = [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ]
    classes: ClassVar[list[str]] = [
        "0 - zero",
        "1 - one",
        "2 - two",
        "3 - three",
        "4 - four",
        "5 - five",
        "6 - six",
        "7 - seven",
        "8 - eight",
        "9 - nine",
    ]

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
        if not self._check_exists():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        split = "train" if train else "t10k"
        images = read_idx(self._file(f"{split}-images-idx3-ubyte"))
        labels = read_idx(self._file(f"{split}-labels-idx1-ubyte"))
        if images.dtype != np.uint8 or labels.dtype != np.uint8:
            raise TypeError(f"x should be of dtype torch.uint8 instead of {images.dtype} and {labels.dtype}")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(f"images of shape {images.shape} don't go with labels of shape {labels.shape}")
        self.data = torch.from_numpy(images)
        self.targets = torch.from_numpy(labels.astype(np.int64))

    @property
    def raw_folder(self) -> str:
        """Where the files are downloaded to."""
        return os.path.join(str(self.root), type(self).__name__, "raw")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class names and their labels."""
        return {name: i for i, name in enumerate(self.classes)}

    def _file(self, name: str) -> str:
        """The path of a file, or "" where there is none."""
        folders = (self.raw_folder, str(self.root))
        places = (os.path.join(folder, name + end) for folder in folders for end in ("", ".gz"))
        return next((place for place in places if check_integrity(place)), "")

    def _check_exists(self) -> bool:
        return all(self._file(name.removesuffix(".gz")) for name, _ in self.resources)

    def download(self) -> None:
        """Download the files that are not there. Raises RuntimeError if no mirror has them."""
        if self._check_exists():
            return
        for name, md5 in self.resources:
            errors = []
            for mirror in self.mirrors:
                try:
                    download_and_extract_archive(mirror + name, self.raw_folder, filename=name, md5=md5)
                except RuntimeError as error:
                    errors.append(f"Tried {mirror}, got:\n{error}\n")
                else:
                    break
            else:
                raise RuntimeError(f"Error downloading {name}:\n{''.join(errors)}")

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._transformed(from_array(self.data[index].numpy(), "L"), int(self.targets[index]))

    def __len__(self) -> int:
        return len(self.data)

    def extra_repr(self) -> str:
        """Which split it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's form. Source: Xiao et al., 2017 (https://arxiv.org/abs/1708.07747).

    Debian's package dataset-fashion-mnist installs the files: `root="/usr/share/datasets/fashion-mnist"`.
    """

    mirrors: ClassVar[list[str]] = ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ]
    classes: ClassVar[list[str]] = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


class KMNIST(MNIST):
    """Cursive Japanese characters in MNIST's form. Source: Clanuwat et al., 2018 (https://arxiv.org/abs/1812.01718)."""

    mirrors: ClassVar[list[str]] = ["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"]
    resources: ClassVar[list[tuple[str, str]]] = [
        ("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
        ("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
        ("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
        ("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
    ]
    classes: ClassVar[list[str]] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
