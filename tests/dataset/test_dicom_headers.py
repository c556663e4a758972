"""What is understood of DICOM headers: X-rays of the chest are let in, everything else is refused by name."""

import numpy as np
import pytest
from pydicom import Sequence
from pydicom.dataset import Dataset

from dataset.dicom_files import read_dicom, read_header
from dicom_data import CR, DX, SECONDARY_CAPTURE, write_dicom
from utils import UserError

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def header_of(tmp_path, **header):
    return read_header(write_dicom(tmp_path / "x.dcm", PIXELS, **header))


def codes(meaning: str) -> Sequence:
    item = Dataset()
    item.CodeMeaning = meaning
    return Sequence([item])


# --- what is refused -------------------------------------------------------------------------------
CLASSES = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"SOPClassUID": CLASSES + "88.11"}, "(Basic Text SR)"),
        ({"SOPClassUID": CLASSES + "104.1"}, "(Encapsulated PDF)"),
        ({"SOPClassUID": CLASSES + "11.1"}, "(Grayscale Softcopy Presentation State)"),
        ({"SOPClassUID": CLASSES + "88.59"}, "(Key Object Selection Document)"),
        ({"SOPClassUID": CLASSES + "66.4"}, "(Segmentation)"),
        ({"SOPClassUID": CLASSES + "2"}, "(CT Image)"),
        ({"SOPClassUID": CLASSES + "1.2"}, "(Digital Mammography X-Ray Image - For Presentation)"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "(Media Storage Directory)"),
        *(
            ({"SOPClassUID": SECONDARY_CAPTURE, "Modality": code}, what)
            for code, what in [
                ("CT", "a CT image"), ("MR", "an MR image"), ("US", "an ultrasound image"), ("ct", "a CT image"),
                ("OT", "an object of modality OT (other)"), ("DOE", "an object of another modality"),
            ]
        ),
        *(
            ({"BodyPartExamined": part}, "another part of the body")
            for part in ("ABDOMEN", "HAND", "Knee", "TSPINE", "THORACIC SPINE", "BWS", "PELVIS", "RIBS", "L SHOULDER")
        ),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": codes("Foot")}, "another part of the body"),
        ({"NumberOfFrames": 2}, "a sequence of 2 frames"),
        ({"Rows": None, "PixelData": None}, "holds no image"),
    ],
)  # fmt: skip
def test_what_is_no_chest_x_ray_is_refused_by_name(tmp_path, header, reason):
    assert reason in header_of(tmp_path, **header).refusal
    with pytest.raises(UserError) as refused:
        read_dicom(tmp_path / "x.dcm")
    assert reason in str(refused.value) and "DOE" not in str(refused.value)


@pytest.mark.parametrize(
    "header",
    [
        {"SOPClassUID": CR, "Modality": "CR"},
        {"SOPClassUID": SECONDARY_CAPTURE, "Modality": "RG"},
        {"SOPClassUID": DX, "Modality": "dx"},
        {"SOPClassUID": "1.2.3.4", "Modality": "DR"},
        {"SOPClassUID": None},
        *(
            {"BodyPartExamined": part}
            for part in (
                "CHEST", "Chest", "THORAX", "Thorax pa", "TORAX", "TÓRAX", "CHEST_TO_PELVIS", "PORT CHEST", "LUNG",
                "CHEST ABDOMEN", "POITRINE", None, "",
            )
        ),
        {"BodyPartExamined": "", "AnatomicRegionSequence": codes("Chest")},
        {"NumberOfFrames": 1},
    ],
)  # fmt: skip
def test_chest_x_rays_are_let_in(tmp_path, header):
    assert header_of(tmp_path, SpecificCharacterSet="ISO_IR 192", **header).refusal == ""
    assert np.array_equal(read_dicom(tmp_path / "x.dcm").pixels, PIXELS.astype(np.uint16) * 257)


# --- who, and how ----------------------------------------------------------------------------------
DATES = {"PatientAge": None, "PatientBirthDate": "19600305", "StudyDate": "20200304"}


