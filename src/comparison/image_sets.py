"""The real and synthetic images of an analysis: which are compared, decoded to one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from comparison.image_file_formats import ImageProvenance
from data_loader import ImageSet, load_images
from dataset.records import Dataset
from dataset.splits import TEST, TRAIN, Splits, select
from gan.settings import CLASS_FLAGS, CLASS_NAMES
from utils import UserError

if TYPE_CHECKING:
    import pandas as pd

    from synthetic.folders import SyntheticSet


@dataclass(frozen=True)
class ImageSets:
    """The images that are compared, all uint8 [N, image_size, image_size].

    ``seen`` bool [training images]: those that the generator learned from; all if nobody knows. ``kind``:
    their label or class in words. ``provenance``: what every result file says about them.
    """

    training: ImageSet
    heldout: ImageSet
    synthetic: ImageSet
    seen: np.ndarray
    image_size: int
    kind: str
    provenance: ImageProvenance

    @property
    def parts(self) -> dict[str, ImageSet]:
        """The three sets by name."""
        return {"training": self.training, "heldout": self.heldout, "synthetic": self.synthetic}


def load_image_sets(
    dataset: Dataset,
    splits: Splits,
    synthetic: SyntheticSet,
    *,
    image_size: int,
    seed: int,
    workers: int,
    skip_bad: bool,
    cache_dir: str | Path | None = None,
) -> ImageSets:
    """Decode the synthetic images and all real ones of their label or class to ``image_size``.

    All real images are needed: a copy is found only if its original is among them. ``seed`` is only
    recorded. ``cache_dir``: folder for decoded images; None keeps nothing. Raises ``UserError`` naming
    unreadable images, unless ``skip_bad``.
    """
    class_name = _class_name(dataset, synthetic)
    wanted = {
        "training": _real_images(dataset, splits, TRAIN, synthetic, class_name),
        "heldout": _real_images(dataset, splits, TEST, synthetic, class_name),
        "synthetic": synthetic.records,
    }
    sets = {}
    for name, records in wanted.items():
        desc = f"decoding {name} images"
        sets[name] = load_images(
            records, image_size, workers=workers, skip_bad=skip_bad, desc=desc, cache_dir=cache_dir
        )
        if not len(sets[name].pixels) and name != "heldout":
            raise UserError(f"no readable {name} images are left to compare; restore some of them")
    learned = set(synthetic.manifest.get("train_image_ids", []))
    seen = sets["training"].records["image_id"].isin(learned).to_numpy()
    n_learned = int(select(dataset, splits, TRAIN)["image_id"].isin(learned).sum())
    kind = "positives" if synthetic.label else "negatives"
    skipped = [image_id for images in sets.values() for image_id in images.skipped]
    provenance: ImageProvenance = {
        "image_size": image_size,
        "kind": kind + (f" of class {class_name}" if class_name and not synthetic.label else ""),
        "class_name": class_name,
        "seed": seed,
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": splits.grouped_by,
        "generator_sha256": synthetic.manifest.get("generator_sha256"),
        "manifest_sha256": synthetic.manifest_sha256,
        "synthetic_verified": synthetic.verified,
        "available": {
            "training": len(wanted["training"]),
            "heldout": len(wanted["heldout"]),
            "synthetic": len(wanted["synthetic"]),
        },
        "seen_by_generator": int(seen.sum()) if seen.any() else None,
        "seen_of_other_kinds": n_learned - int(wanted["training"]["image_id"].isin(learned).sum()),
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }
    seen = seen if seen.any() else np.ones(len(seen), dtype=bool)
    return ImageSets(**sets, seen=seen, image_size=image_size, kind=provenance["kind"], provenance=provenance)


def _class_name(dataset: Dataset, synthetic: SyntheticSet) -> str | None:
    """The data set's name of the images' class; None if it is unknown or the data set does not have it."""
    names: Mapping[str, str] = dict(zip(CLASS_FLAGS, CLASS_NAMES, strict=True))
    name = names.get(synthetic.class_flag or "")
    return name if name in set(dataset.images["class"]) else None


def _real_images(
    dataset: Dataset, splits: Splits, role: str, synthetic: SyntheticSet, class_name: str | None
) -> pd.DataFrame:
    """Records of that role with the class of the synthetic images or, if it is unknown, their label."""
    records = select(dataset, splits, role, synthetic.label)
    return records if class_name is None else records[records["class"] == class_name].reset_index(drop=True)
