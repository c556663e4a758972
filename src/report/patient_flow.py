"""Patient flow: how many images and patients each step kept and left out, from the data folder and the arms' files.

A step leaves out images. It leaves out a patient if it leaves none of the patient's images. So both columns
add up from step to step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from arms.result_files import Arm
from comparison.arms import first_recorded
from dataset.patients import GROUPED_BY_IMAGE
from dataset.splits import TEST, TRAIN, UNUSED, Splits, reduce_training
from report.blocks import Table, count
from report.file_formats import FLOW_FORMAT, ArmFlow, FlowFold, FlowGroup, LeftOut, OfficialFlow, PatientFlow

if TYPE_CHECKING:
    import pandas as pd

    from dataset.records import Dataset, OfficialTest

Content = TypeVar("Content")
UNREADABLE = "missing or unreadable (--skip-bad-images)"
UNEXPLAINED = "no file says why"


@dataclass(frozen=True)
class DataFolder:
    """The data folder of an analysis: its labelled images, their split, and the official test images, if any."""

    dataset: Dataset
    splits: Splits
    official: OfficialTest | None = None


def count_flow(arms: Mapping[str, Arm], data: DataFolder | None) -> PatientFlow:
    """Count the images and patients of the arms; ``data``: None if the data folder was not read.

    Numbers of a folder that is not the arms' own (another table or another split) are left out.
    """
    notes = []
    if data is None:
        notes.append("The data folder was not read, so the numbers come from the arms' result files alone.")
    elif others := [name for name, arm in arms.items() if _used_other_data(arm, data)]:
        notes.append(f"The data folder holds other data, or another split, than {', '.join(others)} used.")
        if len(others) == sum(arm.metrics is not None for arm in arms.values()):
            notes[-1] += " So the numbers come from the arms' result files alone."
            data = None
    grouped_by = data.splits.grouped_by if data else first_recorded(arms, "grouped_by")
    counter = _Counter(data, grouped_by != GROUPED_BY_IMAGE)
    if not counter.patients_known:
        notes.append("The data name no patients, so images are counted and patients are unknown.")
    rows = [counter.arm_flow(arm) for arm in arms.values()]
    source_images, left_out_at_import, more = _at_import(data)
    notes += more
    left_out = [item for row in rows for item in (*row["left_out_of_training"], *row["left_out_of_test"])]
    if any(item["reason"] == UNEXPLAINED for item in left_out):
        notes.append("Some images are missing from an arm's files and no file says why.")
    return {
        "format": FLOW_FORMAT,
        "grouped_by": grouped_by,
        "patients_unknown": data.dataset.unmapped if data else first_recorded(arms, "unmapped_images"),
        "source_images": source_images,
        "left_out_at_import": left_out_at_import,
        "labelled": counter.group(data.splits.images) if data else None,
        "training_side": counter.side(TRAIN),
        "hold_out": counter.side(TEST),
        "official": counter.official_flow(arms),
        "test_set": counter.test_set(arms),
        "arms": rows,
        "notes": notes,
    }


def _used_other_data(arm: Arm, data: DataFolder) -> bool:
    """Tell whether an arm's metrics name another table or another split."""
    own = (data.splits.sha256, data.dataset.data_sha256)
    return arm.metrics is not None and (arm.metrics["split_sha256"], arm.metrics["data_sha256"]) != own


def _at_import(data: DataFolder | None) -> tuple[int | None, list[LeftOut], list[str]]:
    """Return (images of the source that was imported, None without an import; what was left out; notes)."""
    provenance = data.dataset.provenance if data else None
    if data is None or provenance is None:
        return None, [], []
    counts = provenance["images"]
    if counts["labelled"] != len(data.splits.images):
        return None, [], ["The data folder holds other images than the import brought, so the import is not counted."]
    left_out: list[LeftOut] = [
        {"images": n, "patients": None, "positive": None, "reason": why} for why, n in counts["left_out"].items() if n
    ]
    brought = counts["labelled"] + counts["official_test"]
    return brought + sum(item["images"] for item in left_out), left_out, []


