"""Text as numbers: tokenizers of characters and byte pairs, and data sets of token sequences for language models."""

from graphtorch.text.datasets import CharDataset, TinyShakespeare, TokenDataset
from graphtorch.text.tokenizers import BytePairTokenizer, CharTokenizer, Tokenizer

__all__ = ["BytePairTokenizer", "CharDataset", "CharTokenizer", "TinyShakespeare", "TokenDataset", "Tokenizer"]
