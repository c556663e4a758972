"""What the header of a DICOM file says: whether it is an X-ray of a chest, of whom, from where.

Free text is understood, never passed on: every text in a ``DicomHeader`` but ``patient_id`` is one of our own
words. Attributes and their meaning: DICOM PS3.3 and PS3.6 (https://dicom.nema.org/medical/dicom/current).
"""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataset.people import LATERAL, PLAUSIBLE_AGE, read_ages, read_sexes, read_views

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HEADER_TAGS = (
    "SOPClassUID", "SpecificCharacterSet", "Modality", "PresentationIntentType", "BodyPartExamined",
    "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence", "SeriesDescription", "ProtocolName",
    "PatientOrientation", "PatientID", "PatientAge", "PatientBirthDate", "StudyDate", "SeriesDate",
    "AcquisitionDate", "PatientSex", "BurnedInAnnotation", "NumberOfFrames", "PhotometricInterpretation", "Rows",
    "Columns", "BitsAllocated", "BitsStored",
)  # fmt: skip
OLDEST = 90  # years: higher ages name a person, so they become this (HIPAA's safe harbour, 45 CFR 164.514(b)(2))
LARGEST = 100_000_000  # pixels; a detector of 43 cm at 0.1 mm has 18 million
WANTED = "only X-rays of the chest (CR, DX) are read"
# Classes of objects that can hold an X-ray of the chest, by the beginnings of their names in PS3.6.
RADIOGRAPHS = (
    "Computed Radiography Image", "Digital X-Ray Image", "Secondary Capture Image", "Multi-frame Grayscale Byte",
    "Multi-frame Grayscale Word", "Multi-frame True Color",
)  # fmt: skip
RADIOGRAPHY = ("CR", "DX", "DR", "RG", "XR")  # modalities; the last ones are no terms of the standard, but written
OTHER_MODALITIES = {
    "CT": "a CT image", "MR": "an MR image", "US": "an ultrasound image", "MG": "a mammogram", "NM": "a scintigram",
    "PT": "a PET image", "XA": "an angiogram", "RF": "a fluoroscopic image", "IO": "a dental X-ray",
    "PX": "a dental X-ray", "SR": "a report (SR)", "DOC": "a document (DOC)", "PR": "a presentation state (PR)",
    "KO": "a list of key objects (KO)", "SEG": "a segmentation (SEG)", "ES": "an endoscopic image",
    "XC": "a photograph", "GM": "a microscopic image", "SM": "a microscopic image", "OP": "a photograph of an eye",
    "ECG": "an ECG", "RTIMAGE": "an image of radiotherapy", "OT": "an object of modality OT (other)",
}  # fmt: skip
# Parts of words in any of the usual languages; spines come first, as "thoracic spine" is none of a chest.
SPINE = re.compile(r"SPINE|WIRBEL|COLUMNA|COLUNA|RACHIS|\b[CTLB]?WS\b")
CHEST = re.compile(r"CHEST|THORA|TORA|TÓRA|\bTHX\b|\bCXR\b|LUNG|PULM|POITRINE|PECHO|BRUST|POUMON|\bRTG KL")
OTHER_PARTS = re.compile(
    r"ABDOM|PELVIS|BECKEN|SKULL|HEAD|BRAIN|NECK|HAND|WRIST|ELBOW|ARM|SHOULDER|CLAVIC|HUMER|RADIUS|ULNA|FINGER|"
    r"\bHIP\b|HÜFT|FEMUR|KNEE|KNIE|LEG\b|TIBIA|FIBULA|ANKLE|FOOT|FUSS|TOE|BREAST|KIDNEY|BLADDER|EXTREMITY|SACR|"
    r"COCCYX|JAW|DENTAL|ZYGOMA|SINUS|\bRIB"
)


@dataclass(frozen=True)
class DicomHeader:
    """What is used of a header. Only ``patient_id`` names a person; it is never written anywhere.

    ``age``: whole years, 90 for all above 89, None if unknown. ``sex``: "F", "M" or "". ``view``: "PA", "AP",
    "LATERAL" or "". ``modality``: a code of the standard, "" if unknown. ``body_part``: "CHEST", "OTHER" (then the
    file is refused) or "". ``burned_in``: whether texts are said to be burned into the pixels, None if nothing is
    said. ``size``: (width, height). ``refusal``: why the file is no X-ray of a chest, "" if it is one.
    ``warnings``: what is odd about it.
    """

    age: int | None
    sex: str
    view: str
    modality: str
    body_part: str
    burned_in: bool | None
    size: tuple[int, int]
    refusal: str
    warnings: tuple[str, ...]
    patient_id: str | None = field(repr=False)


