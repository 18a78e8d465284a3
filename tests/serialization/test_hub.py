"""`hub`: weights by URL, from a file here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import graphtorch
from graphtorch import hub
from graphtorch.utils.model_zoo import load_url


def test_weights_are_downloaded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = graphtorch.nn.Linear(2, 2).state_dict()
    graphtorch.save(state, tmp_path / "plain.pth")
    digest = hashlib.sha256((tmp_path / "plain.pth").read_bytes()).hexdigest()
    source = tmp_path / f"model-{digest[:8]}.pth"
    (tmp_path / "plain.pth").rename(source)
    for _ in range(2):
        back = load_url(source.as_uri(), model_dir=str(tmp_path / "kept"), check_hash=True)
        assert graphtorch.equal(back["weight"], state["weight"])
    assert capsys.readouterr().err.count("Downloading") == 1
    wrong = tmp_path / "model-00000000.pth"
    source.rename(wrong)
    with pytest.raises(RuntimeError, match="invalid hash value"):
        hub.load_state_dict_from_url(wrong.as_uri(), model_dir=str(tmp_path / "other"), check_hash=True)
    assert not [*(tmp_path / "other").iterdir()]


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "_folder", None)
    assert hub.get_dir() == str(tmp_path / "hub")
    hub.set_dir(tmp_path / "mine")
    assert hub.get_dir() == str(tmp_path / "mine")


def test_entries_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "helper_of_hub.py").write_text(
        "import graphtorch\n\ndef made(n):\n    return graphtorch.nn.Linear(n, 1)\n"
    )
    (tmp_path / "hubconf.py").write_text(
        "dependencies = ['numpy']\nfrom helper_of_hub import made as _made\n\n\n"
        "def layer(n=2, **options):\n    'A layer.'\n    return _made(n)\n"
    )
    assert hub.list(str(tmp_path)) == ["layer"] and hub.help(str(tmp_path), "layer") == "A layer."
    assert hub.load(str(tmp_path), "layer", 3, source="local").weight.shape == (1, 3)
    with pytest.raises(RuntimeError, match="Cannot find callable other in hubconf"):
        hub.load(str(tmp_path), "other", source="local")
    with pytest.raises(RuntimeError, match="are not downloaded and run here; clone a/b"):
        hub.load("a/b", "layer")
    with pytest.raises(ValueError, match='Unknown source: "nowhere"'):
        hub.load("a/b", "layer", source="nowhere")
    with pytest.raises(FileNotFoundError, match=r"hubconf\.py"):
        hub.list(str(tmp_path / "nothing"))
    (tmp_path / "hubconf.py").write_text("dependencies = ['no_such_package_here']\n")
    with pytest.raises(RuntimeError, match="Missing dependencies: no_such_package_here"):
        hub.load(str(tmp_path), "layer", source="local")
