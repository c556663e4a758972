"""What the files of a study say about its data: one fact each, with file and key; None where they do not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import paths
from dataset.labels import POSITIVE_CLASS
from dataset.patients import GROUPED_BY_IMAGE, grouping_sentence
from report.blocks import count, percent
from report.details import synthetic_words
from report.patient_flow import folds_of_arms, group_words, left_out_words, steps_of_arms
from report.study import Fact, Study, by_arm
from utils import load_json

COMPARISON, FLOW = "comparison.json", "patient_flow.json"


# --- the data set ----------------------------------------------------------------------------------
def data_set(study: Study) -> Fact | None:
    """Name the data set, if the data folder says where it comes from."""
    if study.data is None:
        return None
    folder = study.data.dataset.data_dir
    markers: dict[Callable[..., Any], tuple[str, str]] = {
        paths.download_marker: ("dataset", "Kaggle data set"),
        paths.phantom_marker: ("what", "drawn chests (phantoms)"),
    }
    for path_of, (key, what) in markers.items():
        if (file := path_of(folder)).is_file() and (said := load_json(file).get(key)):
            return Fact(f"{what}: {said}", f"{file.name}: {key}")
    return None


def data_version(study: Study) -> Fact | None:
    """Say which file of metadata it was."""
    sha256, source = study.recorded("data_sha256")
    return Fact(f"metadata with SHA-256 {sha256}", source) if sha256 else None


def label(study: Study) -> Fact | None:
    """Say what counts as positive."""
    if study.data is None:
        return None
    classes = [name for name in study.data.dataset.images["class"].unique() if name]
    if POSITIVE_CLASS not in classes:
        return None
    others = ", ".join(sorted(set(classes) - {POSITIVE_CLASS})) or "all other images"
    return Fact(f"positive: {POSITIVE_CLASS}; negative: {others}", f"{paths.TRAIN_METADATA}: class, Target")


def images_and_patients(study: Study) -> Fact:
    """Count all labelled images, or those that the arms' files name."""
    if study.flow["labelled"]:
        return Fact(f"{group_words(study.flow['labelled'])} (labelled)", f"{FLOW}: labelled")
    parts = [f"{names} trained on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "training")]
    parts += [f"{names} scored on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "test")]
    return Fact("; ".join(parts), f"{FLOW}: arms")


def exclusions(study: Study) -> Fact | None:
    """Say what was left out within the data folder, and why."""
    if study.flow["labelled"] is None:
        return None
    said = []
    for side in ("training", "test"):
        for names, gone, _ in steps_of_arms(study.flow, side):
            said += [f"{side}, {names}: {left_out_words(item)}: {item['reason']}" for item in gone]
    return Fact("; ".join(said) or "no labelled image of the data folder was left out", f"{FLOW}: arms")


def flow_in_figure(study: Study) -> Fact:
    """Point to the figure of the patient flow."""
    return Fact(f"{images_and_patients(study).text}; figure patient_flow.png", FLOW)


def grouping(study: Study) -> Fact | None:
    """Say what counts as one patient."""
    if (grouped_by := study.flow["grouped_by"]) is None:
        return None
    unknown = study.flow["patients_unknown"] or 0
    own = "" if grouped_by == GROUPED_BY_IMAGE or not unknown else (
        f"; the patient of {count(unknown, 'image')} is unknown, each counts as one"
    )  # fmt: skip
    level = "image" if grouped_by == GROUPED_BY_IMAGE else "patient"
    return Fact(f"{level} level: {grouping_sentence(grouped_by)}{own}", f"{FLOW}: grouped_by")


def split(study: Study) -> Fact | None:
    """Say how the images were assigned to training, folds and test."""
    sha256, source = study.recorded("split_sha256")
    if sha256 is None:
        return None
    text = f"split {sha256[:12]}, frozen before any training, stratified by label, {_whole(study)}"
    if study.data:
        text += f" (seed {study.data.splits.seed})"
    sides = [f"{names} trained on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "training")]
    sides += [f"{names} scored on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "test")]
    return Fact("; ".join([text, *sides]), f"{source}; {FLOW}: arms")


def test_set(study: Study) -> Fact:
    """Describe the test set."""
    test = study.comparison["test_set"]
    share = f"{test['n_positive']:,} positive ({percent(test['prevalence'])})"
    people = "" if study.flow["grouped_by"] == GROUPED_BY_IMAGE else f" of {count(test['n_patients'], 'patient')}"
    kind = {"hold-out": "hold-out of the split", "official": "official test set"}
    return Fact(f"{kind.get(study.flow['test_set'], 'test set from elsewhere')}: {count(test['n_images'], 'image')}"
                f"{people}, {share}", f"{COMPARISON}: test_set")  # fmt: skip


def folds(study: Study) -> Fact | None:
    """Say which arms have folds."""
    rows = folds_of_arms(study.flow)
    if not rows:
        return None
    words = [f"{names}: {len(of)} folds of {min(f['images'] for f in of)} to {max(f['images'] for f in of)} images"
             for names, of in rows]  # fmt: skip
    return Fact(f"{'; '.join(words)}, {_whole(study)}, for choices made before the test", f"{FLOW}: arms.folds")


def _whole(study: Study) -> str:
    return "image by image" if study.flow["grouped_by"] == GROUPED_BY_IMAGE else "whole patients"


def missing_data(study: Study) -> Fact | None:
    """Say how missing images and missing view, sex and age were handled."""
    skipped, source = study.recorded("skipped_images")
    if skipped is None:
        return None
    left_out = count(skipped["count"], "missing or unreadable image") if skipped["count"] else "no image"
    text = f"{left_out} left out; nothing was imputed"
    if study.data:
        images = study.data.dataset.images
        unknown = {name: int((images[name].isna() | images[name].eq("")).sum()) for name in ("view", "sex", "age")}
        said = ", ".join(f"{name} of {n:,}" for name, n in unknown.items())
        text += f". Unknown: {said} of {len(images):,} images; these are in no subgroup of that kind"
    return Fact(text, source + (f"; {paths.TRAIN_METADATA}" if study.data else ""))


def views(study: Study) -> Fact | None:
    """Count the views, which are all that the tables say about how an image was taken."""
    if study.data is None:
        return None
    found = study.data.dataset.images["view"].replace("", "unknown").value_counts()
    words = ", ".join(f"{name} {n:,}" for name, n in found.items())
    return Fact(f"views: {words}", f"{paths.TRAIN_METADATA}: position")


def people_by_side(study: Study) -> Fact | None:
    """Point to the table of people in the data set card."""
    if study.data is None:
        return None
    where = f"table in {paths.dataset_card('').name}"
    return Fact(f"age, sex, view and class of both sides of the split: {where}", paths.TRAIN_METADATA)


def synthetic_origin(study: Study) -> Fact | None:
    """Say which synthetic images were used, and whether their origin was checked."""
    rows = []
    for name, row in study.comparison["arms"].items():
        if row["n_synthetic"]:
            said = study.arms[name].recorded.get("synthetic") or {}
            origin = "origin verified against the test images" if said.get("verified") else "origin NOT verified"
            maker = f", generator {said['generator_sha256'][:12]}" if said.get("generator_sha256") else ""
            rows.append((name, f"{synthetic_words(row)}, {origin}{maker}"))
    return Fact(by_arm(rows), "each arm's final_metrics.json: synthetic") if rows else None


def generator(study: Study) -> Fact | None:
    """Say what the GAN learned from."""
    if (gan := study.gan) is None:
        return None
    people = "" if gan["grouped_by"] == GROUPED_BY_IMAGE else f" of {count(gan['n_patients'], 'patient')}"
    text = f"GAN trained on {count(gan['n_images'], 'image')}{people} ({gan['classes']}), {gan['steps']:,} steps"
    return Fact(f"{text}, seed {gan['seed']}", f"{paths.gan_history('').name}: n_images, n_patients, steps")


def synthetic_quality(study: Study) -> Fact | None:
    """Give the numbers about the synthetic images, each beside that of real ones."""
    if study.quality is None or not (rows := study.quality["rows"]):
        return None
    words = []
    for row in rows:
        if row["value"] is not None:
            beside = "" if row["yardstick"] is None else f" (real images: {row['yardstick']:.3g})"
            words.append(f"{row['name']} {row['value']:.3g}{beside}")
    return Fact("; ".join(words), "image_quality.json: rows") if words else None
