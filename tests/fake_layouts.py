"""Small made-up copies of other data sets' layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(file: Path, width: int = 40, height: int = 40, **options: Any) -> Path:
    """Write noise as an image of the kind that the ending says; ``options``: of Pillow's ``save``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (height, width), dtype=np.uint8)).save(file, **options)
    return file


def text(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def kermany(folder: Path) -> Path:
    """Kermany's X-rays as Kaggle packs them: 12 to train with, 2 in val, 4 in test; a second copy within."""
    for top in (folder / "chest_xray", folder / "chest_xray" / "chest_xray"):
        for number in (1, 2, 3):
            picture(top / f"train/PNEUMONIA/person{number}_bacteria_{number}.jpeg", 60, 40)
            picture(top / f"train/PNEUMONIA/person{number}_virus_{number + 6}.jpeg", 60, 40)
            picture(top / f"train/NORMAL/IM-011{number}-0001.jpeg", 60, 50)
            picture(top / f"train/NORMAL/NORMAL2-IM-011{number}-0001.jpeg")
        picture(top / "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
        picture(top / "val/NORMAL/NORMAL2-IM-1427-0001.jpeg")
        for number in (1, 4):
            picture(top / f"test/PNEUMONIA/person{number + 99}_bacteria_{number}.jpeg", 60, 40)
            picture(top / f"test/NORMAL/IM-000{number}-0001.jpeg")
    text(folder / "chest_xray/__MACOSX/._train", "junk")
    text(folder / "chest_xray/train/.DS_Store", "junk")
    return folder


def two_classes(folder: Path, positive: str, negative: str, n: int = 4) -> Path:
    for name in (positive, negative):
        for number in range(n):
            picture(folder / name / f"{name[:2]}{number}.png")
    return folder


def dicom(file: Path, side: int = 40, **header: Any) -> Path:
    """Write noise as a DICOM file of 8 bits."""
    from dicom_data import write_dicom

    return write_dicom(file, RNG.integers(0, 255, (side, side), dtype=np.uint8), **header)


def rsna_kaggle(folder: Path) -> Path:
    """RSNA's competition: 6 images, of which a1 and a2 are positive; a1 has two boxes; 2 test images."""
    classes = ["Lung Opacity", "Lung Opacity", "Normal", "No Lung Opacity / Not Normal", "Normal", "Normal"]
    labels, infos = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for number, kind in enumerate(classes, start=1):
        for box in range(1 + (number == 1)):
            place = f"{100 + box}.0,152.0,213.0,379.0,1" if number < 3 else ",,,,0"
            labels.append(f"a{number},{place}")
            infos.append(f"a{number},{kind}")
        dicom(
            folder / f"stage_2_train_images/a{number}.dcm", PatientID=f"a{number}", PatientName=f"a{number}",
            PatientAge="51", PatientSex="F", ViewPosition="AP" if number < 3 else "PA", Modality="CR",
        )  # fmt: skip
    for number in (1, 2):
        dicom(folder / f"stage_2_test_images/t{number}.dcm", PatientID=f"t{number}", PatientAge="155")
    text(folder / "stage_2_train_labels.csv", *labels)
    text(folder / "stage_2_detailed_class_info.csv", *infos)
    text(folder / "stage_2_sample_submission.csv", "patientId,PredictionString", "t1,0.5 0 0 100 100")
    return folder


NIH_HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,"
    "Height],OriginalImagePixelSpacing[x,y],"
)


def nih(folder: Path) -> Path:
    """ChestX-ray14: 6 images of 4 people in two folders; the last two are the official test set."""
    rows = [
        "00000001_000.png,Cardiomegaly,0,1,58,M,PA", "00000001_001.png,Cardiomegaly|Pneumonia,1,1,58,M,PA",
        "00000002_000.png,No Finding,0,2,81,M,AP", "00000003_000.png,Infiltration,0,3,414,F,AP",
        "00000004_000.png,Pneumonia,0,4,95,F,PA", "00000004_001.png,No Finding,1,4,95,F,PA",
    ]  # fmt: skip
    for number, row in enumerate(rows):
        picture(folder / f"images_00{1 + number // 3}/images" / row.split(",")[0])
    text(folder / "Data_Entry_2017.csv", NIH_HEAD, *(f"{row},2682,2749,0.143,0.143," for row in rows))
    text(folder / "train_val_list.txt", *(row.split(",")[0] for row in rows[:4]))
    text(folder / "test_list.txt", *(row.split(",")[0] for row in rows[4:]))
    return folder


CHEXPERT_HEAD = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def chexpert(folder: Path) -> Path:
    """CheXpert's small version: 6 studies to train with (one lateral), 2 of the validation set."""

    def row(part: str, patient: int, view: str, side: str, position: str, cells: dict[int, str]) -> str:
        path = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study1/{view}.jpg"
        picture(folder / path)
        findings = [cells.get(place, "") for place in range(14)]
        return ",".join([path, "Female", "68", side, position, *findings])

    consolidation, pneumonia = 6, 7
    frontal = ("view1_frontal", "Frontal", "AP")
    train = [
        row("train", 1, *frontal, {0: "1.0"}), row("train", 2, *frontal, {pneumonia: "1.0"}),
        row("train", 2, "view2_lateral", "Lateral", "", {pneumonia: "1.0"}),
        row("train", 3, *frontal, {pneumonia: "-1.0"}), row("train", 4, *frontal, {pneumonia: "0.0"}),
        row("train", 5, *frontal, {consolidation: "1.0", pneumonia: "-1.0"}),
    ]  # fmt: skip
    valid = [
        row("valid", 64541, *frontal, {place: str(float(place == pneumonia)) for place in range(14)}),
        row("valid", 64542, *frontal, dict.fromkeys(range(14), "0.0")),
    ]
    text(folder / "CheXpert-v1.0-small/train.csv", CHEXPERT_HEAD, *train)
    text(folder / "CheXpert-v1.0-small/valid.csv", CHEXPERT_HEAD, *valid)
    return folder
