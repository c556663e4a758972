"""What a script has made of a mutated file, and whether that is right.

A judge sees a run that ended well and says what is wrong with it, None if nothing is: its numbers must be
those of the unmutated file, or those that the mutated file honestly gives, told by a reading of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.files import leaves_that_differ, without_clock
from campaign.jobs import SIDE
from campaign.own_readings import scores_of, table_by_image
from common import paths

DATA = Path("data") / "processed"
METRICS = Path("results") / "metrics"
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    """A mutated file and what a script made of it; ``facts``: what ``Reader.look`` found, with and without."""

    original: bytes
    mutated: bytes
    words: str
    facts: Any
    usual: Any
    said: str = ""


def same(case: Case) -> str | None:
    """Nothing may be different."""
    found = [f"{place}: {here} for {there}" for place, here, there in leaves_that_differ(case.facts, case.usual)]
    return f"not as from the unmutated file: {'; '.join(found[:3])}" if found else None


def content_of(case: Case) -> Any:
    """The mutated JSON as a reader of ours takes it; None if it is none."""
    try:
        return json.loads(case.mutated.decode("utf-8-sig"))
    except ValueError:
        return None


def pixels_of(file: Path, side: int = 64) -> str:
    from dataset.images import read_image

    return hashlib.sha256(read_image(file, side).tobytes()).hexdigest()


# --- the dataset -----------------------------------------------------------------------------------
FACTS_OF_IMAGE = ("patient", "label", "class", "view", "sex", "age")


def look_at_dataset() -> dict[str, Any]:
    """What the check of the data has read: facts of every image, and its role."""
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import load_or_create_splits

    dataset = load_dataset(DATA)
    official = load_official_test(DATA)
    roles = load_or_create_splits(dataset).images.set_index("image_id")["role"].to_dict()
    rows = json.loads(dataset.images[["image_id", *FACTS_OF_IMAGE]].to_json(orient="records"))
    images = {row["image_id"]: row for row in rows}
    tested = None if official is None else [sorted(official.images["image_id"]), official.labelled]
    return {"images": images, "roles": roles, "official": tested}


def judge_metadata(case: Case) -> str | None:
    """A fact of an image may differ only where the table itself says something else of that image."""
    if case.facts["roles"] != case.usual["roles"]:
        return "another split"
    before, now = table_by_image(case.original), table_by_image(case.mutated)
    if now is None:
        return None if "fewer cells than names" in case.said else same(case)
    if set(case.facts["images"]) != set(now):
        return f"other images than the table names: {sorted(set(case.facts['images']) ^ set(now))[:3]}"
    columns = {"view": "position", "sex": "sex", "age": "age", "label": "Target", "class": "class"}
    for name, facts in case.facts["images"].items():
        for key, column in columns.items():
            usual = case.usual["images"][name][key]
            if facts[key] == usual:
                continue
            cells, old = now[name].get(column), (before or {})[name].get(column)
            if cells == old:
                return f"{key} of {name} became {facts[key]!r}, but its cell is unchanged"
            if facts[key] not in (None, "") and not any(_means(cell, facts[key]) for cell in cells or ()):
                return f"{key} of {name} became {facts[key]!r} from {cells}"
    return None


def _means(cell: str, value: Any) -> bool:
    if isinstance(value, str):
        return value.casefold()[:1] == cell.strip().casefold()[:1] or value.casefold() in cell.casefold()
    try:
        return float(cell) == float(value)
    except ValueError:
        digits = re.search(r"\d+", cell)
        return digits is not None and float(digits[0]) == float(value)


def judge_official(case: Case) -> str | None:
    """The labelled images are untouched; the official ones are those that the table names."""
    if problem := same(Case(b"", b"", "", {**case.facts, "official": None}, {**case.usual, "official": None})):
        return problem
    table = table_by_image(case.mutated)
    if table is None or case.facts["official"] is None:
        return None if case.facts["official"] in (None, case.usual["official"]) else "images of a table that is none"
    return None if case.facts["official"][0] == sorted(table) else "other test images than the table names"


def look_at_images() -> dict[str, str]:
    return {file.name: pixels_of(file) for file in sorted(paths.training_images(DATA).iterdir())}


def judge_pixels(case: Case) -> str | None:
    """Pixels are those of the original, unless a chunk was changed with a fitting checksum: then as Pillow has them."""
    if case.facts == case.usual:
        return None
    if "12 bits" in case.words:  # all files are refused; one of many must be named
        named = "RED FLAG" in case.said and "gray values" in case.said
        flagged = any("gray values" in flag for flag in case.facts.get("flags", ()))
        return None if named or flagged else "12-bit values in 16 bits were taken as they are, without a word"
    if case.words.startswith("chunk") and "changed" in case.words:
        return None  # no reader can know
    return "other pixels"


# --- predictions and metrics -----------------------------------------------------------------------
def look_at_comparison() -> dict[str, Any]:
    return json.loads(Path("results/analysis/comparison.json").read_text(encoding="utf-8"))


def only_numbers() -> None:
    """Leave out figures and images: they take longer than all the rest."""
    from comparison import arms
    from report import steps

    for name in ("draw_comparison", "draw_training"):
        setattr(steps, name, lambda *_: None)
    import functools

    arms.compare_arms = functools.partial(arms.compare_arms, n_resamples=200)


SCORES = ("n_images", "n_patients", "n_positive", "accuracy", "auroc", "brier", "confusion_matrix")
FROM_PREDICTIONS = (*SCORES, "auprc", "sensitivity", "specificity", "accuracy_ci95", "auroc_ci95", "subgroups")
OF_PAIRS = (
    "n_images",
    "accuracy_difference",
    "accuracy_ci95",
    "auroc_difference",
    "auroc_ci95",
    "delong_p",
    "mcnemar_p",
)


def judge_metrics(case: Case) -> str | None:
    """Numbers that come from predictions do not depend on the files beside them."""
    for name, row in case.facts["arms"].items():
        usual = case.usual["arms"].get(name)
        if usual is None:
            return f"an arm {name} came from nowhere"
        if problem := _scores_differ(row, usual, FROM_PREDICTIONS, name):
            return problem
        if problem := _thresholds_differ(row, usual, name):
            return problem
    pairs = {(row["a"], row["b"]): row for row in case.usual["pairs"]}
    for row in case.facts["pairs"]:
        if problem := _scores_differ(row, pairs[row["a"], row["b"]], OF_PAIRS, f"{row['b']} - {row['a']}"):
            return problem
    return None


def _scores_differ(row: dict[str, Any], usual: dict[str, Any], keys: tuple[str, ...], name: str) -> str | None:
    return next((f"{name}: {key} is {row[key]} for {usual[key]}" for key in keys if row[key] != usual[key]), None)


def _thresholds_differ(row: dict[str, Any], usual: dict[str, Any], name: str) -> str | None:
    if row["thresholds"]["source"] not in (None, usual["thresholds"]["source"]):
        return None  # others were chosen, and the note says so
    for key in ("thresholds", "calibration"):
        # Images of other names are summed in another order.
        differ = leaves_that_differ(without_notes(row[key]), without_notes(usual[key]))
        if row[key]["source"] is not None and not all(_nearly(here, there) for _, here, there in differ):
            return f"{name}: {key} are not what they were, and nothing says why"
    return None


def _nearly(here: Any, there: Any) -> bool:
    return isinstance(here, float) and isinstance(there, float) and abs(here - there) < TOLERANCE


def without_notes(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "note"}


def judge_predictions(case: Case) -> str | None:
    """The numbers are those of the mutated table, computed anew; if they are not those recorded, a flag says so."""
    row, other = (case.facts["arms"].get(name) for name in ("baseline", "augmented"))
    if other is None or _scores_differ(other, case.usual["arms"]["augmented"], FROM_PREDICTIONS, "augmented"):
        return "the other arm changed"
    if row is None:
        named = [entry for entry in case.facts["not_compared"] if "baseline" in (entry["a"], entry["b"])]
        return None if named else "the arm is missing without a word"
    own = scores_of(case.mutated)
    if own is None:
        return same(case)
    for key, value in own.items():
        if abs(row[key] - value) > TOLERANCE:
            return f"{key} is {row[key]}, by the table {value}"
    changed = any(abs(own[key] - case.usual["arms"]["baseline"][key]) > 1e-6 for key in own)
    flagged = any("DO NOT BELONG" in flag for flag in case.facts["flags"])
    return "the table is not of the run of the metrics, and no flag says so" if changed and not flagged else None


# --- synthetic images ------------------------------------------------------------------------------
_seen: dict[str, Any] = {}


def stop_before_training() -> None:
    """Let the classifier's script read and check everything, and end where training would begin."""
    import train_classifier

    def stop(args: Any, data: Any, recipe: Any, out: Any, epochs_final: Any) -> None:
        from classifier import build_classifier

        build_classifier(args.weights, not args.unfreeze)
        parts = data.synthetic_of(0) if data.use.treatment.kind.name == "augmented" else None
        _seen.update(
            train=hashlib.sha256(data.train.pixels.tobytes()).hexdigest(),
            test=hashlib.sha256(data.test.pixels.tobytes()).hexdigest(),
            flags=list(out.origin["red_flags"]),
            synthetic=None
            if parts is None
            else [len(parts.records), parts.label, sorted(parts.generator_patients or [])],
        )
        raise SystemExit(0)

    train_classifier.prepare_trainer = stop


