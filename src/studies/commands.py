"""Commands of a sequence: what each script is told, and the steps that train arms and GAN and make images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arms.registry import ARMS, Synthetic
from common import paths
from gan.settings import CLASS_FLAGS
from studies.steps import Step

TRAIN_GAN, MAKE_IMAGES = "train the GAN", "generate synthetic images"  # names of steps


@dataclass(frozen=True)
class Folders:
    """Where a sequence reads and writes; below ``output`` lie metrics, figures and analysis."""

    data: Path
    synthetic: Path
    models: Path
    output: Path

    @property
    def metrics(self) -> Path:
        return self.output / Path(paths.METRICS_DIR).name

    @property
    def figures(self) -> Path:
        return self.output / Path(paths.FIGURES_DIR).name

    @property
    def analysis(self) -> Path:
        return self.output / Path(paths.ANALYSIS_DIR).name


@dataclass(frozen=True)
class Words:
    """Words of the commands beside the folders, script by script.

    ``data``: for every script that reads the dataset; ``generation``: for generate_synthetic.py; ``cache``:
    for every script that decodes images, without effect on results.
    """

    data: list[str] = field(default_factory=list)
    classifier: list[str] = field(default_factory=list)
    gan: list[str] = field(default_factory=list)
    generation: list[str] = field(default_factory=list)
    cache: list[str] = field(default_factory=list)


def data_words(
    splits: str | None, patient_map: str | None, patient_column: str | None, skip_bad_images: bool, bits: int | None
) -> list[str]:
    """Write the options of the dataset that were given, its folder left out."""
    return [
        *(["--splits", splits] if splits else []),
        *(["--patient-map", patient_map] if patient_map else []),
        *(["--patient-column", patient_column] if patient_column else []),
        *(["--skip-bad-images"] if skip_bad_images else []),
        *(["--bits", str(bits)] if bits else []),
    ]


def cache_words(cache_dir: str, no_cache: bool) -> list[str]:
    """Write the options of the cache; nothing if it is the usual one."""
    if no_cache:
        return ["--no-cache"]
    return [] if cache_dir == paths.CACHE_DIR else ["--cache-dir", cache_dir]


def plan_words(plan: str | None) -> list[str]:
    """Write --plan if it was given."""
    return ["--plan", plan] if plan else []


def study_words(options: Mapping[str, Any], seed: Sequence[str] = ()) -> Words:
    """Return what all fractions or folds of a study are told, from its ``options`` (``STUDY_OPTIONS``, name -> value).

    ``seed``: words of theirs if they share it.
    """
    cpu, plan = ["--cpu"] if options["cpu"] else [], plan_words(options["plan"])
    shared = ["--image-size", str(options["image_size"]), *seed, *cpu, *plan]
    runs = ["--repeats", str(options["repeats"]), "--k-folds", str(options["k_folds"])]
    places = (options[name] for name in ("splits", "patient_map", "patient_column", "skip_bad_images", "bits"))
    return Words(
        data=data_words(*places),
        classifier=[*runs, *shared, *options["classifier_args"]],
        gan=[*shared, "--no-real-images", *options["gan_args"]],
        generation=[*seed, *cpu, *plan, *label_words(options["gan_args"])],
        cache=cache_words(options["cache_dir"], options["no_cache"]),
    )


def sets_length(gan_args: Sequence[str]) -> bool:
    """Tell whether ``gan_args`` for train_gan.py say how long it trains."""
    return not {"--kimg", "--epochs"}.isdisjoint(word.split("=")[0] for word in gan_args)


def label_words(gan_args: Sequence[str]) -> list[str]:
    """Write what generate_synthetic.py needs to make positives with a GAN trained with ``gan_args``."""
    return ["--label", CLASS_FLAGS[0]] if "--conditional" in gan_args else []


def read_dataset(folders: Folders, words: Words) -> list[str]:
    """Write the options of every script that reads the dataset."""
    return ["--data-dir", str(folders.data), *words.data]


def arm_step(name: str, arm: str, folders: Folders, words: Words, needs: Sequence[str]) -> Step:
    """Make the step ``name`` that trains ``arm``; it builds on the steps ``needs``."""
    kind = ARMS[arm]
    images = ["--synthetic-dir", str(folders.synthetic)] if uses_images(arm) else []
    results = ["--model-dir", str(folders.models), "--results-dir", str(folders.metrics),
               "--figures-dir", str(folders.figures)]  # fmt: skip
    options = [*read_dataset(folders, words), *results, *words.classifier, *kind.words_of_command(), *images]
    return Step(
        name, "train_classifier", options, paths.final_metrics(folders.metrics, kind.prefix),
        resumable=True, needs=tuple(needs), cache=words.cache,
    )  # fmt: skip


def uses_images(arm: str) -> bool:
    """Tell whether ``arm`` needs synthetic images, be it for their number only."""
    return ARMS[arm].synthetic is not Synthetic.UNUSED


def gan_steps(folders: Folders, words: Words, needs: Sequence[str], generator: Path | None = None) -> list[Step]:
    """Make the steps that train the GAN and make its images; the first builds on the steps ``needs``.

    ``generator``: one that is there, which makes the images in place of a new GAN.
    """
    if generator:
        return [_image_step(generator, folders, words, needs)]
    generator = paths.generator_final(folders.models)
    models = ["--model-dir", str(folders.models), "--output-dir", str(folders.output)]
    train = Step(
        TRAIN_GAN, "train_gan", [*read_dataset(folders, words), *models, *words.gan],
        generator, resumable=True, needs=tuple(needs), cache=words.cache,
    )  # fmt: skip
    return [train, _image_step(generator, folders, words, needs=[TRAIN_GAN])]


def _image_step(generator: Path, folders: Folders, words: Words, needs: Sequence[str]) -> Step:
    """Make the step that lets ``generator`` make images; it builds on the steps ``needs``."""
    options = ["--model-path", str(generator), "--output-dir", str(folders.synthetic), *words.generation]
    return Step(
        MAKE_IMAGES, "generate_synthetic", options, paths.synthetic_manifest(folders.synthetic),
        needs=tuple(needs), images=folders.synthetic,
    )  # fmt: skip
