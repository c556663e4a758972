"""DCGAN (Radford et al. 2016, arXiv 1511.06434) for chest X-rays: generator, discriminator, initialisation.

A 4x4 or 7x7 root and a doubling per layer reach 32, 64, 112, 128, 224 and 256 pixels. Images are in
[-1, 1] on both sides; the discriminator returns logits, because the sigmoid belongs into the loss.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from utils import UserError

IMAGE_SIZES = (32, 64, 112, 128, 224, 256)
GENERATOR_FORMAT = "dcgan-generator-1"
DISCRIMINATOR_FORMAT = "dcgan-discriminator-1"
MAX_WIDENING = 16  # no layer is wider than 16 x feature_maps


def root_size(image_size: int) -> int:
    """Side of the smallest feature map: 7 for 112 and 224, 4 for the powers of two."""
    if image_size not in IMAGE_SIZES:
        allowed = ", ".join(map(str, IMAGE_SIZES))
        raise UserError(f"image size {image_size} is not possible; allowed: {allowed}")
    return 7 if image_size % 7 == 0 else 4


def layer_widths(image_size: int, feature_maps: int) -> list[int]:
    """Channels from the root (widest) to the layer next to the image (``feature_maps``)."""
    doublings = (image_size // root_size(image_size)).bit_length() - 1
    return [feature_maps * min(2**level, MAX_WIDENING) for level in reversed(range(doublings))]


class Generator(nn.Module):
    """Noise z [N, latent_dim] -> images [N, num_channels, image_size, image_size] in [-1, 1]."""

    def __init__(self, image_size: int, num_channels: int, latent_dim: int, feature_maps: int) -> None:
        super().__init__()
        self.image_size, self.num_channels = image_size, num_channels
        self.latent_dim, self.feature_maps = latent_dim, feature_maps
        widths = layer_widths(image_size, feature_maps)
        root = nn.ConvTranspose2d(latent_dim, widths[0], root_size(image_size), bias=False)
        layers: list[nn.Module] = [root, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for wide, narrow in zip(widths, widths[1:], strict=False):
            doubling = nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False)
            layers += [doubling, nn.BatchNorm2d(narrow), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], num_channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    @property
    def architecture(self) -> dict[str, int]:
        """The arguments that build this network again."""
        names = ("image_size", "num_channels", "latent_dim", "feature_maps")
        return {name: getattr(self, name) for name in names}

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])  # [N, C, S, S]


class Discriminator(nn.Module):
    """Images [N, num_channels, image_size, image_size] in [-1, 1] -> logits [N], positive for "real"."""

    def __init__(self, image_size: int, num_channels: int, feature_maps: int) -> None:
        super().__init__()
        self.image_size, self.num_channels, self.feature_maps = image_size, num_channels, feature_maps
        widths = layer_widths(image_size, feature_maps)[::-1]
        inputs = [num_channels, *widths[:-1]]
        # BatchNorm on the first layer would hide the brightness of a batch, so that one has none.
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, 2, 1, bias=index == 0)
            for index, (narrow, wide) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(width) for width in widths[1:])])
        self.activation = nn.LeakyReLU(0.2)
        self.head = nn.Conv2d(widths[-1], 1, root_size(image_size))

    @property
    def architecture(self) -> dict[str, int]:
        """The arguments that build this network again."""
        return {name: getattr(self, name) for name in ("image_size", "num_channels", "feature_maps")}

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N] and the output [N, C_l, H_l, W_l] of every convolution before its BatchNorm.

        After BatchNorm the mean of any batch is the same, real or fake, so the features to be matched are
        taken in front of it.
        """
        features = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x)
            features.append(x)
            x = self.activation(norm(x))
        return self.head(x).flatten(), features

    def forward(self, x: Tensor) -> Tensor:
        return self.logits_and_features(x)[0]


def initialise(network: nn.Module) -> None:
    """DCGAN's own start: convolutions N(0, 0.02), BatchNorm scales N(1, 0.02), biases 0. In place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def generator_from_checkpoint(checkpoint: dict[str, Any], name: str) -> Generator:
    """The generator of a ``generator_*.pth``, in eval mode.

    Raises ``UserError``, naming the file ``name``, if the content is not a generator or does not fit itself.
    """
    if checkpoint.get("format") != GENERATOR_FORMAT:
        raise UserError(
            f"{name} is not a generator (format {checkpoint.get('format')!r}, not {GENERATOR_FORMAT!r}): "
            "python src/train_gan.py writes generator_final.pth"
        )
    try:
        generator = Generator(**checkpoint["architecture"])
        generator.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, RuntimeError):
        raise UserError(f"{name} is damaged: its weights do not fit its architecture") from None
    return generator.eval()
