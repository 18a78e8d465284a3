"""Published weights: `load_state_dict_from_url` and the folder that it keeps files in.

`load`, `list` and `help` run the `hubconf.py` of a folder (`source="local"`); repositories are not downloaded. Code
that imports torch finds this library in its place under `graphtorch python`.
See https://docs.pytorch.org/docs/stable/hub.html
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from graphtorch.serialization import load as load_checkpoint

__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url", "set_dir"]

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")  # in a file's name: the beginning of its SHA-256
_folder: str | None = None


def get_dir() -> str:
    """The folder for downloads: what `set_dir` chose, else `$TORCH_HOME/hub`, else `~/.cache/torch/hub`, as PyTorch has
    it: files are shared with it."""
    return os.path.join(_get_torch_home(), "hub") if _folder is None else _folder


def _get_torch_home() -> str:
    """The folder for all that is kept; torchvision asks for it by this name."""
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))


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
        found = HASH_REGEX.search(name) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress)
    return load_checkpoint(path, map_location=map_location, weights_only=weights_only)


@contextmanager
def _entries(folder: str) -> Iterator[ModuleType]:
    """The `hubconf` of a folder, whose modules can be imported inside of the block."""
    path = os.path.join(os.path.expanduser(folder), "hubconf.py")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no {path}; repositories are not downloaded: clone one, and name its folder")
    sys.path.insert(0, os.path.dirname(path))
    try:
        spec = importlib.util.spec_from_file_location("hubconf", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(os.path.dirname(path))


def _entry(module: ModuleType, model: str) -> Callable[..., Any]:
    if not isinstance(model, str):
        raise ValueError("Invalid input: model should be a string of function name")
    needed = getattr(module, "dependencies", ())
    missing = [name for name in needed if name not in sys.modules and importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"Missing dependencies: {', '.join(missing)}")
    found = getattr(module, model, None)
    if not callable(found):
        raise RuntimeError(f"Cannot find callable {model} in hubconf")
    return found  # type: ignore[no-any-return]


def load(
    repo_or_dir: str,
    model: str,
    *args: Any,
    source: str = "github",
    trust_repo: Any = "check",
    force_reload: bool = False,
    verbose: bool = True,
    skip_validation: bool = False,
    **kwargs: Any,
) -> Any:
    """Call an entry of the `hubconf.py` in a folder, with `source="local"`. See torch.hub.load.

    **It runs the folder's code.** Raises ValueError for another source, RuntimeError for "github", where nothing is
    downloaded, for a missing entry or dependency, FileNotFoundError for a folder without that file."""
    source = source.lower()
    if source not in ("github", "local"):
        raise ValueError(f'Unknown source: "{source}". Allowed values: "github" | "local".')
    if source == "github":
        raise RuntimeError(
            f"hub.load: repositories are not downloaded and run here; clone {repo_or_dir}, and call "
            f'load(folder, {model!r}, source="local")'
        )
    with _entries(repo_or_dir) as module:
        return _entry(module, model)(*args, **kwargs)


def list(
    github: str, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = "check",
    verbose: bool = True,
) -> builtins.list[str]:  # fmt: skip
    """The entries of the `hubconf.py` in a folder. Runs it; raises as `load`."""
    with _entries(github) as module:
        return [name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")]


def help(
    github: str, model: str, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = "check"
) -> str | None:  # fmt: skip
    """What an entry's documentation says. Runs the folder's `hubconf.py`; raises as `load`."""
    with _entries(github) as module:
        return _entry(module, model).__doc__
