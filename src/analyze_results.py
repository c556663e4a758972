"""Compare the arms that were trained, and the synthetic images with real ones; write figures and a report.

Reads what the other scripts left on disk and says what is missing instead of failing for it; only a
folder without the metrics of any classifier is an error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import add_data_arguments
from utils import (
    UserError,
    argument_parser,
    number,
    public_path,
    run_script,
    save_figure,
    save_json,
    save_text,
    select_device,
)

if TYPE_CHECKING:
    from arms import Arm
    from classifier import PneumoniaClassifier
    from image_comparison import ImageSets

BOOTSTRAP_RESAMPLES = 2000
PICTURE_IMAGES = 16  # of each kind in real_vs_synthetic_comparison.png
PICTURE_PAIRS = 8
DEFAULT_IMAGE_SIZE = 224


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Compare classifiers trained with and without synthetic images, and the images.")
    add = parser.add_argument
    add("--metrics-dir", default=paths.METRICS_DIR, metavar="PATH", help="folder of the training metrics")
    add("--analysis-dir", default=paths.ANALYSIS_DIR, metavar="PATH", help="folder for report and figures")
    add_data_arguments(parser)
    add("--synthetic-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of synthetic images")
    add(
        "--model-dir",
        default=paths.MODEL_DIR,
        metavar="PATH",
        help="folder of the baseline classifier, whose features stand in for Inception's",
    )
    add("--num-compare", type=number(int, 1), default=100, metavar="N", help="image pairs of each SSIM row")
    add(
        "--num-fid",
        type=number(int, 2),
        default=2000,
        metavar="N",
        help="most images on each side of a Fréchet distance; fewer where fewer exist",
    )
    add("--skip-ssim", action="store_true", help="leave the SSIM comparison out")
    add(
        "--extractor",
        choices=("auto", "inception", "classifier"),
        default="auto",
        help="features for the Fréchet distance: Inception's, the baseline classifier's, or (auto) the first "
        "if its weights are cached or can be downloaded",
    )
    add("--no-real-images", action="store_true", help="leave out every picture that shows a real X-ray")
    add(
        "--image-size",
        type=number(int, 32),
        metavar="N",
        help="side in pixels at which images are compared (default: the baseline classifier's, else that of "
        f"the synthetic images, else {DEFAULT_IMAGE_SIZE})",
    )
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="seed of every random draw")
    add("--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images")
    add("--cpu", action="store_true", help="force CPU usage even if a GPU is available")
    return parser


@dataclass
class Outcome:
    """What a run made and what it could not make, collected for the report."""

    folder: Path
    written: set[Path] = field(default_factory=set)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def picture(self, path: Path, figure: Any, what: str) -> None:
        save_figure(path, figure)
        self.written.add(path)
        self.pictures.append((path.name, what))

    def numbers(self, path: Path, content: dict[str, Any]) -> None:
        save_json(path, content)
        self.written.add(path)


# --- curves ----------------------------------------------------------------------------------------
def draw_training(arms: Sequence[Arm], outcome: Outcome) -> None:
    """comparison_acc.png, comparison_loss.png, cv_comparison.png, of the arms that have the files."""
    import plots
    from arms import TRAIN_COMMAND

    contaminated = [arm.name for arm in arms if arm.cv and arm.cv["contaminated"]]
    histories = {arm.name: arm.history for arm in arms if arm.history}
    for quantity, word in (("acc", "Accuracy"), ("loss", "Loss")):
        path = paths.comparison_figure(outcome.folder, quantity)
        if not histories:
            remedy = f"`{TRAIN_COMMAND}` writes it"
            outcome.missing.append((f"{path.name}: no training history was found", remedy))
            continue
        title = f"{word} while training: {_sizes(arms)}"
        figure = plots.comparison_curves(histories, quantity, title, contaminated)
        outcome.picture(path, figure, f"{word.lower()} by epoch, training and validation")
    summaries = {arm.name: arm.cv for arm in arms if arm.cv}
    path = paths.cv_comparison_figure(outcome.folder)
    if summaries:
        outcome.picture(path, plots.cv_comparison(summaries), "cross-validation of each arm")
    else:
        remedy = f"`{TRAIN_COMMAND} --k-folds 5` writes them"
        outcome.missing.append((f"{path.name}: no arm has cross-validation results", remedy))


def _sizes(arms: Sequence[Arm]) -> str:
    """How many real training images there are, for a title."""
    for arm in arms:
        if arm.metrics and arm.metrics.get("n_train_images"):
            return f"n = {arm.metrics['n_train_images']:,} real training images"
    return "all real training images"


# --- the picture -----------------------------------------------------------------------------------
def draw_real_vs_synthetic(images: ImageSets, outcome: Outcome, seed: int, no_real_images: bool) -> None:
    import numpy as np

    from image_quality import closest_pairs
    from plots_images import real_vs_synthetic

    rng = np.random.default_rng(seed)
    real, synthetic = images.training.pixels, images.synthetic.pixels
    some_real = real[rng.permutation(len(real))[:PICTURE_IMAGES]]
    some_synthetic = synthetic[rng.permutation(len(synthetic))[:PICTURE_IMAGES]]
    path = paths.real_vs_synthetic_figure(outcome.folder)
    size = f"{images.image_size} x {images.image_size} pixels"
    if no_real_images:
        title = f"Synthetic {images.kind}, {size}; real X-rays left out (--no-real-images)"
        figure = real_vs_synthetic(None, some_synthetic, title)
        outcome.picture(path, figure, f"synthetic {images.kind} only; no real X-ray is shown")
        return
    pairs, r = closest_pairs(synthetic, real, PICTURE_PAIRS)
    captions = [f"r = {value:.2f}" for value in r]
    counts = f"{len(real):,} real training and {len(synthetic):,} synthetic images"
    figure = real_vs_synthetic(
        some_real, some_synthetic, f"Real and synthetic {images.kind}, {size}, from {counts}",
        (synthetic[pairs[:, 0]], real[pairs[:, 1]], captions),
    )  # fmt: skip
    what = f"real and synthetic {images.kind}, and the closest pairs; shows real X-rays"
    outcome.picture(path, figure, what)


# --- images against images -------------------------------------------------------------------------
def load_sets(args: argparse.Namespace, image_size: int | None, outcome: Outcome) -> ImageSets | None:
    """The images to compare, or None (and why, in ``outcome``) where there are none.

    ``UserError`` if the dataset is there but unusable.
    """
    from data_loader import load_dataset
    from image_comparison import load_image_sets
    from splits import TEST, load_or_create_splits, select
    from synthetic import load_synthetic

    what = "SSIM, FID and the picture of real beside synthetic images"
    if not (Path(args.data_dir) / paths.TRAIN_METADATA).is_file():
        remedy = "`python src/download_dataset.py` fetches it, --data-dir says where it is"
        outcome.missing.append((f"{what}: {public_path(args.data_dir)} holds no dataset", remedy))
        return None
    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    patient_of = dict(zip(splits.images["image_id"], splits.images["patient"], strict=True))
    test_images = {image_id: patient_of[image_id] for image_id in select(dataset, splits, TEST)["image_id"]}
    try:
        synthetic = load_synthetic(args.synthetic_dir, patient_of, test_images, allow_unverified=True)
    except UserError as error:
        # The report must not say where on this machine the folder lies.
        reason = str(error).replace(str(Path(args.synthetic_dir)), public_path(args.synthetic_dir))
        outcome.missing.append((f"{what}: {reason}", ""))
        return None
    images = load_image_sets(
        dataset,
        splits,
        synthetic,
        image_size=image_size or synthetic.manifest.get("image_size") or DEFAULT_IMAGE_SIZE,
        limit=max(args.num_fid, args.num_compare),
        seed=args.seed,
        workers=args.workers,
        skip_bad=args.skip_bad_images,
    )
    outcome.warnings += [f"comparison of images: {flag}" for flag in synthetic.red_flags]
    if (count := images.provenance["skipped_images"]["count"]) > 0:
        left_out = f"{count} missing or unreadable ones were left out (--skip-bad-images)"
        outcome.warnings.append(f"comparison of images: {left_out}")
    return images


def compare_images(
    args: argparse.Namespace, arms: Sequence[Arm], outcome: Outcome
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Write ssim_analysis.json, fid_score.json and the picture; returns (ssim, fid), None where not made."""
    from classifier import load_classifier
    from image_comparison import compare_by_ssim

    file = paths.classifier_model(args.model_dir, paths.BASELINE_PREFIX)
    model, checkpoint = load_classifier(file) if file.is_file() else (None, {})
    images = load_sets(args, args.image_size or checkpoint.get("image_size"), outcome)
    if images is None:
        return None, None
    used = {arm.name: arm.metrics["split_sha256"] for arm in arms}
    if model is not None:
        used[file.name] = checkpoint["split_sha256"]
    split = images.provenance["split_sha256"]
    if others := [name for name, sha256 in used.items() if sha256 != split]:
        outcome.warnings.append(
            f"comparison of images: it uses split {split[:12]}, which is NOT the split of {', '.join(others)}"
        )
    draw_real_vs_synthetic(images, outcome, args.seed, args.no_real_images)
    ssim = None
    if not args.skip_ssim:
        ssim = compare_by_ssim(images, args.num_compare, args.seed)
        outcome.numbers(paths.ssim_analysis(outcome.folder), ssim)
    else:
        outcome.missing.append(("SSIM: left out (--skip-ssim)", ""))
    return ssim, measure_fid(args, images, model, outcome)


