"""Data sets: files of each form read, refused, downloaded, resumed; nothing of a file is executed."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from graphtorch.serialization.arrays import load_arrays
from graphtorch.vision import datasets, transforms
from graphtorch.vision.datasets import utils
from graphtorch.vision.datasets.cifar import read_batch
from graphtorch.vision.datasets.mnist import read_idx

Image = pytest.importorskip("PIL.Image")


def idx(array):
    """A file of the format's description."""
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = struct.pack(">HBB", 0, codes[array.dtype.str[1:]], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, pack=lambda data: data, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 6), ("t10k", 4)):
        arrays[split] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count).astype(np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[split]):
            (folder / f"{split}-{kind}-ubyte{end}").write_bytes(pack(idx(array)))
    return arrays


# -- MNIST ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_files(tmp_path, dtype):
    array = (np.arange(24).reshape(2, 3, 4) - 5).astype(dtype)
    (tmp_path / "x").write_bytes(idx(array))
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("x", "x.gz"):
        found = read_idx(tmp_path / name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\0\1\x08\x01\0\0\0\1a",
        idx(np.zeros(3, np.uint8))[:-1],
        idx(np.zeros(3, np.uint8)) + b"x",
        b"\0\0\x08\x03" + b"\xff" * 12 + b"a",
        b"\0\0\x07\x01\0\0\0\1a",
        b"\0\0\x08\x09" + b"\0" * 40,
    ],
)
def test_what_is_no_idx_file(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=r"not an IDX file|can't hold an array"):
        read_idx(tmp_path / "x")
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz")


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_and_its_kind(tmp_path, name):
    arrays = write_mnist(tmp_path / name / "raw")
    data_set = getattr(datasets, name)(tmp_path, train=False, transform=transforms.ToTensor(), target_transform=str)
    images, labels = arrays["t10k"]
    assert len(data_set) == 4 and len(data_set.classes) == 10 and len(data_set.class_to_idx) == 10
    image, label = data_set[3]
    np.testing.assert_allclose(image.numpy(), images[3:] / np.float32(255))
    assert label == str(labels[3])
    assert len(getattr(datasets, name)(tmp_path)) == 6


