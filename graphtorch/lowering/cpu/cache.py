"""The folder of compiled code. What can't be read or written, or is damaged, only costs the time to compile again:
entries carry a checksum and are renamed into place whole."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_warned = False


def cache_folder() -> Path | None:
    """The folder: GRAPHTORCH_CACHE (none if that is empty), else in the user's cache folder."""
    chosen = os.environ.get("GRAPHTORCH_CACHE")
    if chosen is not None:
        return Path(chosen) / "cpu" if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "graphtorch" / "cpu"
    except RuntimeError:  # no home folder
        return None


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


def place(key: str, suffix: str) -> Path | None:
    """Where the entry of a key (hexadecimal digits) is; None without a folder."""
    folder = cache_folder()
    return None if folder is None else folder / key[:2] / f"{key}{suffix}"