def measure_fid(
    args: argparse.Namespace, images: ImageSets, model: PneumoniaClassifier | None, outcome: Outcome
) -> dict[str, Any] | None:
    """Write fid_score.json; None (and why, in ``outcome``) without an extractor or enough images."""
    from image_comparison import choose_extractor, compare_by_features

    path = paths.fid_score(outcome.folder)
    try:
        extractor = choose_extractor(args.extractor, model, select_device(args.cpu))
    except UserError as error:
        if args.extractor != "auto":
            raise
        print(f"{path.name} is not made: {error}")
        outcome.missing.append((f"{path.name}: {getattr(error, 'short', None) or error}", ""))
        return None
    fid = compare_by_features(images, extractor, args.num_fid, args.seed)
    if "distances" not in fid:
        outcome.missing.append((f"{path.name}: {fid['n']} images on a side are too few for a distance", ""))
        return None
    outcome.numbers(path, fid)
    return fid


def remove_stale(outcome: Outcome) -> None:
    """Files of an earlier run that this one did not make must not pass for its own."""
    folder = outcome.folder
    made_by_this_script = {
        paths.comparison_figure(folder, "acc"),
        paths.comparison_figure(folder, "loss"),
        paths.cv_comparison_figure(folder),
        paths.real_vs_synthetic_figure(folder),
        paths.ssim_analysis(folder),
        paths.fid_score(folder),
    }
    stale = sorted(path for path in made_by_this_script - outcome.written if path.is_file())
    for path in stale:
        path.unlink()
    if stale:
        print(f"removed from {folder}, of an earlier run: {', '.join(path.name for path in stale)}")


