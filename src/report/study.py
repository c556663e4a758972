"""A study as its files tell it, and facts about it that name their source. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arms.registry import BASELINE
from arms.result_files import Arm
from common import paths
from comparison.external import ExternalReport
from comparison.file_formats import Comparison
from report.file_formats import PatientFlow
from report.patient_flow import DataFolder


@dataclass(frozen=True)
class Fact:
    """Something that the files say: ``text``, and the ``source``, file and key."""

    text: str
    source: str


@dataclass(frozen=True)
class Study:
    """All that an analysis knows.

    ``data``: None if the data folder was not read, or is not that of the arms; ``manifest``: of the
    synthetic images, ``gan``: content of gan_training_history.json, ``quality``: of image_quality.json, None without;
    ``flags``: warnings; ``commands``: (what it does, command line); ``pictures``: names of the figures that were made;
    ``external_reports``: of external tests.
    """

    comparison: Comparison
    arms: Mapping[str, Arm]
    flow: PatientFlow
    data: DataFolder | None = None
    manifest: Mapping[str, Any] | None = None
    gan: Mapping[str, Any] | None = None
    quality: Mapping[str, Any] | None = None
    flags: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    pictures: Sequence[str] = ()
    external_reports: Sequence[ExternalReport] = ()

    @property
    def first(self) -> Arm | None:
        """The arm whose settings stand for all: the baseline, else the first with metrics."""
        known = {name: arm for name, arm in self.arms.items() if arm.metrics}
        return known.get(BASELINE) or next(iter(known.values()), None)

    def recorded(self, key: str) -> tuple[Any, str]:
        """Return (what the first arm recorded, its file and key); (None, "") without it."""
        arm = self.first
        if arm is None or key not in arm.recorded:
            return None, ""
        return arm.recorded[key], f"{paths.final_metrics('', arm.prefix).name}: {key}"

    def options(self, *names: str) -> dict[str, Any]:
        """Return the recorded options of the first arm, those of ``names`` that were recorded."""
        config = self.recorded("config")[0] or {}
        return {name: config[name] for name in names if name in config}


def by_arm(rows: Sequence[tuple[str, str]]) -> str:
    """Write what is said of each arm, arms of the same words together: "baseline, augmented: ...; other: ..."."""
    names: dict[str, list[str]] = {}
    for name, words in rows:
        names.setdefault(words, []).append(name)
    return "; ".join(f"{', '.join(arms)}: {words}" for words, arms in names.items())
