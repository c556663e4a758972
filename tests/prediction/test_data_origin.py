"""What a folder says of its origin: whose patient ids are comparable, and who is the same person."""

import pandas as pd
import pytest

from common import paths
from dataset.patients import GROUPED_BY_COLUMN, GROUPED_BY_IMAGE, GROUPED_BY_PATIENT
from fake_study import fake_provenance
from prediction.data_origin import find_origin
from utils import save_json


def images(*ids, kind="Normal"):
    return pd.DataFrame({"image_id": ids, "patient": "1", "class": kind})


def imported(folder, key, data_set=""):
    folder.mkdir()
    content = fake_provenance()
    patients = content["patients"] | {"pseudonyms": key != "", "key": key or None}
    save_json(paths.provenance(folder), content | {"data_set": data_set, "patients": patients})
    return find_origin(folder, images("a", "b"), GROUPED_BY_COLUMN)


def test_pseudonyms_are_comparable_under_one_key_only(tmp_path):
    one, same, other = (imported(tmp_path / name, key) for name, key in (("a", "k1"), ("b", "k1"), ("c", "k2")))
    assert one.knows_people_of(same) and not one.knows_people_of(other)
    assert one.person("x", "ab12") == same.person("y", "ab12") != other.person("y", "ab12")


def test_numbers_of_nih_patients_are_the_same_with_and_without_zeros(tmp_path):
    rsna = find_origin(None, images("2d1a", "77fe"), GROUPED_BY_PATIENT)
    nih = imported(tmp_path / "nih", "", data_set="NIH ChestX-ray14")
    by_name = find_origin(tmp_path, images("00000013_004", "00000013_005"), GROUPED_BY_IMAGE)
    assert rsna.knows_people_of(nih) and rsna.knows_people_of(by_name)
    assert rsna.person("2d1a", "00000013") == nih.person("a", "13") == by_name.person("00000013_004", "00000013_004")


def test_phantoms_of_other_seeds_are_other_people(tmp_path):
    found = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        save_json(paths.phantom_marker(folder), {"seed": seed})
        found.append(find_origin(folder, images("a"), GROUPED_BY_PATIENT))
    one, other = found
    assert one.knows_people_of(other) and one.person("a", "00000001") != other.person("a", "00000001")
    assert one.families == other.families


@pytest.mark.parametrize("patient", ["scan-1", "image scan-1"])
def test_an_image_that_is_a_group_of_its_own_shows_nobody_in_particular(patient, tmp_path):
    origin = find_origin(tmp_path, images("scan-1"), GROUPED_BY_COLUMN)
    assert origin.person("scan-1", patient) is None and origin.person("scan-1", "p7") is not None
