"""Tokenizers: characters, and pairs of bytes merged by frequency.

Byte-pair encoding (Sennrich et al., 2015, https://arxiv.org/abs/1508.07909) over bytes as in GPT-2: a text is cut into
words by a pattern, a word into bytes, and neighbours merge as long as what they make has a rank, lowest rank first.
Where the package tiktoken is installed, it does this work; without it the same result is computed here, slower."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

_SPACE = " \\t\\n\\r\\f\\v"
_LETTER = f"A-Za-z{chr(0x80)}-{chr(0x10FFFF)}"  # what is not ASCII counts as a letter
# A space belongs to the word after it. The classes are spelled out so that every regular expression engine agrees.
WORDS = f" ?[{_LETTER}]+| ?[0-9]+| ?[^{_LETTER}0-9{_SPACE}]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"


class Tokenizer(Protocol):
    """What data sets and generators need of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Token numbers lie below this."""

    def encode(self, text: str) -> list[int]:
        """The token numbers of a text."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token numbers."""


class CharTokenizer:
    """A number for each character of an alphabet, in the alphabet's order.

    `CharTokenizer.of(text)` takes the characters that occur, sorted.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = "".join(characters)
        self._numbers = {character: i for i, character in enumerate(self.characters)}
        if len(self._numbers) != len(self.characters):
            raise ValueError("a character occurs twice in the alphabet")

    @classmethod
    def of(cls, text: str) -> CharTokenizer:
        """The tokenizer of the characters that occur in a text."""
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        """The number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's characters. Raises ValueError for one that is not in the alphabet."""
        try:
            return [self._numbers[character] for character in text]
        except KeyError as error:
            raise ValueError(f"the character {error.args[0]!r} is not in the alphabet") from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The characters of numbers."""
        return "".join(self.characters[token] for token in _checked(tokens, self.vocab_size))

    def __repr__(self) -> str:
        return f"CharTokenizer(vocab_size={self.vocab_size})"


def _checked(tokens: Iterable[int], size: int) -> list[int]:
    numbers = [int(token) for token in tokens]
    for number in numbers:
        if not 0 <= number < size:
            raise ValueError(f"token {number} is outside the vocabulary of {size}")
    return numbers


class BytePairTokenizer:
    """Byte pairs by `ranks`, bytes to token number, in words by `pattern`.

    Make one with `train` (of a text), `load` (a file in tiktoken's format) or `from_tiktoken` (GPT-2's, say). Every
    text can be encoded: each single byte must have a rank. `use_tiktoken=False` computes here even where tiktoken is
    installed.
    """

    def __init__(self, ranks: dict[bytes, int], pattern: str = WORDS, use_tiktoken: bool = True) -> None:
        missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
        if missing:
            raise ValueError(f"{len(missing)} single bytes have no rank, first {bytes(missing[:1])!r}")
        if sorted(ranks.values()) != list(range(len(ranks))):
            raise ValueError("ranks must be the numbers from 0, each once")
        self.ranks = ranks
        self.pattern = pattern
        self._bytes = {rank: piece for piece, rank in ranks.items()}
        self._encoding = _tiktoken_encoding(ranks, pattern) if use_tiktoken else None
        if self._encoding is None:
            self._words = re.compile(pattern)
            self._of_word = lru_cache(maxsize=1 << 16)(self._merge)

    @classmethod
    def train(cls, text: str, vocab_size: int, use_tiktoken: bool = True) -> BytePairTokenizer:
        """Ranks for a text: bytes first, then, until there are `vocab_size`, the pair that is most frequent at the time
        (of equals the one of the lowest numbers). Fewer if no pair is left.

        Raises ValueError for a size below 256.
        """
        if vocab_size < 256:
            raise ValueError(f"a byte-pair vocabulary has at least the 256 bytes, not {vocab_size} tokens")
        pieces = _train(Counter(re.findall(WORDS, text)), vocab_size)
        return cls({piece: i for i, piece in enumerate(pieces)}, use_tiktoken=use_tiktoken)

    @classmethod
    def from_tiktoken(cls, name: str) -> BytePairTokenizer:
        """One of tiktoken's encodings, such as "gpt2"; special tokens are left out.

        tiktoken fetches the ranks on first use. Raises ImportError where it is not installed.
        """
        try:
            import tiktoken
        except ImportError:
            raise ImportError(f"the encoding {name!r} needs the package tiktoken: pip install tiktoken") from None
        encoding = tiktoken.get_encoding(name)
        return cls(dict(encoding._mergeable_ranks), encoding._pat_str)

    @classmethod
    def load(cls, path: str | Path, pattern: str = WORDS, use_tiktoken: bool = True) -> BytePairTokenizer:
        """Ranks from a file of tiktoken's format: a line a token, its bytes in base64 and its rank.

        Raises ValueError for another file.
        """
        ranks: dict[bytes, int] = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
            try:
                piece, rank = line.split()
                ranks[base64.b64decode(piece, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                raise ValueError(f"{path}:{number}: expected a token in base64 and its rank") from None
        return cls(ranks, pattern, use_tiktoken)

    def save(self, path: str | Path) -> None:
        """Write the ranks in tiktoken's format."""
        ordered = sorted(self.ranks.items(), key=lambda item: item[1])
        Path(path).write_bytes(b"".join(base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ordered))

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.ranks)

    def encode(self, text: str) -> list[int]:
        """The token numbers of a text."""
        if self._encoding is not None:
            found: list[int] = self._encoding.encode_ordinary(text)
            return found
        return [token for word in self._words.findall(text) for token in self._of_word(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        parts = [bytes([byte]) for byte in word.encode("utf-8")]
        while len(parts) > 1:
            made = [self.ranks.get(a + b) for a, b in pairwise(parts)]
            lowest = min((rank for rank in made if rank is not None), default=None)
            if lowest is None:
                break
            at = made.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ranks[part] for part in parts)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token numbers; bytes that are no UTF-8 become replacement characters."""
        pieces = [self._bytes[token] for token in _checked(tokens, self.vocab_size)]
        return b"".join(pieces).decode("utf-8", errors="replace")

    def __repr__(self) -> str:
        return f"BytePairTokenizer(vocab_size={self.vocab_size})"


def _tiktoken_encoding(ranks: dict[bytes, int], pattern: str) -> Any:
    """tiktoken's encoder for these ranks; None where it is not installed."""
    try:
        import tiktoken
    except ImportError:
        return None
    return tiktoken.Encoding("graphtorch", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _train(words: Counter[str], vocab_size: int) -> list[bytes]:
    """The tokens in the order of their ranks. Counts of pairs are kept up to date: a merge touches only the words that
    contain the pair."""
    pieces = [bytes([byte]) for byte in range(256)]
    parts = [list(word.encode("utf-8")) for word in words]
    counts = list(words.values())
    pairs: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    def count(index: int, sign: int) -> None:
        for pair in pairwise(parts[index]):
            pairs[pair] += sign * counts[index]
            places[pair].add(index)

    for index in range(len(parts)):
        count(index, 1)
    known = set(pieces)
    while len(pieces) < vocab_size:
        best = max(pairs.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]), default=None)
        if best is None or best[1] <= 0:
            break
        pair = best[0]
        merged = pieces[pair[0]] + pieces[pair[1]]
        if merged in known:  # two ways to one token: ranks are of bytes, so the first way is the token's
            token = pieces.index(merged)
        else:
            token = len(pieces)
            pieces.append(merged)
            known.add(merged)
        for index in places.pop(pair):
            count(index, -1)
            parts[index] = _replaced(parts[index], pair, token)
            count(index, 1)
        pairs.pop(pair, None)
    return pieces


def _replaced(parts: list[int], pair: tuple[int, int], token: int) -> list[int]:
    result: list[int] = []
    at = 0
    while at < len(parts):
        if at + 1 < len(parts) and (parts[at], parts[at + 1]) == pair:
            result.append(token)
            at += 2
        else:
            result.append(parts[at])
            at += 1
    return result
