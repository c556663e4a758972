"""Arms that rest on unlike synthetic images, and images looked at that no arm was trained on."""

import pytest

from arms.result_files import Arm
from comparison.warnings import analysed_others, synthetic_flags

A, B = "a" * 64, "b" * 64


def arm(name: str, manifest: str | None = A, n: int = 450, folds: dict | None = None, **changes) -> Arm:
    control = name.startswith("control")
    metrics = {
        "manifest_sha256": {"0": manifest, **(folds or {})},
        "synthetic": {"n_used": n, "generator_sha256": "9" * 64},
        "n_synthetic": 0 if control else n,
        "n_duplicated": n if name == "control_duplicate" else 0,
        "config": {"synthetic_ratio": None},
    }
    return Arm(name, f"{name}_", metrics=metrics | changes)


BASELINE = Arm("baseline", "baseline_", metrics={"manifest_sha256": {}, "synthetic": None, "n_synthetic": 0})
OURS = ("augmented", "control_duplicate", "control_weight", "curriculum", "pretrain")


def test_arms_of_one_folder_raise_no_flag_whatever_their_folds():
    arms = [arm(name) for name in OURS]
    arms[1] = arm("control_duplicate", folds={"1": B})  # folds that no other arm has
    assert synthetic_flags([BASELINE, *arms]) == synthetic_flags([BASELINE]) == []


@pytest.mark.parametrize("name", OURS[1:])
def test_other_images_than_the_augmented_arms_are_an_error(name):
    (flag,) = synthetic_flags([BASELINE, arm("augmented"), arm(name, B)])
    assert "DIFFERENT SYNTHETIC IMAGES" in flag
    assert f"{name} manifest {B[:12]} of generator 999999999999, augmented manifest {A[:12]}" in flag
    (flag,) = synthetic_flags([arm("augmented"), arm(name, None)])
    assert f"{name} no manifest" in flag


def test_images_of_single_folds_are_compared_too():
    (flag,) = synthetic_flags([arm("augmented", folds={"1": A, "2": A}), arm("curriculum", folds={"2": B})])
    assert f"curriculum manifest {B[:12]} in fold 2, augmented manifest {A[:12]} in fold 2" in flag


def test_another_generator_under_a_users_name_is_stated_and_no_error():
    (flag,) = synthetic_flags([arm("augmented"), arm("control_duplicate"), arm("diffusion", B)])
    assert flag.startswith("diffusion was trained with") and "other synthetic images than augmented:" in flag
    assert "DIFFERENT" not in flag and A[:12] in flag and B[:12] in flag


def test_unlike_numbers_are_told_with_the_ratio():
    half = {"config": {"synthetic_ratio": 0.25}}
    (flag,) = synthetic_flags([arm("augmented"), arm("control_duplicate", n=225, **half)])
    assert flag.endswith(
        "DIFFERENT NUMBERS of synthetic images: augmented 450, control_duplicate 225 (--synthetic-ratio 0.25)"
    )
    (flag,) = synthetic_flags([arm("augmented"), arm("control_weight", n=0, synthetic={"n_used": 7})])
    assert "augmented 450, control_weight 7" in flag
    (flag,) = synthetic_flags([arm("augmented"), arm("half", n=225, **half)])
    assert "DIFFERENT" not in flag and "augmented 450, half 225 (--synthetic-ratio 0.25)" in flag


def test_results_that_do_not_tell_their_manifest_are_passed_over():
    old = Arm("augmented", "augmented_", metrics={"n_synthetic": 450})
    assert synthetic_flags([old, Arm("mine", "mine_"), arm("curriculum")]) == []
    assert analysed_others([old, Arm("mine", "mine_")], B) is None


def test_looking_at_one_of_several_folders_is_said():
    folders = [{"dir": "data/ill", "manifest_sha256": A}, {"dir": "data/normal", "manifest_sha256": B}]
    both = arm("augmented", "c" * 64, synthetic={"n_used": 450, "folders": folders})
    assert "one of the 2 folders that augmented was trained on; another" in analysed_others([both], A)
    assert "look at data/normal (" in analysed_others([both], A)
    assert "NOT THOSE" in analysed_others([both], "d" * 64)
    assert "NOT THOSE" in analysed_others([both], None)


def test_images_looked_at_are_those_of_the_augmented_arm_or_it_is_said():
    arms = [BASELINE, arm("augmented"), arm("control_duplicate", B), arm("diffusion", B)]
    assert analysed_others(arms, A) is None
    assert f"analysed here (manifest {B[:12]}) are NOT THOSE" in analysed_others(arms, B)
    assert "analysed here (no manifest) are NOT THOSE" in analysed_others(arms, None)
    without = [BASELINE, arm("control_duplicate", A), arm("diffusion", B)]
    assert analysed_others(without, B) is None
    assert f"(diffusion manifest {B[:12]})" in analysed_others(without, A)
    assert analysed_others([BASELINE, arm("control_duplicate", A)], B) is None
