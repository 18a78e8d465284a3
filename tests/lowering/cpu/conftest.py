"""Tests of the cpu backend: a cache folder of their own, and the programs of the other lowering tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("llvmlite")
sys.path.insert(0, str(Path(__file__).parent.parent))


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory):
    """Compiled code of tests goes to a folder of their own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GRAPHTORCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
