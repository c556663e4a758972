"""Driver of lightweight-gan (Liu et al. 2021, arXiv 2101.04775, as packaged by its author).

With what its command line would use for gray images of this size: batches of 10, accumulated over 4,
attention at 32 pixels, augmentation at the rate that it chooses for few images. Its pictures of the
progress, which fail on gray images and cost time, are left out.
"""

from __future__ import annotations

import tempfile

import torch
from protocol import batches_of, count_parameters, in_batches, main
from without_gpu import TorchOnCPU, importable

BATCH, ACCUMULATE, ATTENTION = 10, 4, [32]
TRIES = 3  # of a step whose loss is not a number, as its command line does


class Lightweight:
    def __init__(self, reals: torch.Tensor, device: torch.device) -> None:
        with importable(device):
            from lightweight_gan import NanException, Trainer, lightweight_gan
        if device.type != "cuda":
            lightweight_gan.torch = TorchOnCPU()
        self.failure = NanException
        size, self.folder = reals.shape[-1], tempfile.TemporaryDirectory()
        # Augmentation: the share that the package sets itself for a folder of so many images.
        augmented = min(0.5, (1e5 - len(reals)) * 3e-6)
        self.trainer = Trainer(
            base_dir=self.folder.name, image_size=size, greyscale=True, batch_size=BATCH,
            gradient_accumulate_every=ACCUMULATE, attn_res_layers=[r for r in ATTENTION if r < size],
            disc_output_size=1, aug_prob=augmented, use_aim=False,
        )  # fmt: skip
        self.trainer.evaluate = lambda *_, **__: None
        self.trainer.loader = batches_of(reals, BATCH)
        self.trainer.init_GAN()
        self.device = device
        self.parameters = count_parameters(self.trainer.GAN.G, self.trainer.GAN.D)
        self.settings = {
            "batch": BATCH, "accumulated over": ACCUMULATE, "attention at": ATTENTION,
            "augmented share": round(augmented, 3), "precision": "fp32",
        }  # fmt: skip

    def step(self) -> int:
        for left in reversed(range(TRIES)):
            try:
                self.trainer.train()
                break
            except self.failure:
                if not left:
                    raise
        return BATCH * ACCUMULATE

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        gan = self.trainer.GAN.eval()

        def images(network: torch.nn.Module) -> torch.Tensor:
            return in_batches(lambda n: network(torch.randn(n, gan.latent_dim).to(self.device)), count)

        return {"raw": images(gan.G).clamp(0, 1), "averaged": images(gan.GE).clamp(0, 1)}


if __name__ == "__main__":
    main(Lightweight, "lightweight-gan")
