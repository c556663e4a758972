"""The commands that are killed: one job per script that writes, as small as it can be.

Every job runs in a folder of its own with the default paths below it. What it needs was made by the jobs
before it: ``build`` runs all once, uninterrupted, and keeps each folder as the reference.
"""

from __future__ import annotations

import csv
import functools
import io
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from campaign.files import broken_files, leftovers
from campaign.processes import Ended, Run, execute, fresh_copy
from common import paths
from utils import load_checkpoint, load_json

log = logging.getLogger(__name__)

SIZE, SIDE = "64", "32"  # pixels of the phantoms, of the networks
CLASSIFIER = ["--weights", "none", "--unfreeze", "--batch-size", "16", "--precision", "fp32"]
GAN = [
    "--num-channels", "1", "--latent-dim", "6", "--feature-maps-g", "4", "--feature-maps-d", "4", "--batch-size", "4",
    "--precision", "fp32", "--perceptual", "off",
]  # fmt: skip
TRAIN = ["--image-size", SIDE, "--workers", "1", "--cpu"]
MODEL = str(paths.classifier_model(paths.MODEL_DIR, "baseline_"))


@dataclass(frozen=True)
class Job:
    """A script that writes.

    ``needs``: the jobs whose folders it begins with, one over the other. ``resume``: words that are added
    after a kill. ``kills``: its share of the campaign. ``several``: kills of one run, at most. ``kept``: what
    must survive a kill: folder -> name -> value, which may not change once it is there.
    """

    name: str
    script: str
    words: list[str]
    needs: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    kills: int = 20
    several: int = 3
    before: Callable[[Path], object] = lambda folder: None
    kept: Callable[[Path], dict[str, Any]] = lambda folder: {}
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] | None = None
    start_up: float = 5.0  # seconds until a new Python has imported what the script needs, about

    def run(self, folder: Path, again: bool = False) -> Run:
        extra = list(self.resume) if again else []
        words = [os.environ.get("MAPPING_URL", "") if word == "MAPPING_URL" else word for word in self.words]
        return Run(self.script, [*words, *extra], folder, self.environment, self.prepare)


# --- what must survive a kill ----------------------------------------------------------------------
def identities(pattern: str) -> Callable[[Path], dict[str, Any]]:
    """Files below a folder that are never written twice: name -> (inode, time of the last change)."""

    def of(folder: Path) -> dict[str, Any]:
        found = [file for file in folder.glob(pattern) if not file.name.startswith(".")]
        return {str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}

    return of


def unpacked(folder: Path) -> dict[str, Any]:
    """What a download has unpacked is moved, not unpacked again: image -> inode."""
    roots = [folder / "data" / "processed", *folder.glob("data/processed/.download/*/extracted")]
    files = [file for root in roots for file in root.glob("Training/**/*.png")]
    return {file.name + file.parent.name: file.stat().st_ino for file in files}


def finished_steps(log_file: str) -> Callable[[Path], dict[str, Any]]:
    """Entries of finished steps, whose seconds no second run would have."""

    def of(folder: Path) -> dict[str, Any]:
        logs = {file.relative_to(folder): load_json(file) for file in folder.glob(log_file)}
        return {
            f"{file} {step}": entry
            for file, steps in logs.items()
            for step, entry in steps.items()
            if entry["state"] == "finished"
        }

    return of


def finished_fits(folder: Path) -> dict[str, Any]:
    """Fits of the classifier that are done; the folder goes at the end of the run."""
    return identities("models/*unfinished/*[!e].pth")(folder)


def gan_epochs(folder: Path) -> dict[str, Any]:
    """Checkpoints of the epochs that the state holds: none of these is trained again."""
    state = paths.gan_state(folder / "models")
    if not state.is_file():
        return {}
    done = len(load_checkpoint(state)["history"])
    checkpoints = identities("models/gan/generator_epoch_*.pth")(folder)
    return {name: found for name, found in checkpoints.items() if int(name[-8:-4]) <= done}


