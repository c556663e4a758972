"""The initial weights of an arm, checked before any image is decoded: what they are, and what they have seen.

A file of somebody else has learned from images that only its user can name. If these hold the test patients,
every result would be too good.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifier import CHECKPOINT_FORMAT, PneumoniaClassifier, build_classifier, load_backbone
from dataset.known_datasets import find_data_sets, overlap_reason
from networks.backbone_builder import hashes_of_imagenet_files
from networks.backbones import BACKBONES, DEFAULT
from networks.weight_files import read_weight_file
from utils import UserError, public_path, sha256_file

log = logging.getLogger(__name__)

OR_ALLOW = "or use --allow-unverified-weights, which puts a red flag into every result"


@dataclass(frozen=True)
class InitialWeights:
    """What is known of --weights.

    ``red_flags``: what every reader of the results must know. ``saw_images``: they learned, or may have
    learned, from images of this data set. ``sha256``: of a file. ``split_sha256``: split of the run that
    made them, for a checkpoint of this product. ``allow_unverified``: use them whatever they have seen.
    """

    name: str
    red_flags: tuple[str, ...] = ()
    saw_images: bool = False
    sha256: str | None = None
    split_sha256: str | None = None
    allow_unverified: bool = False

    def for_split(self, split_sha256: str) -> InitialWeights:
        """Return what is known of them beside a split; raises ``UserError`` if they may know its test patients."""
        if self.split_sha256 is None:
            return self
        flag = f"--weights {public_path(self.name)} had learned from these training images before"
        if self.split_sha256 != split_sha256:
            why = f"was trained on another split ({self.split_sha256[:12]}, not {split_sha256[:12]})"
            if not self.allow_unverified:
                raise UserError(
                    f"--weights {self.name} {why} and may have seen the test patients; use imagenet, none, a file "
                    f"of this split, {OR_ALLOW}"
                )
            flag = f"--weights {public_path(self.name)} {why} and may have seen the test patients"
        return replace(self, red_flags=(flag, *self.red_flags), saw_images=True)


def check_weights(
    weights: str, trained_on: str | None, allow_unverified: bool, frozen: bool, backbone: str = DEFAULT
) -> InitialWeights:
    """Load the weights of ``backbone`` once, and find out what they have learned from.

    ``trained_on``: what the user says of a file. Raises ``UserError`` if they are not available or do not fit
    the network, if nobody says what a file was trained on, or if that may hold the test patients and
    ``allow_unverified`` is not set.
    """
    if weights in ("imagenet", "none"):
        build_classifier(weights, frozen, backbone)
        return InitialWeights(weights)
    content = read_weight_file(weights)
    place = load_backbone(PneumoniaClassifier(frozen, backbone), content, weights)
    if place:
        title = BACKBONES[backbone].title
        log.info(f"{public_path(weights)}: the {title} at {place!r} is used, without its last layer")
    sha256 = sha256_file(weights)
    itself = _says_itself(weights, content, sha256, backbone)
    if itself is not None and trained_on is not None:
        raise UserError(f"--weights-trained-on {trained_on!r}: {weights} says itself that it is {itself}; leave it out")
    if content.get("format") != CHECKPOINT_FORMAT:
        flags, saw_images = ((), False) if itself else _judge(weights, trained_on, allow_unverified)
        return InitialWeights(weights, flags, saw_images, sha256, None, allow_unverified)
    flags, unverified = _flags_of_checkpoint(content, public_path(weights))
    if unverified and not allow_unverified:
        raise UserError(f"--weights {weights} is of unverified origin: {flags[0]}; use others, {OR_ALLOW}")
    split = str(content.get("split_sha256", "unknown"))
    return InitialWeights(weights, flags, True, sha256, split, allow_unverified)


def _flags_of_checkpoint(content: Mapping[str, Any], name: str) -> tuple[tuple[str, ...], bool]:
    """Return (red flags of a checkpoint of this program, whether it may know the test patients by them).

    ``name``: of the file. Its initial weights or its synthetic images may have been of unverified origin.
    """
    flags, config = tuple(content.get("weights_flags", ())), content.get("config") or {}
    unverified = bool(flags and config.get("allow_unverified_weights"))
    if config.get("allow_unverified_synthetic"):
        sentence = f"{name} may have learned from synthetic images of unverified origin (--allow-unverified-synthetic)"
        return (sentence, *flags), True
    return flags, unverified


def _says_itself(weights: str, content: Mapping[Any, Any], sha256: str, backbone: str) -> str | None:
    """Say what the file is if its origin is known without its user; else None."""
    if content.get("format") == CHECKPOINT_FORMAT:
        return "a checkpoint of this program"
    known = any(sha256.startswith(start) for start in hashes_of_imagenet_files(backbone))
    return f"torchvision's ImageNet file {Path(weights).name}" if known else None


def _judge(weights: str, trained_on: str | None, allow: bool) -> tuple[tuple[str, ...], bool]:
    """Return (red flags, whether it may have seen our images) of somebody else's file.

    Raises ``UserError`` if it may have seen the test patients, unless ``allow`` is set.
    """
    name = public_path(weights)
    if trained_on is None:
        if not allow:
            raise UserError(
                f"--weights {weights}: nobody knows what it was trained on, perhaps on the test patients; name the "
                f"data with --weights-trained-on NAME (ImageNet, CheXpert, ...), {OR_ALLOW}"
            )
        return (f"nobody said what --weights {name} was trained on: it may have seen the test patients",), True
    said = f"--weights {name} was trained on {trained_on}, says its user"
    if reason := overlap_reason(trained_on):
        if not allow:
            raise UserError(
                f"--weights-trained-on {trained_on!r}: {reason}, so {weights} may have seen the test patients; use "
                f"weights of other data, {OR_ALLOW}"
            )
        return (f"{said}: {reason}, so it may have seen the test patients",), True
    named = find_data_sets(trained_on)
    if named.unknown:
        return (f"{said}: that is not in the table of known data sets, so it may hold the test patients",), True
    if all(row.photographs for row in named.rows):
        return (), False
    return (f"{said}: nobody can check here that it saw no test patient",), False
