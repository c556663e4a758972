"""The patient flow: its numbers add up, whatever was left out, and are the numbers of the table and the figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from arms.result_files import find_arms
from common.file_formats import format_problems
from dataset.records import Dataset, OfficialTest
from dataset.splits import TEST, TRAIN, Splits, reduce_training
from fake_comparison import fake_comparison
from fake_results import SPLIT, fake_few_labels, fake_out_of_fold, fake_records, write_arm
from fake_study import fake_provenance
from report.blocks import Table
from report.file_formats import PatientFlow
from report.flow_figure import flow_figure, wrap_text
from report.patient_flow import UNEXPLAINED, UNREADABLE, DataFolder, count_flow, flow_table
from report.sections import Findings, sections

KEYS = ("images", "patients", "positive")


def folder(grouped_by: str = "nih_patient", labelled: bool | None = None) -> DataFolder:
    """The data folder of ``fake_results``: 120 test images of 60 patients, 360 training images of 301."""
    test, train = fake_records().assign(role=TEST), fake_out_of_fold(3).assign(role=TRAIN)
    images = pd.concat([train, test], ignore_index=True)[["image_id", "patient", "label", "class", "role"]]
    dataset = Dataset(Path("data"), images, grouped_by, "d" * 64, len(images), 7)
    official = None
    if labelled is not None:
        people = fake_records(40, seed=5)
        people = people.assign(image_id="official" + people["image_id"], patient="official" + people["patient"])
        official = OfficialTest(people if labelled else people.drop(columns="label"), labelled, "")
    return DataFolder(dataset, Splits(images, grouped_by, 42, SPLIT, Path("splits.json"), False), official)


def sizes(images: pd.DataFrame) -> dict:
    patients, positive = images["patient"].nunique(), int(images["label"].sum())
    return {"n_train_images": len(images), "n_train_patients": patients, "n_train_positive": positive}


def training(data: DataFolder, skipped: tuple[str, ...] = (), fraction: float = 1.0) -> dict:
    """What an arm records that was trained on a part of the training images."""
    images = reduce_training(data.splits, fraction).images
    images = images[(images["role"] == TRAIN) & ~images["image_id"].isin(skipped)]
    return {
        **sizes(images), "train_fraction": fraction,
        "skipped_images": {"count": len(skipped), "image_ids": sorted(skipped)},
    }  # fmt: skip


def assert_adds_up(whole: dict, left_out: list[dict], kept: dict) -> None:
    for key in KEYS:
        assert whole[key] == sum(item[key] for item in left_out) + kept[key], key


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("n_bad", [0, 5])
def test_the_numbers_add_up(tmp_path, fraction, n_bad):
    data = folder(labelled=False)
    images = data.splits.images
    kept = reduce_training(data.splits, fraction).images
    # The first training images are of patients with another image, too, the last test images of patients without.
    bad_train = tuple(kept.loc[kept["role"] == TRAIN, "image_id"].iloc[:n_bad])
    bad_test = tuple(images.loc[images["role"] == TEST, "image_id"].iloc[:n_bad])
    bad = bad_train + bad_test + (("officialimage0003",) if n_bad else ())
    scored = fake_records()
    scored = scored[~scored["image_id"].isin(bad)]
    write_arm(tmp_path, "baseline", scored, folds=3, **training(data, bad, fraction))
    write_arm(tmp_path, "augmented", scored, n_synthetic=24, **training(data, bad, fraction))
    flow = count_flow(find_arms(tmp_path), data)
    assert format_problems(flow, PatientFlow) == []
    assert_adds_up(flow["labelled"], [flow["training_side"]], flow["hold_out"])
    for arm in flow["arms"]:
        assert_adds_up(flow["training_side"], arm["left_out_of_training"], arm["trained"])
        assert_adds_up(flow["hold_out"], arm["left_out_of_test"], arm["scored"])
        assert [item["reason"] for item in arm["left_out_of_test"]] == [UNREADABLE] * bool(n_bad)
        assert len(arm["left_out_of_training"]) == (fraction < 1) + bool(n_bad)
    assert sum(fold["images"] for fold in flow["arms"][0]["folds"]) == 360
    assert flow["official"]["unreadable"] == bool(n_bad) and flow["official"]["use"] == "predicted, never scored"
    assert flow["official"]["positive"] is None and flow["test_set"] == "hold-out"
    # Five images in a row are of three patients, of whom one has another image.
    assert n_bad == 0 or flow["arms"][0]["left_out_of_test"][0]["patients"] == 2


def test_what_no_file_explains_is_said(tmp_path):
    data = folder()
    write_arm(tmp_path, "baseline", fake_records().iloc[:-3], **training(data) | {"n_train_images": 350})
    flow = count_flow(find_arms(tmp_path), data)
    (arm,) = flow["arms"]
    assert [item["reason"] for item in arm["left_out_of_training"] + arm["left_out_of_test"]] == [UNEXPLAINED] * 2
    assert_adds_up(flow["hold_out"], arm["left_out_of_test"], arm["scored"])
    assert any("no file says why" in note for note in flow["notes"])


def test_hidden_labels_are_explained(tmp_path):
    data = folder()
    train = data.splits.images[data.splits.images["role"] == TRAIN]
    labelled = train[train["patient"].isin(sorted(set(train["patient"]))[:100])]
    hidden = train.drop(labelled.index)
    few = fake_few_labels(n_hidden=len(hidden), n_hidden_patients=hidden["patient"].nunique(), n_unlabelled=24)
    write_arm(tmp_path, "control_pseudo", fake_records(), few_labels=few, **training(data) | sizes(labelled))
    flow = count_flow(find_arms(tmp_path), data)
    (arm,) = flow["arms"]
    (left_out,) = arm["left_out_of_training"]
    assert left_out["reason"] == "labels hidden (--labelled-patients); 24 of them joined with soft labels"
    assert_adds_up(flow["training_side"], [left_out], arm["trained"])
    assert left_out["positive"] == hidden["label"].sum()


def test_without_patients_images_are_counted(tmp_path):
    data = folder("image_id")
    write_arm(tmp_path, "baseline", fake_records(), grouped_by="image_id", folds=3, **training(data))
    flow = count_flow(find_arms(tmp_path), data)
    groups = [flow["labelled"], flow["hold_out"], flow["arms"][0]["trained"], *flow["arms"][0]["folds"]]
    assert all(group["patients"] is None and group["images"] for group in groups)
    table, notes = flow_table(flow)
    assert {row[2] for row in table.rows} == {"–"} and "patients are unknown" in notes
    assert "patients unknown" in words(flow)


@pytest.mark.parametrize("read", [True, False])
def test_another_or_no_data_folder_leaves_the_arms_own_numbers(tmp_path, read):
    write_arm(tmp_path, "baseline", fake_records(), folds=3, split_sha256="6" * 64)
    flow = count_flow(find_arms(tmp_path), folder() if read else None)
    assert flow["labelled"] is flow["training_side"] is flow["hold_out"] is None and flow["test_set"] == "hold-out"
    assert flow["arms"][0]["trained"] == {"images": 360, "patients": 301, "positive": 90}
    assert flow["arms"][0]["scored"]["images"] == 120 and flow["arms"][0]["left_out_of_test"] == []
    assert "result files alone" in " ".join(flow["notes"]) and ("other data" in flow["notes"][0]) == read
    assert "Scored: baseline" in words(flow)


def test_arms_without_metrics_or_predictions_are_counted_as_far_as_known(tmp_path):
    for name in ("baseline", "augmented"):
        write_arm(tmp_path, name, fake_records())
    (tmp_path / "baseline_final_metrics.json").unlink()
    (tmp_path / "augmented_test_predictions.csv").unlink()
    baseline, augmented = count_flow(find_arms(tmp_path), None)["arms"]
    assert baseline["trained"] is None and baseline["scored"]["images"] == 120
    assert augmented["scored"] is None and augmented["trained"]["images"] == 360


def test_a_labelled_official_test_set_is_scored_and_the_hold_out_is_not_used(tmp_path):
    data = folder(labelled=True)
    write_arm(tmp_path, "baseline", data.official.images, test_set="official", **training(data))
    flow = count_flow(find_arms(tmp_path), data)
    assert flow["test_set"] == "official" and flow["official"]["use"] == "scored"
    assert flow["arms"][0]["left_out_of_test"] == []
    assert_adds_up(flow["official"], [], flow["arms"][0]["scored"])
    said = words(flow)
    assert "Test side of the split: not used here" in said and "Official test images with labels: scored" in said
    (section,) = (part for part in sections(Findings(fake_comparison(), flow=flow)) if part.key == "test-set")
    assert "It is the official test set; nothing was trained on it. " in section.blocks[0]


def test_a_test_set_from_elsewhere_is_not_taken_for_the_hold_out(tmp_path):
    data, other = folder(), fake_records().assign(image_id=lambda t: "elsewhere" + t["image_id"])
    write_arm(tmp_path, "baseline", other, **training(data))
    flow = count_flow(find_arms(tmp_path), data)
    assert flow["test_set"] == "other" and flow["arms"][0]["left_out_of_test"] == []
    assert "Test side of the split: not used here" in words(flow)


def test_an_import_adds_what_it_left_out(tmp_path):
    data = folder(labelled=False)
    provenance = fake_provenance(unreadable=3, lateral=0)
    data = replace(data, dataset=replace(data.dataset, provenance=provenance))
    write_arm(tmp_path, "baseline", fake_records(), **training(data))
    arms = find_arms(tmp_path)
    flow = count_flow(arms, data)
    assert format_problems(flow, PatientFlow) == []
    left_out = sum(item["images"] for item in flow["left_out_at_import"])
    assert flow["source_images"] == left_out + flow["labelled"]["images"] + flow["official"]["images"] == 523
    assert [item["reason"] for item in flow["left_out_at_import"]] == ["unreadable"]
    said = words(flow)
    assert "Imported source 523 images" in said and "Left out at the import unreadable: 3 images" in said
    table, _ = flow_table(flow)
    assert ("left out at the import: unreadable", "3", "–", "–") in table.rows
    # Tables that were changed after the import are not what it brought.
    provenance["images"]["labelled"] = 479
    flow = count_flow(arms, data)
    assert flow["source_images"] is None and flow["left_out_at_import"] == []
    assert any("other images than the import brought" in note for note in flow["notes"])


# --- table and figure ------------------------------------------------------------------------------
def words(flow: PatientFlow) -> str:
    return " ".join(text.get_text() for text in flow_figure(flow).findobj(mpl.text.Text))


def test_table_and_figure_hold_the_numbers_and_join_like_arms(tmp_path):
    data = folder(labelled=False)
    for name in ("baseline", "augmented"):
        write_arm(tmp_path, name, fake_records(), n_synthetic=24 * (name == "augmented"), **training(data))
    write_arm(tmp_path, "small", fake_records(), **training(data, fraction=0.5))
    flow = count_flow(find_arms(tmp_path), data)
    table, note = flow_table(flow)
    assert isinstance(table, Table)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["labelled images"] == ("480", "361", f"{flow['labelled']['positive']:,}")
    assert rows["trained on (baseline, augmented)"][0] == "360" and rows["scored (all arms)"][:2] == ("120", "60")
    assert rows["synthetic images added (augmented)"] == ("24", "–", "–")
    assert any(name.startswith("left out (small): beyond the share") for name in rows)
    assert "The patient of 7 images is unknown" in note
    said = words(flow)
    for text in ("480 images of 361 patients", "Trained on: baseline, augmented", "360 images of 301 patients",
                 "augmented: 24", "Scored: all arms", "120 images of 60 patients"):  # fmt: skip
        assert text in said, text


def test_long_names_are_broken():
    name = "a_name_without_a_blank_" * 4
    lines = wrap_text(f"Trained on: {name} and $more$", 2.0, True)
    assert lines[0] == "Trained on:" and len(lines) > 3
    assert "".join(lines).replace(" ", "") == f"Trainedon:{name}and$more$"


def test_boxes_of_the_figure_lie_within_it_and_below_each_other(tmp_path):
    data = folder(labelled=False)
    data = replace(data, dataset=replace(data.dataset, provenance=fake_provenance(unreadable=3)))
    for name in ("baseline", "augmented", "of_a_long_name_that_fills_a_line_and_more"):
        write_arm(tmp_path, name, fake_records(), folds=3, n_synthetic=24, **training(data, fraction=0.5))
    figure = flow_figure(count_flow(find_arms(tmp_path), data))
    (ax,) = figure.axes
    boxes = sorted((patch.get_bbox() for patch in ax.patches if hasattr(patch, "get_boxstyle")), key=lambda b: b.y0)
    renderer = figure.canvas.get_renderer()
    for text in filter(lambda text: text.get_text(), ax.texts):
        inside = ax.transData.inverted().transform(text.get_window_extent(renderer))
        (left, right), (low, high) = sorted(inside[:, 0]), sorted(inside[:, 1])
        assert any(box.x0 < left and right < box.x1 and box.y0 < low and high < box.y1 for box in boxes), text
    for one in boxes:
        assert one.y0 >= 0 and one.y1 <= ax.get_ylim()[0]
        assert all(not one.overlaps(other) for other in boxes if other is not one)
