"""Driver of an unconditional DDPM (Ho et al. 2020, arXiv 2006.11239) from the parts of diffusers.

Noise schedule, optimizer and average are those of the package's own example for unconditional images (linear
betas over 1,000 steps, AdamW at 1e-4, batches of 16, a power-law average); the U-Net is its shape with fewer
channels and levels, and the warm-up shorter, because the example is laid out for days of a GPU. Sampled with
DDIM (Song et al. 2021, arXiv 2010.02502) in 20 steps: in 50, the images of both generators would take a core
longer than the training. The small variant is what minutes of a CPU allow to learn something: half the
channels, one block per level.
"""

from __future__ import annotations

import torch
from protocol import batches_of, count_parameters, in_batches, main

BATCH, STEPS, WARM_UP = 16, 20, 100
DEFAULT = {"channels": (32, 64, 128, 128), "blocks": 2, "groups": 32}
SMALL = {"channels": (16, 32, 64, 64), "blocks": 1, "groups": 16}
EMA_POWER, EMA_MOST = 0.75, 0.9999


class Diffusion:
    def __init__(self, reals: torch.Tensor, device: torch.device, small: bool = False) -> None:
        from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
        from diffusers.training_utils import EMAModel

        plain, attending = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
        levels = [plain, plain, attending, plain]
        form = SMALL if small else DEFAULT
        self.size, self.device = reals.shape[-1], device
        self.network = UNet2DModel(
            sample_size=self.size, in_channels=1, out_channels=1, layers_per_block=form["blocks"],
            block_out_channels=form["channels"], norm_num_groups=form["groups"],
            down_block_types=[down for down, _ in levels],
            up_block_types=[up for _, up in reversed(levels)],
        ).to(device)  # fmt: skip
        self.noising = DDPMScheduler(num_train_timesteps=1000)
        self.sampler = DDIMScheduler.from_config(self.noising.config)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.warm_up = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1 / WARM_UP, total_iters=WARM_UP)
        self.average = EMAModel(
            self.network.parameters(), decay=EMA_MOST, use_ema_warmup=True, inv_gamma=1.0, power=EMA_POWER
        )
        self.average.to(device)
        self.batches = batches_of(reals * 2 - 1, BATCH)
        self.parameters = count_parameters(self.network)
        self.settings = {
            "batch": BATCH, "channels": form["channels"], "blocks per level": form["blocks"],
            "sampling steps": STEPS, "warm-up steps": WARM_UP, "precision": "fp32",
        }  # fmt: skip

    def step(self) -> int:
        clean = next(self.batches).to(self.device)
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (len(clean),), device=self.device)
        noisy = self.noising.add_noise(clean, noise, times)
        loss = torch.nn.functional.mse_loss(self.network(noisy, times).sample, noise)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.warm_up.step()
        self.average.step(self.network.parameters())
        return len(clean)

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        self.network.eval()
        made = {"raw": in_batches(self.denoise, count)}
        self.average.store(self.network.parameters())
        self.average.copy_to(self.network.parameters())
        return made | {"averaged": in_batches(self.denoise, count)}

    def denoise(self, count: int) -> torch.Tensor:
        """[count, 1, S, S] in [0, 1], from pure noise."""
        self.sampler.set_timesteps(STEPS)
        images = torch.randn(count, 1, self.size, self.size, device=self.device)
        for time in self.sampler.timesteps:
            images = self.sampler.step(self.network(images, time).sample, time, images).prev_sample
        return (images / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    main(Diffusion, "diffusers", variants=True)
