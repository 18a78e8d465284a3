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
