"""Heat maps of the arms: Grad-CAM of the same test images, right and wrong ones, chosen by a rule that favours no arm.

``classifier.gradcam_maps`` computes the maps; this module chooses the images and says what the maps mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from classifier import InputPipeline, gradcam_maps, load_classifier, predict_batches
from data_loader import load_images
from stats.metrics import THRESHOLD

POOL = 20  # images of each outcome that are drawn; the most confident of them are shown
OUTCOMES = {  # (label, predicted): words
    (1, 1): "true positive",
    (1, 0): "false negative",
    (0, 1): "false positive",
    (0, 0): "true negative",
}
CHOICE_RULE = (
    "The images are chosen by the first arm's predictions alone: of each outcome at a threshold of "
    f"{THRESHOLD:g}, up to {POOL} test images are drawn at random (seeded), and those that this arm is most "
    "confident about are shown."
)
CAPTION = (
    "A heat map shows where the score for pneumonia is sensitive. It does not show why, nor whether the "
    "score is right. It has one cell per 32 pixels, is smoothed, and is scaled to its own maximum: colours "
    "cannot be compared between images or arms. A map without colour means that no region raises the score. "
    f"p: probability given by the model shown. {CHOICE_RULE}"
)


# --- which images ----------------------------------------------------------------------------------
def choose_images(predictions: pd.DataFrame, n_each: int = 2, seed: int = 42) -> pd.DataFrame:
    """Choose at most ``n_each`` images of each outcome, by ``CHOICE_RULE``, in the order of ``OUTCOMES``.

    ``predictions``: image_id, label, probability of one arm's test images. Returns these columns and
    ``outcome``; an outcome that does not occur is left out.
    """
    table = predictions[["image_id", "label", "probability"]].sort_values("image_id")
    predicted = (table["probability"] >= THRESHOLD).astype(int)
    chosen = []
    for (label, call), outcome in OUTCOMES.items():
        group = table[(table["label"] == label) & (predicted == call)]
        drawn = group.sample(min(POOL, len(group)), random_state=seed)
        confident = drawn.sort_values(["probability", "image_id"], ascending=[call == 0, True])
        chosen.append(confident.head(n_each).assign(outcome=outcome))
    return pd.concat(chosen, ignore_index=True)


def row_titles(chosen: pd.DataFrame, arm: str) -> list[str]:
    """Return a text for each image that ``choose_images`` returned for the predictions of ``arm``."""
    words = {1: "pneumonia", 0: "no pneumonia"}
    return [
        f"{outcome.capitalize()}\nof {arm}\n(label: {words[label]})"
        for outcome, label in zip(chosen["outcome"], chosen["label"], strict=True)
    ]


# --- maps ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Explained:
    """X-rays uint8 [N, S, S] and, for each arm, its heat maps and its model's probabilities.

    ``heats`` float32 [N, S', S'] have each arm's own size; ``probabilities`` float [N].
    """

    xrays: np.ndarray
    heats: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]


def explain_arms(
    model_files: dict[str, Path], records: pd.DataFrame, *, device: torch.device, workers: int = 4,
    bits: int | None = None,
) -> Explained:  # fmt: skip
    """Compute maps and probabilities of ``records`` (image_id, path) by every arm's model.

    Each model sees them at its own size and, with --match-resolution, as blurred as in training. The X-rays
    are returned at the largest of these sizes. Raises ``UserError`` if a file is no classifier or an image
    cannot be read.
    """
    pixels: dict[tuple[int, int], np.ndarray] = {}  # by size and sharpness
    heats, probabilities = {}, {}
    for arm, file in model_files.items():
        model, checkpoint = load_classifier(file)
        size, through = checkpoint["image_size"], checkpoint.get("config", {}).get("match_resolution")
        key = size, through or size
        if key not in pixels:
            desc = f"decoding explained images, {size} pixels"
            pixels[key] = load_images(records, size, workers=workers, desc=desc, through=through, bits=bits).pixels
        heats[arm] = gradcam_maps(model, pixels[key], device=device)
        inputs = InputPipeline(torch.from_numpy(pixels[key]).to(device))
        logits = predict_batches(model, inputs, np.arange(len(records)), batch_size=16, precision="fp32")
        probabilities[arm] = torch.sigmoid(logits).numpy()
    return Explained(pixels[max(pixels)], heats, probabilities)
