"""Tokenizers and data sets of tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphtorch as gt
from graphtorch import text

POEM = "the cat sat on the mat; the rat that sat on the cat sat  flat.\n\n1999 cats, café über naïve 日本語\n" * 3


def test_characters():
    tokenizer = text.CharTokenizer.of("hello")
    assert tokenizer.characters == "ehlo" and tokenizer.vocab_size == 4
    assert tokenizer.encode("hole") == [1, 3, 2, 0]
    assert tokenizer.decode(gt.tensor([1, 3, 2, 0])) == "hole"
    with pytest.raises(ValueError, match="the character 'x' is not in the alphabet"):
        tokenizer.encode("hex")
    with pytest.raises(ValueError, match="token 4 is outside the vocabulary of 4"):
        tokenizer.decode([4])
    with pytest.raises(ValueError, match="occurs twice"):
        text.CharTokenizer("aba")


def test_training_merges_the_most_frequent_pairs():
    tokenizer = text.BytePairTokenizer.train("aaab aaab aab", 260, use_tiktoken=False)
    made = sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)[256:]
    # "aa" and "ab" stand side by side; merging counts anew each time.
    assert made[0] == b"aa"
    assert len(made) == 4 and all(len(piece) > 1 for piece in made)


def test_training_ends_when_nothing_is_left_to_merge():
    assert text.BytePairTokenizer.train("ab", 1000).vocab_size == 257


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back(sample):
    tokenizer = trained(use_tiktoken=False)
    assert tokenizer.decode(tokenizer.encode(sample)) == sample


_TRAINED = {}


def trained(use_tiktoken):
    if use_tiktoken not in _TRAINED:
        _TRAINED[use_tiktoken] = text.BytePairTokenizer.train(POEM, 300, use_tiktoken)
    return _TRAINED[use_tiktoken]


def test_training_text_gets_shorter():
    tokenizer = trained(use_tiktoken=False)
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode(POEM)) < len(POEM.encode()) / 2


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet=" aeths.,\n\t1_é日"))
@settings(max_examples=200, deadline=None)
def test_tiktoken_gives_the_same_tokens(sample):
    pytest.importorskip("tiktoken")
    assert trained(use_tiktoken=True).encode(sample) == trained(use_tiktoken=False).encode(sample)


def test_files(tmp_path):
    tokenizer = trained(use_tiktoken=False)
    tokenizer.save(tmp_path / "ranks")
    assert (tmp_path / "ranks").read_bytes().splitlines()[97] == b"YQ== 97"
    loaded = text.BytePairTokenizer.load(tmp_path / "ranks", use_tiktoken=False)
    assert loaded.ranks == tokenizer.ranks and loaded.encode(POEM) == tokenizer.encode(POEM)
    (tmp_path / "ranks").write_text("YQ== 1\nno base64! 2\n")
    with pytest.raises(ValueError, match="ranks:2: expected a token in base64 and its rank"):
        text.BytePairTokenizer.load(tmp_path / "ranks")


def test_ranks_are_checked():
    with pytest.raises(ValueError, match="255 single bytes have no rank"):
        text.BytePairTokenizer({b"a": 0})
    with pytest.raises(ValueError, match="numbers from 0, each once"):
        text.BytePairTokenizer({bytes([i]): 2 * i for i in range(256)})
    with pytest.raises(ValueError, match="at least the 256 bytes"):
        text.BytePairTokenizer.train("abc", 100)


def test_named_encodings_need_tiktoken(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ImportError, match="pip install tiktoken"):
        text.BytePairTokenizer.from_tiktoken("gpt2")
    assert text.BytePairTokenizer.train("aa aa", 257).encode("aa") == [256]


@pytest.mark.parametrize("make", [list, np.array, gt.tensor, lambda t: np.array(t, np.uint16)])
def test_windows(make):
    data_set = text.TokenDataset(make([5, 6, 7, 8, 9, 10, 11]), block_size=3, stride=2)
    assert len(data_set) == 2
    assert [[part.tolist() for part in data_set[i]] for i in (0, 1, -1)] == [
        [[5, 6, 7], [6, 7, 8]],
        [[7, 8, 9], [8, 9, 10]],
        [[7, 8, 9], [8, 9, 10]],
    ]
    assert data_set[0][0].dtype is gt.int64
    with pytest.raises(IndexError):
        data_set[2]
    loaded = next(iter(gt.utils.data.DataLoader(data_set, batch_size=2)))
    assert [part.shape for part in loaded] == [(2, 3), (2, 3)]


def test_the_last_window_ends_with_the_last_token():
    data_set = text.TokenDataset(range(10), block_size=4)
    assert len(data_set) == 6 and data_set[5][1].tolist() == [6, 7, 8, 9]
    with pytest.raises(ValueError, match="4 tokens are too few for a window of 4"):
        text.TokenDataset(range(4), block_size=4)
    with pytest.raises(ValueError, match="one row of integers"):
        text.TokenDataset([0.5, 1.0], block_size=1)
    with pytest.raises(ValueError, match="must be positive"):
        text.TokenDataset(range(9), block_size=2, stride=0)


def test_random_batches_follow_the_generator():
    data_set = text.TokenDataset(range(100), block_size=8, stride=3)
    first = data_set.sample(5, gt.Generator().manual_seed(4))
    again = data_set.sample(5, gt.Generator().manual_seed(4))
    assert first[0].tolist() == again[0].tolist()
    assert (first[1] - first[0]).eq(1).all() and first[0].shape == (5, 8)
    assert (first[0][:, 0] % 3 == 0).all()


def test_character_data_set():
    data_set = text.CharDataset("to be or not to be", block_size=5)
    x, y = data_set[3]
    assert data_set.tokenizer.decode(x) == "be or" and data_set.tokenizer.decode(y) == "e or "
    pairs = text.CharDataset(POEM, 4, tokenizer=trained(use_tiktoken=False))
    assert pairs.vocab_size == 300 and len(pairs.tokens) < len(POEM)


def test_tiny_shakespeare(tmp_path):
    with pytest.raises(RuntimeError, match=r"input\.txt: not found"):
        text.TinyShakespeare(tmp_path, 8)
    (tmp_path / "input.txt").write_text("abcdefghij" * 9 + "z" * 10)
    train, rest = text.TinyShakespeare(tmp_path, 4), text.TinyShakespeare(tmp_path, 4, train=False)
    assert train.vocab_size == rest.vocab_size == 11
    assert len(train.tokens) == 90 and rest.tokens.tolist() == [10] * 10