def look_at_training() -> dict[str, Any]:
    files = sorted(Path(paths.SYNTHETIC_DIR).glob(paths.SYNTHETIC_PATTERN))
    return {**_seen, "pixels": [pixels_of(file, int(SIDE)) for file in files]}


def judge_manifest(case: Case) -> str | None:
    """What the manifest says is what training goes by, and no test image may be in it."""
    manifest = content_of(case)
    if manifest is None:
        return same(case)
    if (case.facts["train"], case.facts["test"]) != (case.usual["train"], case.usual["test"]):
        return "other real images"
    count, label, patients = case.facts["synthetic"]
    if count != manifest.get("count") or isinstance(manifest["count"], bool):
        return f"{count} images, and the manifest says {manifest.get('count')!r}"
    if label != manifest.get("label") or label not in (0, 1):
        return f"label {label}, and the manifest says {manifest.get('label')!r}"
    if not set(map(str, manifest["train_patients"])) <= set(map(str, patients)):
        return "patients that the manifest names are not known as seen"
    return None


def look_at_generated() -> dict[str, Any]:
    files = sorted(Path(paths.SYNTHETIC_DIR).glob(paths.SYNTHETIC_PATTERN))
    manifest = json.loads(paths.synthetic_manifest(paths.SYNTHETIC_DIR).read_text())
    facts = {key: manifest[key] for key in ("label", "train_image_ids", "train_patients", "fold", "grouped_by")}
    return {"pixels": [pixels_of(file, int(SIDE)) for file in files], "manifest": facts}


