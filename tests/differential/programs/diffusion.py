"""A small denoising diffusion model in two dimensions: schedules, noising, time embedding, sampling."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
T = 20
betas = torch.linspace(1e-3, 0.2, T)
alphas = 1.0 - betas
alphas_cumprod = torch.cumprod(alphas, dim=0)
alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
sqrt_recip_alphas = torch.sqrt(1.0 / alphas)
posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
print(alphas_cumprod, posterior_variance[:4], sep="\n")


def extract(a, t, shape):
    return a.gather(-1, t).reshape(t.shape[0], *((1,) * (len(shape) - 1)))


def q_sample(x0, t, noise):
    return extract(alphas_cumprod.sqrt(), t, x0.shape) * x0 + extract((1 - alphas_cumprod).sqrt(), t, x0.shape) * noise


class TimeEmbedding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, time):
        half = self.dim // 2
        freqs = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        args = time[:, None] * freqs[None, :]
        return torch.cat((args.sin(), args.cos()), dim=-1)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(TimeEmbedding(8), nn.Linear(8, 16), nn.SiLU())
        self.inp = nn.Linear(2, 16)
        self.out = nn.Sequential(nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 2))

    def forward(self, x, t):
        return self.out(self.inp(x) + self.time(t))


angle = torch.rand(256) * 2 * math.pi
data = torch.stack([angle.cos(), angle.sin()], 1)
model = Denoiser()
print(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for step in range(40):
    idx = torch.randint(0, len(data), (64,))
    t = torch.randint(0, T, (64,)).long()
    noise = torch.randn(64, 2)
    loss = F.mse_loss(model(q_sample(data[idx], t, noise), t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 9:
        print(step, f"{loss.item():.4f}")


@torch.no_grad()
def sample(n):
    x = torch.randn(n, 2)
    for i in reversed(range(T)):
        t = torch.full((n,), i, dtype=torch.long)
        mean = extract(sqrt_recip_alphas, t, x.shape) * (
            x - extract(betas, t, x.shape) * model(x, t) / extract((1 - alphas_cumprod).sqrt(), t, x.shape)
        )
        x = mean if i == 0 else mean + extract(posterior_variance.sqrt(), t, x.shape) * torch.randn_like(x)
    return x


made = sample(64)
print(made.shape, f"{made.norm(dim=1).mean():.3f}")
print(torch.randn(2, generator=torch.Generator().manual_seed(1)), torch.cumsum(betas, 0)[-1])
