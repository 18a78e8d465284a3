"""`graphtorch python`: runs a program that imports torch with this library in its place."""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from graphtorch.cli.errors import USAGE, CommandError

NAMES = {"torch": "graphtorch", "torchvision": "graphtorch.vision"}


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


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torch.X as graphtorch.X: an attribute of its package where it is no module of its own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        package, _, rest = name.partition(".")
        # What stands here afterwards is what the import gives: the module itself, under both names.
        sys.modules[name] = _find(NAMES[package] + ("." + rest if rest else ""), name)


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
