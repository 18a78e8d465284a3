"""torchvision, for comparisons; tests that ask for it skip where it is missing."""

import pytest


@pytest.fixture(scope="session")
def torchvision():
    """The package. A wheel built for another kind of PyTorch lacks its compiled operators, which these tests don't use;
    it wants two of them declared all the same when it is imported."""
    torch = pytest.importorskip("torch")
    try:
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision

        torchvision.declared = library  # declarations last as long as this object
    return torchvision


@pytest.fixture
def one_thread():
    """PyTorch's threads cost more than they bring for sizes like these."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
