"""Scores: made-up contenders whose place is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.generators.results import measure_unit
from benchmarks.generators.scores import SPACES, is_trained, nearest_generator
from fake_contenders import COUNT, SIDE, unit


def test_copies_noise_and_collapse_are_told_apart(data, judge, setup, tmp_path):
    rows = {
        name: measure_unit(unit(tmp_path, name), setup, judge, "peers") for name in ("noise", "copies", "one image")
    }
    noise, copies, one = (rows[name]["scores"]["raw"] for name in rows)
    for space in noise["spaces"]:
        assert copies["spaces"][space]["kid"] < noise["spaces"][space]["kid"]
    # Every image is a training image; of images that nobody copied, some 1 % are flagged.
    assert copies["copies"]["share"] == 1.0 and copies["copies"]["nearly_identical"] == COUNT
    assert copies["copies"]["closer"]["share"] > copies["copies"]["closer"]["chance95"][1]
    assert noise["copies"]["share"] < 0.2
    assert noise["spaces"]["resnet18"]["recall"] < 0.1 and not rows["noise"]["trained"]
    assert not rows["one image"]["trained"]
    for space in one["spaces"]:
        assert one["spaces"][space]["diversity"] == pytest.approx(0.0, abs=1e-4)
        assert 0.8 < copies["spaces"][space]["diversity"] < 1.2
    assert noise["grain"] > 2 * copies["grain"] and copies["grain"] == pytest.approx(1.0, abs=0.1)
    assert rows["copies"]["trained"]


def test_real_images_score_as_the_floor_says(data, judge):
    floors = judge.real_scores()
    scored = judge.score(data.reference)
    for space, figures in scored["spaces"].items():
        assert figures["n"] == len(data.reference)
        assert figures["recall"] == figures["precision"] == 1.0  # the very same images
        for real in ("floor", "training"):
            assert abs(floors[space][real]["kid"]) < 0.02 and floors[space][real]["recall"] > 0.5


def test_the_same_image_under_noise_is_no_diversity(data, judge):
    rng = np.random.default_rng(0)
    one = np.repeat(data.training[:1], COUNT, axis=0) + rng.normal(0, 20, (COUNT, SIDE, SIDE))
    score = judge.score(one.clip(0, 255).astype(np.uint8))
    assert not is_trained(score)
    assert score["spaces"]["pixels"]["diversity"] < 0.5 and score["spaces"]["pixels"]["recall"] == 0


def test_images_known_to_be_bad_are_scored_beside(data, judge):
    controls = judge.control_scores()
    assert list(controls) == ["upside down", "blurred", "12 training images + noise", "held-out negatives"]
    assert controls["blurred"]["grain"] < 0.8 < 1.2 < controls["12 training images + noise"]["grain"]
    assert controls["12 training images + noise"]["copies"]["share"] > 0.9
    flipped = judge.score(np.ascontiguousarray(data.training[:, ::-1]))
    assert flipped["spaces"] == controls["upside down"]["spaces"]


def scored_by(learned: dict[str, tuple], heldout: dict[str, tuple]) -> dict:
    return {
        name: {"spaces": {space: {"kid_learned": learned[name][place], "kid": heldout[name][place]}
                          for place, space in enumerate(SPACES)}}
        for name in learned
    }  # fmt: skip


def test_the_generator_that_counts_is_chosen_without_the_heldout_images(setup, judge, tmp_path):
    row = measure_unit(unit(tmp_path, "both"), setup, judge, "peers")
    assert row["generator"] == nearest_generator(row["scores"]) == "averaged"
    assert row["images_per_second"] == 50.0 and row["parameters"] == 7
    scores = scored_by({"raw": (1, 1, 9), "averaged": (2, 2, 3)}, {"raw": (9, 9, 9), "averaged": (1, 1, 1)})
    assert nearest_generator(scores) == "raw"
    assert nearest_generator({"raw": scores["raw"]}) == "raw"


def test_of_options_the_average_counts_whatever_it_scores(setup, judge, tmp_path):
    row = measure_unit(unit(tmp_path, "worse average"), setup, judge, "options")
    assert row["generator"] == "averaged" and not row["trained"]
    assert measure_unit(unit(tmp_path, "worse average"), setup, judge, "peers")["generator"] == "raw"


@pytest.mark.parametrize(
    ("recall", "precision", "diversity", "trained"),
    [(0.11, 0.11, 0.51, True), (0.1, 0.9, 0.9, False), (0.9, 0.9, 0.49, False),
     (1.0, 0.0, 1.2, False)],  # the last is noise, which surrounds the reals without being near any
)  # fmt: skip
@pytest.mark.parametrize("where", SPACES)
def test_trained_means_recall_precision_and_diversity_in_every_space(recall, precision, diversity, trained, where):
    spaces = {space: {"recall": 0.9, "precision": 0.9, "diversity": 0.9} for space in SPACES}
    spaces[where] = {"recall": recall, "precision": precision, "diversity": diversity}
    assert is_trained({"spaces": spaces}) is trained