@pytest.mark.parametrize(
    ("header", "age"),
    [
        ({"PatientAge": "058Y"}, 58),
        ({"PatientAge": "004M"}, 0),
        ({"PatientAge": "018M"}, 1),
        ({"PatientAge": "012W"}, 0),
        ({"PatientAge": "58"}, 58),
        ({"PatientAge": "089Y"}, 89),
        ({"PatientAge": "090Y"}, 90),
        ({"PatientAge": "104Y"}, 90),
        ({"PatientAge": "148Y"}, None),  # a slip of the pen
        ({"PatientAge": "DOE^JOHN"}, None),
        ({"PatientAge": ""}, None),
        (DATES, 59),  # the day before the birthday
        (DATES | {"StudyDate": "20200305"}, 60),
        (DATES | {"PatientAge": "010Y"}, 10),
        (DATES | {"StudyDate": None, "AcquisitionDate": "20200305"}, 60),
        (DATES | {"PatientBirthDate": "1960.03.05", "StudyDate": "20210101"}, 60),
        (DATES | {"PatientBirthDate": "19250101"}, 90),
        (DATES | {"PatientBirthDate": "19000101"}, None),
        (DATES | {"PatientBirthDate": "20210101"}, None),
        (DATES | {"PatientBirthDate": "19600231"}, None),
        (DATES | {"PatientBirthDate": None}, None),
    ],
)
def test_ages(tmp_path, header, age):
    assert header_of(tmp_path, **header).age == age


def test_sexes(tmp_path):
    for text, sex in {"F": "F", "M": "M", "m": "M", "O": "", "": "", None: "", "DOE": ""}.items():
        assert header_of(tmp_path, PatientSex=text).sex == sex, text


@pytest.mark.parametrize(
    ("header", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "LATERAL", "SeriesDescription": "Chest PA"}, "LATERAL"),
        ({"ViewPosition": "", "ViewCodeSequence": codes("postero-anterior")}, "PA"),
        ({"ViewPosition": None, "ViewCodeSequence": codes("left lateral")}, "LATERAL"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"], "SeriesDescription": "Thorax ap liegend"}, "AP"),
        ({"ViewPosition": None, "SeriesDescription": "W Chest P.A."}, "PA"),
        ({"ViewPosition": None, "SeriesDescription": "Chest Lat"}, "LATERAL"),
        ({"ViewPosition": None, "SeriesDescription": "PA and lateral", "ProtocolName": "Chest PA"}, "PA"),
        ({"ViewPosition": None, "SeriesDescription": "PA and lateral"}, ""),
        ({"ViewPosition": None, "SeriesDescription": "Chest L"}, ""),
        ({"ViewPosition": "DOE^JOHN"}, ""),
        ({"ViewPosition": None}, ""),
    ],
)
def test_views(tmp_path, header, view):
    found = header_of(tmp_path, **header)
    assert found.view == view and found.refusal == "", "who reads a lateral view says so, and may leave it out"
    assert ("lateral view" in " ".join(found.warnings)) == (view == "LATERAL")


@pytest.mark.parametrize(
    ("header", "warnings"),
    [
        ({}, ()),
        ({"BurnedInAnnotation": "NO"}, ()),
        ({"BurnedInAnnotation": "YES"}, ("text burned into the pixels, which may name the patient",)),
        ({"PresentationIntentType": "FOR PROCESSING"}, ("raw image for processing, not for presentation",)),
        ({"SOPClassUID": DX + ".1"}, ("raw image for processing, not for presentation",)),
        ({"Modality": ""}, ("modality unknown",)),
        ({"BodyPartExamined": "DOE^JOHN"}, ("name of the body part not understood",)),
    ],
)
def test_warnings_are_words_of_our_own(tmp_path, header, warnings):
    found = header_of(tmp_path, **header)
    assert found.warnings == warnings
    assert found.burned_in == {"YES": True, "NO": False}.get(header.get("BurnedInAnnotation"))


def test_the_patient_is_not_shown_with_the_header(tmp_path):
    found = header_of(tmp_path, PatientID=" 12345678 ")
    assert found.patient_id == "12345678" and "12345678" not in repr(found)
    assert header_of(tmp_path, PatientID="").patient_id is header_of(tmp_path, PatientID=None).patient_id is None
