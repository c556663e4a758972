"""The committed results about images are as described; fresh ones are tested in test_image_quality."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.file_formats import describe_format, format_problems
from comparison.image_file_formats import FidScore, ImageQuality, SsimAnalysis
from utils import load_json

RESULTS = Path(__file__).parents[2] / "results"
KINDS = {"ssim_analysis.json": SsimAnalysis, "fid_score.json": FidScore, "image_quality.json": ImageQuality}


@pytest.mark.parametrize("name", KINDS)
def test_committed_files_are_as_described(name):
    files = sorted(RESULTS.rglob(name))
    assert files
    for file in files:
        assert format_problems(load_json(file), KINDS[name]) == [], file


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_key_has_a_meaning_or_a_table_of_its_own(kind):
    text = describe_format(kind)
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 15
    for key, type_words, meaning in rows:
        own_table = any(f"### {word}\n" in text for word in type_words.split())
        assert meaning.strip() or own_table, key
