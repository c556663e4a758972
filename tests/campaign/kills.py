"""One trial: a script is killed at random moments, then the same command runs to its end.

A fault is one of: a file under a final name that cannot be read, right after a kill or at the end
("corrupt"); a temporary file after success ("left over"); finished work that was done again ("lost"); results
that an uninterrupted run would not have written ("different"); an end that is not success ("failed").
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from campaign.files import broken_files, differences, leftovers
from campaign.jobs import JOBS, Job, Reference, begin, last_words
from campaign.processes import Moment, execute

FRESH_EVERY = 5  # of so many trials one starts a new Python each time
LATEST = 0.05  # seconds between a file operation and the kill


def draw_moment(draw: random.Random, job: Job, reference: Reference, fresh: bool) -> Moment:
    """Draw when to kill: by the clock, or at one of the file operations."""
    if fresh:
        return Moment(draw.uniform(0.8, 1) * job.start_up + draw.uniform(0, 0.9) * reference.seconds)
    if draw.random() < 0.5 or not reference.operations:
        return Moment(draw.uniform(0, 0.95 * reference.seconds))
    delay = 0.0 if draw.random() < 0.5 else draw.uniform(0, LATEST)
    return Moment(delay, draw.randint(1, reference.operations))


def trial(job: Job, number: int, seed: int, references: Path, reference: Reference, work: Path) -> dict[str, Any]:
    """Kill ``job`` up to ``job.several`` times and let it end; returns the row of the ledger."""
    draw = random.Random(f"{seed} {job.name} {number}")
    fresh, wanted = draw.randrange(FRESH_EVERY) == 0, draw.randint(1, job.several)
    begin(job, references, work)
    faults: dict[str, str] = {}
    moments: list[str] = []
    kills = ended_before = 0
    had: dict[str, Any] = {}

    def check(killed: bool) -> None:
        if broken := broken_files(work, killed):
            faults.setdefault("corrupt", f"{'; '.join(broken[:5])} ({moments[-1:]})")
        has = job.kept(work)
        if lost := [name for name, value in had.items() if name in has and has[name] != value]:
            faults.setdefault("lost", f"{', '.join(lost[:5])} ({moments[-1:]})")
        had.update(has)

    for attempt in range(wanted):
        moment = draw_moment(draw, job, reference, fresh)
        ended = execute(job.run(work, again=attempt > 0), moment, fresh)
        if not ended.killed:
            ended_before += 1
            if ended.code != 0:
                faults["failed"] = f"exit code {ended.code}: {last_words(ended)}"
            break
        kills += 1
        moments.append(str(moment))
        check(killed=True)
    if "failed" not in faults:
        ended = execute(job.run(work, again=True), fresh=fresh)
        if ended.code != 0 or "Traceback (most recent" in ended.said:
            faults["failed"] = f"exit code {ended.code}: {last_words(ended)}"
        check(killed=False)
    if "failed" not in faults:
        if left := leftovers(work):
            faults["left over"] = ", ".join(left[:5])
        if different := differences(reference.folder, work):
            faults["different"] = "; ".join(different[:5])
    return {
        "what": "kills", "job": job.name, "number": number, "kills": kills, "fresh": int(fresh), "moments": moments,
        "ended_before": ended_before, "faults": faults,
    }  # fmt: skip


def next_job(rows: list[dict[str, Any]]) -> Job:
    """Choose the job that is furthest behind its share of the kills, first ones first."""
    done = dict.fromkeys(JOBS, 0)
    for row in rows:
        done[row["job"]] += row["kills"] + row["ended_before"] / 4  # not 0, or a quick job goes on for ever
    return min((job for job in JOBS.values() if job.kills), key=lambda job: done[job.name] / job.kills)
