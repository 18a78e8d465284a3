"""Trains a generative adversarial network on Fashion-MNIST twice from one seed, eagerly and compiled.

    python examples/train_gan.py [--data FOLDER] [--download] [--steps 200] [--quick] [--backend numpy]

A small DCGAN (Radford et al., 2015, https://arxiv.org/abs/1511.06434): transposed convolutions make images,
convolutions tell them from real ones. Both networks' updates are one compiled function, one after the other as in the
paper; the loss that is compared is the sum of the two.
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

BATCH_SIZE = 32
LATENT = 32
LOSS_RTOL = 1e-2  # BatchNorm and two networks that chase each other: rounding grows faster than elsewhere


def make_generator() -> nn.Module:
    """Codes (N, LATENT, 1, 1) to images (N, 1, 28, 28) in -1..1."""
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT, 32, 7, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def make_discriminator() -> nn.Module:
    """Images to scores (N, 1): positive for real ones."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 1),
    )


def make_program(compiler: Compiler) -> Program:
    generator, discriminator = make_generator(), make_discriminator()
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(images: torch.Tensor) -> torch.Tensor:
        fakes = generator(torch.randn(images.shape[0], LATENT, 1, 1))

        # The discriminator learns from real images and from fakes, through which nothing flows back.
        of_discriminator.zero_grad()
        scores = discriminator(images * 2 - 1), discriminator(fakes.detach())
        told_apart = F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()
        told_apart.backward()
        of_discriminator.step()

        # The generator learns what the improved discriminator takes for real.
        of_generator.zero_grad()
        deceived = F.softplus(-discriminator(fakes)).mean()
        deceived.backward()
        of_generator.step()
        return told_apart + deceived

    return Program(compiler(step), {"generator": generator})


def main() -> None:
    parser = argument_parser("Train a GAN on Fashion-MNIST, eager and compiled.", "gan.png", steps=200, quick=4)
    add_fashion_mnist(parser)
    parser.add_argument("--samples", type=Path, default=Path("gan-samples.png"), help="(default: %(default)s)")
    args = parser.parse_args()

    images = fashion_mnist(args)
    runs = run_both(make_program, random_batches(images, BATCH_SIZE), args.steps, args)
    print_table(f"GAN on Fashion-MNIST, {args.steps} steps of {BATCH_SIZE} images, seed {args.seed}", runs)
    save_plot(args.plot, "GAN: sum of both losses, each training step", runs)
    generator = runs[1].program.parts["generator"].eval()
    with torch.no_grad():
        save_images(args.samples, generator(torch.randn(64, LATENT, 1, 1)) / 2 + 0.5, nrow=8)
    check_losses(*runs, rtol=LOSS_RTOL)


if __name__ == "__main__":
    main()
