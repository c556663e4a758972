"""The whole assessment on planted sets: fresh images, copies and a collapse; then the figure of the pairs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import paths
from common.file_formats import format_problems
from comparison import quality_table
from comparison.image_file_formats import FidScore, ImageQuality, SsimAnalysis
from comparison.image_quality import assess_quality, compare_by_features, compare_by_ssim, measure_features
from comparison.image_sets import ImageSets, load_image_sets
from comparison.warnings import COLLAPSE_RATIO
from data_loader import ImageSet
from dataset.near_copies import thumbnail_features
from dataset.records import load_dataset
from dataset.splits import TRAIN, load_or_create_splits, select
from fake_pictures import pictures
from fake_results import write_synthetic
from image_metrics.feature_spaces import Space
from phantom.dataset import make_phantom_dataset
from report import image_figures
from report.image_steps import closest_neighbours
from synthetic.folders import load_synthetic
from utils import load_json, save_json

SIZE = 48
PROVENANCE = {
    "image_size": SIZE, "kind": "positives", "class_name": None, "seed": 0, "split_sha256": "5" * 64,
    "data_sha256": "6" * 64, "grouped_by": "nih_patient", "generator_sha256": None, "manifest_sha256": None,
    "synthetic_verified": True, "available": {"training": 90, "heldout": 50, "synthetic": 80},
    "seen_by_generator": None, "seen_of_other_kinds": 0, "skipped_images": {"count": 0, "image_ids": []},
}  # fmt: skip
NOT_NORMAL = "No Lung Opacity / Not Normal"


def image_set(pixels: np.ndarray, name: str) -> ImageSet:
    ids = [f"{name}-{index:03d}" for index in range(len(pixels))]
    patients = [f"{name} patient {index // 2}" for index in range(len(pixels))]
    return ImageSet(pd.DataFrame({"image_id": ids, "patient": patients}), pixels, [])


def image_sets(
    synthetic: np.ndarray, training: np.ndarray, heldout: np.ndarray, seen: np.ndarray | None = None
) -> ImageSets:
    seen = np.ones(len(training), dtype=bool) if seen is None else seen
    return ImageSets(
        image_set(training, "training"), image_set(heldout, "heldout"), image_set(synthetic, "synthetic"),
        seen=seen, image_size=SIZE, kind="positives", provenance=PROVENANCE,
    )  # fmt: skip


class Thumbnails:
    """Features for tests, which counts the images it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: ImageSet, rows: np.ndarray) -> np.ndarray:
        self.asked += len(rows)
        return thumbnail_features(images.pixels[rows], 6).astype(np.float32)


def extractor(name: str = "classifier", features=None) -> Space:
    return Space(name, features or Thumbnails(), None, 36)


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(21)
    return {"training": pictures(rng, 90, SIZE), "heldout": pictures(rng, 50, SIZE)}


def assess(synthetic: np.ndarray, real: dict[str, np.ndarray], names=("classifier",), **more) -> dict:
    images = image_sets(synthetic, real["training"], real["heldout"], **more)
    measured = [measure_features(images, extractor(name), 1000, 0) for name in names]
    ssim = compare_by_ssim(images, 80, 0)
    return assess_quality(images, measured, seed=0, ssim=ssim)


def values(quality: dict) -> dict[str, dict]:
    return {row["id"]: row for row in quality["rows"]}


@pytest.fixture(scope="module")
def fresh(real) -> dict:
    return assess(pictures(np.random.default_rng(99), 80, SIZE), real, ("inception", "classifier"))


def test_fresh_images_raise_no_flag_and_lie_where_unseen_real_ones_do(fresh):
    assert fresh["flags"] == []
    rows = values(fresh)
    for kind in ("precision", "recall", "coverage"):
        row = rows[f"{kind}_classifier"]
        assert row["value"] == pytest.approx(row["yardstick"], abs=0.15), kind
    assert rows["ssim_diversity"]["value"] == pytest.approx(1.0, abs=0.1)
    assert rows["separability_classifier"]["value"] < 0.7
    assert rows["near_copies_pixels"]["value"] < 0.08