def test_mnist_is_described_as_torchvision_does(torchvision, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    options = {"transform": transforms.Compose([transforms.ToTensor()]), "target_transform": len}
    ours, theirs = (library(str(tmp_path), **options) for library in (datasets.MNIST, torchvision.datasets.MNIST))
    assert repr(ours) == repr(theirs)
    assert ours.data.tolist() == theirs.data.tolist() and ours.targets.tolist() == theirs.targets.tolist()
    assert ours.mirrors[0] == theirs.mirrors[0]


def test_facts_about_files_are_torchvisions(torchvision):
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        ours, theirs = getattr(datasets, name), getattr(torchvision.datasets, name)
        assert ours.resources == theirs.resources and ours.classes == theirs.classes
    for name in ("CIFAR10", "CIFAR100"):
        ours, theirs = getattr(datasets, name), getattr(torchvision.datasets, name)
        for fact in ("base_folder", "url", "filename", "tgz_md5", "train_list", "test_list", "meta"):
            assert getattr(ours, fact) == getattr(theirs, fact)


def test_compressed_files_beside_the_root_are_read(tmp_path):
    write_mnist(tmp_path, gzip.compress, ".gz")
    image, _ = datasets.FashionMNIST(tmp_path)[0]
    assert image.mode == "L" and image.size == (28, 28)


def test_missing_and_unfitting_files(tmp_path):
    with pytest.raises(RuntimeError, match=r"Dataset not found\. You can use download=True"):
        datasets.MNIST(tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(ValueError, match=r"images of shape \(6, 28, 28\) don't go with labels of shape \(5,\)"):
        datasets.MNIST(tmp_path)


# -- CIFAR ------------------------------------------------------------------------------------------------------------


def write_cifar(cls, root, monkeypatch):
    """A small data set of the class's form; its checksums take the place of the published ones."""
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    key = "labels" if cls is datasets.CIFAR10 else "fine_labels"
    written = {}

    def write(name, content):
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    for attribute in ("train_list", "test_list"):
        listed = []
        for name, _ in getattr(cls, attribute):
            labels = rng.integers(0, 10, 4).tolist()
            written[name] = rng.integers(0, 256, (4, 3072), dtype=np.uint8), labels
            listed.append(write(name, {"data": written[name][0], key: labels, "filenames": ["a"] * 4}))
        monkeypatch.setattr(cls, attribute, listed)
    names = write(cls.meta["filename"], {cls.meta["key"]: [f"class {i}" for i in range(10)], "num_vis": 3072})
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": names[1]})
    return written


@pytest.mark.parametrize("cls", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar(cls, tmp_path, monkeypatch):
    written = write_cifar(cls, tmp_path, monkeypatch)
    data_set = cls(tmp_path)
    assert len(data_set) == 4 * len(cls.train_list)
    assert data_set.targets[:4] == next(iter(written.values()))[1]
    image, _ = data_set[1]
    np.testing.assert_array_equal(
        np.asarray(image), next(iter(written.values()))[0][1].reshape(3, 32, 32).transpose(1, 2, 0)
    )
    test_images, test_labels = written[cls.test_list[0][0]]
    test_set = cls(tmp_path, train=False, transform=transforms.ToTensor())
    assert [label for _, label in (test_set[i] for i in range(4))] == test_labels
    np.testing.assert_allclose(test_set[2][0].numpy().reshape(-1), test_images[2] / np.float32(255))
    assert data_set.classes[3] == "class 3" and data_set.class_to_idx["class 3"] == 3
    assert "Split: Test" in repr(test_set)


def test_damaged_cifar_is_refused(tmp_path, monkeypatch):
    write_cifar(datasets.CIFAR10, tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="Dataset not found or corrupted"):
        datasets.CIFAR10(tmp_path)


def python2_pickle(array):
    """The opcodes that Python 2 and NumPy 1 wrote the published batches with."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    data = array.tobytes()
    return b"".join(
        [
            b"\x80\x02}(" + short(b"data") + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85",
            short(b"b") + b"tR(K\x01M" + struct.pack("<H", array.shape[0]) + b"M" + struct.pack("<H", array.shape[1]),
            b"\x86cnumpy\ndtype\n(" + short(b"u1") + b"K\x00K\x01tR(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xff",
            b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(data)) + data + b"tb",
            short(b"labels") + b"](" + b"K\x03" * array.shape[0] + b"eu.",
        ]
    )


def test_pickles_of_python_2(tmp_path):
    array = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    data = python2_pickle(array)
    assert pickle.loads(data, encoding="latin1")["data"].tolist() == array.tolist(), "the test's own bytes"
    (tmp_path / "batch").write_bytes(data)
    images, labels = read_batch(tmp_path / "batch")
    np.testing.assert_array_equal(images, array.reshape(2, 3, 32, 32))
    assert labels.tolist() == [3, 3]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_any_layout_and_type(protocol):
    content = {
        "floats": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "list": ["a", b"b", 3, 2.5, None, np.arange(2)],
    }
    found = load_arrays(pickle.dumps(content, protocol=protocol))
    for key in ("floats", "columns", "big"):
        np.testing.assert_array_equal(found[key], content[key])
        assert found[key].dtype == content[key].dtype.newbyteorder("=")
    assert found["list"][:5] == ["a", "b", 3, 2.5, None] and found["list"][5].tolist() == [0, 1]


class Executes:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_hostile_pickles(tmp_path):
    import os

    marker = tmp_path / "marker"
    with pytest.raises(pickle.UnpicklingError, match=r"refused to load \S+ from a data file"):
        load_arrays(pickle.dumps({"data": Executes(os.mkdir, str(marker))}, protocol=2))
    assert not marker.exists()
    array = np.zeros((2, 3072), np.uint8)
    good = python2_pickle(array)
    for change in (
        lambda d: d.replace(b"U\x02u1", b"U\x02O8"),  # an array of Python objects
        lambda d: d.replace(b"M\x00\x0c\x86", b"M\xff\xff\x86"),  # a shape that the bytes don't fill
        lambda d: d.replace(b"K\x00\x85U\x01btR(", b"K\x00\x85U\x01btR("[:-1] + b"K\x01b("),  # a state that is no tuple
        lambda d: d.replace(b"cnumpy\ndtype\n(", b"cnumpy\nfromfile\n("),
        lambda d: d[: len(d) // 2],
        lambda d: b"cnumpy\nndarray\n.",
        lambda d: b"cnumpy\ndtype\n(U\x02u1tR.",
    ):
        changed = change(good)
        assert changed != good
        with pytest.raises(pickle.UnpicklingError):
            load_arrays(changed)


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def image_folder(tmp_path):
    for name, colours in (("cat", 2), ("dog", 3), ("eel/deep", 1)):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i in range(colours):
            Image.new("L", (4, 3), 40 * i).save(folder / f"{i}.PNG", format="png")
        (folder / "notes.txt").write_text("no image")
    return tmp_path / "images"


def test_image_folder(torchvision, image_folder):
    ours, theirs = datasets.ImageFolder(image_folder), torchvision.datasets.ImageFolder(str(image_folder))
    assert ours.samples == theirs.samples and ours.imgs == ours.samples
    assert ours.classes == theirs.classes and ours.class_to_idx == theirs.class_to_idx
    assert ours.targets == theirs.targets and len(ours) == 6
    for (image, label), (expected, expected_label) in zip((ours[i] for i in range(6)), theirs):
        assert image.mode == "RGB" and label == expected_label
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_folders_without_files(image_folder, tmp_path):
    (image_folder / "fish").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"Found no valid file for the classes fish\. Supported extensions are: \.jpg"
    ):
        datasets.ImageFolder(image_folder)
    assert len(datasets.ImageFolder(image_folder, allow_empty=True)) == 6
    text = datasets.DatasetFolder(
        image_folder, loader=len, is_valid_file=lambda path: path.endswith(".txt"), allow_empty=True
    )
    assert len(text) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Couldn't find any class folder"):
        datasets.ImageFolder(tmp_path / "empty")
    with pytest.raises(ValueError, match="cannot be None or not None at the same time"):
        datasets.DatasetFolder(image_folder, loader=len)


def test_fake_data(torchvision):
    pytest.importorskip("torch")
    ours = datasets.FakeData(5, (3, 4, 6), transform=transforms.ToTensor())
    theirs = torchvision.datasets.FakeData(5, (3, 4, 6), transform=torchvision.transforms.ToTensor())
    for i in range(5):
        assert ours[i][1] == theirs[i][1]
        np.testing.assert_allclose(ours[i][0].numpy(), theirs[i][0].numpy())
    with pytest.raises(IndexError):
        ours[5]


def test_one_way_to_give_transforms():
    with pytest.raises(ValueError, match="Only transforms or transform/target_transform"):
        datasets.VisionDataset("x", transforms=lambda a, b: (a, b), transform=str)


# -- downloads --------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 700
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves CONTENT: whole or from an offset, and under /cut only its first half though it announces all."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            asked.append((self.path, wanted))
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and "norange" not in self.path else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path.startswith("/cut") else body)

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", asked
    running.shutdown()
    running.server_close()


def test_download_is_checked_and_not_repeated(server, tmp_path):
    url, asked = server
    utils.download_url(f"{url}/file.bin", tmp_path / "new" / "folder", md5=MD5)
    assert (tmp_path / "new" / "folder" / "file.bin").read_bytes() == CONTENT
    utils.download_url(f"{url}/file.bin", tmp_path / "new" / "folder", md5=MD5)
    assert len(asked) == 1


def test_interrupted_download_resumes(server, tmp_path):
    url, asked = server
    with pytest.raises(RuntimeError, match="the connection ended after"):
        utils.download_url(f"{url}/cut", tmp_path, "file.bin", MD5)
    part = tmp_path / "file.bin.part"
    assert not (tmp_path / "file.bin").exists() and part.stat().st_size == len(CONTENT) // 2
    utils.download_url(f"{url}/file.bin", tmp_path, "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and not part.exists()
    assert asked[-1] == ("/file.bin", f"bytes={len(CONTENT) // 2}-")


def test_resuming_where_the_server_starts_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:100])
    utils.download_url(f"{server[0]}/norange", tmp_path, "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_complete_part_needs_no_more_bytes(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    utils.download_url(f"{server[0]}/file.bin", tmp_path, "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(RuntimeError, match=rf"File not found or corrupted.*has the MD5 {MD5}, expected 0000"):
        utils.download_url(f"{server[0]}/file.bin", tmp_path, md5="0000")
    assert not list(tmp_path.iterdir())


def test_offline_says_what_to_do(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"could not download http://127\.0\.0\.1:9/x: .*put the file at .*x \(MD5 ab\)"
    ):
        utils.download_url("http://127.0.0.1:9/x", tmp_path, md5="ab")


def test_server_error_is_named(server, tmp_path):
    with pytest.raises(RuntimeError, match="Not Found"):
        utils.download_url(f"{server[0]}/missing", tmp_path)


def test_mnist_tries_each_mirror(server, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server[0]}/missing/", "http://127.0.0.1:9/"])
    with pytest.raises(
        RuntimeError, match=r"(?s)Error downloading train-images.*missing/, got:.*127\.0\.0\.1:9/, got:"
    ):
        datasets.MNIST(tmp_path, download=True)


def test_mnist_downloads(tmp_path, monkeypatch):
    """Through file URLs, which urllib opens too."""
    write_mnist(tmp_path / "served", gzip.compress, ".gz")
    resources = [
        (name, hashlib.md5((tmp_path / "served" / name).read_bytes()).hexdigest())
        for name, _ in datasets.MNIST.resources
    ]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "served").as_uri() + "/"])
    assert len(datasets.MNIST(tmp_path / "root", download=True)) == 6
    assert (tmp_path / "root" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").is_file()


def test_archives(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("inner/file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("inner/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("other/file", "abc")
    utils.extract_archive(tmp_path / "a.tar.gz", tmp_path / "out")
    utils.extract_archive(tmp_path / "b.zip", tmp_path / "out", remove_finished=True)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()) == [
        "inner/file",
        "other/file",
    ]
    assert not (tmp_path / "out" / "inner" / "link").is_symlink() and not (tmp_path / "b.zip").exists()
    with pytest.raises(RuntimeError, match=r"not a \.tar"):
        utils.extract_archive(tmp_path / "c.rar")


def test_archive_members_stay_in_the_folder(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("../escaped")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(RuntimeError, match="lies outside the folder"):
        utils.extract_archive(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "escaped").exists()
