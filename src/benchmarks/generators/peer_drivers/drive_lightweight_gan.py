"""Driver of lightweight-gan (Liu et al. 2021, arXiv 2101.04775, as packaged by its author).

With what its command line would use for gray images of this size: batches of 10, accumulated over 4,
attention at 32 pixels, augmentation at the rate that it chooses for few images. Its pictures of the
progress, which fail on gray images and cost time, are left out, and the average of the weights begins with
the training, not after 20,000 steps. The small variant is what minutes of a CPU allow to learn something:
a fourth of the features, half the latent size, no accumulation.
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
from without_gpu import TorchOnCPU, importable

BATCH, ATTENTION, DECAY = 10, [32], 0.995
DEFAULT = {"accumulate": 4, "latent": 256, "features": 512}
SMALL = {"accumulate": 1, "latent": 128, "features": 128}


class Lightweight:
    def __init__(self, reals: torch.Tensor, device: torch.device, small: bool = False) -> None:
        with importable(device):
            from lightweight_gan import NanException, Trainer, lightweight_gan
        if device.type != "cuda":
            lightweight_gan.torch = TorchOnCPU()
        self.failure = NanException
        self.side, reals = reals.shape[-1], enlarged(reals)
        size, self.folder = reals.shape[-1], tempfile.TemporaryDirectory()
        form = SMALL if small else DEFAULT
        self.accumulate = form["accumulate"]
        # Augmentation: the share that the package sets itself for a folder of so many images.
        augmented = min(0.5, (1e5 - len(reals)) * 3e-6)
        self.trainer = Trainer(
            base_dir=self.folder.name, image_size=size, greyscale=True, batch_size=BATCH,
            gradient_accumulate_every=self.accumulate, latent_dim=form["latent"], fmap_max=form["features"],
            attn_res_layers=[r for r in ATTENTION if r < size], disc_output_size=1, aug_prob=augmented,
            use_aim=False,
        )  # fmt: skip
        self.trainer.evaluate = lambda *_, **__: None
        self.trainer.loader = batches_of(reals, BATCH)
        self.trainer.init_GAN()
        self.device, gan = device, self.trainer.GAN
        self.average = Average([gan.G], [gan.GE], DECAY)
        self.parameters = count_parameters(gan.G, gan.D)
        self.settings = {
            "batch": BATCH, "accumulated over": self.accumulate, "attention at": ATTENTION,
            "latent": form["latent"], "features at most": form["features"],
            "augmented share": round(augmented, 3), "precision": "fp32",
            "average": self.average.take_over(gan), **side_words(self.side, size),
        }  # fmt: skip

    def step(self) -> int:
        tried(self.trainer.train, self.failure)
        self.average.step()
        return BATCH * self.accumulate

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        gan = self.trainer.GAN.eval()

        def images(network: torch.nn.Module) -> torch.Tensor:
            def make(n: int) -> torch.Tensor:
                made = network(torch.randn(n, gan.latent_dim).to(self.device))
                return reduced(made.clamp(0, 1), self.side)

            return in_batches(make, count)

        return {"raw": images(gan.G), "averaged": images(gan.GE)}


if __name__ == "__main__":
    main(Lightweight, "lightweight-gan", variants=True)
