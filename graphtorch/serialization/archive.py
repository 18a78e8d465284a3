"""Reading the zip container of a checkpoint, trusting none of its numbers.

Records must be stored uncompressed, lie inside the file and be named once; no read asks for more memory than the file
has bytes."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from typing import IO, Any

import numpy as np

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled integer that begins PyTorch's format before 1.6
_TAR_MAGIC = (257, b"ustar")


_LONGEST_TEXT = 1 << 26


def _broken(why: str) -> RuntimeError:
    return RuntimeError(
        f"PytorchStreamReader failed reading zip archive: {why}. The file is corrupted, incomplete or no checkpoint."
    )


class Archive:
    """An open checkpoint. Raises RuntimeError for a file that is no sound zip archive of PyTorch's."""

    def __init__(self, file: IO[bytes], torchscript: bool = False) -> None:
        if not (hasattr(file, "read") and hasattr(file, "seek") and hasattr(file, "tell")):
            raise AttributeError(
                f"'{type(file).__name__}' object has no attribute 'seek'. You can only torch.load from a file that is "
                "seekable. Please pre-load the data into a buffer like io.BytesIO and try to load from it instead."
            )
        start = file.tell()
        self.size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        head = file.read(_TAR_MAGIC[0] + len(_TAR_MAGIC[1]))
        file.seek(start)
        if self.size == 0:
            raise EOFError("Ran out of input: the file is empty")
        if not head.startswith(b"PK"):
            if _LEGACY_MAGIC in head[:20] or head[_TAR_MAGIC[0] :] == _TAR_MAGIC[1]:
                raise RuntimeError(
                    "This checkpoint is in PyTorch's legacy format, which is not zip-based and is not read here: load "
                    "it in PyTorch and save it again with torch.save(..., _use_new_zipfile_serialization=True)"
                )
            # PyTorch then takes the file for an old checkpoint, which is a pickle.
            raise pickle.UnpicklingError(str(_broken("not a ZIP archive")))
        try:
            self._zip = zipfile.ZipFile(_Part(file, start, self.size) if start else file)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, OverflowError) as error:
            raise _broken(f"failed finding central directory ({error})") from None
        self._records: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.filename in self._records:
                raise _broken(f"two records are called {info.filename!r}")
            self._records[info.filename] = info
        roots = [name[: -len("/data.pkl")] for name in self._records if name.endswith("/data.pkl")]
        roots = [root for root in roots if "/" not in root]
        if len(roots) != 1:
            raise _broken("file in archive is not in a subdirectory: data.pkl" if not roots else "several data.pkl")
        self.root = roots[0]
        self.torchscript = "constants.pkl" in self
        if self.torchscript and not torchscript:
            raise RuntimeError("The file is a TorchScript archive: only checkpoints of torch.save can be loaded")
        if "version" not in self and ".data/version" not in self:
            raise _broken("there is no version record")
        order = self.read("byteorder") if "byteorder" in self else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"Unknown endianness type: {order!r}")
        self.big_endian = order == b"big"

    def names(self) -> list[str]:
        """The records, without the folder that they lie in."""
        return [name[len(self.root) + 1 :] for name in self._records if name.startswith(self.root + "/")]

    def __contains__(self, name: str) -> bool:
        return f"{self.root}/{name}" in self._records

    def _find(self, name: str) -> zipfile.ZipInfo:
        info = self._records.get(f"{self.root}/{name}")
        if info is None:
            raise _broken(f"there is no record {name!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise _broken(f"the record {name!r} is compressed, which PyTorch's never are")
        if info.flag_bits & 0x1:
            raise _broken(f"the record {name!r} is encrypted")
        if info.header_offset < 0 or info.header_offset + info.file_size > self.size:
            raise _broken(f"the record {name!r} claims {info.file_size} bytes, more than the file has")
        return info

    def size_of(self, name: str) -> int:
        """A record's number of bytes."""
        return self._find(name).file_size

    def read(self, name: str) -> bytes:
        """A small record."""
        return self.read_array(name).tobytes()

    def read_text(self, name: str) -> str:
        """A record of source code, which may be compressed. Raises RuntimeError for one longer than any is."""
        info = self._records.get(f"{self.root}/{name}")
        if info is None or info.file_size > _LONGEST_TEXT:
            raise _broken(f"the record {name!r} is no source code")
        try:
            with self._zip.open(info) as opened:
                return opened.read(_LONGEST_TEXT).decode("utf-8")
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, zlib.error) as error:
            raise _broken(f"the record {name!r}: {error}") from None

    def read_array(self, name: str) -> np.ndarray[Any, Any]:
        """A record's bytes in fresh memory. Raises RuntimeError where its checksum does not fit."""
        info = self._find(name)
        data: np.ndarray[Any, Any] = np.empty(info.file_size, np.uint8)
        view = data.data
        try:
            with self._zip.open(info) as opened:
                record: Any = opened  # a ZipExtFile, which reads into buffers
                at = 0
                while at < len(view):
                    count = record.readinto(view[at:])
                    if not count:
                        raise _broken(f"the record {name!r} is cut short")
                    at += count
                if record.read(1):  # reaching the end is what makes zipfile compare the checksum
                    raise _broken(f"the record {name!r} is longer than it says")
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, OverflowError) as error:
            raise _broken(f"the record {name!r}: {error}") from None
        return data


class _Part:
    """The rest of a file object, for an archive that does not begin at the file's start."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self.tell()
        return self._file.seek(self._start + offset) - self._start

    def seekable(self) -> bool:
        return True
