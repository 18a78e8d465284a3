"""`graphtorch python`: programs that import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphtorch.torch_version import TorchVersion

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.transforms as transforms
from helper import width
from torch.nn.modules.utils import _pair
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset
import torch.backends.cudnn as cudnn

assert torch.nn is nn and sys.modules["torch.nn.functional"] is F and torch.__name__ == "graphtorch"
assert nn.__spec__.name == "graphtorch.nn"
torch.manual_seed(0)
model = torch.compile(nn.Linear(width, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for x, t in DataLoader(TensorDataset(torch.randn(8, width), torch.randn(8, 1)), batch_size=4):
    loss = F.mse_loss(model(x), t)
    loss.backward()
    optimizer.step()
print(__name__, sys.argv[1:], _pair(2), type(loss).__module__.split(".")[0], transforms.ToTensor.__name__)
if "--missing" in sys.argv:
    import torch.nothing_of_that_name
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "graphtorch", "python", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_program_runs_unchanged(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "helper.py").write_text("import torch\nwidth = int(torch.tensor(3).item())\n")
    (tmp_path / "sub" / "program.py").write_text(PROGRAM)
    done = run("sub/program.py", "--epochs", "2", "--", "dump", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "__main__ ['--epochs', '2', '--', 'dump'] (2, 2) graphtorch ToTensor\n"


VERSIONS = """
import importlib.metadata
import torch
import torchvision
from torch.distributed import nn

assert (2, 13) <= torch.__version__ < (3, 0) and torch.__version__ >= "2.2" and torch.__version__ < "10.0"
assert tuple(int(n) for n in torch.__version__.split(".")[:2]) == (2, 13)
assert importlib.metadata.version("torch") == torch.__version__ and "graphtorch" in torch.__version__
assert importlib.metadata.version("torchvision").startswith("0.28.0")
assert not torch.distributed.is_available() and not torch.cuda._initialized
"""


def test_the_version_is_that_of_the_functions(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(VERSIONS)
    done = run("program.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("own", ["2.13.0", "2.13.0+graphtorch.0.1.0", "2.13", "2.14.0rc1", "2.13.1a0"])
def test_versions_compare_as_versions(own: str) -> None:
    made = TorchVersion(own)
    assert made >= "2.9" and made > (1, 6) and made < "10" and not made < (2, 13, 0) and made != "2.1"
    assert (made == (2, 13)) == (own not in ("2.14.0rc1", "2.13.1a0"))
    assert (made < "2.14.0") and str(made) == own and made > "2.13.0rc1"
    assert TorchVersion("unknown") != "2.13" and TorchVersion("unknown") == "unknown"


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("width = 3\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("program.py", "--missing", folder=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: graphtorch has no module graphtorch.nothing_of_that_name" in done.stderr
    assert run("absent.py", folder=tmp_path).returncode == 2
