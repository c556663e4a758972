"""The table of known data sets: every row and every spelling, and the names that must pass."""

import pytest

from dataset.known_datasets import DATA_SETS, NIH, OURS, RSNA, families_of, find_data_sets, overlap_reason
from synthetic.leak_checks import refuse_overlapping
from utils import UserError

# Written down once more by hand: a row that loses its "contains" must not pass.
SHARES_PATIENTS = {
    NIH, RSNA, "SIIM-ACR Pneumothorax", "ChestX-Det", "NODE21", "ChestMNIST", "MedMNIST", "MaCheX", "MetaChest",
    "CheXmask", "NIH-CXR-LT", "Google's NIH labels", "RANZCR CLiP", "COVID-19 Radiography Database", "COVID-QU-Ex",
    "QaTa-COV19", "COVIDx", "Tuberculosis Chest X-ray Database", "CheXNet", "TorchXRayVision, all sets", "RAD-DINO",
    "EVA-X", "Ark",
}  # fmt: skip
NAMES = [(row, name) for row in DATA_SETS for name in (row.name, *row.aliases)]


def test_rows_are_complete_and_distinct():
    names = [row.name for row in DATA_SETS]
    assert len(set(names)) == len(names) and set(names) >= SHARES_PATIENTS
    for row in DATA_SETS:
        assert set(row.contains) <= set(names) - {row.name} and len(row.source) > 10, row.name
    spelled = ["".join(c for c in name.casefold() if c.isalnum()) for _, name in NAMES]
    assert len(set(spelled)) == len(spelled), "an alias that stands for two rows, or twice"


@pytest.mark.parametrize(("row", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_name_is_found_in_every_spelling_and_refused_if_it_shares_patients(row, name):
    spellings = [name, name.upper(), name.lower(), name.replace(" ", "_"), name.replace("-", " "), f"{name} v2.0",
                 f"./data/{name}/images", f"pretrained on {name}", f"{name}-subset", f"({name})"]  # fmt: skip
    for text in spellings:
        assert find_data_sets(text).rows == (row,), text
        assert bool(overlap_reason(text)) == (row.name in SHARES_PATIENTS), text


@pytest.mark.parametrize(
    "name",
    ["NIH subset", "NIHsubset", "nihrsna", "nih.14", "N.I.H.", "ＮＩＨ", "NI\u200bH", "NIHChestXray", "nihchestxray14",
     "nih-chest-xrays/data", "ChestXray-NIHCC", "Chest X-ray 14", "CXR-8", "chest_xray8",
     "pretrained on nih chestxray14 + chexpert", "CheXpert,NIH", "MIMICCXRandNIH", "rsna_1500", "RSNA2018",
     "iamtapendu/rsna-pneumonia-processed-dataset",
     "kaggle.com/c/rsna-pneumonia-detection-challenge", "medmnist/chestmnist_224", "CovidX7A", "covid-19_radiography",
     "anasmohammedtahir/covidqu", "densenet121-res224-all", "resnet50-res512-all", "densenet121-res224-nih",
     "SIIM_lung_segmentation", "ranzcr-clip-catheter-line-classification", "LongTailCXR", "RSNA bone age and RSNA"],
)  # fmt: skip
def test_hard_spellings_are_refused(name):
    with pytest.raises(UserError, match=r"RSNA's images are a part of NIH ChestX-ray14.*--trained-on"):
        refuse_overlapping(name)


@pytest.mark.parametrize(
    "name",
    ["VinDr-CXR", "vinbigdata-chest-xray", "PadChest", "BIMCV-PadChest-FULL", "PadChest X-ray 14 labels",
     "MIMIC-CXR-14", "MIMIC-CXR-JPG 2.0.0", "CheXpert-v1.0-small", "BRAX", "Kermany", "NIH Open-I", "NIH Shenzhen",
     "RSNA bone age", "SIIM-FISABIO-RSNA COVID-19", "MIDRC-RICORD-1C", "COVIDx CT-3", "PneumoniaMNIST",
     "densenet121-res224-pc", "finish", "nihilo", "Danish", "unihospital", "Spark", "landmark", "COVID X-rays of Rome",
     "covidxray", "our hospital, 2014", "14", "LAION-5B", "ImageNet"],
)  # fmt: skip
def test_other_data_pass(name):
    refuse_overlapping(name)


def test_a_refusal_says_which_row_says_so_and_what_to_do():
    with pytest.raises(UserError) as error:
        refuse_overlapping("NODE21 v1")
    assert str(error.value) == (
        "--trained-elsewhere 'NODE21 v1': NODE21 contains images of NIH ChestX-ray14 "
        "(https://node21.grand-challenge.org/Data/), and RSNA's images are a part of NIH ChestX-ray14, so such data "
        "may hold the test patients; list what the generator has seen with --trained-on, by RSNA's image ids or "
        "NIH's file names"
    )
    assert "MedMNIST contains images of ChestMNIST (" in (reason := overlap_reason("medmnist") or "")
    assert "ChestMNIST contains images of NIH ChestX-ray14 (" in reason, "through rows in between"
    assert {NIH, RSNA} == OURS


@pytest.mark.parametrize(
    ("text", "unknown"),
    [("CheXpert", False), ("the CheXpert training set (small, v1.0)", False), ("ImageNet-1k", False),
     ("CheXpert and our own X-rays", True), ("our hospital", True), ("", True)],
)  # fmt: skip
def test_names_beside_known_ones_are_noticed(text, unknown):
    assert find_data_sets(text).unknown is unknown


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        ("RSNA", "NIH", True),
        ("Kermany folders", "COVIDx", True),
        ("PneumoniaMNIST", "chest_xray_pneumonia", True),
        ("RSNA", "CheXpert", False),
        ("ImageNet", "ImageNet", False),  # photographs show no patients
        ("hospital_b", "hospital_b", False),
    ],
)
def test_families_meet_where_images_can_be_the_same(one, other, related):
    assert bool(families_of(one) & families_of(other)) is related