# --- material --------------------------------------------------------------------------------------
def images_from_elsewhere(folder: Path) -> None:
    """Images of another generator, and a list of what it was trained on: the training positives."""
    splits = load_json(folder / "data" / "processed" / paths.SPLITS)["images"]
    ids = [row["image_id"] for row in splits if row["role"] == "train" and row["label"] == 1]
    (folder / "ids.csv").write_text("image_id\n" + "".join(f"{name}\n" for name in ids))
    (folder / "elsewhere").mkdir(exist_ok=True)
    # The GAN of four epochs makes hardly any gray values, which would be refused: noisy training images stand in.
    for number, row in enumerate(row for row in splits if row["role"] == "train"):
        pixels = np.asarray(Image.open(paths.training_images(folder / "data" / "processed") / f"{row['image_id']}.png"))
        noise = np.random.default_rng(number).integers(-20, 20, pixels.shape)
        noisy = (pixels + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "elsewhere" / f"made-{number:02d}.png")


def sorted_pictures(folder: Path) -> None:
    """A folder for each class, as people have them: PNG with EXIF and without, one in three not square."""
    data = folder / "data" / "processed"
    with (data / paths.TRAIN_METADATA).open(encoding="utf-8", newline="") as file:
        target_of = {row["patientId"]: row["Target"] for row in csv.DictReader(file)}
    for number, (name, target) in enumerate(sorted(target_of.items())):
        place = folder / "sorted" / ("pneumonia" if target == "1" else "normal") / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(paths.training_images(data) / f"{name}.png") as image:
            edge = image.crop((0, 0, image.width, image.height - (8 if number % 3 == 0 else 0)))
            edge.save(place, **({} if number % 2 else {"exif": Image.Exif().tobytes()}))


@functools.cache
def archive_of(data: Path) -> tuple[bytes, bytes]:
    """(archive of the phantoms as Kaggle would send it, their mapping)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(data.rglob("*")):
            if file.suffix in (".png", ".csv"):
                archive.write(file, file.relative_to(data))
    return buffer.getvalue(), (data / paths.PATIENT_MAP).read_bytes()


def quick_speeds() -> None:
    """Leave out the measuring of speeds, which starts a new Python and writes nothing."""
    import run_study
    from studies.time_estimate import Speeds

    run_study.in_process_of_its_own = lambda *_: Speeds(0.1, 0.1, 0.1, 0.1, 0.1)


JOBS = {
    job.name: job
    for job in (
        Job(
            "phantoms", "make_phantom_dataset",
            ["--output-dir", "data/processed", "--num-images", "48", "--num-test-images", "8", "--image-size", SIZE],
            kills=32, kept=identities("data/processed/**/*.png"), start_up=0.8,
        ),
        Job(
            "check", "data_loader", ["--workers", "1"], ("phantoms",), kills=32,
            kept=identities("data/processed/splits.json"), start_up=1.2,
        ),
        Job(
            "import", "import_dataset",
            ["--from", "folders", "--source", "sorted", "--data-dir", "data/imported", "--workers", "1"],
            ("phantoms",), kills=12, before=sorted_pictures, kept=identities("data/imported/Training/**/*.png"),
            start_up=1.2,
        ),
        Job(
            "download", "download_dataset", ["--mapping-url", "MAPPING_URL"], kills=32,
            kept=unpacked, start_up=0.5,
        ),
        Job(
            "classifier", "train_classifier", [*CLASSIFIER, *TRAIN, "--epochs", "2", "--k-folds", "2"],
            ("check",), ("--resume",), kills=5, kept=finished_fits,
        ),
        Job(
            "frozen", "train_classifier",
            ["--weights", "weights.pth", "--weights-trained-on", "ImageNet", "--prefix", "frozen", "--batch-size", "8",
             "--precision", "fp32", *TRAIN, "--epochs", "3", "--k-folds", "2"],
            ("check",), ("--resume",), kills=9, kept=finished_fits,
            before=lambda folder: make_weights(folder / "weights.pth"),
        ),
        Job(
            "gan", "train_gan",
            [*GAN, *TRAIN, "--epochs", "4", "--checkpoint-interval", "1", "--save-interval", "3", "--no-real-images",
             "--vis-batch-size", "4", "--diffaug"],
            ("check",), ("--resume",), kills=26, kept=gan_epochs,
        ),
        Job(
            "generate", "generate_synthetic",
            ["--model-path", "models/gan/generator_final.pth", "--num-images", "40", "--batch-size", "8", "--cpu"],
            ("check", "gan"), kills=32, kept=identities("data/synthetic/*.png"),
        ),
        Job(
            "register", "register_synthetic",
            ["--images", "elsewhere", "--trained-on", "ids.csv", "--output-dir", "data/registered"],
            ("check", "generate"), kills=32, before=images_from_elsewhere, kept=identities("data/registered/*.png"),
            start_up=1.2,
        ),
        Job(
            "augmented", "train_classifier",
            [*CLASSIFIER, *TRAIN, "--epochs", "1", "--k-folds", "0", "--use-synthetic"],
            ("check", "classifier", "generate"), ("--resume",), kills=0, kept=finished_fits,
        ),
        Job(
            "analysis", "analyze_results", ["--extractor", "classifier", "--cpu", "--workers", "1"],
            ("check", "classifier", "generate", "augmented"), kills=6,
        ),
        Job(
            "predict", "predict",
            ["--model-path", MODEL, "--images", "data/processed/Training/Images", "data/processed/Test", "--cpu",
             "--workers", "1", "--heatmaps", "maps", "--report", "page.html"],
            ("check", "classifier"), kills=16,
        ),
        Job(
            "pipeline", "run_pipeline",
            ["--image-size", SIDE, "--epochs", "1", "--gan-epochs", "1", "--num-images", "8", "--k-folds", "2", "--cpu",
             "--no-real-images", "--classifier-args", " ".join(CLASSIFIER), "--gan-args", " ".join(GAN)],
            ("phantoms",), kills=7, several=5, kept=finished_steps("results/pipeline.json"), start_up=1.0,
        ),
        Job(
            "study", "run_study",
            ["--image-size", SIDE, "--epochs", "1", "--kimg", "0.1", "--fractions", "0.6,1", "--repeats", "1",
             "--arms", "baseline,augmented", "--synthetic-per-real", "0.2", "--cpu",
             "--classifier-args", " ".join(CLASSIFIER), "--gan-args", " ".join(GAN)],
            ("check",), kills=7, several=5, kept=finished_steps("results/study/fraction_*/pipeline.json"),
            prepare=quick_speeds,
        ),
    )
}  # fmt: skip


# --- the references --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its folder, how long it took, and how many file operations it made."""

    folder: Path
    seconds: float
    operations: int


