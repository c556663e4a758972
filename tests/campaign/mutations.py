"""One mutation: a file is changed at random and given to the script that reads it.

A fault is a traceback, an end that is neither success nor one line that says what is wrong, and a success
with numbers that neither the unmutated nor the mutated file has.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.jobs import Reference, last_words
from campaign.judges import Case
from campaign.ledger import FAULT
from campaign.mutators import DIRECTORY
from campaign.processes import Ended, Run, execute, fresh_copy
from campaign.readers import Reader, readers

LIMIT = 300.0  # seconds
_usual: dict[str, Any] = {}  # kind of file -> facts from the unmutated one


def set_up(reader: Reader, base: Path, work: Path) -> None:
    """Make ``work`` a copy of what the command is given."""
    fresh_copy(base, work)
    if reader.files != ("**/*",):
        wanted = {file for pattern in reader.files for file in work.glob(pattern)}
        for file in [path for path in work.rglob("*") if path.is_file() and path not in wanted]:
            file.unlink()
    if reader.kind == "classifier PTH":
        shutil.copy(work / "models" / "baseline_resnet50.pth", work / "given.pth")
    if reader.script in ("generate_synthetic", "register_synthetic"):
        for folder in ("data/synthetic", "data/registered"):
            shutil.rmtree(work / folder, ignore_errors=True)


def run_of(reader: Reader, work: Path) -> Run:
    return Run(reader.script, reader.words, work, {}, reader.prepare, reader.look)


def facts_unmutated(reader: Reader, base: Path, work: Path) -> Any:
    """What the script makes of the file as it is."""
    if reader.kind not in _usual:
        set_up(reader, base, work)
        ended = execute(run_of(reader, work), limit=LIMIT)
        if ended.code != 0 or ended.facts is None:
            raise RuntimeError(f"{reader.kind}: the unmutated file ends in {ended.code}\n{ended.said[-3000:]}")
        _usual[reader.kind] = ended.facts
    return _usual[reader.kind]


def trial(
    number: int, seed: int, prepare: Callable[[str], Reference], work: Path, kind: str | None = None
) -> dict[str, Any]:
    """Make mutation ``number``; returns the row of the ledger."""
    draw = random.Random(f"{seed} mutation {number}")
    references = prepare("check").folder.parent
    known = readers(references)
    reader = draw.choices(known, [reader.weight for reader in known])[0]
    if kind is not None:
        reader = next(each for each in known if each.kind == kind)
    base = prepare(reader.base).folder
    usual = facts_unmutated(reader, base, work)
    set_up(reader, base, work)
    file = work / reader.file
    original = file.read_bytes()
    words, mutated = draw.choice(reader.ways)(draw, original)
    file.unlink()
    if mutated == DIRECTORY:
        file.mkdir()
    else:
        file.write_bytes(mutated)
    ended = execute(run_of(reader, work), limit=LIMIT)
    outcome, detail = judge(ended, reader, Case(original, mutated, words, ended.facts, usual, ended.said))
    return {
        "what": "mutation", "number": number, "kind": reader.kind, "mutation": words, "outcome": outcome,
        "detail": detail, "exit": ended.code,
    }  # fmt: skip


def judge(ended: Ended, reader: Reader, case: Case) -> tuple[str, str]:
    """(outcome, what was said or is wrong)."""
    said = last_words(ended)
    if "Traceback (most recent call last)" in ended.said or "unexpected" in said:
        return FAULT, f"traceback: {said}"
    if ended.code in (1, 2):
        errors = [line for line in ended.said.splitlines() if "error:" in line]
        return ("refused", said) if errors else (FAULT, f"exit code {ended.code} without an error: {said}")
    if ended.code != 0:
        return FAULT, f"exit code {ended.code}: {said}"
    if ended.facts is None:
        return FAULT, f"no facts: {said}"
    if problem := reader.judge(case):
        return FAULT, problem
    return ("same" if ended.facts == case.usual else "honest"), ""
