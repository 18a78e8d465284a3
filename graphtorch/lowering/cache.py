"""The folder of compiled code. What can't be read or written, or is damaged, only costs the time to compile again:
entries carry a checksum and are renamed into place whole.

Each backend has a part of the folder to itself, and names entries by digests of all that they depend on."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable
from functools import cache as once
from pathlib import Path

from graphtorch.version import __version__

logger = logging.getLogger(__name__)

_warned = False


def folder(backend: str) -> Path | None:
    """A backend's part: of GRAPHTORCH_CACHE (none if that is empty), else of the user's cache folder."""
    chosen = os.environ.get("GRAPHTORCH_CACHE")
    if chosen is not None:
        return Path(chosen) / backend if chosen else None
    home = _home(os.environ.get("XDG_CACHE_HOME"))
    return None if home is None else home / backend


@once
def _home(base: str | None) -> Path | None:
    try:
        return (Path(base) if base else Path.home() / ".cache") / "graphtorch"
    except RuntimeError:  # no home folder
        return None


def place(backend: str, key: str, suffix: str) -> Path | None:
    """Where the entry of a key (hexadecimal digits) is; None without a folder."""
    found = folder(backend)
    return None if found is None else found / key[:2] / f"{key}{suffix}"


def _warn(action: str, error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        logger.warning("the compiled-code cache can't be %s (%s): compiling without it", action, error)


def read(path: Path) -> bytes | None:
    """An entry's content; None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("read", error)
        return None
    digest, code = content[:32], content[32:]
    if hashlib.blake2b(code, digest_size=32).digest() != digest:
        logger.info("ignoring a damaged cache entry %s", path)
        return None
    return code


def write(path: Path, content: bytes) -> None:
    """Make an entry, or replace it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.blake2b(content, digest_size=32).digest())
                file.write(content)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        _warn("written", error)


@once
def state_of_sources(folders: Iterable[str]) -> str:
    """A digest of the package's version and of the state of its source files in these folders, by size and time of
    change: it is part of the key of what code in them makes."""
    root = Path(__file__).parents[1]
    found = [__version__]
    for name in folders:
        try:
            with os.scandir(root / name) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    if entry.name.endswith(".py"):
                        status = entry.stat()
                        found.append(f"{name}/{entry.name} {status.st_size} {status.st_mtime_ns}")
        except OSError:  # the package is no folder: its version stands for it
            continue
    return hashlib.blake2b("\n".join(found).encode(), digest_size=20).hexdigest()
