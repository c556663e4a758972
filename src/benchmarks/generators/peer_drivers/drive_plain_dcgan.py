"""A plain DCGAN as textbooks and tutorials write it (Radford et al. 2016, arXiv 1511.06434).

Transposed convolutions from 100 numbers, BatchNorm in both networks, N(0, 0.02) weights, a sigmoid with
binary cross-entropy, Adam at 2e-4 with a first moment of 0.5; no average, no smoothing, no other loss.
Batches of 64, because there are few images.
"""

from __future__ import annotations

import torch
from protocol import batches_of, count_parameters, in_batches, main
from torch import nn

BATCH, LATENT, WIDTH = 64, 100, 64


def generator(size: int) -> nn.Sequential:
    """[N, 100, 1, 1] -> [N, 1, size, size] in [-1, 1]; ``size`` is a power of 2, or one times 7."""
    root, doublings = layout(size)
    widths = [WIDTH * 2**level for level in reversed(range(doublings))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, widths[0], root, bias=False)]
    for wide, narrow in zip(widths, widths[1:]):  # noqa: B905
        layers += [nn.BatchNorm2d(wide), nn.ReLU(True), nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(widths[-1], 1, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers)


def discriminator(size: int) -> nn.Sequential:
    """[N, 1, size, size] -> probabilities of being real [N, 1, 1, 1]."""
    root, doublings = layout(size)
    widths = [WIDTH * 2**level for level in range(doublings)]
    layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for narrow, wide in zip(widths, widths[1:]):  # noqa: B905
        layers += [
            nn.Conv2d(narrow, wide, 4, 2, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2, True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, root, bias=False), nn.Sigmoid())


def layout(size: int) -> tuple[int, int]:
    """(side of the root, doublings up to ``size``)."""
    root = 7 if size % 7 == 0 else 4
    return root, (size // root).bit_length() - 1


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class PlainDCGAN:
    def __init__(self, reals: torch.Tensor, device: torch.device) -> None:
        size, self.device = reals.shape[-1], device
        self.G, self.D = generator(size).to(device), discriminator(size).to(device)
        self.G.apply(initialise)
        self.D.apply(initialise)
        self.optimizer_G, self.optimizer_D = (
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999)) for network in (self.G, self.D)
        )
        self.loss = nn.BCELoss()
        self.batches = batches_of(reals * 2 - 1, BATCH)
        self.parameters = count_parameters(self.G, self.D)
        self.settings = {"batch": BATCH, "width": WIDTH, "precision": "fp32"}

    def noise(self, count: int) -> torch.Tensor:
        return torch.randn(count, LATENT, 1, 1, device=self.device)

    def step(self) -> int:
        real = next(self.batches).to(self.device)
        fake, ones = self.G(self.noise(len(real))), torch.ones(len(real), 1, 1, 1, device=self.device)
        self.optimizer_D.zero_grad()
        (self.loss(self.D(real), ones) + self.loss(self.D(fake.detach()), 1 - ones)).backward()
        self.optimizer_D.step()
        self.optimizer_G.zero_grad()
        self.loss(self.D(fake), ones).backward()
        self.optimizer_G.step()
        return len(real)

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        self.G.eval()
        return {"raw": in_batches(lambda n: self.G(self.noise(n)), count) / 2 + 0.5}


if __name__ == "__main__":
    main(PlainDCGAN)
