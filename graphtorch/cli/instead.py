"""`graphtorch python`: runs a program that imports torch with this library in its place."""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from graphtorch import version
from graphtorch.cli.errors import USAGE, CommandError
from graphtorch.torch_version import TorchVersion

NAMES = {"torch": "graphtorch", "torchvision": "graphtorch.vision"}
# The versions whose names and behaviour are imitated: programs and packages ask for what they need.
VERSIONS = {"torch": "2.13.0", "torchvision": "0.28.0"}


def instead(arguments: argparse.Namespace) -> int:
    """The subcommand."""
    script = arguments.script
    if not os.path.isfile(script):
        raise CommandError(f"there is no file {script}", USAGE)
    take_the_place()
    sys.argv = [script, *arguments.arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")
    return 0


def take_the_place() -> None:
    """Have `import torch` and `import torchvision`, with their submodules, give this library's modules from now on."""
    loaded = [name for name in NAMES if name in sys.modules]
    if loaded:
        raise CommandError(f"{loaded[0]} is loaded already")
    sys.meta_path.insert(0, Finder())
    for name, real in NAMES.items():
        importlib.import_module(real).__version__ = TorchVersion(_version(name))  # type: ignore[attr-defined]


def _version(name: str) -> str:
    """What a package says that its version is."""
    return f"{VERSIONS[name]}+graphtorch.{version.__version__}"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torch.X as graphtorch.X: an attribute of its package where it is no module of its own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def find_distributions(self, context: Any = None) -> Iterator[importlib.metadata.Distribution]:
        """The packages as installed ones, for `importlib.metadata.version("torch")`."""
        wanted = getattr(context, "name", None)
        return (Installed(name) for name in NAMES if wanted in (None, name))

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        package, _, rest = name.partition(".")
        # What stands here afterwards is what the import gives: the module itself, under both names.
        sys.modules[name] = _find(NAMES[package] + ("." + rest if rest else ""), name)


class Installed(importlib.metadata.Distribution):
    """What is said of an installed package: its name and version."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        """The content of a file of metadata; None for one that is not there."""
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: {_version(self._name)}\n"
        return f"{self._name}\n" if filename == "top_level.txt" else None

    def locate_file(self, path: Any) -> Any:
        """Where a file of the package is."""
        return Path(__file__).parents[1] / path


def _find(real: str, name: str) -> Any:
    try:
        return importlib.import_module(real)
    except ModuleNotFoundError as error:
        if error.name != real:
            raise
    parent, _, last = real.rpartition(".")
    found = getattr(importlib.import_module(parent), last, None)
    if not isinstance(found, ModuleType):
        raise ModuleNotFoundError(f"graphtorch has no module {real} to stand for {name}", name=name)
    return found
