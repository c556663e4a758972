"""Names of folders and files that a user or several modules see: the only module that spells them.

Pure functions from folders and prefixes to paths; nothing here creates, opens or reads anything. Folders
given on a command line default to the layout of README, relative to the working directory. Files that one
module alone writes and reads (caches, downloads under way) are named there.
"""

from __future__ import annotations

import re
from pathlib import Path

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
STUDY_DIR = "./results/study"
DEMO_DIR = "./demo"
KAGGLE_DIR = "./.kaggle"
LOGS = "logs"  # folder beside the results of a run

TEMPORARY_PATTERN = ".*.tmp"  # of files being written, by ``utils.atomic_path``


def temporary_pattern(path: Path) -> str:
    """Pattern of the temporary files from which ``path`` is made."""
    return f".{path.stem}.*{path.suffix}.tmp"


def download_marker(data_dir: str | Path) -> Path:
    """Name of the dataset in the folder; written once all of it is there."""
    return Path(data_dir) / ".download_complete.json"


# --- the dataset, as Kaggle delivers it ------------------------------------------------------------
TRAIN_METADATA = "stage2_train_metadata.csv"
TEST_METADATA = "stage2_test_metadata.csv"
PATIENT_MAP = "pneumonia-challenge-dataset-mappings_2018.json"
SPLITS = "splits.json"


def training_images(data_dir: str | Path) -> Path:
    return Path(data_dir) / "Training" / "Images"


def training_masks(data_dir: str | Path) -> Path:
    return Path(data_dir) / "Training" / "Masks"


def test_images(data_dir: str | Path) -> Path:
    return Path(data_dir) / "Test"


def phantom_marker(data_dir: str | Path) -> Path:
    """Settings of the phantoms; marks the dataset as made of them."""
    return Path(data_dir) / "phantoms.json"


# --- caches ---------------------------------------------------------------------------------------
# Decoded images and features: see ``dataset/pixel_cache.py`` and ``dataset/feature_cache.py``.
def cached_distances(cache_dir: str | Path, name: str) -> Path:
    """Distances between real images, which need not be computed for every set of synthetic ones."""
    return Path(cache_dir) / "distances" / f"{name}.json"


# --- classifier ------------------------------------------------------------------------------------
# ``prefix``: the first letters of all files of an arm, "baseline_" (see ``arms.registry``).
CV_COMPARISON = "cv_comparison.png"


def repeat_prefix(prefix: str, repeat: int) -> str:
    """Prefix of one of several training runs of an arm, counted from 1."""
    return f"{prefix}r{repeat}_"


def classifier_model(model_dir: str | Path, prefix: str) -> Path:
    """The final model, fitted on all training images."""
    return Path(model_dir) / f"{prefix}resnet50.pth"


def best_fold_model(model_dir: str | Path, prefix: str) -> Path:
    """The cross-validation fold with the lowest validation loss."""
    return Path(model_dir) / f"best_overall_{prefix}resnet50.pth"


def classifier_state(model_dir: str | Path, prefix: str) -> Path:
    """Folder of an unfinished run, for --resume; gone once the run is finished."""
    return Path(model_dir) / f"{prefix}unfinished"


def training_history(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}training_history.json"


def cv_summary(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}cv_summary.json"


def final_metrics(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}final_metrics.json"


def test_predictions(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}test_predictions.csv"


def cv_predictions(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}cv_predictions.csv"


def unlabelled_predictions(metrics_dir: str | Path, prefix: str) -> Path:
    return Path(metrics_dir) / f"{prefix}unlabelled_predictions.csv"


def loss_figure(figures_dir: str | Path, prefix: str) -> Path:
    return Path(figures_dir) / f"{prefix}loss.png"


def acc_figure(figures_dir: str | Path, prefix: str) -> Path:
    return Path(figures_dir) / f"{prefix}acc.png"


def cv_comparison_figure(folder: str | Path) -> Path:
    return Path(folder) / CV_COMPARISON


# --- GAN -------------------------------------------------------------------------------------------
# ``fold``: counted from 1, the fold of the training images that the GAN never saw; None if it saw all.
def gan_dir(model_dir: str | Path, fold: int | None = None) -> Path:
    return _of_fold(Path(model_dir) / "gan", fold)


