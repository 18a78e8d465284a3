"""Published weights: `load_state_dict_from_url` and the folder that it keeps files in.

`torch.hub.load`, which runs a repository's code, is not offered: such code imports PyTorch itself.
See https://docs.pytorch.org/docs/stable/hub.html
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from graphtorch.serialization import load

__all__ = ["download_url_to_file", "get_dir", "load_state_dict_from_url", "set_dir"]

_HASH = re.compile(r"-([a-f0-9]*)\.")  # in a file's name: the beginning of its SHA-256
_folder: str | None = None


def get_dir() -> str:
    """The folder for downloads: what `set_dir` chose, else `$TORCH_HOME/hub`, else `~/.cache/torch/hub`, as PyTorch has
    it: files are shared with it."""
    if _folder is not None:
        return _folder
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))
    return os.path.join(home, "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Choose the folder for downloads."""
    global _folder
    _folder = os.path.expanduser(d)


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Put the file at `url` to the path `dst`; an interrupted download goes on where it ended.

    Raises RuntimeError if it can't be had, or if its SHA-256 does not begin with `hash_prefix`.
    """
    from graphtorch.vision.datasets.utils import download_url

    path = Path(dst).expanduser()
    download_url(url, path.parent, path.name)
    if hash_prefix is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(hash_prefix):
            path.unlink()
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{digest}")')


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """Load the checkpoint at `url`, downloaded into `model_dir` (default: `checkpoints` in `get_dir()`) unless it is
    there.

    `check_hash` compares the SHA-256 with the digits in the file's name (`name-0123abcd.pth`). Only checkpoints of
    tensors are loaded, unless `weights_only=False` says that the file is trusted: see `load`.
    """
    folder = model_dir or os.path.join(get_dir(), "checkpoints")
    name = file_name or os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        found = _HASH.search(name) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress)
    return load(path, map_location=map_location, weights_only=weights_only)
