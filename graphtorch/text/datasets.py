"""Data sets for language models: windows of a long sequence of tokens, each with the sequence shifted by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import Generator, Tensor
from graphtorch.text.tokenizers import CharTokenizer, Tokenizer
from graphtorch.utils.data import Dataset

_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"


class TokenDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples (tokens i .. i + block_size - 1, tokens i + 1 .. i + block_size), int64, with `stride` between their
    beginnings.

    `tokens` is a sequence, tensor or one-dimensional array of numbers, a memory-mapped file too. Raises ValueError if
    not even one window fits.
    """

    def __init__(self, tokens: Sequence[int] | Tensor | np.ndarray, block_size: int, stride: int = 1) -> None:
        array: Any = tokens.numpy() if isinstance(tokens, Tensor) else np.asarray(tokens)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"tokens must be one row of integers, not {array.dtype} of shape {array.shape}")
        if block_size < 1 or stride < 1:
            raise ValueError(f"block_size and stride must be positive, not {block_size} and {stride}")
        if len(array) <= block_size:
            raise ValueError(f"{len(array)} tokens are too few for a window of {block_size} and the token after it")
        self.tokens = array
        self.block_size = block_size
        self.stride = stride

    def __len__(self) -> int:
        return (len(self.tokens) - self.block_size - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} windows")
        start = index % len(self) * self.stride
        window = torch.from_numpy(self.tokens[start : start + self.block_size + 1].astype(np.int64))
        return window[:-1], window[1:]

    def sample(self, batch_size: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """A batch of windows at random places, (batch_size, block_size) each."""
        starts = torch.randint(len(self), (batch_size,), generator=generator).numpy() * self.stride
        windows = self.tokens[starts[:, None] + np.arange(self.block_size + 1)].astype(np.int64)
        return torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].copy())


class CharDataset(TokenDataset):
    """`TokenDataset` of a text's characters, or of its tokens by another `tokenizer`."""

    def __init__(self, text: str, block_size: int, tokenizer: Tokenizer | None = None, stride: int = 1) -> None:
        self.tokenizer: Tokenizer = CharTokenizer.of(text) if tokenizer is None else tokenizer
        super().__init__(np.asarray(self.tokenizer.encode(text), np.int64), block_size, stride)

    @property
    def vocab_size(self) -> int:
        """The number of tokens that the tokenizer knows."""
        return self.tokenizer.vocab_size


class TinyShakespeare(CharDataset):
    """1.1 million characters of Shakespeare's plays (Karpathy, 2015): the first nine tenths for training, the rest for
    validation. The characters' numbers are those of the whole text.

    The file is `root/input.txt`; `download=True` fetches it.
    """

    def __init__(
        self,
        root: str | Path,
        block_size: int,
        train: bool = True,
        tokenizer: Tokenizer | None = None,
        stride: int = 1,
        download: bool = False,
    ) -> None:
        path = Path(root).expanduser() / "input.txt"
        if download:
            from graphtorch.vision.datasets.utils import download_url

            download_url(_SHAKESPEARE, path.parent, path.name, _SHAKESPEARE_MD5)
        if not path.is_file():
            raise RuntimeError(f"{path}: not found. You can use download=True to download it")
        text = path.read_text(encoding="utf-8")
        cut = len(text) * 9 // 10
        super().__init__(text[:cut] if train else text[cut:], block_size, tokenizer or CharTokenizer.of(text), stride)
