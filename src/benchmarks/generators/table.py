"""Tables of the comparison of generators: contents of ``gan_benchmark.json``, ranked over all spaces.

Nothing is measured here. Contenders are ordered by the mean of their ranks by KID in the spaces, over the
seeds that finished. In each space those are marked that the held-out patients cannot tell from the best.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.file_formats import FinishedRow, GeneratorBenchmark, ImageScores, Machine, SpaceScores
from benchmarks.generators.kid import KernelDistance, kid_difference, kid_of, read_weights
from benchmarks.generators.results import Row, counted_scores, scores_in_words
from benchmarks.generators.scores import SPACES
from benchmarks.text_table import aligned_columns

FEW_STEPS = 1000  # of training; below it a contender has hardly begun
BUSY = 0.9  # processor time as a share of wall time and threads; below it the machine had other work


@dataclass
class SpaceSummary:
    """KID of a contender in one space, the mean over its seeds.

    ``tied``: the 95 % interval of its difference from the best of its budget, on the same resampled patients,
    includes 0.
    """

    kid: KernelDistance
    tied: bool


@dataclass
class Summary:
    """Rows of one contender with one budget.

    ``rank``: mean of its ranks in the spaces, None without a finished row.
    """

    rows: list[Row]
    finished: list[FinishedRow]
    rank: float | None = None
    spaces: dict[str, SpaceSummary] = field(default_factory=dict)

    @property
    def fewest_steps(self) -> int:
        """Steps of the shortest finished training."""
        return min((row["steps"] or 0 for row in self.finished), default=0)

    @property
    def hardly_begun(self) -> bool:
        """Whether a finished training had too few steps to be judged."""
        return bool(self.finished) and self.fewest_steps < FEW_STEPS


Summaries = Mapping[tuple[str, str], Summary]  # by (budget, contender)


def summarise_contenders(content: GeneratorBenchmark, what: str) -> Summaries:
    """Summarise the rows of ``what``: budgets in their order of appearance, best mean rank first."""
    found: dict[tuple[str, str], Summary] = {}
    for row in content["rows"]:
        if row["what"] == what:
            one = found.setdefault((row["budget"], row["contender"]), Summary([], []))
            one.rows.append(row)
            if row["status"] == "done":
                one.finished.append(row)
    budgets = list(dict.fromkeys(budget for budget, _ in found))
    for budget in budgets:
        of_budget = [one for (its_budget, _), one in found.items() if its_budget == budget]
        _rank([one for one in of_budget if one.finished], content)
    order = sorted(found, key=lambda key: (budgets.index(key[0]), found[key].rank or float("inf")))
    return {key: found[key] for key in order}


def _rank(group: Sequence[Summary], content: GeneratorBenchmark) -> None:
    """Fill in the ranks and spaces of contenders of one budget."""
    from scipy.stats import rankdata

    if not group:
        return
    weights, ranks = read_weights(content["heldout"]["resamples"]), []
    for space in SPACES:
        parts = [[counted_scores(row)["spaces"][space] for row in one.finished] for one in group]
        distances = [kid_of(part, content["heldout"]["kernels"][space], weights) for part in parts]
        kids = [distance["kid"] for distance in distances]
        ranks.append(rankdata(kids))
        best = parts[int(np.argmin(kids))]
        for one, part, distance in zip(group, parts, distances, strict=True):
            tied = part is best or kid_difference(part, best, weights)["ci95"][0] <= 0
            one.spaces[space] = SpaceSummary(distance, tied)
    for one, its_ranks in zip(group, np.array(ranks).T, strict=True):
        one.rank = float(its_ranks.mean())


# --- quality ---------------------------------------------------------------------------------------
INITIALS = "/".join(space[0] for space in SPACES)  # above numbers of all spaces
TITLES = (
    "contender", "budget", "seeds", "trained", "rank", *(f"KID {space}" for space in SPACES),
    f"recall {INITIALS}", f"precision {INITIALS}", f"diversity {INITIALS}", "grain", "copies (reals)",
    "closer (chance)", "counts",
)  # fmt: skip


def quality_table(content: GeneratorBenchmark, summaries: Summaries) -> list[str]:
    """Return aligned lines, best rank first, means over the finished seeds.

    Below stand the scores of real images and of images that are bad in a known way, and each failure with its
    reason.
    """
    lines: list[tuple[str, ...]] = [TITLES]
    for (budget, contender), one in summaries.items():
        label = f"{contender} (hardly begun: {one.fewest_steps:,} steps)" if one.hardly_begun else contender
        lines.append((label, budget, *_quality_cells(one)))
    training = {space: content["reals"][space]["training"] for space in SPACES}
    lines.append(("reals learned from", *[""] * 4, *_space_cells([training]), *[""] * 4))
    for name, score in content["controls"].items():
        cells = (*_space_cells([score["spaces"]]), *_originality_cells([score]))
        lines.append((f"bad: {name}", *[""] * 4, *cells, ""))
    failures = [row for one in summaries.values() for row in one.rows if row["status"] != "done"]
    return [
        *aligned_columns(lines, left=(0, 1)),
        "KID with 95 % intervals over held-out patients; = cannot be told from the best of its budget; rank: "
        "mean over the spaces",
        *(f"{row['contender']}, {row['budget']}, seed {row['seed']}: {scores_in_words(row)}" for row in failures),
    ]


def _quality_cells(one: Summary) -> tuple[str, ...]:
    seeds = f"{len(one.finished)}/{len(one.rows)}"
    if one.rank is None:
        return (seeds, *["-"] * (len(TITLES) - 3))
    scores = [counted_scores(row) for row in one.finished]
    kids = (_kid_cell(one.spaces[space].kid, one.spaces[space].tied) for space in SPACES)
    trained = f"{sum(row['trained'] for row in one.finished)}/{len(one.rows)}"
    counts = " ".join(sorted({row["generator"] for row in one.finished}))
    others = _space_cells([score["spaces"] for score in scores])[len(SPACES) :]
    return (seeds, trained, f"{one.rank:.1f}", *kids, *others, *_originality_cells(scores), counts)


def _kid_cell(distance: KernelDistance | SpaceScores, tied: bool = False) -> str:
    low, high = distance["kid_ci95"]
    return f"{distance['kid']:.3f} [{low:.3f}, {high:.3f}]{'=' if tied else ' '}"


def _space_cells(scores: Sequence[Mapping[str, SpaceScores]]) -> tuple[str, ...]:
    """Write KID of the first of ``scores`` in each space, then mean recall, precision and diversity."""

    def means(values: Iterable[Sequence[float]]) -> str:
        return "/".join(f"{statistics.fmean(value):.2f}" for value in values)

    return (
        *(_kid_cell(scores[0][space]) for space in SPACES),
        means([score[space]["recall"] for score in scores] for space in SPACES),
        means([score[space]["precision"] for score in scores] for space in SPACES),
        means([score[space]["diversity"] for score in scores] for space in SPACES),
    )


def _originality_cells(scores: Sequence[ImageScores]) -> tuple[str, str, str]:
    """Write grain, near-copies and closeness to training images, means over ``scores``.

    Grain is a share of that of the reals; near-copies stand beside those among unseen reals; the share closer
    to training than to held-out images stands beside its range by chance.
    """
    mean = statistics.fmean
    copies = [score["copies"] for score in scores]
    closer = [found["closer"] for found in copies]
    low, high = (mean(one["chance95"][side] for one in closer) for side in (0, 1))
    return (
        f"{mean(score['grain'] for score in scores):.2f}",
        f"{mean(one['share'] for one in copies):.3f} ({copies[0]['heldout_share']:.3f})",
        f"{mean(one['share'] for one in closer):.2f} ({low:.2f}-{high:.2f})",
    )


# --- cost ------------------------------------------------------------------------------------------
COST_TITLES = (
    "contender", "budget", "steps", "images seen", "minutes", "images/s", "threads", "CPU share",
    "arithmetic", "perceptual", "M par.",
)  # fmt: skip


def cost_table(machine: Machine, summaries: Summaries) -> list[str]:
    """Return aligned lines of what each contender took.

    Equal minutes are no equal computing if the machine had other work. "CPU share" tells: processor time as a
    share of wall time and threads, marked if it is below ``BUSY``.
    """
    lines: list[tuple[str, ...]] = [COST_TITLES]
    for (budget, contender), one in summaries.items():
        if one.finished:
            lines.append((contender, budget, *_cost_cells(one.finished, machine)))
    return aligned_columns(lines, left=(0, 1)) if len(lines) > 1 else []


def _cost_cells(rows: Sequence[FinishedRow], machine: Machine) -> tuple[str, ...]:
    def setting(name: str) -> str:
        return " ".join(sorted({str((row["settings"] or {}).get(name, "-")) for row in rows}))

    mean = statistics.fmean
    threads = " ".join(sorted({str(row["threads"]) for row in rows if row["threads"]})) or "-"
    shares = [share for row in rows if (share := processor_share(row, machine)) is not None]
    lowest = f"{min(shares):.2f}{' busy' if min(shares) < BUSY else ''}" if shares else "-"
    return (
        f"{mean(row['steps'] or 0 for row in rows):,.0f}",
        f"{mean(row['images_seen'] for row in rows):,.0f}",
        f"{mean(row['train_seconds'] for row in rows) / 60:.1f}",
        f"{mean(row['images_per_second'] or 0.0 for row in rows):.1f}",
        threads,
        lowest,
        setting("precision"),
        setting("perceptual"),
        "-" if rows[0]["parameters"] is None else f"{rows[0]['parameters'] / 1e6:.1f}",
    )


def processor_share(row: FinishedRow, machine: Machine) -> float | None:
    """Return processor time as a share of wall time and threads; None on a GPU, or if it is not known."""
    if machine["gpu"] or not row["cpu_seconds"] or not row["command_seconds"] or not row["threads"]:
        return None
    return row["cpu_seconds"] / (row["command_seconds"] * row["threads"])
