"""The plain path: the project's work written the ordinary way, for the speed benchmark to compare with.

PIL decodes; torchvision resizes and normalises in a DataLoader; every epoch runs the whole backbone in
float32 and PyTorch's default memory layout; VGG16 sees the real and generated images of every batch; each
loss is read with ``.item()``; images are saved one by one; the Fréchet distance takes a general matrix square
root. Both paths use the same networks, so that both can be given the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.utils import save_image

from classifier import PneumoniaClassifier
from data_loader import IMAGENET_MEAN, IMAGENET_STD
from dcgan import Discriminator, Generator
from gan.settings import SMOOTHING
from networks.vgg16 import MAPS, VGG16Features
from utils import usable_cores


# --- images ----------------------------------------------------------------------------------------
class PlainImages(Dataset):
    """Dataset of PNG files and labels; decodes float32 [3, S, S] with ImageNet's mean and SD every time."""

    def __init__(self, files: Sequence[Path], labels: Sequence[float], side: int) -> None:
        self.files, self.labels = list(files), list(labels)
        self.transform = transforms.Compose(
            [
                transforms.Resize((side, side)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def plain_loader(images: PlainImages, batch_size: int, workers: int, shuffle: bool) -> DataLoader:
    """Load ``images`` in batches with ``workers`` processes."""
    workers = min(workers, usable_cores())  # PyTorch warns about more
    return DataLoader(images, batch_size=batch_size, shuffle=shuffle, num_workers=workers)


def gray_levels(images: Tensor) -> np.ndarray:
    """Turn normalised images [N, 3, S, S] into gray levels [N, S, S], 0 to 255, of the first channel."""
    return ((images[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255.0).numpy()


# --- classifier ------------------------------------------------------------------------------------
def train_pass(
    model: PneumoniaClassifier, loader: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device
) -> float:
    """Train one epoch; returns the mean loss (nats)."""
    model.train()
    total = 0.0
    for images, labels in loader:
        total += plain_classifier_step(model, images.to(device), labels.float().to(device), optimizer)
    return total / len(loader)


def plain_classifier_step(
    model: PneumoniaClassifier, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer
) -> float:
    """Update the classifier once; returns the loss (nats)."""
    optimizer.zero_grad()
    loss = functional.binary_cross_entropy_with_logits(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def validation_pass(model: PneumoniaClassifier, loader: DataLoader, device: torch.device) -> float:
    """Score the images of ``loader``; returns the accuracy at probability 0.5."""
    model.eval()
    correct, seen = 0, 0
    for images, labels in loader:
        probabilities = torch.sigmoid(model(images.to(device)))
        correct += ((probabilities >= 0.5).cpu() == (labels > 0.5)).sum().item()
        seen += len(labels)
    return correct / seen


@torch.no_grad()
def plain_features(model: PneumoniaClassifier, loader: DataLoader, device: torch.device) -> np.ndarray:
    """Compute the backbone's features, float32 [N, 2048]."""
    model.eval()
    return np.concatenate([model.features(images.to(device)).cpu().numpy() for images, _ in loader])


# --- GAN -------------------------------------------------------------------------------------------
class PlainGAN:
    """G, D and their Adam optimizers; ``vgg`` gives three feature maps of images, or is None."""

    def __init__(self, G: Generator, D: Discriminator, lr: float, beta1: float, vgg: nn.Module | None) -> None:
        self.G, self.D, self.vgg = G, D, vgg
        self.optimizer_G = torch.optim.Adam(G.parameters(), lr=lr, betas=(beta1, 0.999))
        self.optimizer_D = torch.optim.Adam(D.parameters(), lr=lr, betas=(beta1, 0.999))
        self.cross_entropy = nn.BCEWithLogitsLoss()


def plain_gan_step(gan: PlainGAN, real: Tensor, z: Tensor, perceptual: float, matching: float) -> dict[str, float]:
    """Update D, then G, once; ``real`` [B, C, S, S] in [-1, 1].

    Returns the losses: adversarial ones in nats, the others without their weights.
    """
    ones, zeros = (torch.full((len(real),), value, device=real.device) for value in (1.0, 0.0))
    gan.optimizer_D.zero_grad()
    loss_real = gan.cross_entropy(gan.D(real), ones * (1 - SMOOTHING))
    fake = gan.G(z)
    loss_fake = gan.cross_entropy(gan.D(fake.detach()), zeros)
    (loss_real + loss_fake).backward()
    gan.optimizer_D.step()

    gan.optimizer_G.zero_grad()
    logits, fake_features = gan.D.logits_and_features(fake)
    _, real_features = gan.D.logits_and_features(real)
    adversarial = gan.cross_entropy(logits, ones)
    match = _map_distance(fake_features, [maps.detach() for maps in real_features])
    loss, vgg_loss = adversarial + matching * match, None
    if gan.vgg is not None:
        vgg_loss = _map_distance(gan.vgg(fake), gan.vgg(real))
        loss = loss + perceptual * vgg_loss
    loss.backward()
    gan.optimizer_G.step()
    return {
        "d_loss_real": loss_real.item(),
        "d_loss_fake": loss_fake.item(),
        "g_adversarial": adversarial.item(),
        "g_feature_matching": match.item(),
        "g_perceptual": 0.0 if vgg_loss is None else vgg_loss.item(),
    }


def _map_distance(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the mean squared difference of feature maps, averaged over layers."""
    pairs = zip(fake, real, strict=True)
    return torch.stack([functional.mse_loss(made, born) for made, born in pairs]).mean()


class PlainVGG16(nn.Module):
    """VGG16 up to relu3_3, with the layers of ``network``, called in the usual way."""

    def __init__(self, network: VGG16Features) -> None:
        super().__init__()
        self.layers = network.layers
        self.register_buffer("mean", network.get_buffer("mean"), persistent=False)
        self.register_buffer("std", network.get_buffer("std"), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return three feature maps of images [N, 3, S, S] in [-1, 1]."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        x, maps = ((images + 1) / 2 - mean) / std, []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in MAPS:
                maps.append(x)
        return maps


@torch.no_grad()
def write_images_one_by_one(generator: Generator, z: Tensor, folder: Path, batch_size: int) -> None:
    """Generate images from noise ``z`` [N, latent_dim] and save them as 1.png, 2.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    generator.eval()
    number = 0
    for part in z.split(batch_size):
        for image in generator(part).cpu():
            number += 1
            save_image(image, folder / f"{number}.png", normalize=True, value_range=(-1, 1))


# --- comparing images ------------------------------------------------------------------------------
def plain_frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute FID of features [N, D] and [M, D] with scipy's matrix square root (Heusel et al. 2017)."""
    from scipy.linalg import sqrtm

    (mu_a, sigma_a), (mu_b, sigma_b) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (a, b))
    root = sqrtm(sigma_a @ sigma_b)
    return float(((mu_a - mu_b) ** 2).sum() + np.trace(sigma_a + sigma_b - 2 * np.real(root)))


def plain_kernel_distances(a: np.ndarray, b: np.ndarray, size: int, subsets: int, seed: int) -> np.ndarray:
    """Compute KID of ``subsets`` random subsets, every kernel anew (Binkowski et al. 2018)."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x, y = (part[rng.choice(len(part), size, replace=False)] for part in (a, b))
        k_xx, k_yy, k_xy = ((p @ q.T / p.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k in (k_xx, k_yy)]
        values.append(sum(within) - 2 * k_xy.mean())
    return np.array(values)


def plain_neighbour_scores(a: np.ndarray, real: np.ndarray, k: int) -> tuple[float, float]:
    """Compute (precision, recall) of features ``a`` beside ``real``, sorting all distances of each row."""
    from scipy.spatial.distance import cdist

    between = cdist(real, a)
    real_radius = np.sort(cdist(real, real), axis=1)[:, k]  # the nearest is the image itself
    own_radius = np.sort(cdist(a, a), axis=1)[:, k]
    precision = (between <= real_radius[:, None]).any(axis=0).mean()
    return float(precision), float((between <= own_radius[None, :]).any(axis=1).mean())