def begin(job: Job, references: Path, folder: Path) -> None:
    """Make ``folder`` what ``job`` begins with."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for need in job.needs:
        overlay = folder.parent / "overlay"
        fresh_copy(references / need, overlay)
        shutil.copytree(overlay, folder, dirs_exist_ok=True, copy_function=_move)
        shutil.rmtree(overlay)
    shutil.rmtree(folder / "results" / "logs", ignore_errors=True)
    job.before(folder)


def _move(one: str, other: str) -> None:
    Path(one).replace(other)


def build(references: Path, name: str) -> Reference:
    """Run the job ``name`` once without interruption, unless that was done; raises if it does not end well."""
    job, folder, facts = JOBS[name], references / name, references / f"{name}.seconds"
    if not facts.exists():
        begin(job, references, folder)
        ended = execute(job.run(folder))
        if ended.code != 0:
            raise RuntimeError(f"the uninterrupted run of {name} ended with {ended.code}:\n{ended.said[-3000:]}")
        if wrong := [*broken_files(folder, killed=False), *leftovers(folder)]:
            raise RuntimeError(f"the uninterrupted run of {name} left {wrong}")
        facts.write_text(f"{ended.seconds} {ended.operations}")
        log.info(f"reference {name}: {ended.seconds:.1f} s, {ended.operations} file operations")
    seconds, operations = facts.read_text().split()
    return Reference(folder, float(seconds), int(operations))


def make_weights(file: Path) -> None:
    """A random ResNet-50 stands in for ImageNet's, which need the network."""
    if not file.exists():
        import torch
        from torchvision.models import resnet50

        torch.manual_seed(0)
        torch.save(resnet50().state_dict(), file)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def last_words(ended: Ended) -> str:
    """The last line that a run said."""
    lines = [line for line in ended.said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
