"""Model card and data set card: values with their source, the rest left to the author, whose words stay."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from common import paths
from fake_results import fake_records, write_arm
from fake_study import fake_provenance, make_study, two_arms
from report.cards import ASK, authors_cells, count_open_fields, people_table, write_cards
from report.markdown import code_block, escape_text, read_tables, write_table
from report.study import Study, by_arm
from utils import save_json

NEVER_KNOWN = {
    "model": ("Intended use", "Intended users", "Uses that it is not for", "Ethical considerations",
              "Approval and consent", "Licence of the trained model"),
    "dataset": ("Reference standard", "Annotators", "Quality of the annotation", "Approval and consent",
                "De-identification", "Licence and terms", "Hospitals, period, country"),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return two_arms(tmp_path_factory.mktemp("study"))


def fields(file: Path) -> dict[str, tuple[str, str]]:
    """Field -> (value, source)."""
    return {row[0]: (row[1], row[2]) for row in read_tables(file) if len(row) == 3}


def test_what_the_files_know_stands_beside_its_source(study, tmp_path):
    write_cards(study, tmp_path)
    model, data = fields(paths.model_card(tmp_path)), fields(paths.dataset_card(tmp_path))
    for card, field, value, source in (
        (model, "Network", "DenseNet-121 whose last layer is one logit; input: one gray X-ray, 224 x 224", "config"),
        (model, "Files", "baseline_densenet121.pth, augmented_densenet121.pth", "config"),
        (model, "Initial weights", "ImageNet weights; only the last layer learns", "baseline_final"),
        (model, "Synthetic images", "augmented: 24 synthetic images, origin verified", "final_metrics.json: synthetic"),
        (model, "Test set", "120 images of 60 patients", "comparison.json: test_set"),
        (model, "Software and device", "torch 2.15.0", "baseline_final_metrics.json: environment"),
        (model, "Cross-validation", "baseline: 3 folds", "patient_flow.json"),
        (data, "Images", "480 images of 361 patients", "patient_flow.json: labelled"),
        (data, "Meaning", "positive: Lung Opacity", "stage2_train_metadata.csv"),
        (data, "Who counts as one patient", "the patient of 7 images is unknown", "patient_flow.json: grouped_by"),
    ):  # fmt: skip
        assert value in card[field][0] and source in card[field][1], field
    scores = study.comparison["arms"]["augmented"]
    assert f"| {scores['auroc']:.3f} (" in paths.model_card(tmp_path).read_text()
    for flag in study.flags:
        assert escape_text(flag) in model["Warnings of this analysis"][0]


def test_what_no_file_can_know_is_left_to_the_author(study, tmp_path):
    write_cards(study, tmp_path)
    for kind, names in NEVER_KNOWN.items():
        file = tmp_path / f"{kind}_card.md"
        card = fields(file)
        assert all(card[name][0].startswith(ASK) and card[name][1] == "author" for name in names)
        assert count_open_fields(file) == sum(value.startswith(ASK) for value, _ in card.values())


def test_the_authors_words_stay_and_everything_else_is_new(study, tmp_path):
    write_cards(study, tmp_path)
    file = paths.model_card(tmp_path)
    text = file.read_text()
    own = "Teaching, *not* care \\| see [here](x.md)"
    line = next(line for line in text.splitlines() if line.startswith("| Intended use |"))
    gone = "| Mood | good | author |"  # a field of an earlier version
    typed = own.replace("\\|", "|")  # a bare |, which ends a cell
    text = text.replace(line, f"| Intended use | {typed} | author |\n{gone}")
    file.write_text(text.replace("| Network | ResNet", "| Network | VGG"))
    before = count_open_fields(file)
    for _ in range(2):  # a second time nothing changes any more
        write_cards(study, tmp_path)
        assert authors_cells(file) == {"Intended use": own, "Mood": "good"}
        assert "VGG" not in file.read_text() and count_open_fields(file) == before
        assert "## Kept from an earlier version" in file.read_text()


def test_the_cards_work_with_one_arm_and_nothing_else(tmp_path):
    write_arm(tmp_path, "baseline", fake_records())
    (tmp_path / "baseline_final_metrics.json").unlink()
    study = make_study(tmp_path)
    write_cards(study, tmp_path)
    card = fields(paths.dataset_card(tmp_path))
    assert card["Split"][0].startswith(ASK) and card["Views"][0].startswith(ASK)
    assert "Differences between arms" not in fields(paths.model_card(tmp_path))


def test_a_data_folder_that_names_its_source_is_named(study, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    save_json(paths.download_marker(folder), {"dataset": "owner/rsna|x", "train_metadata_sha256": "0" * 64})
    dataset = replace(study.data.dataset, data_dir=folder)
    write_cards(replace(study, data=replace(study.data, dataset=dataset)), tmp_path)
    value, source = fields(paths.dataset_card(tmp_path))["Name and source"]
    assert value == "Kaggle data set: owner/rsna\\|x" and "dataset" in source

    paths.download_marker(folder).write_text("damaged")
    write_cards(replace(study, data=replace(study.data, dataset=dataset)), tmp_path)
    assert fields(paths.dataset_card(tmp_path))["Name and source"][0].startswith(ASK)


def test_an_import_says_where_images_come_from_and_what_it_removed(study, tmp_path):
    dataset = replace(study.data.dataset, provenance=fake_provenance())
    write_cards(replace(study, data=replace(study.data, dataset=dataset)), tmp_path)
    card = fields(paths.dataset_card(tmp_path))
    assert "Kermany, imported on 2026-01-02 from the layout folders" in card["Name and source"][0]
    assert card["Meaning"][0] == "positive: images in folders called PNEUMONIA; labelled by two physicians"
    assert "names of files are hidden; 420 images written anew, pixels only" in card["What the import removed"][0]
    assert card["De-identification"][0].startswith(ASK)  # what was in the pixels, no import can know


def test_the_generator_is_told_by_its_manifest_else_by_the_history(study, tmp_path):
    gan = {"n_images": 90, "n_patients": 80, "classes": "positive", "steps": 1200, "seed": 7}
    manifest = {"train_image_ids": ["a", "b", "c"], "train_patients": ["p", "q"], "generator_sha256": "ab" * 32}
    for changes, words in (
        ({"gan": gan}, "learned from 90 images of 80 patients (positive), 1,200 steps, seed 7"),
        ({"gan": gan, "manifest": manifest}, "generator abababababab learned from 3 images of 2 patients"),
        ({"gan": {"config": {}}}, None),
    ):
        write_cards(replace(study, **changes), tmp_path)
        card = fields(paths.model_card(tmp_path))
        assert ("Generator" in card) == bool(words) and (not words or words in card["Generator"][0])


def test_people_of_both_sides_add_up(study):
    images, split = study.data.dataset.images, study.data.splits.images
    rows = {row[0]: row[1:] for row in people_table(images, split).rows}
    assert rows["images"] == ("360", "120")
    for column in ("sex", "view", "class"):
        counts = [[int(cell.split()[0].replace(",", "")) for cell in row] for name, row in rows.items()
                  if name.startswith(f"{column} ")]  # fmt: skip
        assert [sum(side) for side in zip(*counts, strict=True)] == [360, 120]
    unknown = people_table(images.assign(age=float("nan"), sex="", view=""), split).rows
    assert ("age in years: median (quartiles)", "–", "–") in unknown
    assert ("sex unknown", "360 (100.0 %)", "120 (100.0 %)") in unknown


# --- Markdown --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["a|b", "<script>alert(1)<script> &amp;", "*bold* `code` [x](y)", "two\nlines", "_a_ b_c", "a\\|b", "$x$ # ~y~"],
)
def test_any_text_stays_one_cell_and_marks_nothing(tmp_path, text):
    file = tmp_path / "x.md"
    file.write_text(write_table(("a", "b"), [(escape_text(text), "end")]))
    (_, _, (cell, end)) = read_tables(file)
    assert end == "end" and "<" not in cell and not re.search(r"(?<!\\)[*`|\[\]$]", cell.replace("\\\\", ""))
    plain = re.sub(r"\\(.)", r"\1", cell).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == " ".join(text.split())


def test_folders_of_this_machine_are_left_out_and_fences_hold():
    assert escape_text("/home/somebody/models/x.pth is damaged") == "x.pth is damaged"
    block = code_block(["a", "```", "b"])
    assert block.startswith("````text\n") and block.endswith("\n````\n")


def test_arms_of_the_same_words_stand_together():
    assert by_arm([("a", "x"), ("b", "y"), ("c", "x")]) == "a, c: x; b: y"
