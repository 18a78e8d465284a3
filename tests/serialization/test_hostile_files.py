"""Files that mean harm or are broken: `load` refuses them with a clear error and runs nothing of theirs."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch

ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError)


def checkpoint(
    pickled: bytes, records: dict[str, bytes] | None = None, root: str = "archive", **how: Any
) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **(records or {})}.items():
            archive.writestr(f"{root}/{name}", data)
    file.seek(0)
    return file


class Runs:
    """Pickles to a call of any function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", ["os.system", "eval", "open", "getattr", "print"])
def test_no_function_outside_the_list_runs(call: str, protocol: int, tmp_path: Path) -> None:
    import os

    marker = tmp_path / "ran"
    harm = {
        "os.system": Runs(os.system, f"touch {marker}"),
        "eval": Runs(eval, f"open({str(marker)!r}, 'w')"),
        "open": Runs(open, str(marker), "w"),
        "getattr": Runs(getattr, "text", "encode"),
        "print": Runs(print, "ran"),
    }[call]
    for weights_only in (True, None):
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            graphtorch.load(checkpoint(pickle.dumps([harm], protocol)), weights_only=weights_only)
    assert not marker.exists()


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


STORAGE = b"(" + text("storage") + global_("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"
HOOKS = global_("collections", "OrderedDict") + b")R"


def tensor(
    offset: bytes = b"K\0", size: bytes = b"K\x04\x85", stride: bytes = b"K\1\x85", storage: bytes = STORAGE
) -> bytes:
    arguments = b"(" + storage + offset + size + stride + b"\x89" + HOOKS + b"t"
    return b"\x80\2" + global_("torch._utils", "_rebuild_tensor_v2") + arguments + b"R."


def test_the_builder_of_these_files_makes_a_sound_one() -> None:
    assert graphtorch.load(checkpoint(tensor(), {"data/0": bytes(16)})).tolist() == [0.0] * 4


HUGE = b"\x8a\x09" + (2**63 + 5).to_bytes(9, "little")
LARGE = b"\x8a\x08" + (2**62).to_bytes(8, "little")
PICKLES = {
    "empty": b"",
    "only stop": b"\x80\2.",
    "no stop": b"\x80\2N",
    "two values": b"\x80\2NN.",
    "mark at the end": b"\x80\2(.",
    "pop from empty": b"\x80\2R.",
    "future protocol": b"\x80\x09N.",
    "unknown opcode": b"\x80\2\xff.",
    "extension": b"\x80\2\x82\1.",
    "instance": b"\x80\2(ios\nsystem\n.",
    "object": b"\x80\2(cos\nsystem\no.",
    "new object": b"\x80\2" + global_("torch", "Tensor") + b")\x81.",
    "text persistent id": b"\x80\2P0\n.",
    "missing memo": b"\x80\2h\7.",
    "short string": b"\x80\2X\xff\xff\xff\xff..",
    "long bytes": b"\x80\5\x8e" + b"\xff" * 8 + b".",
    "long bytearray": b"\x80\5\x96" + b"\xff" * 8 + b".",
    "negative long": b"\x80\2\x8b\xff\xff\xff\xff.",
    "global without a line end": b"\x80\2ctorch",
    "bad utf-8": b"\x80\2X\1\0\0\0\xff.",
    "append to a tuple": b"\x80\2)Na.",
    "item of a list": b"\x80\2]NNs.",
    "unhashable key": b"\x80\2}]Ns.",
    "odd items": b"\x80\2}(Nu.",
    "key nested deeply": b"\x80\2}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "build of a dict": b"\x80\2}}b.",
    "attributes of an OrderedDict": b"\x80\2" + HOOKS + b"}" + text("update") + b"Nsb.",
    "call of a dtype": b"\x80\2" + global_("torch", "float32") + b")R.",
    "call of a class": b"\x80\2" + global_("torch", "Tensor") + b"K\3\x85R.",
    "call of a value": b"\x80\2K\1)R.",
    "call without a tuple": b"\x80\2" + global_("torch", "Size") + b"]R.",
    "bare class": b"\x80\2" + global_("torch", "FloatStorage") + b".",
    "dotted name": b"\x80\4" + text("torch._utils") + text("sys.modules") + b"\x93.",
    "name that is no string": b"\x80\4NN\x93.",
    "bytearray of a size": b"\x80\2" + global_("__builtin__", "bytearray") + LARGE + b"\x85R.",
    "bytes by another codec": b"\x80\2" + global_("_codecs", "encode") + text("a") + text("zip") + b"\x86R.",
    "complex from text": b"\x80\2" + global_("__builtin__", "complex") + text("1") + b"\x85R.",
    "set of itself": b"\x80\2" + global_("__builtin__", "set") + b"K\1\x85R.",
    "factory that runs": b"\x80\2" + global_("collections", "defaultdict") + global_("torch", "Size") + b"\x85R.",
    "size of text": b"\x80\2" + global_("torch", "Size") + text("a") + b"\x85\x85R.",
    "unknown device": b"\x80\2" + global_("torch", "device") + text("toaster") + b"\x85R.",
    "sparse layout": b"\x80\2" + global_("torch.serialization", "_get_layout") + text("torch.sparse_coo") + b"\x85R.",
    "numpy": b"\x80\2" + global_("numpy._core.multiarray", "_reconstruct") + b".",
    "persistent id of text": b"\x80\2" + text("0") + b"Q.",
    "persistent module": b"\x80\2(" + text("module") + b"NNNNtQ.",
    "storage of no class": b"\x80\2(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\4tQ.",
    "storage elsewhere": b"\x80\2" + STORAGE.replace(b"\1\0\0\0" + b"0", b"\5\0\0\0../.."[:9]) + b".",
    "storage too long": tensor(storage=STORAGE.replace(b"K\4", LARGE)),
    "storage too short": tensor(storage=STORAGE.replace(b"K\4", b"K\2")),
    "storage negative": tensor(storage=STORAGE.replace(b"K\4", b"J\xff\xff\xff\xff")),
    "storage of a missing record": tensor(storage=STORAGE.replace(text("0"), text("1"))),
    "offset beyond": tensor(offset=b"K\1"),
    "offset negative": tensor(offset=b"J\xff\xff\xff\xff"),
    "offset huge": tensor(offset=HUGE),
    "size beyond": tensor(size=b"K\5\x85"),
    "size negative": tensor(size=b"J\xff\xff\xff\xff\x85"),
    "size huge": tensor(size=LARGE + b"\x85"),
    "size overflows": tensor(size=LARGE + LARGE + b"\x86", stride=b"K\0K\0\x86"),
    "size of a bool": tensor(size=b"\x88\x85"),
    "stride beyond": tensor(stride=b"K\2\x85"),
    "stride negative": tensor(stride=b"J\xff\xff\xff\xff\x85"),
    "stride huge": tensor(stride=LARGE + b"\x85"),
    "strides of another rank": tensor(stride=b"K\1K\1\x86"),
    "seventy dimensions": tensor(size=b"(" + b"K\1" * 70 + b"t", stride=b"(" + b"K\1" * 70 + b"t"),
    "hooks": tensor().replace(HOOKS, b"}K\1K\1s"),
    "tensor over a tensor": tensor(storage=b"N"),
    "attribute of the class": b"\x80\2"
    + global_("torch._tensor", "_rebuild_from_type_v2")
    + b"("
    + global_("torch._utils", "_rebuild_tensor_v2")
    + global_("torch", "Tensor")
    + b"("
    + STORAGE
    + b"K\0K\4\x85K\1\x85\x89"
    + HOOKS
    + b"t}"
    + text("_data")
    + b"NstR.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_bad_pickles(name: str) -> None:
    with pytest.raises(ERRORS) as caught:
        graphtorch.load(checkpoint(PICKLES[name], {"data/0": bytes(16)}))
    assert "Weights only load failed" in str(caught.value) or "there is no record" in str(caught.value)


