"""The result files of train_classifier.py, key by key. All rates are fractions, 0 to 1.

An interval is [low, high]. ``..._ci95`` comes from a bootstrap over patients; ``..._ci95_image_level`` takes
every image for independent, so it is too narrow where patients have several images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY
from common.plan_files import PLAN_KEY
from dataset.file_formats import SkippedImages
from image_metrics.copies import NearCopies
from stats.metric_registry import METRICS, Interval, value_fields


# --- parts of several files ------------------------------------------------------------------------
class Origin(TypedDict):
    """Where the numbers of a file come from."""

    config: Annotated[dict[str, Any], "options of the run, name -> value; paths as the user gave them"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    split_sha256: Annotated[str, "SHA-256 of the train/test split"]
    data_sha256: Annotated[str, "SHA-256 of the metadata file"]
    grouped_by: Annotated[str, "what tells the images of one person"]
    unmapped_images: Annotated[int, "images whose patient is unknown"]
    manifest_sha256: Annotated[
        dict[str, str | None],
        "fold (0: the main folder) -> SHA-256 of the manifest of its synthetic images; null without one",
    ]
    skipped_images: SkippedImages
    weights_sha256: NotRequired[Annotated[str, "SHA-256 of the file of --weights, if that is one"]]
    ensemble_sha256: NotRequired[Annotated[str, "SHA-256 of the weights of the baselines that gave soft labels"]]
    red_flags: Annotated[list[str], "sentences that every reader of the results must see"]


if TYPE_CHECKING:

    class Scores(TypedDict):
        accuracy: float
        auroc: float | None
        sensitivity: float | None
        specificity: float | None
        confusion_matrix: list[list[int]]

    class Intervals(TypedDict):
        accuracy_ci95: Interval
        auroc_ci95: Interval
else:
    # The metrics and their intervals are those of the registry of metrics.
    Scores = TypedDict(
        "Scores",
        value_fields() | {"confusion_matrix": Annotated[list[list[int]], "[[tn, fp], [fn, tp]], images, at 0.5"]},
    )
    Intervals = TypedDict(
        "Intervals",
        {
            f"{name}_ci95": Annotated[Interval, f"95 % interval of {metric.title}, bootstrap over patients"]
            for name, metric in METRICS.items()
            if metric.weighted
        }
        | {
            f"{name}_ci95_image_level": Annotated[Interval, f"95 % interval of {metric.title}, per image"]
            for name, metric in METRICS.items()
            if metric.image_level
        },
    )


# --- <prefix>final_metrics.json --------------------------------------------------------------------
SyntheticFolder = TypedDict(
    "SyntheticFolder",
    {
        "dir": Annotated[str, "the folder"],
        "n_available": Annotated[int, "images in it"],
        "label": Annotated[int | None, "1 for pneumonia, 0 without"],
        "class": Annotated[str | None, "class that a conditional generator made"],
        "verified": Annotated[bool, "the origin is known and does not touch the test set"],
        "generator_sha256": Annotated[str | None, "SHA-256 of the generator"],
        "manifest_sha256": Annotated[str | None, "SHA-256 of the manifest"],
        "trained_elsewhere": NotRequired[Annotated[str, "other data that the generator learned from, if any"]],
    },
)
SyntheticFolder.__doc__ = "One folder of synthetic images."


class SyntheticImages(TypedDict):
    """The synthetic images of an arm, or those that a control stands for."""

    n_used: Annotated[int, "images that joined all training images, or that the control stands for"]
    n_available: Annotated[int, "images in all folders"]
    ratio: Annotated[float, "n_used per real training image"]
    label: Annotated[int | None, "label of all of them; null if they differ"]
    verified: Annotated[bool, "the origin of all is known and does not touch the test set"]
    generator_sha256: Annotated[str | None, "SHA-256 of their generator; null for several or none"]
    manifest_sha256: Annotated[str | None, "SHA-256 of their manifest, or of those of all folders"]
    side: NotRequired[Annotated[int | None, "smallest side in pixels; null: no file could be read"]]
    dir: Annotated[str | list[str], "the folder, or the folders"]
    folders: list[SyntheticFolder]
    folds_of_their_own: Annotated[list[int], "folds with images of a generator that never saw them"]
    trained_on: Annotated[bool, "false for a control, which only counts them"]


class FewLabelsUsed(TypedDict):
    """What an arm knew and used where the labels of most training images are hidden (--labelled-patients)."""

    labelled_sha256: Annotated[str, "SHA-256 of which training images have a known label, and of these labels"]
    n_hidden: Annotated[int, "training images whose labels are hidden"]
    n_hidden_patients: Annotated[int, "their patients"]
    n_unlabelled: Annotated[int, "of these images, those that joined with labels of an ensemble of baselines"]
    models: Annotated[int, "final models of the baseline in that ensemble; 0: the arm uses none"]
    mean_soft_label: Annotated[float | None, "mean of the labels that the ensemble gave, 0 to 1"]
    near_copies: Annotated[
        NearCopies | None, "synthetic images close to training images, held against test images; null: none joined"
    ]


class Training(TypedDict):
    """What the arm was trained on, and how long."""

    environment: Annotated[dict[str, Any], "versions, device, threads"]
    processes: Annotated[int, "processes that trained together"]
    precision: Annotated[str, "fp32 or bf16"]
    test_set: Annotated[str, "split (frozen hold-out) or official"]
    train_fraction: Annotated[float, "share of the training patients"]
    few_labels: NotRequired[Annotated[FewLabelsUsed, "if the labels of some training images are hidden"]]
    n_train_images: Annotated[int, "real training images, those with hidden labels not counted"]
    n_train_patients: Annotated[int, "their patients"]
    n_train_positive: Annotated[int, "positives among them"]
    n_synthetic: Annotated[int, "synthetic images that joined them"]
    n_duplicated: Annotated[int, "real images that joined them once more"]
    n_extra_positive: Annotated[int, "positives among the images that joined, or that a control stands for"]
    class_weights: Annotated[list[float] | None, "factors of the loss of negatives and positives; null: 1"]
    synthetic_shares: Annotated[
        list[list[int | float | None]] | None,
        "[first epoch, share of synthetic images drawn] ...; share null: by their number",
    ]
    synthetic: SyntheticImages | None
    optimizer_steps: Annotated[int, "optimiser steps of a final model"]
    epochs_final: Annotated[int, "epochs of a final model"]
    epochs_final_from: Annotated[str, "where that number comes from"]


class TestScores(Scores, Intervals):
    """Scores on the test images, positive from a probability of 0.5."""

    n_images: Annotated[int, "test images"]
    n_patients: Annotated[int, "their patients"]
    n_positive: Annotated[int, "positives among them"]
    prevalence: Annotated[float, "share of positives"]


class RepeatScores(TestScores):
    """Scores of one training run."""

    repeat: Annotated[int, "number of the run, from 1"]
    seed: Annotated[int, "its seed"]


class ReferenceScores(TypedDict):
    """Predictors that ignore the lungs, on the same images."""

    always_negative_accuracy: Annotated[float, "accuracy of calling every image negative"]
    metadata_auroc: Annotated[float, "AUROC of view, sex and age"]
    thumbnail_auroc: Annotated[float, "AUROC of 16 x 16 thumbnails"]
    auroc_minus_thumbnail: Annotated[float, "AUROC of the classifier minus that of the thumbnails"]
    auroc_minus_thumbnail_ci95: Annotated[Interval, "its 95 % interval, bootstrap over patients"]


class References(TypedDict):
    """The reference predictors on test images and out of fold."""

    test: ReferenceScores
    out_of_fold: Annotated[ReferenceScores | None, "null without folds"]


class FinalMetrics(Origin, Training, TestScores):
    """``<prefix>final_metrics.json``: an arm on the test images, from the mean of its training runs."""

    prefix: Annotated[str, "first letters of the arm's files"]
    seed: Annotated[int, "seed of the first run"]
    repeats: Annotated[int, "training runs"]
    seeds: Annotated[list[int], "their seeds"]
    per_repeat: Annotated[list[RepeatScores], "scores of each run; [] for a single run"]
    references: References


class RepeatMetrics(Origin, Training, RepeatScores):
    """``<prefix>r<N>_final_metrics.json``: one of several training runs of an arm."""

    prefix: Annotated[str, "first letters of the run's files"]
    arm: Annotated[str, "first letters of the arm's files"]


# --- <prefix>cv_summary.json -----------------------------------------------------------------------
class FoldScores(Scores):
    """One fold, on its validation images at the best epoch."""

    fold: Annotated[int, "number of the fold, from 1"]
    n_images: Annotated[int, "validation images"]
    n_patients: Annotated[int, "their patients"]
    best_epoch: Annotated[int, "epoch of the lowest validation loss, from 1"]
    val_loss: Annotated[float, "its validation loss: binary cross-entropy, nats"]


class CVSummary(Origin):
    """``<prefix>cv_summary.json``: the cross-validation of an arm on the training images."""

    k: Annotated[int, "folds"]
    contaminated: Annotated[bool, "a validation patient was, or may have been, seen before"]
    contaminated_folds: Annotated[list[int], "the folds of which that is true"]
    note: Annotated[str, "the same in words"]
    n_images: Annotated[int, "training images"]
    n_patients: Annotated[int, "their patients"]
    folds: list[FoldScores]
    mean: Annotated[dict[str, float | None], "metric -> mean over the folds"]
    std: Annotated[dict[str, float | None], "metric -> standard deviation over the folds (n - 1)"]
    out_of_fold: Annotated[Scores, "scores of all out-of-fold predictions together"]


# --- <prefix>training_history.json -----------------------------------------------------------------
class Curves(TypedDict):
    """Values per epoch."""

    train_loss: Annotated[list[float] | None, "binary cross-entropy while learning, nats"]
    train_acc: Annotated[list[float] | None, "accuracy while learning"]
    val_loss: Annotated[list[float] | None, "validation loss, nats; null without validation images"]
    val_acc: Annotated[list[float] | None, "validation accuracy; null without validation images"]


class FoldCurves(Curves):
    """Curves of one fold."""

    fold: Annotated[int, "number of the fold, from 1; 0: a tenth held out"]
    best_epoch: Annotated[int, "epoch of the lowest validation loss, from 1"]


class FinalCurves(Curves):
    """Curves of a final model."""

    repeat: Annotated[int, "number of the training run, from 1"]
    seed: Annotated[int, "its seed"]
    epochs: Annotated[int, "epochs trained"]


class TrainingHistory(Origin):
    """``<prefix>training_history.json``: losses and accuracies of every epoch."""

    folds: list[FoldCurves]
    final: Annotated[FinalCurves, "the first training run"]
    repeats: NotRequired[Annotated[list[FinalCurves], "all training runs; absent in the file of one run"]]


# --- external/<name>/external_test.json ------------------------------------------------------------
class DroppedImages(TypedDict):
    """Labelled images of an external data set that --drop-overlap left out; each is counted once."""

    by_image_id: Annotated[int, "their ids are ids of training images"]
    by_patient: Annotated[int, "their patients were trained on"]
    by_picture: Annotated[int, "they show the pictures of training images, or such a patient"]
    by_unknown_patient: Annotated[int, "of the same family of data sets, and nobody knows their patients"]
    image_ids: Annotated[list[str], "their ids"]


class DataMeaning(TypedDict):
    """What is known of a data set."""

    families: Annotated[list[str], "known data sets whose images it may hold; [] if nothing says so"]
    positive: Annotated[str | None, "what a positive label means; null if nothing says so"]


class ExternalArm(TypedDict):
    """One arm in an external test."""

    models: Annotated[dict[str, str], "file of each final model -> SHA-256 of its weights"]
    predictions: Annotated[dict[str, str], "file of predictions -> SHA-256"]
    metrics_sha256: Annotated[str | None, "SHA-256 of the arm's final_metrics.json; null without one"]


class ExternalReferences(TypedDict):
    """Predictors that ignore the lungs, fitted on the training images."""

    metadata_auroc: Annotated[float, "AUROC of view, sex and age"]
    thumbnail_auroc: Annotated[float, "AUROC of 16 x 16 thumbnails"]


class ExternalTest(TypedDict):
    """``external/<name>/external_test.json``: what the final models predicted that nothing was trained on.

    The predictions beside it have the format of the test predictions.
    """

    format: Annotated[str, "external-test-1"]
    name: Annotated[str, "--name"]
    config: Annotated[dict[str, Any], "options of the run, name -> value; paths as the user gave them"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    split_sha256: Annotated[str, "SHA-256 of the split that the models were trained on"]
    data_sha256: Annotated[str, "SHA-256 of the external metadata file"]
    n_images: Annotated[int, "images that were predicted"]
    n_patients: Annotated[int, "their patients; an image of an unknown patient counts as one"]
    n_positive: Annotated[int, "positives among them"]
    grouped_by: Annotated[str, "what tells the images of one person"]
    unmapped_images: Annotated[int, "images whose patient is unknown"]
    skipped_images: SkippedImages
    dropped: DroppedImages
    shared_with_test: Annotated[int, "images that are in the internal test, or show its patients or pictures"]
    data: Annotated[DataMeaning, "the external data set"]
    training_data: Annotated[DataMeaning, "the data that the models were trained on"]
    positive_differs: Annotated[bool | None, "a positive label means something else; null if nobody knows"]
    patients_compared: Annotated[bool, "patient ids of both mean the same people, so they could be compared"]
    pictures_compared: Annotated[bool, "the images were compared with the training images, picture by picture"]
    references: Annotated[ExternalReferences | None, "null without the training images"]
    arms: Annotated[dict[str, ExternalArm], "by prefix"]
    environment: Annotated[dict[str, Any], "versions, device, threads"]
    red_flags: Annotated[list[str], "sentences that every reader of the results must see"]


# --- <prefix>test_predictions.csv, cv_predictions.csv, unlabelled_predictions.csv ------------------
PERSON_COLUMNS = ("image_id", "patient", "class", "view", "sex", "age", "label")
TEST_COLUMNS = {
    "image_id": "id of the image",
    "patient": "id of the patient",
    "class": "class in the metadata",
    "view": "AP, PA or LATERAL; blank if unknown",
    "sex": "F or M; blank if unknown",
    "age": "years, whole; blank if unknown",
    "label": "1 for pneumonia, 0 without",
    "probability": "of pneumonia, in full precision",
    "predicted": "1 if the probability is at least 0.5",
}
CV_COLUMNS = TEST_COLUMNS | {"fold": "the fold whose model did not see the image"}
UNLABELLED_COLUMNS = {name: TEST_COLUMNS[name] for name in ("image_id", "probability")}
NEEDED_COLUMNS = ("image_id", "patient", "label", "probability")  # without which nothing can be compared
WORD_COLUMNS = ("class", "view", "sex")
OPTIONAL_COLUMNS = (*WORD_COLUMNS, "age", "fold")
