"""Files of data sets: checked downloads that resume, and unpacking that stays in its folder.

A download is written beside its target as `NAME.part` and renamed once its checksum is right, so a file under its own
name is always whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

USER_AGENT = "graphtorch"
_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte


def calculate_md5(fpath: str | Path, chunk_size: int = 1024 * 1024) -> str:
    """The file's MD5 as hexadecimal digits. It guards against damage; against malice the parsers guard."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(fpath, "rb") as file:
        while chunk := file.read(chunk_size):
            digest.update(chunk)
    return digest.hexdigest()


def check_integrity(fpath: str | Path, md5: str | None = None) -> bool:
    """Whether the file is there and, if `md5` is given, has this checksum."""
    return os.path.isfile(fpath) and (md5 is None or calculate_md5(fpath) == md5)


def download_url(url: str, root: str | Path, filename: str | None = None, md5: str | None = None) -> None:
    """Put the file at `url` into the folder `root`, unless it is there already.

    An interrupted download goes on where it ended if the server allows it. Raises RuntimeError if the server can't be
    reached, answers with an error, or sends a file of another checksum.
    """
    folder = Path(root).expanduser()
    path = folder / (filename or os.path.basename(url))
    if check_integrity(path, md5):
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part)
    except OSError as error:  # URLError, HTTPError and a broken connection are of this class
        reason = getattr(error, "reason", None) or error
        checksum = f" (MD5 {md5})" if md5 else ""
        raise RuntimeError(
            f"could not download {url}: {reason}. If this machine has no connection, put the file at {path}{checksum}."
        ) from error
    if md5 is not None and (found := calculate_md5(part)) != md5:
        part.unlink()
        raise RuntimeError(f"File not found or corrupted. {url} has the MD5 {found}, expected {md5}")
    part.replace(path)


def _fetch(url: str, part: Path) -> None:
    """Append what is missing to `part`."""
    import urllib.error
    import urllib.request

    done = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": USER_AGENT, **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left of the file, or it has changed: the checksum will tell
            return
        raise
    with response:
        resumed = getattr(response, "status", None) == 206
        expected = response.headers.get("Content-Length")
        received = 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
        if expected is not None and received < int(expected):
            raise ConnectionError(f"the connection ended after {received} of {expected} bytes")


def extract_archive(from_path: str | Path, to_path: str | Path | None = None, remove_finished: bool = False) -> str:
    """Unpack a .tar, .tar.gz, .tgz, .zip or .gz into the folder `to_path` (default: where the archive lies); its path.

    Only regular files are written, and only below the folder: a member that points elsewhere raises RuntimeError.
    """
    source = Path(from_path)
    folder = Path(to_path) if to_path is not None else source.parent
    if source.name.endswith((".tar", ".tar.gz", ".tgz")):
        with tarfile.open(source) as tar:
            for member in tar:
                if member.isreg():
                    _write_member(tar.extractfile(member), folder, member.name)
    elif source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    _write_member(archive.open(info), folder, info.filename)
    elif source.suffix == ".gz":
        with gzip.open(source) as unpacked:
            _write_member(unpacked, folder, source.stem)
    else:
        raise RuntimeError(f"{source}: not a .tar, .tar.gz, .tgz, .zip or .gz")
    if remove_finished:
        source.unlink()
    return str(folder)


def _write_member(file: IO[bytes] | Any, folder: Path, name: str) -> None:
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise RuntimeError(f"an archive's member {name!r} lies outside the folder it is unpacked to")
    target.parent.mkdir(parents=True, exist_ok=True)
    with file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def download_and_extract_archive(
    url: str,
    download_root: str | Path,
    extract_root: str | Path | None = None,
    filename: str | None = None,
    md5: str | None = None,
    remove_finished: bool = False,
) -> None:
    """`download_url`, then `extract_archive`."""
    root = Path(download_root).expanduser()
    filename = filename or os.path.basename(url)
    download_url(url, root, filename, md5)
    extract_archive(root / filename, extract_root or root, remove_finished)