def sound() -> bytes:
    file = io.BytesIO()
    value = {
        "a": graphtorch.arange(6.0).reshape(2, 3),
        "b": [1, (2.5, "x")],
        "p": graphtorch.nn.Parameter(graphtorch.ones(2)),
    }
    graphtorch.save(value, file)
    return file.getvalue()


def test_truncated_files() -> None:
    whole = sound()
    for length in range(0, len(whole) - 1, 37):
        with pytest.raises(ERRORS):
            graphtorch.load(io.BytesIO(whole[:length]))


def test_changed_bytes_are_refused_or_harmless() -> None:
    """Bytes of the archive change: its checksums or the checks of its structure notice what matters."""
    whole = sound()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        changed = bytearray(whole)
        for at in random.integers(0, len(whole), random.integers(1, 4)):
            changed[at] = random.integers(0, 256)
        try:
            graphtorch.load(io.BytesIO(bytes(changed)))
        except ERRORS:
            refused += 1
    assert refused > 100


def test_changed_pickles_are_refused_or_harmless() -> None:
    """Bytes of the pickle change under a right checksum: only the reader's own errors come out."""
    with zipfile.ZipFile(io.BytesIO(sound())) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    pickled = records.pop("data.pkl")
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(3000):
        changed = bytearray(pickled)
        for at in random.integers(0, len(pickled), random.integers(1, 4)):
            changed[at] = random.integers(0, 256)
        try:
            graphtorch.load(checkpoint(bytes(changed), records))
        except ERRORS:
            refused += 1
    assert refused > 1000