def test_every_row_says_n_extractor_yardstick_and_its_limits(fresh):
    rows = fresh["rows"]
    assert len({row["id"] for row in rows}) == len({row["name"] for row in rows}) == len(rows)
    expected = {f"{kind}_{space}" for space in ("inception", "classifier")
                for kind in set(quality_table.STATISTICS) - {"ssim_diversity"}}  # fmt: skip
    pixels = {"ssim_diversity", "near_copies_pixels", "nearest_pixels", "closer_pixels"}
    assert {row["id"] for row in rows} == expected | pixels
    keys = {"id", "group", "name", "value", "uncertainty", "yardstick", "yardstick_name", "n", "extractor",
            "what", "cannot_tell"}  # fmt: skip
    for row in rows:
        assert set(row) == keys and row["extractor"]
        assert np.isfinite(row["value"]) and np.isfinite(row["yardstick"]) and row["yardstick_name"]
        assert any(sign.isdigit() for sign in row["n"])
        assert row["what"].endswith(".") and row["cannot_tell"].endswith(".")
    groups = [row["group"] for row in rows]
    assert list(dict.fromkeys(groups)) == list(quality_table.GROUPS)
    assert groups == sorted(groups, key=quality_table.GROUPS.index)
    assert quality_table.CLASSIFIER_COPIES in values(fresh)["closer_classifier"]["cannot_tell"]
    assert quality_table.CLASSIFIER_COPIES not in values(fresh)["closer_inception"]["cannot_tell"]


def test_planted_copies_are_flagged_by_name(real):
    synthetic = pictures(np.random.default_rng(98), 80, SIZE)
    synthetic[40:] = (real["training"][:40] * 0.8 + 30).astype(np.uint8)
    quality = assess(synthetic, real)
    rows = values(quality)
    assert 0.5 <= rows["near_copies_pixels"]["value"] < 0.58
    assert rows["closer_pixels"]["value"] > 0.6
    assert any("40 of 80 synthetic images are nearly identical" in flag for flag in quality["flags"])
    assert any("follow single training images" in flag for flag in quality["flags"])
    for pair in quality["memorisation"]["closest"]:
        row = int(pair["synthetic"].split("-")[1])
        assert row >= 40 and pair["training"] == f"training-{row - 40:03d}"
        assert pair["training_distance"] < 0.1 < pair["heldout_distance"]


def test_a_planted_collapse_shows_in_diversity_recall_and_coverage(real):
    rng = np.random.default_rng(97)
    one = pictures(rng, 1, SIZE).astype(float)
    synthetic = (one + rng.normal(0, 4, (80, SIZE, SIZE))).clip(0, 255).astype(np.uint8)
    quality = assess(synthetic, real)
    rows = values(quality)
    assert rows["ssim_diversity"]["value"] < COLLAPSE_RATIO
    assert rows["recall_classifier"]["value"] < 0.05 and rows["coverage_classifier"]["value"] < 0.2
    assert any("may have collapsed" in flag for flag in quality["flags"])
    assert any("cover" in flag for flag in quality["flags"])


def test_unlike_images_are_separated(real):
    synthetic = (pictures(np.random.default_rng(96), 80, SIZE) * 0.5).astype(np.uint8)
    rows = values(assess(synthetic, real))
    assert rows["separability_classifier"]["value"] > 0.99
    relative, kid = rows["fid_relative_classifier"], rows["kid_of_subsets_classifier"]
    assert relative["value"] > 3 > relative["yardstick"]
    assert kid["value"] > 5 * abs(kid["yardstick"])


def test_only_images_that_the_generator_saw_can_be_copied(real):
    """With half of the training images unseen, their copies are no copies of what it learned from."""
    synthetic = pictures(np.random.default_rng(95), 40, SIZE)
    synthetic[:10] = real["training"][:10]
    seen = np.arange(90) >= 45
    quality = assess(synthetic, real, seen=seen)
    copies = quality["memorisation"]["copies"]
    assert copies["n_training"] == 45 and copies["nearly_identical"] == 0
    assert quality["extractors"]["classifier"]["memorisation"]["copies"]["n_training"] == 45


def test_the_files_are_as_their_formats_describe(real, fresh, tmp_path):
    images = image_sets(pictures(np.random.default_rng(93), 30, SIZE), real["training"], real["heldout"])
    contents = {
        SsimAnalysis: compare_by_ssim(images, 20, 0),
        FidScore: compare_by_features(images, measure_features(images, extractor(), 1000, 0)),
        ImageQuality: fresh,
    }
    for kind, content in contents.items():
        save_json(tmp_path / "file.json", content)
        assert format_problems(load_json(tmp_path / "file.json"), kind) == []


# --- less than everything --------------------------------------------------------------------------
def test_each_image_is_looked_at_once_and_no_more_than_asked(real):
    images = image_sets(pictures(np.random.default_rng(94), 30, SIZE), real["training"], real["heldout"])
    features = Thumbnails()
    measured = measure_features(images, extractor(features=features), 20, 0)
    assert features.asked == 40 + 20 + 20
    assert {name: len(rows) for name, rows in measured.rows.items()} == {
        "training": 40, "heldout": 20, "synthetic": 20
    }  # fmt: skip
    for name, rows in measured.rows.items():
        pixels = getattr(images, name).pixels[rows]
        assert np.allclose(getattr(measured, name), thumbnail_features(pixels, 6))
    assess_quality(images, [measured], seed=0)
    compare_by_features(images, measured)
    assert features.asked == 80