# --- the report ------------------------------------------------------------------------------------
def note_missing(arms: dict[str, Arm], metrics_dir: str, outcome: Outcome) -> None:
    """Which result files of which arm are not there, and the command that writes them."""
    from arms import AUGMENTED, BASELINE, TRAIN_COMMAND

    for name, flag in ((BASELINE, ""), (AUGMENTED, " --use-synthetic")):
        if name not in arms or arms[name].metrics is None:
            file = paths.final_metrics(metrics_dir, f"{name}_").name
            outcome.missing.append((f"{file}: there is no {name} arm", f"`{TRAIN_COMMAND}{flag}` trains it"))
    for arm in arms.values():
        if arm.metrics and arm.predictions is None:
            file = paths.test_predictions(metrics_dir, arm.prefix).name
            outcome.missing.append((f"{file}: no difference to {arm.name} can be computed", ""))


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from arms import BASELINE, difference, find_arms, warnings_of
    from data_loader import grouping_sentence
    from report import Findings, compose

    arms = find_arms(args.metrics_dir)
    scored = [arm for arm in arms.values() if arm.metrics]
    outcome = Outcome(Path(args.analysis_dir))
    draw_training(list(arms.values()), outcome)
    ssim, fid = compare_images(args, scored, outcome)
    remove_stale(outcome)
    note_missing(arms, args.metrics_dir, outcome)
    others = scored[1:] if scored[0].name == BASELINE else []
    findings = Findings(
        arms=scored,
        cross_validated=[arm for arm in arms.values() if arm.cv],
        differences=[difference(scored[0], arm, args.seed, BOOTSTRAP_RESAMPLES) for arm in others],
        warnings=[*warnings_of(scored), *outcome.warnings],
        grouping=" / ".join({grouping_sentence(arm.metrics["grouped_by"]): None for arm in scored}),
        ssim=ssim,
        fid=fid,
        missing=outcome.missing,
        pictures=outcome.pictures,
        no_real_images=args.no_real_images,
    )
    path = paths.comparison_report(args.analysis_dir)
    save_text(path, compose(findings))
    print(f"\n{compose(findings)}\nreport and pictures: {path.parent}")


if __name__ == "__main__":
    run_script(main)