def test_archives_of_another_kind(tmp_path: Path) -> None:
    for name, data in {
        "text": b"hello, I am no checkpoint",
        "numpy": b"\x93NUMPY",
        "pickle": pickle.dumps([1]),
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(pickle.UnpicklingError, match="not a ZIP archive"):
            graphtorch.load(path)
    with pytest.raises(EOFError, match="Ran out of input"):
        graphtorch.load(io.BytesIO())
    with pytest.raises(FileNotFoundError):
        graphtorch.load(tmp_path / "missing")
    with pytest.raises(AttributeError, match="seekable"):
        graphtorch.load(object())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="explicit pickle_module"):
        graphtorch.load(io.BytesIO(sound()), pickle_module=pickle)
    with pytest.raises(RuntimeError, match=r"data\.pkl"):
        graphtorch.load(checkpoint(b"N.", root="a/b"))
    with pytest.raises(RuntimeError, match="TorchScript"):
        graphtorch.load(checkpoint(b"N.", {"constants.pkl": b""}))
    with pytest.raises(ValueError, match="endianness"):
        graphtorch.load(checkpoint(b"\x80\2N.", {"byteorder": b"middle"}))


def test_a_zip_bomb_is_refused() -> None:
    with pytest.raises(RuntimeError, match="compressed"):
        graphtorch.load(checkpoint(tensor(), {"data/0": bytes(16)}, compression=zipfile.ZIP_DEFLATED))


def test_a_record_that_claims_more_than_the_file_has() -> None:
    whole = bytearray(checkpoint(tensor(), {"data/0": bytes(16)}).getvalue())
    entry = whole.index(b"PK\1\2", whole.index(b"PK\1\2") + 1)
    entry = whole.index(b"PK\1\2", entry + 1)  # the third: data/0
    whole[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    with pytest.raises(RuntimeError, match="more than the file has"):
        graphtorch.load(io.BytesIO(bytes(whole)))


def test_a_name_that_appears_twice() -> None:
    file = checkpoint(tensor(), {"data/0": bytes(16)})
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("archive/data/0", bytes(16))
    file.seek(0)
    with pytest.raises(RuntimeError, match="two records"):
        graphtorch.load(file)


def test_a_wrong_checksum() -> None:
    whole = sound()
    at = whole.index(np.arange(6, dtype=np.float32).tobytes())
    with pytest.raises(RuntimeError, match="Bad CRC-32"):
        graphtorch.load(io.BytesIO(whole[:at] + b"\1" + whole[at + 1 :]))