# --- counting --------------------------------------------------------------------------------------
class _Counter:
    """Counts groups of images; without patients if the data name none."""

    def __init__(self, data: DataFolder | None, patients_known: bool) -> None:
        self.data = data
        self.patients_known = patients_known

    def group(self, images: pd.DataFrame) -> FlowGroup:
        """Count a table with image_id, patient and label."""
        return {
            "images": len(images),
            "patients": int(images["patient"].nunique()) if self.patients_known else None,
            "positive": int(images["label"].sum()) if "label" in images else None,
        }

    def left_out(self, before: pd.DataFrame, kept: Iterable[str], reason: str) -> tuple[pd.DataFrame, list[LeftOut]]:
        """Return (images that are left, what was left out: nothing or one entry)."""
        stays = before["image_id"].isin(set(kept))
        if stays.all():
            return before, []
        after, gone = before[stays], self.group(before[~stays])
        if self.patients_known:
            gone["patients"] = int(before["patient"].nunique() - after["patient"].nunique())
        return after, [{**gone, "reason": reason}]

    def side(self, role: str) -> FlowGroup | None:
        """Count one side of the split."""
        if self.data is None:
            return None
        images = self.data.splits.images
        return self.group(images[images["role"] == role])

    def arm_flow(self, arm: Arm) -> ArmFlow:
        """Count the images of one arm."""
        recorded = arm.recorded
        left_out_of_training, trained = self._training(arm)
        left_out_of_test, scored = self._test(arm)
        return {
            "arm": arm.name,
            "left_out_of_training": left_out_of_training,
            "trained": trained,
            "folds": self._folds(arm),
            "synthetic": recorded.get("n_synthetic", 0),
            "duplicated": recorded.get("n_duplicated", 0),
            "left_out_of_test": left_out_of_test,
            "scored": scored,
        }

    def _training(self, arm: Arm) -> tuple[list[LeftOut], FlowGroup | None]:
        """Follow the training side to the images that the arm says it trained on."""
        if (metrics := arm.metrics) is None:
            return [], None
        said: FlowGroup = {
            "images": metrics["n_train_images"],
            "patients": metrics["n_train_patients"] if self.patients_known else None,
            "positive": metrics["n_train_positive"],
        }
        if self.data is None or _used_other_data(arm, self.data):
            return [], said
        left_out: list[LeftOut] = []
        splits, fraction = self.data.splits, metrics["train_fraction"]
        images = splits.images[splits.images["role"] == TRAIN]
        if fraction < 1:
            role = reduce_training(splits, fraction).images.set_index("image_id")["role"]
            reason = f"beyond the share of patients asked for (--train-fraction {fraction:g})"
            images, gone = self.left_out(images, role.index[role != UNUSED], reason)
            left_out += gone
        skipped = set(metrics["skipped_images"]["image_ids"])
        images, gone = self.left_out(images, set(images["image_id"]) - skipped, UNREADABLE)
        left_out, expected = [*left_out, *gone], self.group(images)
        if few := metrics.get("few_labels"):
            joined = f"; {few['n_unlabelled']:,} of them joined with soft labels" if few["n_unlabelled"] else ""
            hidden: LeftOut = {
                "images": few["n_hidden"],
                "patients": few["n_hidden_patients"] if self.patients_known else None,
                "positive": _less(expected["positive"], said["positive"]),
                "reason": f"labels hidden (--labelled-patients){joined}",
            }
            left_out, expected = [*left_out, hidden], _subtract(expected, hidden)
        return [*left_out, *_unexplained(expected, said)], said

    def _test(self, arm: Arm) -> tuple[list[LeftOut], FlowGroup | None]:
        """Follow the arm's test set to the images that it has predictions of."""
        if arm.predictions is None:
            return [], None
        scored = self.group(arm.predictions)
        test_set = self._images_of_test_set(arm)
        if test_set is None:
            return [], scored
        skipped = set(arm.recorded["skipped_images"]["image_ids"]) if arm.metrics else set()
        images, left_out = self.left_out(test_set, set(test_set["image_id"]) - skipped, UNREADABLE)
        return [*left_out, *_unexplained(self.group(images), scored)], scored

    def _images_of_test_set(self, arm: Arm) -> pd.DataFrame | None:
        """Return the part of the data folder that an arm's predictions lie in; None if in no part."""
        if self.data is None or arm.predictions is None or _used_other_data(arm, self.data):
            return None
        images, official = self.data.splits.images, self.data.official
        parts = [images[images["role"] == TEST], *([official.images] if official and official.labelled else [])]
        ids = arm.predictions["image_id"]
        return next((part for part in parts if ids.isin(part["image_id"]).all()), None)

    def _folds(self, arm: Arm) -> list[FlowFold]:
        if arm.cv is None:
            return []
        positive = {}
        if arm.cv_predictions is not None and "fold" in arm.cv_predictions:
            positive = arm.cv_predictions.groupby("fold")["label"].sum().to_dict()
        return [
            {
                "fold": row["fold"],
                "images": row["n_images"],
                "patients": row["n_patients"] if self.patients_known else None,
                "positive": int(positive[row["fold"]]) if row["fold"] in positive else None,
            }
            for row in arm.cv["folds"]
        ]

    def test_set(self, arms: Mapping[str, Arm]) -> Literal["hold-out", "official", "other"]:
        """Say which images the arms were scored on."""
        scored = [arm for arm in arms.values() if arm.predictions is not None]
        if self.data is None:
            recorded = first_recorded(arms, "test_set")
            return "hold-out" if recorded == "split" else "official" if recorded == "official" else "other"
        part = self._images_of_test_set(scored[0]) if scored else None
        return "other" if part is None else "hold-out" if "role" in part else "official"

    def official_flow(self, arms: Mapping[str, Arm]) -> OfficialFlow | None:
        """Count the official test images, and say what the arms did with them."""
        official = self.data.official if self.data else None
        if official is None:
            return None
        skipped = {name for arm in arms.values() if arm.metrics for name in arm.metrics["skipped_images"]["image_ids"]}
        use = "not used" if official.labelled else "predicted, never scored"
        return cast(OfficialFlow, {
            **self.group(official.images),
            "labelled": official.labelled,
            "unreadable": int(official.images["image_id"].isin(skipped).sum()),
            "use": "scored" if self.test_set(arms) == "official" else use,
        })  # fmt: skip


