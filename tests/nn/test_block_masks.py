"""Blocks of masks for flex_attention beside PyTorch's."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
NAMES = [f"{full}{kind}_{what}" for full in ("", "full_") for kind in ("kv", "q") for what in ("num_blocks", "indices")]


def of(package: Any) -> Any:
    return importlib.import_module(f"{package.__name__}.nn.attention.flex_attention")


def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= k


def window(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q - k < 50) & (q >= k) & (h < 1)


CASES = [
    (causal, None, None, 300, 260, 128),
    (window, 2, 2, 256, 256, (64, 128)),
    (window, None, 2, 70, 130, 32),
    (causal, 1, 1, 64, 64, 16),
]


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_pytorch_s(case: Any) -> None:
    found = []
    for package in (graphtorch, torch):
        *args, block = case
        mask = of(package).create_block_mask(*args, device="cpu", BLOCK_SIZE=block)
        lists = []
        for name in NAMES:
            tensor = getattr(mask, name)
            if name.endswith("indices") and "q_" in name:  # PyTorch lists empty blocks of columns in another order
                numbers = getattr(mask, name.replace("indices", "num_blocks")).flatten().tolist()
                rows = tensor.reshape(len(numbers), -1).tolist()
                lists.append([sorted(row[:n]) for row, n in zip(rows, numbers)])
            else:
                lists.append((tensor.tolist(), str(tensor.dtype)))
        found.append(
            (lists, mask.shape, mask.to_dense().tolist(), mask.sparsity(), mask.numel(), mask.BLOCK_SIZE,
             mask.seq_lengths, str(mask), mask.to_string(limit=1), len(mask.as_tuple()))
        )  # fmt: skip
    for ours, theirs in zip(*found):
        assert ours == theirs


def test_masks_of_blocks() -> None:
    numbers = [[[1, 2]]]
    indices = [[[[0, 1], [0, 1]]]]
    q = np.random.default_rng(0).standard_normal((1, 2, 64, 8)).astype(np.float32)
    found = []
    for package in (graphtorch, torch):
        f = of(package)
        made = f.BlockMask.from_kv_blocks(
            package.tensor(numbers, dtype=package.int32), package.tensor(indices, dtype=package.int32), BLOCK_SIZE=32
        )
        both = f.BlockMask.from_kv_blocks(
            package.tensor([[[1, 1]]], dtype=package.int32), package.tensor(indices, dtype=package.int32),
            package.tensor([[[0, 1]]], dtype=package.int32), package.tensor([[[[0, 1], [1, 0]]]], dtype=package.int32),
            BLOCK_SIZE=32, mask_mod=causal,
        )  # fmt: skip
        x = package.tensor(q.tolist())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, aux = f.flex_attention(x, x, x, return_aux=f.AuxRequest(lse=True))
        assert aux.max_scores is None
        found.append((made.shape, made.to_dense().tolist(), made.seq_lengths, both.to_dense().tolist()))
        found[-1] += (aux.lse.tolist(),)
        with pytest.raises(RuntimeError, match="BlockMask must have at least 2 dimensions"):
            f.BlockMask.from_kv_blocks(package.ones(1), package.ones(1))
        with pytest.raises(AssertionError):
            f.BlockMask.from_kv_blocks(package.ones(1), package.ones(1, 1), package.ones(1))
    ours, theirs = found
    assert ours[:4] == theirs[:4]
    np.testing.assert_allclose(ours[4], theirs[4], rtol=1e-4, atol=1e-5)
    # PyTorch's eager form looks at the function alone; its kernels, and this package, at the blocks.
    f, x = of(graphtorch), graphtorch.tensor(q.tolist())
    rows, columns = np.indices((64, 64))
    blocks = rows // 32 >= columns // 32
    partly = np.where((rows >= 32) & (columns >= 32), True, blocks & (rows >= columns))
    block = {"dtype": graphtorch.int32}
    kept = [graphtorch.tensor(a, **block) for a in ([[[1, 1]]], indices, [[[0, 1]]], [[[[0, 1], [1, 0]]]])]
    for mask, dense in (
        (f.BlockMask.from_kv_blocks(graphtorch.tensor(numbers, **block), kept[1], BLOCK_SIZE=32), blocks),
        (f.BlockMask.from_kv_blocks(*kept, BLOCK_SIZE=32, mask_mod=causal), partly),
    ):
        expected = graphtorch.nn.functional.scaled_dot_product_attention(x, x, x, graphtorch.from_numpy(dense))
        np.testing.assert_allclose(f.flex_attention(x, x, x, block_mask=mask).numpy(), expected.numpy(), atol=1e-5)


def test_parts_of_masks() -> None:
    f = of(graphtorch)
    mask = f.create_block_mask(window, 2, 3, 64, 64, BLOCK_SIZE=16)
    for index in (0, (0, 1), (slice(None), slice(0, 1)), (graphtorch.tensor([1, 0]), 2)):
        theirs = of(torch).create_block_mask(window, 2, 3, 64, 64, device="cpu", BLOCK_SIZE=16)
        at = tuple(torch.tensor(i.tolist()) if isinstance(i, graphtorch.Tensor) else i for i in index) if isinstance(
            index, tuple) else index  # fmt: skip
        assert mask[index].shape == theirs[at].shape
        assert mask[index].to_dense().tolist() == theirs[at].to_dense().tolist()
    assert mask.to("cpu").to_dense().tolist() == mask.to_dense().tolist()
    x = graphtorch.randn(1, 1, 64, 4)
    whole = f.create_block_mask(lambda b, h, q, k: (q >= k) & (h == 1), 1, 2, 64, 64)
    expected = graphtorch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    np.testing.assert_allclose(f.flex_attention(x, x, x, block_mask=whole[0, 1]).numpy(), expected.numpy(), atol=1e-5)
    run = graphtorch.compile(lambda x: f.flex_attention(x, x, x, block_mask=whole[0, 1]), fullgraph=True)
    np.testing.assert_allclose(run(x).numpy(), expected.numpy(), atol=1e-5)
    with pytest.raises(AssertionError, match="requires a mask_mod function"):
        f.create_block_mask(lambda score, b, h, q, k: score, None, None, 4, 4)
