"""Run the campaign, or go on with it: ``python -P -m campaign --out FOLDER --minutes 60``."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from campaign import jobs, kills
from campaign.ledger import FAULT, Ledger, kill_table, mutation_table
from campaign.processes import import_everything, kaggle_server
from common.paths import SRC

log = logging.getLogger("campaign")

CHUNK_DELAY = 0.3  # seconds between the chunks of a download
BATCH = 25  # mutations between two trials of kills


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    home = Path.home() / ".cache" / "campaign"
    parser.add_argument("--out", type=Path, default=home, help="folder of the results, outside the repository")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after so many minutes")
    parser.add_argument("--kills", type=int, default=220, help="stop after so many kills")
    parser.add_argument("--mutations", type=int, default=1100, help="stop after so many mutations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--retry", action="store_true", help="first repeat the trials that found a fault")
    parser.add_argument("--only", help="one job or kind of file")
    parser.add_argument("--number", type=int, help="with --only: make this trial alone, and keep its folder")
    parser.add_argument("--report", action="store_true", help="only print the tables of what was done")
    return parser.parse_args(argv)


def state_of_code() -> str:
    """Name the code that is tried: its commit, and a hash of the sources."""
    digest = hashlib.sha256()
    for file in sorted(SRC.rglob("*.py")):
        digest.update(file.read_bytes())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=SRC, capture_output=True, text=True).stdout
    return f"{commit.strip()} {digest.hexdigest()[:12]}"


class Campaign:
    """Trials of both sorts, with their references, which are made anew when the code has changed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.code = options, state_of_code()
        self.ledger = Ledger(options.out)
        self.references, self.work = options.out / "reference", options.out / "work"
        made_by = options.out / "reference.code"
        if not made_by.exists() or made_by.read_text() != self.code:
            shutil.rmtree(self.references, ignore_errors=True)
            self.references.mkdir(parents=True)
            made_by.write_text(self.code)

    def prepare(self, name: str) -> jobs.Reference:
        """Build the reference of a job, and those that it needs."""
        for need in jobs.JOBS[name].needs:
            self.prepare(need)
        return jobs.build(self.references, name)

    def kill(self, job: jobs.Job, number: int) -> None:
        """Make one trial of kills."""
        start = time.monotonic()
        row = kills.trial(job, number, self.options.seed, self.references, self.prepare(job.name), self.work)
        self.note(row, start, f"{job.name} {number}: {row['kills']} kills ({', '.join(row['moments'])})")

    def mutate(self, number: int, kind: str | None = None) -> None:
        """Make one mutation."""
        from campaign import mutations

        start = time.monotonic()
        row = mutations.trial(number, self.options.seed, self.prepare, self.work, kind)
        self.note(row, start, f"{row['kind']} {number}: {row['mutation']} -> {row['outcome']}")

    def note(self, row: dict[str, Any], start: float, said: str) -> None:
        self.ledger.add(**row, code=self.code, seconds=round(time.monotonic() - start, 1))
        log.info(said)
        if row.get("faults"):
            log.info(f"  {FAULT}: {row['faults']}")
        elif row.get("outcome") == FAULT:
            log.info(f"  {FAULT}: {row['detail']}")

    def go_on(self) -> None:
        """Make trials until there are enough of both sorts, or the time is over."""
        end = time.monotonic() + 60 * self.options.minutes
        if self.options.retry:
            for row in self.ledger.faulty():
                if row["what"] == "kills":
                    self.kill(jobs.JOBS[row["job"]], row["number"])
                else:
                    self.mutate(row["number"], row["kind"])
        while time.monotonic() < end:
            killed, mutated = self.ledger.of("kills"), self.ledger.of("mutation")
            n_kills = sum(row["kills"] for row in killed)
            missing = self.options.kills - n_kills, self.options.mutations - len(mutated)
            if max(missing) <= 0:
                break
            if missing[1] <= 0 or missing[0] * self.options.mutations > missing[1] * self.options.kills:
                job = kills.next_job(killed)
                self.kill(job, sum(row["job"] == job.name for row in killed) + 1)
            else:
                for number in range(len(mutated) + 1, len(mutated) + min(BATCH, missing[1]) + 1):
                    self.mutate(number)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout, datefmt="%H:%M:%S")
    ledger = Ledger(options.out)
    if not options.report:
        import_everything()
        with contextlib.ExitStack() as stack:
            campaign = Campaign(options)
            campaign.prepare("phantoms")
            archive, mapping = jobs.archive_of(campaign.references / "phantoms" / "data" / "processed")
            os.environ.update(stack.enter_context(kaggle_server(archive, mapping, CHUNK_DELAY)))
            if options.number is not None and options.only in jobs.JOBS:
                campaign.kill(jobs.JOBS[options.only], options.number)
            elif options.number is not None:
                campaign.mutate(options.number, options.only)
            else:
                campaign.go_on()
        ledger = campaign.ledger
    log.info("\n" + kill_table(ledger.of("kills")) + "\n\n" + mutation_table(ledger.of("mutation")))
    for row in ledger.faulty():
        what = row.get("faults") or f"{row['mutation']}: {row['detail']}"
        log.info(f"{FAULT} in {row.get('job') or row.get('kind')} {row['number']}: {what}")
    return 1 if ledger.faulty() else 0


if __name__ == "__main__":
    sys.exit(main())
