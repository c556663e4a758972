"""Tables of the comparison of generators: what ``gan_benchmark.json`` says, ranked in all spaces.

Nothing is measured here. Contenders are ordered by the mean of their ranks by KID in the spaces, over the
seeds that came through; in each space those are marked that the held-out patients cannot tell from the best.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.generators.kid import difference, kid_of, resampled_weights
from benchmarks.generators.rows import DONE, describe, in_spaces, mark_of, stale_rows
from benchmarks.generators.scores import SPACES

FEW_STEPS = 1000  # of training, below which a contender has hardly begun
BUSY = 0.9  # CPU time as a share of wall time and threads, below which the machine had other work
Rows = Sequence[Mapping[str, Any]]


def rows_of(content: Mapping[str, Any], what: str) -> list[Mapping[str, Any]]:
    """Those of ``what`` that were scored as the file's reals were, and failures."""
    stale = {id(row) for row in stale_rows(content["rows"], mark_of(content))}
    return [row for row in content["rows"] if row["what"] == what and id(row) not in stale]


def best_scores(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the generator of a finished row that counts."""
    return row["scores"][row["better"]]


def grouped(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Rows]:
    """Rows by (budget, contender), as they come."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["budget"], row["contender"]), []).append(row)
    return groups


def summaries(content: Mapping[str, Any], what: str) -> dict[tuple[str, str], dict[str, Any]]:
    """{(budget, contender): {"rows" (finished), "of" (all), "few_steps", "rank", "spaces": {space: {"kid",
    "kid_ci95", "tied"}}}}, budgets in their order of appearance, best mean rank first; "rank" None and no
    spaces for one that never came through. "tied": the 95 % interval of its difference from the best of its
    budget, on the same resampled patients, includes 0."""
    groups = grouped(rows_of(content, what))
    weights = resampled_weights(content["references"]["patients"])
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, rows in groups.items():
        done = [row for row in rows if row["status"] == DONE]
        found[key] = {
            "rows": done, "of": rows, "rank": None, "spaces": {},
            "few_steps": bool(done) and min(row["steps"] or 0 for row in done) < FEW_STEPS,
        }  # fmt: skip
    budgets = list(dict.fromkeys(budget for budget, _ in groups))
    for budget in budgets:
        _compare({key: one for key, one in found.items() if key[0] == budget and one["rows"]},
                 content["references"]["within"], weights)  # fmt: skip
    order = sorted(found, key=lambda key: (budgets.index(key[0]), found[key]["rank"] or float("inf")))
    return {key: found[key] for key in order}


def _compare(group: Mapping[Any, dict[str, Any]], within: Mapping[str, Any], weights: np.ndarray) -> None:
    """Fill in ranks and spaces of contenders of one budget."""
    from scipy.stats import rankdata

    ranks = []
    for space in SPACES:
        parts = [[best_scores(row)["spaces"][space] for row in one["rows"]] for one in group.values()]
        figures = [kid_of(part, within[space], weights) for part in parts]
        kids = [figure["kid"] for figure in figures]
        ranks.append(rankdata(kids))
        best = parts[int(np.argmin(kids))] if kids else []
        for one, part, figure in zip(group.values(), parts, figures, strict=True):
            tied = part is best or difference(part, best, weights)["ci95"][0] <= 0
            one["spaces"][space] = figure | {"tied": tied}
    for one, of_it in zip(group.values(), np.array(ranks).T, strict=True):
        one["rank"] = float(of_it.mean())


# --- quality ---------------------------------------------------------------------------------------
SHORT = "/".join(space[0] for space in SPACES)  # above figures of all spaces
TITLES = (
    "contender", "budget", "seeds", "trained", "rank", *(f"KID {space}" for space in SPACES),
    f"recall {SHORT}", f"precision {SHORT}", f"diversity {SHORT}", "grain", "copies (reals)",
    "closer (chance)", "counts",
)  # fmt: skip


def table(content: Mapping[str, Any], what: str) -> list[str]:
    """Aligned lines, best rank first; means over the seeds that came through. Beneath stand what real images
    give and images that are bad in a known way, and every failure with its reason."""
    lines: list[tuple[str, ...]] = [TITLES]
    for (budget, contender), one in summaries(content, what).items():
        lines.append((label(contender, one), budget, *_cells(one)))
    figures = {space: content["reals"][space]["training"] for space in SPACES}
    lines.append(("reals learned from", *[""] * 4, *_figures([{"spaces": figures}]), *[""] * 4))
    for name, score in content["controls"].items():
        lines.append((f"bad: {name}", *[""] * 4, *_figures([score]), *_originality([score]), ""))
    failures = [row for row in rows_of(content, what) if row["status"] != DONE]
    return [
        *aligned(lines),
        "KID with 95 % intervals over held-out patients; = not to be told from the best of its budget; rank: "
        "mean over the spaces",
        *(f"{row['contender']}, {row['budget']}, seed {row['seed']}: {describe(row)}" for row in failures),
    ]


def label(contender: str, one: Mapping[str, Any]) -> str:
    if not one["few_steps"]:
        return contender
    return f"{contender} (hardly begun: {min(row['steps'] or 0 for row in one['rows']):,} steps)"


def aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]  # fmt: skip


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    done = one["rows"]
    seeds = f"{len(done)}/{len(one['of'])}"
    if not done:
        return (seeds, *["-"] * (len(TITLES) - 3))
    scores = [best_scores(row) for row in done]
    kids = (_kid(one["spaces"][space]) for space in SPACES)
    trained = f"{sum(row['trained'] for row in done)}/{len(one['of'])}"
    counts = " ".join(sorted({row["better"] for row in done}))
    rest = _figures(scores)[len(SPACES) :]
    return (seeds, trained, f"{one['rank']:.1f}", *kids, *rest, *_originality(scores), counts)


