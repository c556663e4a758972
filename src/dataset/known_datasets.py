"""Known data sets of chest X-rays, and which of them hold images of RSNA's challenge or of NIH ChestX-ray14.

A generator or a classifier that learned elsewhere may have seen the test patients under another name: RSNA's
images are a part of NIH ChestX-ray14, and many collections contain the one or the other. A row says what its
makers say. Data sets are found in free text, however they are spelled.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

NIH, RSNA = "NIH ChestX-ray14", "RSNA's Pneumonia Challenge"
OURS = frozenset({NIH, RSNA})  # they share patients with this data set
PART_OF_NIH = f"RSNA's images are a part of {NIH}"


@dataclass(frozen=True)
class KnownDataSet:
    """One row: a data set, or a network that is named in place of the data that it learned from.

    ``aliases``: other spellings; case, blanks, dashes and other signs make no difference, nor does what stands
    around them. ``contains``: rows whose images are in it, as far as its makers say; () for images of its own.
    ``source``: who says so. ``photographs``: it holds no X-rays.
    """

    name: str
    aliases: tuple[str, ...]
    contains: tuple[str, ...]
    source: str
    photographs: bool = False


_XRV = "https://github.com/mlmed/torchxrayvision"
_RADIOGRAPHY = "COVID-19 Radiography Database"
_CHEXPERT, _MIMIC, _PADCHEST, _VINDR, _BRAX = "CheXpert", "MIMIC-CXR", "PadChest", "VinDr-CXR", "BRAX"
_KERMANY, _COHEN, _BIMCV, _RICORD = "Kermany", "COVID-19 Image Data Collection", "BIMCV-COVID19", "MIDRC-RICORD"
_OPENI, _JSRT, _OBJECT, _CANDID = "Open-I", "JSRT", "Object-CXR", "CANDID-PTX"

DATA_SETS: tuple[KnownDataSet, ...] = (
    # --- NIH ChestX-ray14, and what is drawn from it or holds it
    KnownDataSet(
        NIH,
        ("NIH", "NIHCC", "National Institutes of Health", "National Institute of Health", "ChestX-ray8",
         "ChestX-rays14", "ChestX-ray14", "CheX-ray14", "ChestX-14", "CXR8", "CXR14"),
        (), "Wang et al., CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC",
    ),
    KnownDataSet(
        RSNA,
        ("RSNA", "RSNA Pneumonia", "Radiological Society of North America", "pneumonia detection challenge",
         "stage_2_train", "iamtapendu", "xrv kaggle", "torchxrayvision kaggle", "res224 rsna"),
        (NIH,), "Shih et al., Radiology: AI 2019, https://doi.org/10.1148/ryai.2019180041",
    ),
    KnownDataSet(
        "SIIM-ACR Pneumothorax", ("SIIM-ACR", "SIIM", "SIIM pneumothorax", "pneumothorax segmentation challenge"),
        (NIH,), "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    ),
    KnownDataSet(
        "ChestX-Det", ("ChestX-Det10",), (NIH,),
        "Liu et al., arXiv 2006.10550, https://github.com/Deepwise-AILab/ChestX-Det10-Dataset",
    ),
    KnownDataSet(
        "NODE21", (), (_JSRT, _PADCHEST, NIH, _OPENI), "https://node21.grand-challenge.org/Data/",
    ),
    KnownDataSet(
        "ChestMNIST", (), (NIH,), "Yang et al., Scientific Data 2023, https://medmnist.com",
    ),
    KnownDataSet(
        "MedMNIST", (), ("ChestMNIST", "PneumoniaMNIST"),
        "Yang et al., Scientific Data 2023, https://medmnist.com",
    ),
    KnownDataSet(
        "MaCheX", ("massive chest x-ray dataset",),
        (NIH, _CHEXPERT, _PADCHEST, _MIMIC, _VINDR, _BRAX, RSNA, _OPENI, "SIIM-ACR Pneumothorax", _OBJECT),
        "https://github.com/saiboxx/machex",
    ),
    KnownDataSet(
        "MetaChest", (), (NIH, _CHEXPERT, _MIMIC, _PADCHEST), "https://github.com/richardtml/metachest-dev",
    ),
    KnownDataSet(
        "CheXmask", (), (_CANDID, NIH, _CHEXPERT, _MIMIC, _PADCHEST, _VINDR),
        "Gaggion et al., Scientific Data 2024, https://physionet.org/content/chexmask-cxr-segmentation-data/",
    ),
    KnownDataSet(
        "NIH-CXR-LT", ("LongTailCXR", "NIH long-tail"), (NIH,),
        "Holste et al., arXiv 2208.13365",
    ),
    KnownDataSet(
        "Google's NIH labels", ("NIH Google", "Google NIH", "Google relabels", "xrv google"), (NIH,),
        "Majkowska et al., Radiology 2020, https://doi.org/10.1148/radiol.2019191293",
    ),
    KnownDataSet(
        "RANZCR CLiP", ("RANZCR", "CLiP catheter", "catheter line position"), (NIH,),
        "Tang et al., Scientific Data 2021, https://doi.org/10.1038/s41597-021-01066-8",
    ),
    # --- collections for COVID-19 and tuberculosis, whose negatives are often RSNA's
    KnownDataSet(
        _RADIOGRAPHY, ("COVID19 Radiography", "tawsifurrahman covid19", "COVID-19 chest x-ray database"),
        (RSNA, _PADCHEST, _KERMANY, _COHEN),
        "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
    ),
    KnownDataSet(
        "COVID-QU-Ex", ("COVID-QU", "Qatar University COVID"), (_RADIOGRAPHY, RSNA),
        "Tahir et al., 2021, https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    ),
    KnownDataSet(
        "QaTa-COV19", ("QaTa-Cov", "Early-QaTa"), (NIH,), "Degerli et al., Health Inf. Sci. Syst. 2021",
    ),
    KnownDataSet(
        "COVIDx", ("COVIDx CXR", "COVID-Net"), (RSNA, _RADIOGRAPHY, _COHEN),
        "Wang et al., Scientific Reports 2020, https://github.com/lindawangg/COVID-Net",
    ),
    KnownDataSet(
        "Tuberculosis Chest X-ray Database",
        ("TB chest x-ray database", "tuberculosis TB chest x-ray", "tawsifurrahman tuberculosis"),
        (RSNA, "Shenzhen and Montgomery"),
        "Rahman et al., IEEE Access 2020, https://doi.org/10.1109/ACCESS.2020.3031384",
    ),
    # --- networks that are named in place of their data
    KnownDataSet(
        "CheXNet", (), (NIH,), "Rajpurkar et al., arXiv 1711.05225",
    ),
    KnownDataSet(
        "TorchXRayVision, all sets", ("TorchXRayVision", "xrv", "xrv all", "res224 all", "resnet50-res512"),
        (NIH, _PADCHEST, _CHEXPERT, _MIMIC, "Google's NIH labels", _OPENI, RSNA), _XRV,
    ),
    KnownDataSet(
        "TorchXRayVision, one other set",
        ("densenet121-res224-pc", "densenet121-res224-chex", "densenet121-res224-mimic_ch",
         "densenet121-res224-mimic_nb", "xrv pc", "xrv chex", "xrv mimic"),
        (_PADCHEST, _CHEXPERT, _MIMIC), _XRV,
    ),
    KnownDataSet(
        "RAD-DINO", (), (_MIMIC, _CHEXPERT, NIH, _PADCHEST, _BRAX), "https://huggingface.co/microsoft/rad-dino",
    ),
    KnownDataSet("EVA-X", (), (_MIMIC, _CHEXPERT, NIH), "Yao et al., arXiv 2405.05237"),
    KnownDataSet(
        "Ark", ("JLiangLab Ark",), (_CHEXPERT, NIH, RSNA, _VINDR, "Shenzhen and Montgomery", _MIMIC),
        "Ma et al., MICCAI 2023, https://github.com/jlianglab/Ark",
    ),
    # --- images of their own, as far as their makers say
    KnownDataSet(
        _CHEXPERT, ("CheXphoto", "CheXlocalize", "chexpertchestxrays"), (), "Irvin et al., AAAI 2019",
    ),
    KnownDataSet(
        _MIMIC,
        ("MIMIC", "MIMIC-CXR-LT", "MS-CXR", "CXR-LT", "CXR-PRO", "Chest ImaGenome", "ImaGenome",
         "REFLACX", "EGD-CXR", "eye gaze data"),
        (), "Johnson et al., Scientific Data 2019; https://physionet.org/content/chest-imagenome/",
    ),
    KnownDataSet(_PADCHEST, ("PadChest-GR",), (), "Bustos et al., Medical Image Analysis 2020"),
    KnownDataSet(
        _VINDR, ("VinDr", "VinBigData", "VinBig", "VinDr-PCXR"), (),
        "Nguyen et al., Scientific Data 2022",
    ),
    KnownDataSet(_BRAX, ("Brazilian labeled chest x-ray",), (), "Reis et al., Scientific Data 2022"),
    KnownDataSet(
        _KERMANY,
        ("Chest X-Ray Images (Pneumonia)", "chest-xray-pneumonia", "paultimothymooney", "Guangzhou", "ZhangLab"),
        (), "Kermany et al., Cell 2018, https://doi.org/10.17632/rscbjbr9sj",
    ),
    KnownDataSet("PneumoniaMNIST", (), (_KERMANY,), "Yang et al., Scientific Data 2023"),
    KnownDataSet(
        "Shenzhen and Montgomery",
        ("Shenzhen", "Montgomery", "Montgomery County", "NLM tuberculosis", "NIH Shenzhen", "NIH Montgomery", "NLM MC"),
        (), "Jaeger et al., 2014, https://qims.amegroups.org/article/view/5132",
    ),
    KnownDataSet("TBX11K", ("TBX",), (), "Liu et al., CVPR 2020"),
    KnownDataSet(_JSRT, ("Japanese Society of Radiological Technology",), (), "Shiraishi et al., AJR 2000"),
    KnownDataSet(
        _OPENI, ("Indiana University", "IU X-ray", "IU-CXR", "chest-xrays-indiana", "NIH Open-I", "NLM Open-I"),
        (), "Demner-Fushman et al., JAMIA 2016",
    ),
    KnownDataSet(_OBJECT, ("JF Healthcare",), (), "https://github.com/hlk-1135/object-CXR"),
    KnownDataSet(_CANDID, ("CANDID",), (), "Feng et al., Radiology: AI 2021, images of Dunedin Hospital"),
    KnownDataSet(_BIMCV, ("BIMCV", "BIMCV-COVID"), (), "de la Iglesia Vaya et al., arXiv 2006.01174"),
    KnownDataSet(
        _COHEN, ("covid-chestxray", "ieee8023"), (), "Cohen et al., arXiv 2006.11988",
    ),
    KnownDataSet(
        _RICORD, ("RICORD", "RSNA RICORD", "MIDRC", "RSNA International COVID"), (), "Tsai et al., Radiology 2021",
    ),
    KnownDataSet(
        "SIIM-FISABIO-RSNA COVID-19", ("SIIM-FISABIO", "SIIM-FISABIO-RSNA", "SIIM COVID-19"), (_BIMCV, _RICORD),
        "Lakhani et al., 2021, https://osf.io/532ek",
    ),
    KnownDataSet("PLCO", ("PLCO lung", "NIH PLCO"), (), "https://cdas.cancer.gov/plco/, screening centres of the NCI"),
    KnownDataSet("RadImageNet", (), (), "Mei et al., Radiology: AI 2022: CT, MRI and ultrasound"),
    KnownDataSet("COVIDx CT", (), (), "Gunraj et al., 2020: computed tomography"),
    KnownDataSet(
        "RSNA's other challenges",
        ("RSNA bone age", "RSNA intracranial hemorrhage", "RSNA hemorrhage", "RSNA-STR pulmonary embolism",
         "RSNA pulmonary embolism", "RSNA-MICCAI", "RSNA-ASNR-MICCAI", "RSNA breast cancer", "RSNA mammography",
         "RSNA screening mammography", "RSNA cervical spine", "RSNA abdominal trauma", "RSNA lumbar spine"),
        (), "https://www.rsna.org/rsnai/ai-image-challenge: no chest X-rays",
    ),
    # --- photographs
    KnownDataSet(
        "ImageNet", ("ImageNet-1k", "ImageNet-21k", "ILSVRC"), (),
        "Russakovsky et al., IJCV 2015", photographs=True,
    ),
    KnownDataSet(
        "Everyday photographs", ("COCO", "CIFAR", "Places365", "iNaturalist", "Pascal VOC"), (),
        "https://cocodataset.org, http://places2.csail.mit.edu", photographs=True,
    ),
)  # fmt: skip

# Words that may stand beside a name, or be glued to it, without naming another data set.
_NEUTRAL_WORDS = (
    "all and by chest cxr data dataset datasets database dicom fine finetuned first for from frontal full images "
    "jpg large lateral model net network official only part partial plus png pre pretrained pretraining release "
    "res resized sample set sets small split subset test the then train trained training tuned using valid validation "
    "version weights with xray xrays densenet resnet"
)
_NEUTRAL = frozenset(_NEUTRAL_WORDS.split())


# --- finding names in text -------------------------------------------------------------------------
@dataclass(frozen=True)
class NamedData:
    """What a text names. ``rows``: known data sets, in the order of the text; ``unknown``: it names more."""

    rows: tuple[KnownDataSet, ...]
    unknown: bool


def find_data_sets(text: str) -> NamedData:
    """Find the known data sets that ``text`` names, in any spelling, one or several.

    Longer names win over shorter ones that they begin with: "RSNA bone age" is not RSNA's X-rays.
    """
    readings = [_scan(_pieces(text, split)) for split in (True, False)]
    rows = {row.name: row for found, _ in readings for row in found}
    return NamedData(tuple(rows.values()), all(unknown for _, unknown in readings) or not rows)


def _scan(pieces: list[str]) -> tuple[list[KnownDataSet], bool]:
    """Return (rows that ``pieces`` name, one after the other; whether other words are left)."""
    rows: list[KnownDataSet] = []
    unknown = False
    while pieces:
        for end in range(len(pieces), 0, -1):
            if found := _ALIASES.get("".join(pieces[:end])):
                rows.append(found)
                break
        else:
            end = 2 if pieces[1:] and pieces[1].isdigit() else 1  # "nihchestxray", "14"
            inner = _names_within("".join(pieces[:end]))
            rows += inner
            unknown |= not inner and len(pieces[0]) > 2 and pieces[0] not in _NEUTRAL and not pieces[0].isdigit()
        pieces = pieces[end:]
    return rows, unknown


def _pieces(text: str, split_words: bool = True) -> list[str]:
    """Split into words and numbers, small; with ``split_words`` also where a word begins large: "NIHChest".

    "X-ray" becomes one word, so that "COVID X-ray" is not COVIDx.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    plain = re.sub(r"x[\W_]*ray", "Xray", plain, flags=re.IGNORECASE)
    if split_words:
        plain = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return re.findall(r"[^\W\d_]+|\d+", plain.casefold())


