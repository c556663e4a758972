"""Format of ``patient_flow.json``: how many images and patients each step of a study kept and left out."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

FLOW_FORMAT = "patient-flow-1"


class FlowGroup(TypedDict):
    """A group of images."""

    images: int
    patients: Annotated[int | None, "their patients; null where the data name none"]
    positive: Annotated[int | None, "images with pneumonia; null where unknown"]


class LeftOut(FlowGroup):
    """Images that a step left out. ``patients``: those of whom no image is left after it."""

    reason: str


class FlowFold(FlowGroup):
    """Validation images of one fold."""

    fold: Annotated[int, "number of the fold, from 1"]


class ArmFlow(TypedDict):
    """The images of one arm."""

    arm: str
    left_out_of_training: Annotated[list[LeftOut], "of the training side of the split"]
    trained: Annotated[FlowGroup | None, "real training images; null where no file says so"]
    folds: Annotated[list[FlowFold], "parts of the training images that validated one fold each; [] without"]
    synthetic: Annotated[int, "synthetic images that joined the training images"]
    duplicated: Annotated[int, "real training images that joined once more"]
    left_out_of_test: Annotated[list[LeftOut], "of the test set"]
    scored: Annotated[FlowGroup | None, "test images with a prediction; null without predictions"]


class OfficialFlow(FlowGroup):
    """The images of the official test CSV."""

    labelled: Annotated[bool, "whether it holds real labels"]
    unreadable: Annotated[int, "of these, missing or unreadable"]
    use: Annotated[Literal["scored", "predicted, never scored", "not used"], "what the arms did with them"]


class PatientFlow(TypedDict):
    """``patient_flow.json``: images and patients per role, and those that were left out."""

    format: Annotated[str, FLOW_FORMAT]
    grouped_by: Annotated[str | None, "what counts as one patient; null where no file says so"]
    patients_unknown: Annotated[int | None, "images whose patient is unknown, each counted as a patient"]
    source_images: Annotated[int | None, "images of the source of an import; null: the folder was not imported"]
    left_out_at_import: Annotated[list[LeftOut], "images of that source"]
    labelled: Annotated[FlowGroup | None, "labelled images of the data folder; null: the folder was not read"]
    training_side: Annotated[FlowGroup | None, "training side of the split; null: the folder was not read"]
    hold_out: Annotated[FlowGroup | None, "test side of the split; null: the folder was not read"]
    official: Annotated[OfficialFlow | None, "null: there is none, or the folder was not read"]
    test_set: Annotated[Literal["hold-out", "official", "other"], "whose images the arms were scored on"]
    arms: list[ArmFlow]
    notes: Annotated[list[str], "what these numbers cannot say, as sentences"]
