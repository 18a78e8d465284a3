"""Trains a character-level GPT on Shakespeare twice from one seed, eagerly and compiled, and lets it write.

    python examples/train_gpt.py [--data FOLDER] [--steps 300] [--quick] [--backend numpy] [--prompt "ROMEO:"]

FOLDER holds Tiny Shakespeare as input.txt (Karpathy, 2015); without it, the 100,000 characters in examples/data do. The
network is a small GPT-2 (Radford et al., 2019): tokens and positions embedded, blocks of causal attention and linear
layers, dropout. Text is sampled from what the compiled run has learnt.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from _side_by_side import Compiler, Program, argument_parser, check_losses, print_table, run_both, save_plot

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import nn
from graphtorch.text import CharDataset

EXCERPT = Path(__file__).resolve().parent / "data" / "shakespeare.txt.gz"
BLOCK_SIZE = 64
BATCH_SIZE = 16
LOSS_RTOL = 1e-3


class Block(nn.Module):
    """Causal attention and linear layers, each on a normalized input and added to it: (N, T, width) to the same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.project(mixed.transpose(1, 2).reshape(n, length, width)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Tokens (N, T), T up to `block_size`, to the next tokens' scores (N, T, vocabulary)."""

    def __init__(
        self, vocabulary: int, block_size: int, width: int = 64, heads: int = 4, depth: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.block_size = block_size
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(block_size, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1])
        x = self.dropout(self.tokens(tokens) + self.positions(places))
        return self.head(self.norm(self.blocks(x)))

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor, count: int, temperature: float = 0.8) -> torch.Tensor:
        """`tokens` (1, T) and `count` more, each drawn from the scores after those before it."""
        for _ in range(count):
            scores = self(tokens[:, -self.block_size :])[:, -1] / temperature
            tokens = torch.cat([tokens, torch.multinomial(scores.softmax(-1), 1)], dim=1)
        return tokens


def read_text(folder: Path | None) -> str:
    """Tiny Shakespeare, or the excerpt that comes with the examples."""
    if folder is None:
        with gzip.open(EXCERPT, "rt", encoding="utf-8") as file:
            return file.read()
    try:
        return (folder / "input.txt").read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"{error}; --data wants the folder with Tiny Shakespeare's input.txt")


def make_program(data: CharDataset, compiler: Compiler) -> Program:
    """The training step: AdamW, gradients clipped to a norm of 1."""
    model = GPT(data.vocab_size, BLOCK_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Program(compiler(step), {"model": model})


def batches(data: CharDataset) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Windows at random places, without end."""
    while True:
        yield data.sample(BATCH_SIZE)


def main() -> None:
    parser = argument_parser("Train a character GPT on Shakespeare, eager and compiled.", "gpt.png", 300, quick=4)
    parser.add_argument("--data", type=Path, help="folder with Tiny Shakespeare's input.txt (default: an excerpt)")
    parser.add_argument("--prompt", default="ROMEO:", help="what the text begins with (default: %(default)s)")
    parser.add_argument("--characters", type=int, default=300, help="how many to write (default: %(default)s)")
    args = parser.parse_args()

    data = CharDataset(read_text(args.data), BLOCK_SIZE)
    runs = run_both(lambda compiler: make_program(data, compiler), batches(data), args.steps, args)
    print_table(f"character GPT, {args.steps} steps of {BATCH_SIZE} x {BLOCK_SIZE}, seed {args.seed}", runs)
    save_plot(args.plot, "character GPT: loss of each training step", runs)
    check_losses(*runs, rtol=LOSS_RTOL)
    model = runs[1].program.parts["model"].eval()
    try:
        prompt = torch.tensor([data.tokenizer.encode(args.prompt)])
    except ValueError as error:
        sys.exit(f"--prompt: {error}")
    print(f"\n{data.tokenizer.decode(model.generate(prompt, args.characters)[0])}")


if __name__ == "__main__":
    main()
