"""What the files of a study say about its data: one fact each, with file and key; None where they do not say."""

from __future__ import annotations

import contextlib

from common import paths
from comparison.few_labels import range_in_words
from dataset.labels import POSITIVE_CLASS
from dataset.patients import GROUPED_BY_IMAGE, grouping_sentence
from report.blocks import count, percent
from report.details import synthetic_words
from report.patient_flow import folds_of_arms, group_words, left_out_words, steps_of_arms
from report.study import Fact, Study, by_arm
from utils import UserError, load_json

COMPARISON, FLOW = "comparison.json", "patient_flow.json"


# --- the data set ----------------------------------------------------------------------------------
def data_set(study: Study) -> Fact | None:
    """Name the data set, if the data folder says where it comes from."""
    if study.data is None:
        return None
    folder, provenance = study.data.dataset.data_dir, study.data.dataset.provenance
    if provenance is not None:
        name = provenance["data_set"] or "a data set that the layout does not name"
        text = f"{name}, imported on {provenance['date']} from the layout {provenance['layout']}"
        return Fact(text, f"{paths.provenance(folder).name}: data_set, layout, date")
    for file, key, what in (
        (paths.download_marker(folder), "dataset", "Kaggle data set"),
        (paths.phantom_marker(folder), "what", "drawn chests (phantoms)"),
    ):
        said = None
        if file.is_file():
            with contextlib.suppress(UserError):  # a damaged marker names nothing
                said = load_json(file)
        if isinstance(said, dict) and said.get(key):
            return Fact(f"{what}: {said[key]}", f"{file.name}: {key}")
    return None


def data_version(study: Study) -> Fact | None:
    """Say which file of metadata it was."""
    sha256, source = study.recorded("data_sha256")
    return Fact(f"metadata with SHA-256 {sha256}", source) if sha256 else None


def label(study: Study) -> Fact | None:
    """Say what counts as positive."""
    if study.data is None:
        return None
    if provenance := study.data.dataset.provenance:
        meaning = provenance["positive"]
        by = f"; labelled by {meaning['labelled_by']}" if meaning["labelled_by"] else ""
        return Fact(f"positive: {meaning['sentence']}{by}", "provenance.json: positive")
    classes = [name for name in study.data.dataset.images["class"].unique() if name]
    if POSITIVE_CLASS not in classes:
        return None
    others = ", ".join(sorted(set(classes) - {POSITIVE_CLASS})) or "all other images"
    return Fact(f"positive: {POSITIVE_CLASS}; negative: {others}", f"{paths.TRAIN_METADATA}: class, Target")


def images_and_patients(study: Study) -> Fact:
    """Count all labelled images, or those that the arms' files name."""
    if study.flow["labelled"]:
        return Fact(f"{group_words(study.flow['labelled'])} (labelled)", f"{FLOW}: labelled")
    return Fact("; ".join(_trained_and_scored(study)), f"{FLOW}: arms")


def _trained_and_scored(study: Study) -> list[str]:
    said = [f"{names} trained on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "training")]
    return said + [f"{names} scored on {group_words(kept)}" for names, _, kept in steps_of_arms(study.flow, "test")]


def exclusions(study: Study) -> Fact | None:
    """Say what was left out within the data folder, and why."""
    if study.flow["labelled"] is None:
        return None
    said = [f"at the import: {item['images']:,} {item['reason']}" for item in study.flow["left_out_at_import"]]
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
    return Fact("; ".join([text, *_trained_and_scored(study)]), f"{source}; {FLOW}: arms")


def test_set(study: Study) -> Fact:
    """Describe the test set."""
    test = study.comparison["test_set"]
    share = f"{test['n_positive']:,} positive ({percent(test['prevalence'])})"
    people = "" if study.flow["grouped_by"] == GROUPED_BY_IMAGE else f" of {count(test['n_patients'], 'patient')}"
    kind = {"hold-out": "hold-out of the split", "official": "official test set"}
    return Fact(f"{kind.get(study.flow['test_set'], 'test set from elsewhere')}: {count(test['n_images'], 'image')}"
                f"{people}, {share}", f"{COMPARISON}: test_set")  # fmt: skip


def external_tests(study: Study) -> Fact | None:
    """Name the external tests of these models."""
    tests = [report for report in study.external_reports if report.current]
    if not tests:
        return None
    words = [f"{test.name}: {count(test.n_images, 'image')} of {count(test.n_patients, 'patient')}" for test in tests]
    where = "each test's report is linked in report.html"
    return Fact(f"{'; '.join(words)}, on which nothing was trained; {where}", "external_test.json of each test")


def folds(study: Study) -> Fact | None:
    """Say which arms have folds."""
    rows = folds_of_arms(study.flow)
    if not rows:
        return None
    words = [f"{names}: {len(of)} folds of {range_in_words([f['images'] for f in of])} images" for names, of in rows]
    return Fact(f"{'; '.join(words)}, {_whole(study)}, for choices made before the test", f"{FLOW}: arms.folds")


def _whole(study: Study) -> str:
    return "image by image" if study.flow["grouped_by"] == GROUPED_BY_IMAGE else "whole patients"


def removed_at_import(study: Study) -> Fact | None:
    """Say what an import did to names, pixels and patient ids."""
    provenance = study.data.dataset.provenance if study.data else None
    if provenance is None:
        return None
    counts, patients = provenance["images"], provenance["patients"]
    words = ["names of files are hidden" if provenance["names"] == "hashed" else "names of files are the source's"]
    words.append(f"{count(counts['rewritten'], 'image')} written anew, pixels only")
    words.append(f"{counts['linked'] + counts['copied']:,} files as they were")
    if patients["known"]:
        words.append(f"patient ids are {'pseudonyms' if patients['pseudonyms'] else 'those of the source'}")
    return Fact("; ".join(words), "provenance.json: names, images, patients")


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
    """Say what the generator of the synthetic images learned from: by their manifest, else by the GAN's history."""
    people = study.flow["grouped_by"] != GROUPED_BY_IMAGE
    if (manifest := study.manifest) and manifest.get("train_image_ids"):
        learned = count(len(manifest["train_image_ids"]), "image")
        learned += f" of {count(len(manifest['train_patients']), 'patient')}" if people else ""
        name = (manifest.get("generator_sha256") or "unknown")[:12]
        return Fact(f"generator {name} learned from {learned}", "manifest.json of --synthetic-dir: train_image_ids")
    gan = study.gan or {}
    if not {"n_images", "n_patients", "classes", "steps", "seed"} <= gan.keys():
        return None
    learned = count(gan["n_images"], "image") + (f" of {count(gan['n_patients'], 'patient')}" if people else "")
    learned += f" ({gan['classes']}), {gan['steps']:,} steps, seed {gan['seed']}"
    source = f"{paths.gan_history('').name}: n_images, n_patients, steps"
    return Fact(f"the GAN of this folder learned from {learned}", source)


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
