"""The part of a cross-fitted report that is about few labels: the share of the gain kept, and near-copies."""

from __future__ import annotations

from arms.registry import ARMS, CONTROL_PSEUDO, SEMI
from comparison.cross_fit_file_formats import CrossFitComparison
from report.blocks import Block, Facts, Table, count, percent
from stats.metric_registry import compared_metrics


def few_label_blocks(content: CrossFitComparison) -> list[Block]:
    """Write the section; [] if all labels were known."""
    if (study := content.get("few_labels")) is None:
        return []
    rows = []
    if {SEMI, CONTROL_PSEUDO} <= set(content["arms"]):
        for metric in compared_metrics():
            kept = study["kept"][metric.name]
            if kept is None:
                said = "not said: the interval of the real images' gain does not exclude 0"
            else:
                low, high = kept["share_ci95"]
                said = f"{percent(kept['share'])} (95 % CI {percent(low)} to {percent(high)})"
            rows.append((f"share of the real images' gain that synthetic ones keep, {metric.title}", said))
    words = "; ".join(f"{arm}: {ARMS[arm].words}" for arm in content["arms"] if arm in ARMS)
    title = f"{count(study['labelled_patients'], 'labelled patient')} in each training set. {words}."
    blocks: list[Block] = [Facts(title, rows)]
    if copies := study["near_copies"]:
        table = [
            [str(row["fold"]), f"{row['n_synthetic']:,}", f"{row['flagged']:,}", f"{row['nearly_identical']:,}",
             percent(row["flagged"] / row["n_synthetic"]), percent(row["heldout_share"])]
            for row in copies
        ]  # fmt: skip
        columns = ["fold", "synthetic images", "near-copies", "nearly identical", "share", "share of test images"]
        blocks.append(
            Table(columns, table, "Synthetic images closer to a training image than 99 % of the test images are. Their "
                  "look does not show whether they may be shared.")
        )  # fmt: skip
    return blocks