def _names_within(word: str) -> tuple[KnownDataSet, ...]:
    """Return the rows that ``word`` is glued together of, with neutral words: "nihrsna", "nihsubset"; or ()."""
    rows: list[tuple[KnownDataSet, ...] | None] = [()] + [None] * len(word)  # of the first so many letters
    for end in range(1, len(word) + 1):
        for start in range(end):
            before, part = rows[start], word[start:end]
            row = _ALIASES.get(part)
            if before is not None and (row or part in _NEUTRAL or part.isdigit()):
                rows[end] = (*before, *([row] if row else []))
                break
    return rows[-1] or ()


_BY_NAME = {row.name: row for row in DATA_SETS}
_ALIASES = {"".join(_pieces(name)): row for row in DATA_SETS for name in (row.name, *row.aliases)}


# --- what a name means for a test ------------------------------------------------------------------
def overlap_reason(text: str) -> str | None:
    """Say why data named ``text`` may hold the test patients, or None if no row of the table says so.

    "NODE21 contains images of NIH ChestX-ray14 (https://...), and RSNA's images are a part of NIH ChestX-ray14".
    """
    for row in find_data_sets(text).rows:
        if path := _path_to_ours(row):
            steps = [f"{a.name} contains images of {b.name} ({a.source})" for a, b in zip(path, path[1:], strict=False)]
            return ", and ".join([*steps, PART_OF_NIH])
    return None


def families_of(text: str) -> frozenset[str]:
    """Return the known data sets whose images data named ``text`` may hold, its own rows among them; {} if unknown.

    Two sets of data may share images or patients if their families have a row in common. Photographs have none.
    """
    found: dict[str, None] = {}
    waiting = [row.name for row in find_data_sets(text).rows if not row.photographs]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += _BY_NAME[name].contains
    return frozenset(found)


def _path_to_ours(row: KnownDataSet) -> tuple[KnownDataSet, ...]:
    """Return the shortest chain of rows from ``row``, each in the one before, to one of ``OURS``; () for none."""
    paths: list[tuple[KnownDataSet, ...]] = [(row,)]
    while paths:
        if done := [path for path in paths if path[-1].name in OURS]:
            return done[0]
        paths = [(*path, _BY_NAME[name]) for path in paths for name in path[-1].contains]
    return ()
