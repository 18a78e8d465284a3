"""The examples run as a user runs them, each in a process of its own and on little data: exit status and output."""

from __future__ import annotations

import gzip
import importlib
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run_example(name: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # this checkout, installed or not
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def write_batch(path: Path, rng: np.random.Generator, count: int, **changes: object) -> None:
    batch = {
        "batch_label": path.name,
        "labels": rng.integers(0, 10, count).tolist(),
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"{i}.png" for i in range(count)],
    }
    path.write_bytes(pickle.dumps(batch | changes, protocol=2))  # the protocol of the published files


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder of CIFAR-10's form with random images."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in (1, 2):
        write_batch(folder / f"data_batch_{i}", rng, 10)
    write_batch(folder / "test_batch", rng, 8)
    return folder


class Executes:
    """A pickle of this writes a file when it is loaded by an unrestricted unpickler."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "executed")


def test_digits_data_is_the_uci_test_set() -> None:
    with gzip.open(EXAMPLES / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    assert table.shape == (1797, 65)
    assert table[:, :64].min() == 0 and table[:, :64].max() == 16
    # The counts that the data set's own description gives for its test set.
    assert np.bincount(table[:, 64]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_eager_and_compiled_agree(tmp_path: Path) -> None:
    result = run_example("train_digits.py", "--epochs", "1", "--plot", "loss.png", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 45 losses agree" in result.stdout
    kernels = re.findall(r"kernels (before|after) fusion\D*(\d+)", result.stdout)
    assert [when for when, _ in kernels] == ["before", "after"]
    assert 0 < int(kernels[1][1]) < int(kernels[0][1])
    saved = "loss plot saved to loss.png" in result.stdout
    assert saved == (tmp_path / "loss.png").exists()
    assert saved or "matplotlib is not installed" in result.stdout


def test_digits_accuracy_after_five_epochs(tmp_path: Path) -> None:
    result = run_example("train_digits.py", cwd=tmp_path)  # exits with an error below 96 %
    assert result.returncode == 0, result.stdout + result.stderr
    percentages = [float(number) for number in re.findall(r"([\d.]+)%", result.stdout)]
    assert len(percentages) == 2 and min(percentages) >= 96


@pytest.mark.parametrize("epochs", ["0", "-1", "many"])
def test_digits_refuses_a_number_of_epochs_that_is_none(tmp_path: Path, epochs: str) -> None:
    result = run_example("train_digits.py", "--epochs", epochs, cwd=tmp_path)
    assert result.returncode == 2
    assert f"'{epochs}' is not a positive integer" in result.stderr


def test_cifar_eager_and_compiled_agree(cifar: Path, tmp_path: Path) -> None:
    result = run_example("train_cifar.py", "--data", str(cifar), "--steps", "6", cwd=tmp_path)  # 5 steps an epoch
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 6 losses agree" in result.stdout
    assert len(re.findall(r"step +\d  running loss: eager \d\.\d+, compiled \d\.\d+", result.stdout)) == 6


@pytest.mark.parametrize("loss", [3.0001, float("nan")])
def test_losses_that_differ_end_the_example(monkeypatch: pytest.MonkeyPatch, loss: float) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    side_by_side = importlib.import_module("_side_by_side")
    eager = side_by_side.Run("eager", losses=[1.0, 2.0, 3.0])
    with pytest.raises(SystemExit, match="disagree at 1 of 3 steps, first at step 2"):
        side_by_side.check_losses(eager, side_by_side.Run("compiled", losses=[1.0, 2.0, loss]), rtol=1e-5)


def test_cifar_resnet_eager_and_compiled_agree(tmp_path: Path) -> None:
    folder = tmp_path / "cifar"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_batch(folder / "data_batch_1", rng, 40)
    write_batch(folder / "test_batch", rng, 4)
    result = run_example("train_cifar.py", "--data", str(folder), "--model", "resnet18", "--steps", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 1 losses agree" in result.stdout


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("train_lstm.py", ["test error / that of 'as now'"]),
        ("train_cartpole.py", ["balanced, last episodes"]),
        ("train_pinn.py", ["largest error of the solution"]),
        ("custom_function.py", ["test accuracy"]),
        ("custom_operator.py", ["test accuracy", "riton"]),
    ],
)
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_examples_without_data(tmp_path: Path, name: str, marks: list[str], backend: str) -> None:
    result = run_example(name, "--quick", "--backend", backend, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"all \d+ losses agree", result.stdout)
    assert all(mark in result.stdout for mark in marks)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A folder of Fashion-MNIST's form with random images, compressed as Debian's package has them."""
    folder = tmp_path / "fashion"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        head = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in images.shape)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(count)
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