def test_fid_score_holds_the_relative_value(real):
    images = image_sets(pictures(np.random.default_rng(93), 30, SIZE), real["training"], real["heldout"])
    fid = compare_by_features(images, measure_features(images, extractor(), 1000, 0))
    assert fid["fid_relative"] == fid["fid"] / fid["fid_floor"]
    assert fid["fid"] == fid["comparisons"]["synthetic_vs_training"]["fid"]
    assert fid["n"] == 30 and fid["extractor"] == "classifier"


def test_the_files_say_in_which_precision_and_on_what_device(real):
    images = image_sets(pictures(np.random.default_rng(93), 30, SIZE), real["training"], real["heldout"])
    measured = measure_features(images, replace(extractor(), precision="bf16", device="cuda"), 1000, 0)
    fid = compare_by_features(images, measured)
    assert (fid["precision"], fid["device"]) == ("bf16", "cuda")
    space = assess_quality(images, [measured], seed=0)["extractors"]["classifier"]
    assert (space["precision"], space["device"]) == ("bf16", "cuda")


@pytest.mark.parametrize("n_heldout", [0, 2, 8])
def test_few_or_no_held_out_images(real, n_heldout):
    synthetic = pictures(np.random.default_rng(92), 30, SIZE)
    quality = assess(synthetic, {**real, "heldout": real["heldout"][:n_heldout]})
    rows = values(quality)
    assert ("near_copies_pixels" in rows) == (n_heldout >= 5)
    assert "precision_classifier" in rows and "separability_classifier" in rows
    images = image_sets(synthetic, real["training"], real["heldout"][:n_heldout])
    figure = image_figures.nearest_neighbours(**closest_neighbours(images, quality))
    assert len(figure.axes[0].images) == (24 if n_heldout else 16)


def test_hardly_any_images_and_no_extractor(real):
    quality = assess(real["heldout"][:2], {**real, "training": real["training"][:4]})
    assert "fid_classifier" in values(quality) and "precision_classifier" not in values(quality)
    assert format_problems(quality, ImageQuality) == []
    assert values(quality)["separability_classifier"]["value"] is None
    without = assess(pictures(np.random.default_rng(91), 30, SIZE), real, names=())
    assert {row["extractor"] for row in without["rows"]} == {"pixels", quality_table.PIXELS}


# --- the figure ------------------------------------------------------------------------------------
def test_closest_pairs_are_shown_with_their_neighbours_or_alone(real):
    synthetic = pictures(np.random.default_rng(90), 30, SIZE)
    synthetic[5] = real["training"][9]
    images = image_sets(synthetic, real["training"], real["heldout"])
    quality = assess_quality(images, [], seed=0)
    arguments = closest_neighbours(images, quality, n_pairs=6)
    assert (arguments["synthetic"][0] == synthetic[5]).all()
    assert (arguments["training"][0] == real["training"][9]).all()
    assert arguments["captions"]["training"][0] == "r = 1.00, flagged"
    figure = image_figures.nearest_neighbours(**arguments)
    assert len(figure.axes[0].images) == 18
    alone = image_figures.nearest_neighbours(**arguments, no_real_images=True)
    shown = {np.asarray(drawn.get_array()).tobytes() for drawn in alone.axes[0].images}
    assert shown == {image.tobytes() for image in arguments["synthetic"]}


class TestDistancesOfRealImages:
    """They are computed once for all synthetic images, and again if anything about them changes."""

    @pytest.fixture
    def counted(self, monkeypatch) -> list[int]:
        from image_metrics import distances as equal_draws

        calls, distance = [], equal_draws.frechet_distance_of_features
        monkeypatch.setattr(
            equal_draws,
            "frechet_distance_of_features",
            lambda a, b: (calls.append(1), distance(a, b))[1],
        )
        return calls

    @staticmethod
    def measure(real, seed: int, folder, key: str = "space", heldout_key: str = "h") -> dict:
        synthetic = pictures(np.random.default_rng(seed), 40, SIZE)
        images = image_sets(synthetic, real["training"], real["heldout"])
        with_keys = {
            name: replace(part, row_keys=[f"{prefix}{index}" for index in range(len(part.pixels))])
            for name, prefix in (("training", "t"), ("heldout", heldout_key))
            for part in [getattr(images, name)]
        }
        own = replace(extractor(), key=key)
        return measure_features(replace(images, **with_keys), own, 30, 0, folder).distances

    def test_kept_from_one_set_of_synthetic_images_to_the_next(self, real, tmp_path, counted):
        first = self.measure(real, 1, tmp_path)
        assert len(counted) == 4 * 5
        second = self.measure(real, 2, tmp_path)
        assert len(counted) == 4 * 5 + 2 * 5, "those of the synthetic images alone"
        for name in ("floor", "heldout_vs_training"):
            assert second["comparisons"][name] == first["comparisons"][name]
        assert second == self.measure(real, 2, None)

    def test_not_used_for_other_features_or_images_nor_when_damaged(self, real, tmp_path, counted):
        expected = self.measure(real, 1, tmp_path)
        for changed in ({"key": "other"}, {"heldout_key": "new"}):
            counted.clear()
            self.measure(real, 1, tmp_path, **changed)
            assert len(counted) == 20, changed
        for file in tmp_path.rglob("*.json"):
            file.write_text(file.read_text().replace("0.", "1.", 1))
        counted.clear()
        assert self.measure(real, 1, tmp_path) == expected and len(counted) == 20


