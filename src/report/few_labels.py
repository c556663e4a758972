"""The part of a cross-fitted report that is about few labels: the share of the gain kept, and near-copies."""

from __future__ import annotations

from arms.registry import ARMS, CONTROL_PSEUDO, SEMI
from comparison.cross_fit_file_formats import CrossFitComparison, KeptShare
from report.blocks import Block, Bullets, Facts, Table, count, percent
from stats.metric_registry import compared_metrics


def few_label_blocks(content: CrossFitComparison) -> list[Block]:
    """Write the section; [] if all labels were known."""
    if (study := content.get("few_labels")) is None:
        return []
    blocks: list[Block] = [
        f"The labels of {count(study['labelled_patients'], 'patient')} of each training set were known.",
        Bullets([f"{arm}: {ARMS[arm].words}" for arm in content["arms"] if arm in ARMS]),
    ]
    if {SEMI, CONTROL_PSEUDO} <= set(content["arms"]):
        rows = [(metric.title, _kept_in_words(study["kept"][metric.name])) for metric in compared_metrics()]
        blocks.append(Facts("Share of the real images' gain that synthetic ones keep", rows))
    if copies := study["near_copies"]:
        table = [
            [str(row["fold"]), f"{row['n_synthetic']:,}", f"{row['flagged']:,}", f"{row['nearly_identical']:,}",
             percent(row["flagged"] / row["n_synthetic"]), percent(row["heldout_share"])]
            for row in copies
        ]  # fmt: skip
        columns = ["fold", "synthetic images", "near-copies", "nearly identical", "share", "share of test images"]
        blocks += [
            Table(columns, table, "Near-copies: closer to a training image than 99 % of the test images are"),
            "Whether such images may be shared is not shown by their look.",
        ]
    return blocks


def _kept_in_words(kept: KeptShare | None) -> str:
    if kept is None:
        return "not said, because the interval of the real images' gain is not above 0"
    low, high = kept["share_ci95"]
    return f"{percent(kept['share'])} (95 % CI {percent(low)} to {percent(high)})"