@pytest.mark.parametrize("name", ["train_vae.py", "train_gan.py"])
def test_examples_of_generated_images(fashion: Path, tmp_path: Path, name: str) -> None:
    result = run_example(name, "--data", str(fashion), "--quick", "--samples", "made.png", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"all \d losses agree", result.stdout)
    assert (tmp_path / "made.png").exists() or "pillow is not installed" in result.stdout


@pytest.mark.parametrize("name", ["train_vae.py", "train_gan.py"])
def test_missing_images_are_explained(tmp_path: Path, name: str) -> None:
    result = run_example(name, "--data", "nowhere", "--quick", cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere: Dataset not found" in result.stderr and "dataset-fashion-mnist" in result.stderr
    assert "Traceback" not in result.stderr


def test_gpt_writes_text(tmp_path: Path) -> None:
    result = run_example("train_gpt.py", "--quick", "--characters", "20", "--prompt", "First", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 4 losses agree" in result.stdout
    assert len(result.stdout.partition("\nFirst")[2]) == 20 + 1  # and the line's end
    result = run_example("train_gpt.py", "--data", "nowhere", cwd=tmp_path)
    assert result.returncode == 1 and "input.txt" in result.stderr and "Traceback" not in result.stderr


def test_gpt_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("to be or not to be, that is the question\n" * 20)
    result = run_example(
        "train_gpt.py", "--data", str(tmp_path), "--quick", "--characters", "5", "--prompt", "to", cwd=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    result = run_example("train_gpt.py", "--data", str(tmp_path), "--quick", "--prompt", "ROMEO", cwd=tmp_path)
    assert result.returncode == 1 and "'R' is not in the alphabet" in result.stderr


def test_cartpole_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undisturbed balance stays; energy of a free fall is kept to the integrator's error."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    environment = importlib.import_module("train_cartpole").CartPole(0)
    environment.state = np.array([0.0, 0.0, 0.0, 0.0])
    state, fallen = environment.step(1)
    assert state[1] > 0 and state[3] < 0 and not fallen  # pushed right: the pole leans left
    # One step from rest: acceleration (force - ...) / mass in closed form, at angle 0.
    turning = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    assert state[3] == pytest.approx(0.02 * turning)
    assert state[1] == pytest.approx(0.02 * (10 / 1.1 - 0.05 * turning / 1.1))
    environment.state = np.array([0.0, 0.0, 0.3, 0.0])
    assert environment.step(0)[1]


def test_cifar_reports_a_missing_folder(tmp_path: Path) -> None:
    result = run_example("train_cifar.py", "--data", "nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere: no data_batch_* files" in result.stderr
    assert "Traceback" not in result.stderr


def test_cifar_executes_nothing_from_a_data_file(cifar: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    write_batch(cifar / "data_batch_1", np.random.default_rng(0), 4, filenames=Executes(marker))
    pickle.loads((cifar / "data_batch_1").read_bytes())
    assert marker.exists(), "the file is meant to be harmful"
    marker.unlink()
    result = run_example("train_cifar.py", "--data", str(cifar), cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(r"data_batch_1: refused to load \S+ from a data file", result.stderr)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((4, 3072), np.float32)}, "expected uint8 data of shape"),
        ({"data": np.zeros((5, 3072), np.uint8)}, "expected uint8 data of shape"),
        ({"data": "text"}, "expected uint8 data of shape"),
        ({"labels": ["cat", "dog"]}, "invalid literal"),
    ],
)
def test_cifar_refuses_data_of_another_form(
    cifar: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write_batch(cifar / "test_batch", np.random.default_rng(0), 4, **changes)
    result = run_example("train_cifar.py", "--data", str(cifar), cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
