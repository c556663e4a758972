"""Judge the pictures of a folder by their facts: what makes training meaningless, and what is merely odd.

Every limit was chosen so that 1,200 RSNA images and the phantoms pass, and stands here with what they have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dataset.image_ids import name_some
from dataset.people import LATERAL
from dataset.picture_facts import BETWEEN, thumbnails

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NARROW = 32  # of 256 gray values; the narrowest of the RSNA images uses 135
HALF_RANGE = 128  # of 256 gray values that all images together use; RSNA: all of them
FEW_LEVELS = 8  # different gray values; the RSNA image with the fewest has 154
INVERTED = -0.1  # correlation with the typical thumbnail; RSNA: 0.82 in the median, two inverted ones -0.75, -0.15
ALIKE = 0.5  # median of that correlation, below which the images have no common shape to be inverted
OFTEN = 0.01  # share of odd images from which results carry a red flag
ENOUGH_16_BIT = 8  # images that tell how many bits a folder uses, unless all have 16
USUAL_MODES = ("L", "LA", "P", "RGB", "RGBA", "DICOM")  # of 8 bits by Pillow's names, and one of ours
GIVEN_AWAY = 0.7  # AUROC of file facts alone from which labels count as given away; RSNA: 0.59
SURELY = 0.6  # what the lower end of its interval must exceed
FEWEST_OF_A_CLASS = 20  # patients, below which that AUROC says nothing
FACT_PARTS = 5  # of its cross-validation
FACT_BINS = 8  # quantiles that a fact is divided into, so that any relation is found, not only a rising one


@dataclass
class Findings:
    """Sentences about one folder of images.

    ``problems``: they make training meaningless. ``red_flags``: every result must carry them. ``notes``: odd,
    but too rare or too harmless for a red flag.
    """

    problems: list[str] = field(default_factory=list)
    red_flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_odd(self, odd: np.ndarray, table: pd.DataFrame, what: str) -> None:
        """Note the images ``odd`` (bool [N]); a red flag if they are many."""
        if odd.any():
            some = f"{name_some(list(table.loc[odd, 'image_id']), 5)} of {len(table):,}"
            which = f"all {len(table):,} images" if odd.sum() == len(table) > 1 else some
            (self.red_flags if odd.mean() >= OFTEN else self.notes).append(f"{which} {what}")


def check_pictures(
    table: pd.DataFrame, what: str, image_size: int, bits: int | None, like: pd.DataFrame | None = None
) -> Findings:
    """Judge the images of one folder, called ``what``; ``like``: the images that they must resemble.

    ``table``: columns image_id and ``PictureFacts``; with columns label and patient, it is also asked whether
    the files give the labels away. ``bits``: the option --bits.
    """
    found = Findings()
    if len(table) == 0:
        return found
    _check_gray_values(table, what, bits, found)
    if not found.problems:
        _note_odd_pictures(table, image_size, found)
        found.add_odd(look_inverted(table, like), table, "look inverted (bright where the others are dark)")
        _check_file_facts(table, found)
    found.red_flags = [f"{what}: {flag}" for flag in found.red_flags]
    found.notes = [f"{what}: {note}" for note in found.notes]
    return found


def _check_gray_values(table: pd.DataFrame, what: str, bits: int | None, found: Findings) -> None:
    """Find what no network can learn from: too few bits, almost no range, one picture again and again."""
    deep = table["largest"].dropna()
    used = bits_used(table)
    if bits is None and used is not None and used < 16 and len(deep) >= min(ENOUGH_16_BIT, len(table)):
        found.problems.append(
            f"{what}: no 16-bit image of {len(deep):,} uses more than {used} bits (the largest value is "
            f"{int(deep.max()):,} of 65,535), so they would be nearly black; --bits {used} scales them to the full "
            "range, --bits 16 takes them as they are"
        )
        return
    narrow = almost_blank(table)
    counts = table["pixels"].value_counts()
    for wrong, says in (
        (narrow, f"use less than {NARROW} of 256 gray values, so there is almost nothing to see; export them again"),
        (table["levels"].to_numpy() <= FEW_LEVELS, "have a few gray values only, as masks do; give the X-rays"),
        ((table["pixels"] == counts.index[0]).to_numpy(), "are the same picture; give every image its own file"),
    ):
        if wrong.sum() > max(1, len(table) / 2):
            names = name_some(list(table.loc[wrong, "image_id"]), 5)
            found.problems.append(f"{what}: {names} of {len(table):,} {says}")
            return
    found.add_odd(narrow, table, f"use less than {NARROW} of 256 gray values (almost blank)")
    if (span := gray_range(table))[1] - span[0] < HALF_RANGE:
        found.red_flags.append(f"all images together use gray values {span[0]} to {span[1]} of 0 to 255 only")


def _note_odd_pictures(table: pd.DataFrame, image_size: int, found: Findings) -> None:
    small = (table[["width", "height"]].min(axis=1) < image_size).to_numpy()
    found.add_odd(small, table, f"are smaller than --image-size {image_size} and are enlarged, which adds no detail")
    moving = (table["frames"] > 1).to_numpy()
    found.add_odd(moving, table, "are animations or stacks, of which the first frame is taken")
    strange = ~table["mode"].isin(USUAL_MODES) & table["largest"].isna()
    kinds = ", ".join(sorted(set(table["mode"][strange])))
    found.add_odd(strange.to_numpy(), table, f"have an unusual kind of pixels ({kinds})")
    said = table["header"].str.split(BETWEEN)
    for warning in sorted({text for texts in said for text in texts} - {""}):
        odd = said.map(lambda texts, warning=warning: warning in texts).to_numpy(dtype=bool)
        found.add_odd(odd, table, f"have this in their DICOM headers: {warning}")


def _check_file_facts(table: pd.DataFrame, found: Findings) -> None:
    if (auroc := auroc_if_given_away(table)) is not None:
        found.red_flags.append(
            f"the files alone give the labels away: size, shape, bytes per pixel and JPEG tables reach AUROC "
            f"{auroc:.2f} without a look at the pixels, so the classes come from different sources"
        )


# --- single questions ------------------------------------------------------------------------------
def bits_used(table: pd.DataFrame) -> int | None:
    """Return how many bits the largest 16-bit sample needs; None if all files have 8 bits."""
    deep = table["largest"].dropna()
    return max(1, int(deep.max()).bit_length()) if len(deep) else None


def gray_range(table: pd.DataFrame) -> tuple[int, int]:
    """Return the darkest and brightest gray value that at least 5 % of the images reach."""
    return int(table["low"].quantile(0.05)), int(table["high"].quantile(0.95))


def almost_blank(table: pd.DataFrame) -> np.ndarray:
    """Tell which images use almost no range; bool [N]."""
    return (table["high"] - table["low"] < NARROW).to_numpy()


def look_inverted(table: pd.DataFrame, like: pd.DataFrame | None = None) -> np.ndarray:
    """Tell which images are bright where most of ``like`` (default: ``table``) are dark; bool [N].

    None is where these have no shape in common.
    """
    import numpy as np

    theirs = thumbnails(table if like is None else like)
    typical = np.median(theirs, axis=0)
    typical = (typical - typical.mean()) / max(typical.std(), 1e-9)
    if np.median(theirs @ typical / len(typical)) < ALIKE:
        return np.zeros(len(table), dtype=bool)
    return thumbnails(table) @ typical / len(typical) < INVERTED


def lateral(table: pd.DataFrame) -> np.ndarray:
    """Tell which images the column view calls lateral; bool [N]."""
    return (table["view"] == LATERAL).to_numpy()


def exact_copies(table: pd.DataFrame) -> np.ndarray:
    """Tell which images have the pixels of an earlier one; bool [N]."""
    return table["pixels"].duplicated().to_numpy()


def auroc_if_given_away(table: pd.DataFrame) -> float | None:
    """Return the AUROC of the labels by file facts alone if it is surely high; None else."""
    scored = file_facts_auroc(table)
    return scored[0] if scored is not None and scored[0] > GIVEN_AWAY and scored[1] > SURELY else None


def file_facts_auroc(table: pd.DataFrame) -> tuple[float, float] | None:
    """Return (AUROC of the labels by file facts alone, lower end of its 95 % interval); None if it says nothing.

    A logistic regression on quantiles of size, shape and bytes per pixel, and on JPEG tables, cross-validated by
    patient.
    """
    if "label" not in table or "patient" not in table:
        return None
    table = table[table["label"].notna()]  # without those that are hidden
    labels = table["label"].to_numpy(dtype=int)
    facts = _file_facts(table)
    patients = table["patient"].groupby(labels).nunique()
    if len(patients) < 2 or patients.min() < FEWEST_OF_A_CLASS or facts.shape[1] == 0:
        return None
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from stats.metrics import auroc
    from stats.paired_tests import delong_interval

    people, codes = np.unique(table["patient"].astype(str), return_inverse=True)
    part_of = np.random.default_rng(0).permutation(len(people)) % FACT_PARTS
    parts, scores = part_of[codes], np.empty(len(labels))
    for part in range(FACT_PARTS):
        left_out = parts == part
        if left_out.any():
            model = LogisticRegression(C=0.1, max_iter=200).fit(facts[~left_out], labels[~left_out])
            scores[left_out] = model.predict_proba(facts[left_out])[:, 1]
    low = delong_interval(labels, scores)[0]
    return float(auroc(labels, scores)), float(low or 0.0)


def _file_facts(table: pd.DataFrame) -> np.ndarray:
    """Return 0/1 columns [N, K]: which quantile of each fact, which JPEG table; no column if all are alike."""
    import numpy as np
    import pandas as pd

    size = (table["width"] * table["height"]).astype(float)
    numbers = {"size": size, "shape": table["width"] / table["height"], "bytes": table["file_bytes"] / size}
    columns = [table["jpeg"].where(table["jpeg"].map(table["jpeg"].value_counts()) >= FACT_BINS, "rare"), table["mode"]]
    for values in numbers.values():
        edges = np.unique(np.quantile(values, np.linspace(0, 1, FACT_BINS + 1)[1:-1]))
        # Equal values, as most sizes are, fall into one bin; those between two edges into another.
        place = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
        columns.append(pd.Series(place, index=values.index))
    kinds = [pd.get_dummies(column) for column in columns if column.nunique() > 1]
    return np.hstack([kind.to_numpy(dtype=float) for kind in kinds]) if kinds else np.empty((len(table), 0))