def _unexplained(expected: FlowGroup, said: FlowGroup) -> list[LeftOut]:
    """Return the difference between what should be left and what a file says there is, if there is any."""
    return [] if expected == said else [{**_subtract(expected, said), "reason": UNEXPLAINED}]


def _subtract(whole: FlowGroup, part: FlowGroup) -> FlowGroup:
    return {
        "images": whole["images"] - part["images"],
        "patients": _less(whole["patients"], part["patients"]),
        "positive": _less(whole["positive"], part["positive"]),
    }


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other


# --- in words --------------------------------------------------------------------------------------
def group_words(group: FlowGroup) -> str:
    """Write "899 images of 771 patients, 225 positive"; "patients unknown" where the data name none."""
    people = "; patients unknown" if group["patients"] is None else f" of {count(group['patients'], 'patient')}"
    positive = "" if group["positive"] is None else f", {group['positive']:,} positive"
    return f"{count(group['images'], 'image')}{people}{positive}"


def left_out_words(item: LeftOut) -> str:
    """Write "3 images; their patients have others", or how many patients leave with the images."""
    images, patients = count(item["images"], "image"), item["patients"]
    if patients is None:
        return f"{images}; patients unknown"
    leaving = f"{count(patients, 'patient')} leave with them" if patients else "their patients have others"
    return f"{images}; {leaving}"


