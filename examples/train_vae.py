"""Trains a variational autoencoder on Fashion-MNIST twice from one seed, eagerly and compiled, and draws from it.

    python examples/train_vae.py [--data FOLDER] [--download] [--steps 300] [--quick] [--backend numpy]

Source: Kingma and Welling, Auto-Encoding Variational Bayes, 2013 (https://arxiv.org/abs/1312.6114). The loss is the
negative evidence lower bound, an image. The noise is part of the compiled step; both runs draw the same.
"""

from __future__ import annotations

from pathlib import Path

from _side_by_side import (
    Compiler,
    Program,
    add_fashion_mnist,
    argument_parser,
    check_losses,
    fashion_mnist,
    print_table,
    random_batches,
    run_both,
    save_images,
    save_plot,
)

import graphtorch as torch
import graphtorch.nn.functional as F
from graphtorch import nn

BATCH_SIZE = 64
LATENT = 16
LOSS_RTOL = 1e-3


class VAE(nn.Module):
    """(N, 1, 28, 28) in 0..1 to the reconstruction's logits, and means and log-variances of the code."""

    def __init__(self, hidden: int = 256, latent: int = LATENT) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, 28 * 28), nn.Unflatten(1, (1, 28, 28))
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.encoder(images)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


def make_program(compiler: Compiler) -> Program:
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(images: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        logits, mean, log_variance = model(images)
        reconstruction = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        loss = (reconstruction + divergence) / len(images)
        loss.backward()
        optimizer.step()
        return loss

    return Program(compiler(step), {"model": model})


def main() -> None:
    parser = argument_parser("Train a VAE on Fashion-MNIST, eager and compiled.", "vae.png", steps=300, quick=5)
    add_fashion_mnist(parser)
    parser.add_argument("--samples", type=Path, default=Path("vae-samples.png"), help="(default: %(default)s)")
    args = parser.parse_args()

    images = fashion_mnist(args)
    runs = run_both(make_program, random_batches(images, BATCH_SIZE), args.steps, args)
    print_table(f"VAE on Fashion-MNIST, {args.steps} steps of {BATCH_SIZE} images, seed {args.seed}", runs)
    save_plot(args.plot, "VAE: negative evidence lower bound of each training step", runs)
    with torch.no_grad():
        codes = torch.randn(64, LATENT)
        save_images(args.samples, runs[1].program.parts["model"].decoder(codes).sigmoid(), nrow=8)
    check_losses(*runs, rtol=LOSS_RTOL)


if __name__ == "__main__":
    main()
