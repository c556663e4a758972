"""Names of folders and files that a user or several modules see: the only module that spells them.

Pure functions from folders and prefixes to paths; nothing here creates, opens or reads anything. Folders
given on a command line default to the layout of README, relative to the working directory. Files that one
module alone writes and reads (caches, downloads under way) are named there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SRC = Path(__file__).resolve().parents[1]  # the folder of the scripts

# --- default folders, as a user types them ---------------------------------------------------------
DATA_DIR = "./data/processed"
SYNTHETIC_DIR = "./data/synthetic"
CACHE_DIR = "./data/cache"
MODEL_DIR = "./models"
OUTPUT_DIR = "./results"
METRICS_DIR = "./results/metrics"
FIGURES_DIR = "./results/figures"
ANALYSIS_DIR = "./results/analysis"
JUDGEMENT_DIR = "./results/judgement"
EXTERNAL_DATA_DIR = "./data/external"
STUDY_DIR = "./results/study"
PLAN = "./results/plan.json"
PREDICTIONS = "./predictions.csv"
DEMO_DIR = "./demo"
KAGGLE_DIR = "./.kaggle"
LOGS = "logs"  # folder beside the results of a run

# How pictures and pages that show real patients end: .gitignore keeps them out of repositories.
REAL_PICTURE_SUFFIX = ".patient.png"
REAL_PAGE_SUFFIX = ".patient.html"


# --- how a name is given ---------------------------------------------------------------------------
class FoldPath(Protocol):
    """A path that depends on the fold, counted from 1, that a GAN never saw; None if it saw all images."""

    def __call__(self, folder: str | Path, fold: int | None = None) -> Path: ...


def in_folder(*parts: str) -> Callable[[str | Path], Path]:
    """Make a function: folder -> path of ``parts`` in it."""
    return lambda folder: Path(folder).joinpath(*parts)


def _of_arm(pattern: str) -> Callable[[str | Path, str], Path]:
    """Make a function: (folder, prefix of an arm) -> path of ``pattern`` with the prefix in it."""
    return lambda folder, prefix: Path(folder) / pattern.format(prefix)


def _of_fold(folder: Path, fold: int | None) -> Path:
    return folder if fold is None else folder / f"fold_{fold}"


def _of_gan(subfolder: str, *parts: str) -> FoldPath:
    """Make a function: (folder, fold) -> path of ``parts`` in ``subfolder``, or in its folder of the fold."""
    return lambda folder, fold=None: _of_fold(Path(folder) / subfolder, fold).joinpath(*parts)


def _of_gan_run(name: str) -> FoldPath:
    """Make a function: (folder, fold) -> path of a file named after the GAN, and after the fold."""
    return lambda folder, fold=None: Path(folder) / f"{'gan_' if fold is None else f'gan_fold_{fold}_'}{name}"


download_marker = in_folder(".download_complete.json")  # which dataset this is; written last


# --- the dataset, as Kaggle delivers it ------------------------------------------------------------
TRAIN_METADATA = "stage2_train_metadata.csv"
TEST_METADATA = "stage2_test_metadata.csv"
PATIENT_MAP = "pneumonia-challenge-dataset-mappings_2018.json"
SPLITS = "splits.json"
training_images = in_folder("Training", "Images")
training_masks = in_folder("Training", "Masks")
test_images = in_folder("Test")
phantom_marker = in_folder("phantoms.json")  # their settings
provenance = in_folder("provenance.json")  # what was imported


# --- caches ---------------------------------------------------------------------------------------
# Decoded images and features: see ``dataset/pixel_cache.py`` and ``dataset/feature_cache.py``.
def cached_distances(cache_dir: str | Path, name: str) -> Path:
    """Return the file of distances between real images, which need not be computed for every set of synthetic ones."""
    return Path(cache_dir) / "distances" / f"{name}.json"


def cached_scores(cache_dir: str | Path, name: str) -> Path:
    """Return the file of scores of perturbed images by one model, which need not be computed for every analysis."""
    return Path(cache_dir) / "robustness" / f"{name}.json"


# --- classifier ------------------------------------------------------------------------------------
CV_COMPARISON = "cv_comparison.png"


def repeat_prefix(prefix: str, repeat: int) -> str:
    """Return the prefix of one of several training runs of an arm, counted from 1."""
    return f"{prefix}r{repeat}_"


def classifier_model(folder: str | Path, prefix: str, backbone: str = "resnet50") -> Path:
    """Return the file of an arm's final model, fitted on all training images."""
    return Path(folder) / f"{prefix}{backbone}.pth"