def judge_generator(case: Case) -> str | None:
    """The images are the same, unless the weights themselves were changed to other finite numbers."""
    if case.facts["pixels"] != case.usual["pixels"] and not case.words.endswith(": half"):
        return "other images"
    differ = list(leaves_that_differ(case.facts["manifest"], case.usual["manifest"]))
    named = case.words.split(":")[0].split(" ")[0]
    return None if all(place.startswith(named) for place, _, _ in differ) else f"another origin: {differ[:2]}"


def look_at_gan() -> dict[str, Any]:
    import torch

    from utils import load_checkpoint

    weights = load_checkpoint(paths.generator_final("models"))["state_dict"]
    digest = hashlib.sha256()
    for key, value in sorted(weights.items()):
        digest.update(key.encode() + torch.as_tensor(value).numpy().tobytes())
    history = json.loads(paths.gan_history(METRICS).read_text())
    return {"weights": digest.hexdigest(), "epochs": without_clock(history["epochs"])}


def judge_state(case: Case) -> str | None:
    """A state of a finished run gives its generator and its history again, unless its content was changed."""
    problem = same(case)
    honest = any(part in case.words for part in ("becomes", ": half", "nan", "inf"))
    return None if problem and honest and case.facts["weights"] else problem


def look_at_weights() -> dict[str, Any]:
    from classifier import build_classifier, cpu_state_dict

    digest = hashlib.sha256()
    for key, value in sorted(cpu_state_dict(build_classifier("given.pth", True).backbone).items()):
        digest.update(key.encode() + value.float().numpy().tobytes())
    return {"weights": digest.hexdigest()}


def judge_weights(case: Case) -> str | None:
    """The backbone is the same; the head, and what is said beside it, does not matter here."""
    return None if case.words.endswith(": half") else same(case)


# --- other lists -----------------------------------------------------------------------------------
def look_at_registered() -> dict[str, Any]:
    manifest = json.loads(paths.synthetic_manifest("data/registered").read_text())
    roles = {row["image_id"]: row["role"] for row in json.loads((DATA / paths.SPLITS).read_text())["images"]}
    return {
        "ids": manifest["train_image_ids"],
        "count": manifest["count"],
        "roles": roles,
        "flags": manifest["red_flags"],
    }


def judge_ids(case: Case) -> str | None:
    """The manifest names the ids of the list; of the test set there are none; unknown ones are flagged."""
    named = set(case.facts["ids"])
    if leaked := [name for name in named if case.facts["roles"].get(name) == "test"]:
        return f"test images {leaked[:2]}"
    text = case.mutated.decode("utf-8-sig", errors="replace")
    if missing := [
        name for name in case.facts["roles"] if re.search(rf"(?m)^\W*{name}\W*$", text) and name not in named
    ]:
        return f"{missing[:2]} of the list are not in the manifest"
    unknown = [name for name in named if name not in case.facts["roles"]]
    return "unknown ids without a flag" if unknown and not case.facts["flags"] else None


def record_steps() -> None:
    """Let the pipeline decide what to do, and do nothing."""
    import run_pipeline
    from studies import steps

    ran: list[str] = []
    _seen["ran"] = ran

    def run(step: Any, extra: list[str], logs: Path, variables: dict[str, str]) -> float:
        ran.append(step.name)
        step.artifact.parent.mkdir(parents=True, exist_ok=True)
        step.artifact.touch()
        return 1.0

    steps.run_step = run
    run_pipeline.check_options = lambda *_: None


def look_at_steps() -> dict[str, Any]:
    return {"ran": _seen["ran"], "steps": list(json.loads(Path("results/pipeline.json").read_text("utf-8-sig")))}


def judge_steps(case: Case) -> str | None:
    """A step is skipped only if the log says that it was finished with this very command."""
    log, original = content_of(case), json.loads(case.original)
    for name in original:
        entry = log.get(name) if isinstance(log, dict) else None
        done = isinstance(entry, dict) and entry.get("state") == "finished"
        if name not in case.facts["ran"] and not (done and entry["command"] == original[name]["command"]):
            return f"{name} was skipped, though {entry} stands in the log"
    return None


def look_at_phantoms() -> dict[str, Any]:
    files = sorted(DATA.rglob("*.png"))
    return {str(file.relative_to(DATA)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