def generator_final(model_dir: str | Path, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / "generator_final.pth"


def discriminator_final(model_dir: str | Path, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / "discriminator_final.pth"


def generator_best(model_dir: str | Path, fold: int | None = None) -> Path:
    """The generator of the lowest KID."""
    return gan_dir(model_dir, fold) / "generator_best.pth"


def gan_state(model_dir: str | Path, fold: int | None = None) -> Path:
    """The last full training state, for --resume."""
    return gan_dir(model_dir, fold) / "training_state.pth"


def generator_epoch(model_dir: str | Path, epoch: int, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / f"generator_epoch_{epoch:04d}.pth"


def discriminator_epoch(model_dir: str | Path, epoch: int, fold: int | None = None) -> Path:
    return gan_dir(model_dir, fold) / f"discriminator_epoch_{epoch:04d}.pth"


def gan_history(metrics_dir: str | Path, fold: int | None = None) -> Path:
    return Path(metrics_dir) / f"{_gan_prefix(fold)}training_history.json"


def gan_stats(metrics_dir: str | Path, fold: int | None = None) -> Path:
    """Statistics during training, a line each."""
    return Path(metrics_dir) / f"{_gan_prefix(fold)}stats.jsonl"


def gan_events(output_dir: str | Path, fold: int | None = None) -> Path:
    """Folder of TensorBoard's files."""
    return _of_fold(Path(output_dir) / "tensorboard", fold)


def is_gan_prefix(prefix: str) -> bool:
    """Whether ``prefix`` is a GAN's, whose history lies beside those of the classifiers."""
    return re.fullmatch(r"gan_(fold_\d+_)?", prefix) is not None


def gan_loss_figure(figures_dir: str | Path, fold: int | None = None) -> Path:
    return Path(figures_dir) / f"{_gan_prefix(fold)}loss_curve.png"


def gan_quality_figure(figures_dir: str | Path, fold: int | None = None) -> Path:
    return Path(figures_dir) / f"{_gan_prefix(fold)}quality.png"


def gan_images(output_dir: str | Path, fold: int | None = None) -> Path:
    return _of_fold(Path(output_dir) / "gan_images", fold)


def gan_sample_grid(output_dir: str | Path, step: int, fold: int | None = None) -> Path:
    return gan_images(output_dir, fold) / f"samples_step_{step:07d}.png"


def gan_final_grid(output_dir: str | Path, fold: int | None = None) -> Path:
    return gan_images(output_dir, fold) / "samples_final.png"


def gan_real_grid(output_dir: str | Path, fold: int | None = None) -> Path:
    """Real training positives: shows patients, so it never leaves the machine by itself."""
    return gan_images(output_dir, fold) / "reals.png"


def gan_augmented_grid(output_dir: str | Path, fold: int | None = None) -> Path:
    """Training images as D sees them with --diffaug: shows patients, as ``gan_real_grid`` does."""
    return gan_images(output_dir, fold) / "reals_augmented.png"


def gan_interpolation(output_dir: str | Path, fold: int | None = None) -> Path:
    return gan_images(output_dir, fold) / "interpolation.gif"


def _of_fold(folder: Path, fold: int | None) -> Path:
    return folder if fold is None else folder / f"fold_{fold}"


def _gan_prefix(fold: int | None) -> str:
    return "gan_" if fold is None else f"gan_fold_{fold}_"


# --- synthetic images ------------------------------------------------------------------------------
def synthetic_image(synthetic_dir: str | Path, index: int) -> Path:
    """Image ``index``, counted from 1."""
    return Path(synthetic_dir) / f"synthetic_{index:05d}.png"


SYNTHETIC_PATTERN = "synthetic_*.png"


def synthetic_fold(synthetic_dir: str | Path, fold: int | None) -> Path:
    """Images of a generator that never saw fold ``fold``, counted from 1; None: the folder itself."""
    return _of_fold(Path(synthetic_dir), fold)


def synthetic_manifest(synthetic_dir: str | Path) -> Path:
    return Path(synthetic_dir) / "manifest.json"


# --- analysis --------------------------------------------------------------------------------------
def comparison_figure(analysis_dir: str | Path, quantity: str) -> Path:
    """``quantity`` is "acc" or "loss"."""
    return Path(analysis_dir) / f"comparison_{quantity}.png"


def comparison_report(analysis_dir: str | Path) -> Path:
    return Path(analysis_dir) / "comparison_report.txt"


def comparison(analysis_dir: str | Path) -> Path:
    """Every arm and every pair in numbers."""
    return Path(analysis_dir) / "comparison.json"


TEMPLATES_DIR = SRC / "report" / "templates"
REPORT_TEMPLATE = "report.html.j2"


def report_page(analysis_dir: str | Path) -> Path:
    return Path(analysis_dir) / "report.html"


def image_quality(analysis_dir: str | Path) -> Path:
    """Synthetic beside real images: distances, variety, copies, separability."""
    return Path(analysis_dir) / "image_quality.json"


def analysis_figure(analysis_dir: str | Path, name: str) -> Path:
    """``name``: roc_pr, calibration, confusion, subgroups, differences, nearest_neighbours or gradcam."""
    return Path(analysis_dir) / f"{name}.png"


def ssim_analysis(analysis_dir: str | Path) -> Path:
    return Path(analysis_dir) / "ssim_analysis.json"


def fid_score(analysis_dir: str | Path) -> Path:
    return Path(analysis_dir) / "fid_score.json"


def real_vs_synthetic_figure(analysis_dir: str | Path) -> Path:
    return Path(analysis_dir) / "real_vs_synthetic_comparison.png"


# --- pipeline --------------------------------------------------------------------------------------
def pipeline_log(output_dir: str | Path) -> Path:
    """Finished steps of run_pipeline.py, or of a fraction of run_study.py, with their commands."""
    return Path(output_dir) / "pipeline.json"


# --- low-data study --------------------------------------------------------------------------------
STUDY_PATTERN = "fraction_*"


def study_fraction(study_dir: str | Path, fraction: float) -> Path:
    """Folder of everything trained on that fraction of the training patients."""
    return Path(study_dir) / f"fraction_{fraction:g}"


def learning_curve_results(study_dir: str | Path) -> Path:
    return Path(study_dir) / "learning_curve.json"


def learning_curve_figure(study_dir: str | Path) -> Path:
    return Path(study_dir) / "learning_curve.png"


# --- benchmark -------------------------------------------------------------------------------------
BENCHMARK_DIR = "./data/cache/benchmark"  # its phantoms, caches and outputs


def benchmark_results(output_dir: str | Path) -> Path:
    return Path(output_dir) / "benchmark.json"


def benchmark_figure(output_dir: str | Path) -> Path:
    return Path(output_dir) / "benchmark.png"


# --- comparison of generators ----------------------------------------------------------------------
GAN_BENCHMARK_DIR = "./data/cache/gan_benchmark"  # of what contenders made, and their logs
PEERS_DIR = "./data/cache/gan_peers"  # the environment in which the others' packages are installed
PEER_DRIVERS = SRC / "benchmarks" / "generators" / "peer_drivers"


def gan_benchmark_results(output_dir: str | Path) -> Path:
    return Path(output_dir) / "gan_benchmark.json"


def gan_benchmark_figure(output_dir: str | Path, what: str) -> Path:
    """``what`` is "peers" or "options"."""
    return Path(output_dir) / f"gan_benchmark_{what}.png"


def gan_benchmark_grid(output_dir: str | Path, what: str) -> Path:
    """Generated images only."""
    return Path(output_dir) / f"gan_benchmark_{what}_images.png"


def benchmark_unit(work_dir: str | Path, name: str) -> Path:
    """Folder of one contender with one seed and one budget."""
    return Path(work_dir) / name


def benchmark_reals(unit: str | Path) -> Path:
    """Real images that a driver learns from: they show patients, so the file is removed afterwards."""
    return Path(unit) / "reals.npy"


def made_images(unit: str | Path) -> Path:
    return Path(unit) / "made.npz"


def unit_log(unit: str | Path) -> Path:
    return Path(unit) / "log.txt"


def unit_cost(unit: str | Path) -> Path:
    return Path(unit) / "cost.json"


def unit_again(unit: str | Path) -> Path:
    """Folder in which a unit is trained again, until it has images."""
    return Path(unit).with_name(f"{Path(unit).name}_again")


def lock_beside(path: str | Path) -> Path:
    """Lock file for writers of ``path``."""
    return Path(path).with_name(f".{Path(path).name}.lock")


def benchmark_scorer(cache_dir: str | Path, name: str) -> Path:
    """The ResNet-18 in whose features generated images are scored."""
    return Path(cache_dir) / "gan_scorer" / f"{name}.pth"


def peers_python(peers_dir: str | Path) -> Path:
    """Python of the environment ``peers_dir``, on Windows or elsewhere."""
    windows = Path(peers_dir) / "Scripts" / "python.exe"
    return windows if windows.is_file() else Path(peers_dir) / "bin" / "python"