def best_fold_model(folder: str | Path, prefix: str, backbone: str = "resnet50") -> Path:
    """Return the file of an arm's fold model with the lowest validation loss."""
    return Path(folder) / f"best_overall_{prefix}{backbone}.pth"


classifier_state = _of_arm("{}unfinished")  # for --resume; gone at the end
training_history = _of_arm("{}training_history.json")
cv_summary = _of_arm("{}cv_summary.json")
final_metrics = _of_arm("{}final_metrics.json")
test_predictions = _of_arm("{}test_predictions.csv")
cv_predictions = _of_arm("{}cv_predictions.csv")
unlabelled_predictions = _of_arm("{}unlabelled_predictions.csv")
loss_figure = _of_arm("{}loss.png")
acc_figure = _of_arm("{}acc.png")
cv_comparison_figure = in_folder(CV_COMPARISON)


# --- GAN -------------------------------------------------------------------------------------------
gan_dir = _of_gan("gan")
generator_final = _of_gan("gan", "generator_final.pth")
discriminator_final = _of_gan("gan", "discriminator_final.pth")
generator_best = _of_gan("gan", "generator_best.pth")  # the generator of the lowest KID
gan_state = _of_gan("gan", "training_state.pth")  # the last full training state, for --resume


def generator_epoch(model_dir: str | Path, epoch: int, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / f"generator_epoch_{epoch:04d}.pth"


def discriminator_epoch(model_dir: str | Path, epoch: int, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / f"discriminator_epoch_{epoch:04d}.pth"


gan_history = _of_gan_run("training_history.json")
gan_stats = _of_gan_run("stats.jsonl")  # statistics during training, a line each
gan_events = _of_gan("tensorboard")  # folder of TensorBoard's files


def is_gan_prefix(prefix: str) -> bool:
    """Return whether ``prefix`` is a GAN's, whose history lies beside those of the classifiers."""
    return re.fullmatch(r"gan_(fold_\d+_)?", prefix) is not None


gan_loss_figure = _of_gan_run("loss_curve.png")
gan_quality_figure = _of_gan_run("quality.png")
gan_images = _of_gan("gan_images")


def gan_sample_grid(output_dir: str | Path, step: int, fold: int | None = None) -> Path:
    return gan_images(output_dir, fold) / f"samples_step_{step:07d}.png"


gan_final_grid = _of_gan("gan_images", "samples_final.png")
gan_real_grid = _of_gan("gan_images", "reals.png")  # shows patients: never committed
gan_augmented_grid = _of_gan("gan_images", "reals_augmented.png")  # shows patients
gan_interpolation = _of_gan("gan_images", "interpolation.gif")


# --- synthetic images ------------------------------------------------------------------------------
def synthetic_image(synthetic_dir: str | Path, index: int) -> Path:
    """Return the file of image ``index``, counted from 1."""
    return Path(synthetic_dir) / (SYNTHETIC_NAME % index)


SYNTHETIC_PATTERN = "synthetic_*.png"
SYNTHETIC_NAME = "synthetic_%05d.png"  # as manifests state it, too


def synthetic_fold(synthetic_dir: str | Path, fold: int | None) -> Path:
    """Return the folder of images whose generator never saw ``fold``, counted from 1; None: the folder itself."""
    return _of_fold(Path(synthetic_dir), fold)


synthetic_manifest = in_folder("manifest.json")


# --- analysis --------------------------------------------------------------------------------------
def comparison_figure(analysis_dir: str | Path, quantity: str) -> Path:
    """Return the figure that compares the arms; ``quantity`` is "acc" or "loss"."""
    return Path(analysis_dir) / f"comparison_{quantity}.png"


comparison_report = in_folder("comparison_report.txt")
comparison = in_folder("comparison.json")  # every arm and every pair in numbers


TEMPLATES_DIR = SRC / "report" / "templates"
REPORT_TEMPLATE = "report.html.j2"
report_page = in_folder("report.html")
image_quality = in_folder("image_quality.json")  # synthetic beside real images


def analysis_figure(analysis_dir: str | Path, name: str) -> Path:
    """Return the figure ``name``: roc_pr, calibration, confusion, subgroups, differences, decision_curve, ..."""
    return Path(analysis_dir) / f"{name}.png"


patient_flow = in_folder("patient_flow.json")  # images and patients of each step
model_card = in_folder("model_card.md")
dataset_card = in_folder("dataset_card.md")
checklist = in_folder("checklist.md")  # items of reporting guidelines, and what answers them
judgement = in_folder("judgement.json")  # two folders compared
JUDGEMENT_TEMPLATE = "judgement.html.j2"


def judgement_page(folder: str | Path, shows_patients: bool) -> Path:
    """Return the page of two folders compared; .gitignore leaves out the one that shows patients' images."""
    return Path(folder) / f"judgement{REAL_PAGE_SUFFIX if shows_patients else '.html'}"


def real_figure(analysis_dir: str | Path, name: str) -> Path:
    """Return the figure ``name``, worst_errors or perturbations, which shows real X-rays."""
    return Path(analysis_dir) / f"{name}{REAL_PICTURE_SUFFIX}"


ssim_analysis = in_folder("ssim_analysis.json")
fid_score = in_folder("fid_score.json")
real_vs_synthetic_figure = in_folder("real_vs_synthetic_comparison.png")


# --- external tests --------------------------------------------------------------------------------
def external_folder(metrics_dir: str | Path, name: str | None = None) -> Path:
    """Return the folder of the external test ``name``, or of all of them, beside the training metrics."""
    folder = Path(metrics_dir).parent / "external"
    return folder if name is None else folder / name


external_test = in_folder("external_test.json")
external_analysis = in_folder("analysis")  # the report of an external test


# --- pipeline --------------------------------------------------------------------------------------
pipeline_log = in_folder("pipeline.json")  # steps that ran, with their commands


# --- predictions of the user's own images ----------------------------------------------------------
PREDICTION_TEMPLATE = "predictions.html.j2"


def heat_map_picture(folder: str | Path, name: str) -> Path:
    """Return the heat map of the image ``name``; it shows a patient."""
    return Path(folder) / f"{name}{REAL_PICTURE_SUFFIX}"


def prediction_page(name: str | Path) -> Path:
    """Return the page that --report ``name`` means: it shows patients, so that its ending says so."""
    page = Path(name)
    return page if page.name.endswith(REAL_PAGE_SUFFIX) else page.with_name(f"{page.stem}{REAL_PAGE_SUFFIX}")


# --- low-data study --------------------------------------------------------------------------------
STUDY_PATTERN = "fraction_*"


def study_fraction(study_dir: str | Path, fraction: float) -> Path:
    """Return the folder of everything trained on that fraction of the training patients."""
    return Path(study_dir) / f"fraction_{fraction:g}"


def outer_run(study_dir: str | Path, fold: int, gan: int) -> Path:
    """Return the folder of everything that an outer fold's models and its GAN number ``gan`` have made."""
    return Path(study_dir) / f"fold_{fold}" / f"gan_{gan}"


def few_labels_study(study_dir: str | Path, n: int) -> Path:
    """Return the folder of the part of a study in which the labels of ``n`` patients are known."""
    return Path(study_dir) / f"labelled_{n}"


def dose_study(study_dir: str | Path, dose: float) -> Path:
    """Return the folder of the part of a study with so many synthetic images per real training image."""
    return Path(study_dir) / f"dose_{dose:g}"


def outer_splits(study_dir: str | Path, fold: int) -> Path:
    """Return the frozen split whose test images are those of an outer fold."""
    return Path(study_dir) / f"fold_{fold}" / SPLITS


cross_fit_results = in_folder("comparison.json")
cross_fit_report = in_folder("comparison_report.txt")
cross_fit_page = in_folder("report.html")
cross_fit_figure = in_folder("differences.png")
learning_curve_results = in_folder("learning_curve.json")
learning_curve_figure = in_folder("learning_curve.png")
dose_response_results = in_folder("dose_response.json")
dose_response_figure = in_folder("dose_response.png")
