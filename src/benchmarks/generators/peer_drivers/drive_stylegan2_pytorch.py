"""Driver of stylegan2_pytorch (Karras et al. 2020, arXiv 1912.04958, as packaged by its author).

With what its command line would use at this size: batches of 5, accumulated over 6, no augmentation. It
knows RGB only: gray is replicated, and the channels of what it makes are averaged. Sampled without
truncation, which would cost variety. The average of the weights begins with the training, not after 20,000
steps. The small variant is what minutes of a CPU allow to learn something: half the capacity, no
accumulation.
"""

from __future__ import annotations

import tempfile

import torch
from protocol import (
    Average,
    batches_of,
    count_parameters,
    enlarged,
    in_batches,
    main,
    reduced,
    side_words,
    tried,
)
from without_gpu import importable

BATCH, TTUR, DECAY = 5, 1.5, 0.995
DEFAULT = {"accumulate": 6, "capacity": 16}
SMALL = {"accumulate": 1, "capacity": 8}


class StyleGAN2:
    def __init__(self, reals: torch.Tensor, device: torch.device, small: bool = False) -> None:
        with importable(device):
            from stylegan2_pytorch import NanException, Trainer, stylegan2_pytorch
        self.package, self.failure = stylegan2_pytorch, NanException
        self.side, reals = reals.shape[-1], enlarged(reals)
        form = SMALL if small else DEFAULT
        self.accumulate = form["accumulate"]
        self.size, self.folder = reals.shape[-1], tempfile.TemporaryDirectory()
        self.trainer = Trainer(
            base_dir=self.folder.name, image_size=self.size, batch_size=BATCH,
            gradient_accumulate_every=self.accumulate, network_capacity=form["capacity"], ttur_mult=TTUR,
            rank=0 if device.type == "cuda" else "cpu",
        )  # fmt: skip
        self.trainer.is_main = True  # rank 0 is, but on the CPU the rank is the device's name
        self.trainer.evaluate = lambda *_, **__: None
        self.trainer.loader = batches_of(reals.expand(-1, 3, -1, -1), BATCH)
        self.trainer.init_GAN()
        self.device = device
        gan = self.trainer.GAN
        self.average = Average([gan.S, gan.G], [gan.SE, gan.GE], DECAY)
        self.parameters = count_parameters(gan.S, gan.G, gan.D)
        self.settings = {
            "batch": BATCH, "accumulated over": self.accumulate, "capacity": form["capacity"],
            "channels": 3, "truncation": "none", "precision": "fp32",
            "average": self.average.take_over(gan), **side_words(self.side, self.size),
        }  # fmt: skip

    def step(self) -> int:
        tried(self.trainer.train, self.failure)
        self.average.step()
        return BATCH * self.accumulate

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        gan = self.trainer.GAN.eval()
        layers, width = gan.G.num_layers, gan.G.latent_dim

        def images(S: torch.nn.Module, G: torch.nn.Module) -> torch.Tensor:
            def make(n: int) -> torch.Tensor:
                styles = S(torch.randn(n, width).to(self.device))  # [n, width]
                noise = torch.rand(n, self.size, self.size, 1).to(self.device)
                made = G(styles[:, None].expand(-1, layers, -1), noise).clamp(0, 1)
                return reduced(made, self.side)

            return in_batches(make, count)

        return {"raw": images(gan.S, gan.G), "averaged": images(gan.SE, gan.GE)}


if __name__ == "__main__":
    main(StyleGAN2, "stylegan2_pytorch", variants=True)
