"""The terms of the generator's loss, as the flags of train_gan.py and what can be had of VGG16 say."""

from __future__ import annotations

import argparse
import logging

import torch
from torch import Tensor

from common.distributed import main_first
from common.progress import progress_bar
from data_loader import to_gan_range
from gan.losses import PerceptualLoss
from gan.options import wants_perceptual
from gan.training import Objective, perceptual_every
from networks.vgg16 import VGG16Features, load_vgg16
from utils import WeightsUnavailableError, autocast

log = logging.getLogger(__name__)


def load_perceptual_loss(pixels: Tensor, num_channels: int, precision: str) -> PerceptualLoss:
    """VGG16 with its ImageNet weights and its moments over all ``pixels``; ``WeightsUnavailableError``."""
    with main_first():
        network = load_vgg16("the perceptual loss", "use --perceptual off").to(pixels.device)
    return perceptual_loss_of(network, pixels, num_channels, precision)


def perceptual_loss_of(
    network: VGG16Features, pixels: Tensor, num_channels: int, precision: str
) -> PerceptualLoss:
    batches = progress_bar(pixels.split(32), desc="VGG16 features of the reals", unit="batch")
    with autocast(pixels.device, precision):
        return PerceptualLoss(network, (to_gan_range(batch, num_channels) for batch in batches))


def build_objective(args: argparse.Namespace, pixels: Tensor, precision: str) -> tuple[Objective, str]:
    """The terms of G's loss and what became of the perceptual one: "on", "off" or "unavailable"."""
    perceptual_loss, outcome = None, "off"
    if wants_perceptual(args):
        try:
            perceptual_loss = load_perceptual_loss(pixels, args.num_channels, precision)
            outcome = "on"
        except WeightsUnavailableError as error:
            if args.perceptual == "on" or not (args.lambda_adv or args.lambda_fm):  # it alone teaches G
                raise
            log.info(f"training without the perceptual loss: {error}")
            outcome = "unavailable"
    return objective_with(args, perceptual_loss, pixels.device), outcome


def objective_with(
    args: argparse.Namespace, perceptual_loss: PerceptualLoss | None, device: torch.device
) -> Objective:
    weights = args.lambda_adv, args.lambda_perceptual, args.lambda_fm
    return Objective(*weights, perceptual_loss, perceptual_every(device))