def flow_table(flow: PatientFlow) -> tuple[Table, str]:
    """Return the flow as a table, a row per step, and its notes. Arms with the same numbers share a row."""
    rows: list[tuple[str, ...]] = []
    if flow["source_images"] is not None:
        rows.append(("images of the imported source", f"{flow['source_images']:,}", "–", "–"))
    rows += [_row(f"left out at the import: {item['reason']}", item) for item in flow["left_out_at_import"]]
    for name, group in (("labelled images", flow["labelled"]), ("training side of the split", flow["training_side"])):
        rows += [_row(name, group)] if group else []
    for names, gone, group in steps_of_arms(flow, "training"):
        rows += [_row(f"left out ({names}): {item['reason']}", item) for item in gone]
        rows.append(_row(f"trained on ({names})", group))
    for names, folds in folds_of_arms(flow):
        rows += [_row(f"validated fold {fold['fold']} ({names})", fold) for fold in folds]
    for what, joined in additions(flow).items():
        rows += [(f"{what} ({names})", f"{n:,}", "–", "–") for names, n in joined]
    if flow["hold_out"]:
        unused = "" if flow["test_set"] == "hold-out" else ", not used here"
        rows.append(_row(f"test side of the split{unused}", flow["hold_out"]))
    if official := flow["official"]:
        rows.append(_row(official_words(official), official))
        if official["unreadable"]:
            rows.append((f"of these, {UNREADABLE}", f"{official['unreadable']:,}", "–", "–"))
    for names, gone, group in steps_of_arms(flow, "test"):
        rows += [_row(f"left out ({names}): {item['reason']}", item) for item in gone]
        rows.append(_row(f"scored ({names})", group))
    notes = [*flow["notes"], "A patient is left out only if none of the patient's images is left."]
    unknown = flow["patients_unknown"]
    if unknown and flow["grouped_by"] != GROUPED_BY_IMAGE:
        notes.append(f"The patient of {count(unknown, 'image')} is unknown; each of these counts as a patient.")
    return Table(("step", "images", "patients", "positive"), rows), " ".join(notes)


def official_words(official: OfficialFlow) -> str:
    """Name the official test images, and what the arms did with them."""
    return f"official test images {'with' if official['labelled'] else 'without'} labels: {official['use']}"


def steps_of_arms(flow: PatientFlow, side: Literal["training", "test"]) -> list[tuple[str, list[LeftOut], FlowGroup]]:
    """List (arms, what was left out, what was kept) of one side; arms with the same numbers together."""
    if side == "training":
        rows = [(row["arm"], (row["left_out_of_training"], row["trained"])) for row in flow["arms"]]
    else:
        rows = [(row["arm"], (row["left_out_of_test"], row["scored"])) for row in flow["arms"]]
    joined = _join_alike([(name, step) for name, step in rows if step[1] is not None], len(flow["arms"]))
    return [(names, gone, kept) for names, (gone, kept) in joined if kept is not None]


def folds_of_arms(flow: PatientFlow) -> list[tuple[str, list[FlowFold]]]:
    """List (arms, their folds); arms with the same folds together."""
    return _join_alike([(row["arm"], row["folds"]) for row in flow["arms"] if row["folds"]], len(flow["arms"]))


def additions(flow: PatientFlow) -> dict[str, list[tuple[str, int]]]:
    """Return what joined the real training images -> (arms, how many images)."""
    synthetic = [(row["arm"], row["synthetic"]) for row in flow["arms"] if row["synthetic"]]
    duplicated = [(row["arm"], row["duplicated"]) for row in flow["arms"] if row["duplicated"]]
    found = {"synthetic images added": synthetic, "real images drawn again": duplicated}
    return {what: _join_alike(rows, len(flow["arms"])) for what, rows in found.items()}


def _join_alike(rows: Sequence[tuple[str, Content]], n_arms: int) -> list[tuple[str, Content]]:
    """Join the names of arms with the same content: "baseline, augmented", or "all arms"."""
    found: list[tuple[list[str], Content]] = []
    for name, content in rows:
        same = next((names for names, other in found if other == content), None)
        if same is None:
            found.append(([name], content))
        else:
            same.append(name)
    return [("all arms" if len(names) == n_arms > 1 else ", ".join(names), content) for names, content in found]


def _row(name: str, group: FlowGroup) -> tuple[str, ...]:
    cells = (group["images"], group["patients"], group["positive"])
    return (name, *("–" if cell is None else f"{cell:,}" for cell in cells))