# --- which real images they are compared with ------------------------------------------------------
@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    return make_phantom_dataset(tmp_path_factory.mktemp("phantoms"), 120, image_size=40, workers=1)


def loaded(data_dir: Path, folder: Path, **manifest) -> ImageSets:
    """The sets that are compared when the generator saw all training images."""
    dataset = load_dataset(data_dir)
    splits = load_or_create_splits(dataset)
    train = select(dataset, splits, TRAIN)
    write_synthetic(folder, data_dir, 6, train_image_ids=list(train["image_id"]),
                    train_patients=sorted(set(train["patient"])), **manifest)  # fmt: skip
    patient_of = dict(zip(dataset.images["image_id"], dataset.images["patient"], strict=True))
    images = load_synthetic(folder, patient_of, {})
    return load_image_sets(dataset, splits, images, image_size=32, seed=0, workers=1, skip_bad=False)


@pytest.mark.parametrize(
    ("manifest", "classes", "kind"),
    [
        ({"label": 1, "class": "lung_opacity"}, {"Lung Opacity"}, "positives"),
        ({"label": 0, "class": "normal"}, {"Normal"}, "negatives of class Normal"),
        ({"label": 0, "class": "not_normal"}, {NOT_NORMAL}, f"negatives of class {NOT_NORMAL}"),
        ({"label": 0}, {"Normal", NOT_NORMAL}, "negatives"),
        ({"label": 0, "class": "some other"}, {"Normal", NOT_NORMAL}, "negatives"),
    ],
)
def test_real_images_are_those_of_the_same_class_or_label(phantoms, tmp_path, manifest, classes, kind):
    images = loaded(phantoms, tmp_path / "synthetic", **manifest)
    for part in (images.training, images.heldout):
        assert set(part.records["class"]) == classes
    train = select(load_dataset(phantoms), load_or_create_splits(load_dataset(phantoms)), TRAIN)
    assert len(images.training.records) == train["class"].isin(classes).sum()
    assert images.kind == images.provenance["kind"] == kind and images.seen.all()
    assert images.provenance["seen_of_other_kinds"] == len(train) - len(images.training.records) > 0


def test_without_classes_in_the_metadata_negatives_are_compared_with_negatives(phantoms, tmp_path):
    data_dir = tmp_path / "data"
    shutil.copytree(phantoms, data_dir)
    metadata = pd.read_csv(data_dir / paths.TRAIN_METADATA, dtype=str, keep_default_na=False)
    metadata.drop(columns="class").to_csv(data_dir / paths.TRAIN_METADATA, index=False)
    (data_dir / paths.SPLITS).unlink(missing_ok=True)
    images = loaded(data_dir, tmp_path / "synthetic", label=0, **{"class": "normal"})
    assert images.kind == "negatives" and set(images.training.records["label"]) == {0}
    assert images.provenance["class_name"] is None


def test_copies_of_other_kinds_are_said_not_to_be_looked_for(fresh, real):
    images = image_sets(pictures(np.random.default_rng(99), 80, SIZE), real["training"], real["heldout"])
    quality = assess_quality(replace(images, provenance=PROVENANCE | {"seen_of_other_kinds": 7}), [], seed=0)
    words = "also learned from 7 training images of other classes: copies of those are not looked for."
    copies = [row for row in quality["rows"] if row["group"] == quality_table.COPIES]
    assert len(copies) == 3 and all(words in row["cannot_tell"] for row in copies)
    assert not any("other classes" in row["cannot_tell"] for row in fresh["rows"])


def test_pictures_name_the_kind_of_real_images(phantoms, tmp_path):
    images = loaded(phantoms, tmp_path / "synthetic", label=0, **{"class": "normal"})
    figure = image_figures.real_vs_synthetic(images.training.pixels[:8], images.synthetic.pixels, "t", kind=images.kind)
    written = [item.get_text() for item in figure.findobj(lambda item: hasattr(item, "get_text"))]
    assert "Real: training negatives of class Normal, drawn at random" in written