def understand(dataset: Dataset) -> DicomHeader:
    """Read the elements ``HEADER_TAGS``; any exception means that one of them is damaged."""
    modality = _text(dataset, "Modality").upper()
    body_part = _read_body_part(dataset)
    burned_in = {"YES": True, "NO": False}.get(_text(dataset, "BurnedInAnnotation").upper())
    view = _read_view(dataset)
    return DicomHeader(
        age=_read_age(dataset),
        sex=read_sexes([_text(dataset, "PatientSex")]).values[0],
        view=view,
        modality=modality if modality in RADIOGRAPHY or modality in OTHER_MODALITIES else "",
        body_part=body_part,
        burned_in=burned_in,
        size=(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0)),
        refusal=_refuse(dataset, modality, body_part),
        warnings=tuple(_warnings(dataset, modality, body_part, burned_in, view)),
        patient_id=_text(dataset, "PatientID") or None,
    )


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without blanks around it; of several the first; "" if there is none."""
    value: Any = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip(" \0\t\r\n")
    return next((str(part).strip(" \0") for part in value), "")


def _meanings(dataset: Dataset, keyword: str) -> str:
    """Return the words of a sequence of codes."""
    return " ".join(_text(item, "CodeMeaning") for item in dataset.get(keyword) or ())


# --- is it an X-ray of a chest? --------------------------------------------------------------------
def _refuse(dataset: Dataset, modality: str, body_part: str) -> str:
    """Say why the file is no X-ray of a chest in one frame of 8 to 16 bits; "" if it is."""
    kind = _class_name(dataset)
    if kind and not kind.startswith(RADIOGRAPHS):
        return f"a DICOM object of another kind ({kind}); {WANTED}"
    if modality and modality not in RADIOGRAPHY:
        return f"{OTHER_MODALITIES.get(modality, 'an object of another modality')}; {WANTED}"
    if body_part == "OTHER":
        return f"an X-ray of another part of the body; {WANTED}"
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        return f"a sequence of {frames:,} frames; export one as a file of its own"
    if "Rows" not in dataset or "Columns" not in dataset:
        return "holds no image; it is cut short, or was exported without one"
    width, height, bits = int(dataset.Columns), int(dataset.Rows), int(dataset.get("BitsStored") or 0)
    if width < 1 or height < 1:
        return f"{width} x {height} pixels; export it again"
    if width * height > LARGEST:
        return f"{width:,} x {height:,} pixels, more than any X-ray has ({LARGEST:,}); export it again"
    if not 8 <= bits <= int(dataset.get("BitsAllocated") or 0) <= 16:
        return f"stores {bits} bits of {int(dataset.get('BitsAllocated') or 0)}; 8 to 16 are read"
    return ""


def _class_name(dataset: Dataset) -> str:
    """Return the name of the class of object by the standard; "" for a class that it does not know."""
    from pydicom.uid import UID_dictionary

    name = UID_dictionary.get(_text(dataset, "SOPClassUID"), ("",))[0]
    return re.sub(r" Storage( -|$)", r"\1", name)


def _read_body_part(dataset: Dataset) -> str:
    """Return "CHEST", "OTHER", or "" if nothing is said or it is not understood."""
    words = f"{_text(dataset, 'BodyPartExamined')} {_meanings(dataset, 'AnatomicRegionSequence')}".upper()
    if SPINE.search(words):
        return "OTHER"
    if CHEST.search(words):
        return "CHEST"
    return "OTHER" if OTHER_PARTS.search(words) else ""


def _warnings(dataset: Dataset, modality: str, body_part: str, burned_in: bool | None, view: str) -> list[str]:
    """Say what is odd about a file that may be read all the same; the words are the same for all such files."""
    raw = "FOR PROCESSING" in _text(dataset, "PresentationIntentType").upper()
    raw = raw or "For Processing" in _class_name(dataset)
    unclear = not body_part and _text(dataset, "BodyPartExamined")
    said = {
        "lateral view": view == LATERAL,
        "text burned into the pixels, which may name the patient": burned_in,
        "raw image for processing, not for presentation": raw,
        "modality unknown": not modality,
        "name of the body part not understood": unclear,
        "colours, turned into gray": _text(dataset, "PhotometricInterpretation").upper()[:3] in ("RGB", "YBR"),
    }
    return [text for text, holds in said.items() if holds]


# --- the patient -----------------------------------------------------------------------------------
def _read_view(dataset: Dataset) -> str:
    """Return the first of these that is clear: position, code, orientation, descriptions of the series."""
    for text in (_text(dataset, "ViewPosition"), _meanings(dataset, "ViewCodeSequence")):
        if view := read_views([text]).values[0]:
            return view
    # PS3.3 C.7.6.1.1.1: where rows point to; from right to left in frontal views.
    if _text(dataset, "PatientOrientation")[:1] in ("A", "P"):
        return LATERAL
    for keyword in ("SeriesDescription", "ProtocolName"):
        # A single L is the left side here.
        words = re.sub(r"\bL\b", " ", _text(dataset, keyword).upper())
        if view := read_views([words]).values[0]:
            return view
    return ""


def _read_age(dataset: Dataset) -> int | None:
    """Return whole years from the age, else from the dates of birth and study."""
    years = read_ages([_text(dataset, "PatientAge")]).values[0]
    if math.isnan(years):
        years = _years_between(dataset)
    if not 0 <= years <= PLAUSIBLE_AGE:  # NaN, too
        return None
    return min(int(years), OLDEST)


def _years_between(dataset: Dataset) -> float:
    born = _date(dataset, "PatientBirthDate")
    taken = next((day for key in ("StudyDate", "SeriesDate", "AcquisitionDate") if (day := _date(dataset, key))), None)
    if born is None or taken is None:
        return math.nan
    return taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))


def _date(dataset: Dataset, keyword: str) -> datetime.date | None:
    """Read a date like 19700131 or, of old files, 1970.01.31."""
    try:
        return datetime.datetime.strptime(_text(dataset, keyword).replace(".", "")[:8], "%Y%m%d").date()
    except ValueError:
        return None
