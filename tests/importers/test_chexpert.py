"""CheXpert: uncertain labels, lateral views, patients of paths, and the validation set as official test."""

import pytest

import import_dataset
from common import paths
from dataset.records import load_dataset, load_official_test
from fake_layouts import chexpert
from importers.chexpert import read_chexpert
from utils import UserError, load_json


def labels(source) -> dict[str, int]:
    return {image.patient: image.label for image in source.images if not image.official}


@pytest.mark.parametrize(
    ("positive", "uncertain", "expected"),
    [
        ((), "drop", {1: 0, 2: 1, 4: 0}),
        ((), "positive", {1: 0, 2: 1, 3: 1, 4: 0, 5: 1}),
        ((), "negative", {1: 0, 2: 1, 3: 0, 4: 0, 5: 0}),
        (("Pneumonia", "consolidation"), "drop", {1: 0, 2: 1, 4: 0, 5: 1}),
    ],
)
def test_uncertain_labels(tmp_path, positive, uncertain, expected):
    source = read_chexpert(chexpert(tmp_path), positive, uncertain)
    assert labels(source) == {f"patient{number:05d}": label for number, label in expected.items()}
    assert source.left_out["lateral views"] == 1
    assert source.left_out.get("uncertain labels", 0) == 5 - len(expected)
    assert source.positive["uncertain"] == uncertain
    assert [image.label for image in source.images if image.official] == [1, 0]


def test_chexpert_becomes_a_data_folder(tmp_path):
    folders = ["--source", str(chexpert(tmp_path / "source")), "--data-dir", str(tmp_path / "data")]
    import_dataset.main(["--from", "chexpert", *folders, "--uncertain", "negative"])
    dataset, official = load_dataset(tmp_path / "data"), load_official_test(tmp_path / "data")
    assert list(dataset.images["image_id"])[0] == "patient00001_study1_view1_frontal"
    assert list(dataset.images["patient"])[:2] == ["patient00001", "patient00002"]
    assert set(dataset.images["view"]) == {"AP"} and set(dataset.images["sex"]) == {"F"}
    assert official.labelled and list(official.images["patient"]) == ["patient64541", "patient64542"]
    provenance = load_json(paths.provenance(tmp_path / "data"))
    assert provenance["data_set"] == "CheXpert" and provenance["images"]["left_out"] == {"lateral views": 1}
    assert any("uncertain negative" in flag for flag in dataset.red_flags)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patient00001/", "somebody/", "line 2: Path '.*somebody.*' names no patient"),
        ("AP,1.0", "AP,maybe", None),  # in a column that was not asked for
        (",-1.0,", ",2.0,", "line 5 holds '2'; allowed are 1, 0, -1 and blank"),
        ("Frontal/Lateral", "Side", "has no column Frontal/Lateral"),
        ("patient00001/study1", "patient00001/study9", "1 images of train.csv are not in .*study9"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, old, new, message):
    table = chexpert(tmp_path) / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    if message is None:
        assert read_chexpert(tmp_path).images
        return
    with pytest.raises(UserError, match=message):
        read_chexpert(tmp_path)


def test_full_size_downloads_in_batches_and_no_validation_set(tmp_path):
    root = chexpert(tmp_path) / "CheXpert-v1.0-small"
    (root / "train").rename(root / "CheXpert-v1.0 batch 2 (train 1)")
    (root / "valid.csv").unlink()
    source = read_chexpert(tmp_path)
    assert len(labels(source)) == 3 and any("no official test set" in note for note in source.notes)