def _kid(figure: Mapping[str, Any]) -> str:
    low, high = figure["kid_ci95"]
    return f"{figure['kid']:.3f} [{low:.3f}, {high:.3f}]{'=' if figure.get('tied') else ' '}"


def _figures(scores: Collection[Mapping[str, Any]]) -> tuple[str, ...]:
    """KID in each space (of a single score, with its interval), then recall, precision, diversity."""
    names = ("recall", "precision", "diversity")
    means = {
        space: {name: statistics.fmean(score["spaces"][space][name] for score in scores) for name in names}
        for space in SPACES
    }
    first = next(iter(scores))["spaces"]
    return (*(_kid(first[space]) for space in SPACES), *(in_spaces(means, name) for name in names))


def _originality(scores: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Grain as a share of the reals', near-copies (and how many unseen reals would be called so), and the
    share that is closer to training than to held-out images (and its range by chance)."""
    mean = statistics.fmean
    copies = [score["copies"] for score in scores]
    closer = [found["closer"] for found in copies if found["closer"].get("share") is not None]
    chance = "-"
    if closer:
        low, high = (mean(one["chance95"][side] for one in closer) for side in (0, 1))
        chance = f"{mean(one['share'] for one in closer):.2f} ({low:.2f}-{high:.2f})"
    return (
        f"{mean(score['grain'] for score in scores):.2f}",
        f"{mean(one['share'] for one in copies):.3f} ({copies[0]['heldout_share']:.3f})",
        chance,
    )


# --- cost ------------------------------------------------------------------------------------------
COST_TITLES = (
    "contender", "budget", "steps", "images seen", "minutes", "images/s", "threads", "CPU share",
    "arithmetic", "perceptual", "M par.",
)  # fmt: skip


def cost_table(content: Mapping[str, Any], what: str) -> list[str]:
    """What it took: equal minutes are no equal computing where the machine had other work, which "CPU share"
    (CPU time beside wall time and threads, marked below ``BUSY``) tells."""
    lines: list[tuple[str, ...]] = [COST_TITLES]
    for (budget, contender), one in summaries(content, what).items():
        if one["rows"]:
            lines.append((contender, budget, *_cost_cells(one["rows"], content["machine"])))
    return aligned(lines) if len(lines) > 1 else []


def _cost_cells(rows: Rows, machine: Mapping[str, Any]) -> tuple[str, ...]:
    def mean(name: str) -> float:
        return statistics.fmean(row[name] or 0 for row in rows)

    def setting(name: str) -> str:
        return " ".join(sorted({str((row["settings"] or {}).get(name, "-")) for row in rows}))

    threads = " ".join(sorted({str(row["threads"]) for row in rows if row.get("threads")})) or "-"
    shares = [share for row in rows if (share := cpu_share(row, machine)) is not None]
    lowest = f"{min(shares):.2f}{' busy' if min(shares) < BUSY else ''}" if shares else "-"
    return (
        f"{mean('steps'):,.0f}", f"{mean('images_seen'):,.0f}", f"{mean('train_seconds') / 60:.1f}",
        f"{mean('images_per_second'):.1f}", threads, lowest, setting("precision"), setting("perceptual"),
        f"{rows[0]['parameters'] / 1e6:.1f}" if rows[0]["parameters"] else "-",
    )  # fmt: skip


def cpu_share(row: Mapping[str, Any], machine: Mapping[str, Any]) -> float | None:
    """CPU time of the command as a share of its wall time and its threads; None on a GPU, or if not known."""
    if machine.get("gpu") or not row.get("cpu_seconds") or not row.get("threads"):
        return None
    return row["cpu_seconds"] / (row["command_seconds"] * row["threads"])
