"""Few labels: hidden ones are never read, soft ones come from baselines of the same labels, and every refusal."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from arms import data as arm_data
from arms import registry
from arms.result_files import find_arms, why_not_comparable
from classifier_runs import METRICS, QUICK, frozen, make_synthetic, run
from common import paths
from conftest import leave_unrendered, make_small_dataset, thin_backbone
from dataset.hidden_labels import FewLabels, draw_labelled
from dataset.records import load_dataset
from dataset.splits import TRAIN, load_or_create_splits, select
from utils import UserError, load_checkpoint, load_json, save_checkpoint

N = 10
SEMI = ["--use-synthetic", "--soft-labels"]
PSEUDO = ["--control", "pseudo-labels"]
DUPLICATE = ["--control", "duplicate-positives"]
ARMS = {"baseline": [], "semi": SEMI, "control_pseudo": PSEUDO, "control_duplicate": DUPLICATE}
FEW = ["--backbone", "resnet18", "--labelled-patients", str(N), "--k-folds", "0", "--epochs-final", "1"]
TUNED = [*QUICK, *FEW, "--epochs", "1"]


def training_images() -> pd.DataFrame:
    dataset = load_dataset("data/processed")
    return select(dataset, load_or_create_splits(dataset), TRAIN)


@pytest.fixture(scope="module")
def trained_arms(tmp_path_factory) -> Path:
    """A folder in which all arms are trained on few labels, heads on features, two runs each; not to be changed."""
    folder = tmp_path_factory.mktemp("few")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("classifier.build_backbone", thin_backbone)
        leave_unrendered(patch)
        make_small_dataset(folder / "data/processed", n=64)
        train = training_images()
        make_synthetic(Path("data/synthetic"), 60, list(train["image_id"]), list(train["patient"]), label=None)
        for words in ARMS.values():
            run(*frozen(folder, "resnet18"), *FEW, "--repeats", "2", *words)
    return folder


@pytest.fixture
def copied(trained_arms, in_tmp, thin_network, unrendered) -> list[str]:
    """The same in the working folder, and the options that trained it."""
    shutil.copytree(trained_arms, in_tmp, dirs_exist_ok=True)
    return [*frozen(in_tmp, "resnet18"), *FEW, "--repeats", "2"]


def metrics_of(arm: str, folder: Path = Path()) -> dict:
    return load_json(paths.final_metrics(folder / METRICS, f"{arm}_"))


def everything_learned(arm: str, folder: Path = Path()) -> list[torch.Tensor]:
    """Return the weights of the final models of an arm, and its predictions of the test images."""
    files = sorted(Path(folder / "models").glob(f"{arm}_*.pth"))
    found = [value for file in files for value in load_checkpoint(file)["state_dict"].values()]
    table = pd.read_csv(paths.test_predictions(folder / METRICS, f"{arm}_"))
    return [*found, torch.tensor(table["probability"])]


def flip_hidden_labels(monkeypatch) -> None:
    """Turn every hidden label into the other one, after the patients have been drawn."""
    labelled = draw_labelled(training_images(), FewLabels(N, 42))

    def flipped(*args):
        records = select(*args)
        hidden = ~records["patient"].isin(labelled) & (args[2] == TRAIN)
        return records.assign(label=records["label"].where(~hidden, 1 - records["label"]))

    monkeypatch.setattr(arm_data, "select", flipped)
    monkeypatch.setattr(arm_data, "draw_labelled", lambda *_: labelled)


class TestHiddenLabels:
    def test_flipping_them_all_changes_no_bit(self, copied, trained_arms, monkeypatch):
        flip_hidden_labels(monkeypatch)
        for arm, words in ARMS.items():
            run(*copied, *words)
            pairs = zip(everything_learned(arm), everything_learned(arm, trained_arms), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)

    def test_neither_where_all_layers_learn(self, copied, monkeypatch):
        run(*TUNED)
        run(*TUNED, *PSEUDO)
        before = everything_learned("baseline"), everything_learned("control_pseudo")
        flip_hidden_labels(monkeypatch)
        run(*TUNED)
        run(*TUNED, *PSEUDO)
        after = everything_learned("baseline"), everything_learned("control_pseudo")
        for one, other in zip(before, after, strict=True):
            assert all(map(torch.equal, one, other))

    def test_an_arm_that_reads_them_is_stopped(self, copied, monkeypatch):
        thief = replace(registry.ARMS["baseline"], add=lambda images: registry.Addition(images.unlabelled_rows))
        monkeypatch.setitem(registry.ARMS, "baseline", thief)
        with pytest.raises(ValueError, match="would learn from hidden labels"):
            run(*copied)


def test_arms_share_patients_and_steps_and_say_what_they_used(trained_arms):
    found = {arm: metrics_of(arm, trained_arms) for arm in ARMS}
    with contextlib.chdir(trained_arms):
        train = training_images()
    n = int(train["patient"].isin(draw_labelled(train, FewLabels(N, 42))).sum())
    for metrics in found.values():
        assert metrics["n_train_images"] == n and metrics["n_train_patients"] == N
        assert metrics["optimizer_steps"] == 2, "an epoch of 10 images in batches of 8"
        assert metrics["few_labels"]["n_hidden"] == len(train) - n > 0
    assert len({metrics["few_labels"]["labelled_sha256"] for metrics in found.values()}) == 1
    used = {arm: (m["n_synthetic"], m["few_labels"]["n_unlabelled"], m["n_duplicated"]) for arm, m in found.items()}
    most = len(train) - n  # there are more synthetic images
    assert used == {
        "baseline": (0, 0, 0), "semi": (most, 0, 0), "control_pseudo": (0, most, 0), "control_duplicate": (0, 0, most),
    }  # fmt: skip
    few_labels = found["semi"]["few_labels"]
    assert few_labels["models"] == 2 and 0 < few_labels["mean_soft_label"] < 1
    assert few_labels["near_copies"]["n_synthetic"] == most and found["semi"]["red_flags"] == []
    assert found["semi"]["ensemble_sha256"] == found["control_pseudo"]["ensemble_sha256"]


def test_a_ratio_is_one_of_labelled_images_and_the_results_say_so(copied):
    run(*copied, *SEMI, "--synthetic-ratio", "0.5")
    metrics = metrics_of("semi")
    assert metrics["n_synthetic"] == metrics["synthetic"]["n_used"] == round(0.5 * metrics["n_train_images"])


def test_arms_with_other_labels_are_not_compared(trained_arms):
    semi, baseline = (find_arms(trained_arms / METRICS)[arm] for arm in ("semi", "baseline"))
    assert why_not_comparable(baseline, semi) is None
    few = baseline.metrics["few_labels"] | {"labelled_sha256": "other"}
    other = replace(baseline, metrics=baseline.metrics | {"few_labels": few})
    assert why_not_comparable(other, semi) == (
        "they were trained on the labels of different patients (--labelled-patients, --seed)"
    )


class TestSoftLabels:
    def test_each_image_gets_the_mean_of_the_ensemble_and_known_labels_stay(self, copied, monkeypatch):
        from arms import training

        class Seen(Exception):
            pass

        def stop(tasks, data, labels, **options):
            raise Seen(tasks[0].pool, labels.numpy())

        monkeypatch.setattr(training, "fit_heads", stop)
        found = []
        for words in ([], PSEUDO):
            with pytest.raises(Seen) as seen:
                run(*copied, *words)
            found.append(seen.value.args)
        (first, without), (pool, labels) = found
        np.testing.assert_array_equal(labels[first.real], without[first.real])
        assert np.isnan(without[pool.extra]).all() and len(first.extra) == 0
        assert len(set(pool.extra)) == len(pool.extra) and not set(pool.extra) & set(pool.real)
        assert ((labels[pool.extra] > 0) & (labels[pool.extra] < 1)).all() and pool.share(1) == 0.5
        drawn = pool.batches(1, 8, seed=0)
        assert drawn.shape == (2, 8) and np.isin(drawn, pool.extra).sum() == 8

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"split_sha256": "of another fold"}, "another split or fold, and may have seen what is tested here"),
            ({"labelled_sha256": "of others"}, "has learned from the labels of other patients"),
            ({"labelled_sha256": None}, "has learned from the labels of other patients"),
            ({"lr": 0.5}, "--lr was 0.001 here and 0.5 in the baseline; train the baseline again"),
            ({"control": "class-weight"}, "it is no baseline"),
        ],
    )
    def test_models_that_may_know_more_cannot_label(self, copied, changes, message):
        file = paths.classifier_model("models", "baseline_r2_", "resnet18")
        content = load_checkpoint(file)
        own = {key: changes[key] for key in changes if key in content}
        save_checkpoint(file, content | own | {"config": content["config"] | changes})
        with pytest.raises(UserError, match=rf"baseline_r2_resnet18.pth cannot label .* arm semi: .*{message}"):
            run(*copied, *SEMI)

    def test_another_draw_or_no_baseline_is_refused(self, copied):
        with pytest.raises(UserError, match="has learned from the labels of other patients"):
            run(*copied, *SEMI, "--seed", "43")
        with pytest.raises(UserError, match=r"final_metrics.json is missing: the baseline's final models label"):
            run(*copied, *SEMI, "--results-dir", "elsewhere")

    def test_a_generator_that_was_told_labels_is_refused(self, copied):
        positives = training_images().query("label == 1")
        make_synthetic(Path("told"), 4, list(positives["image_id"]), list(positives["patient"]))
        with pytest.raises(UserError, match="told: its generator was told which images are positive"):
            run(*copied, *SEMI, "--synthetic-dir", "told")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labelled-patients", "9"], "--labelled-patients needs --k-folds 0 and --epochs-final"),
        (SEMI, "the arm semi needs --labelled-patients: without it no label is hidden"),
        (["--control", "pseudo-labels"], "the arm control_pseudo needs --labelled-patients"),
        ([*FEW, "--soft-labels"], "--soft-labels needs --use-synthetic"),
        ([*SEMI, "--synthetic-schedule", "0:0.5"], "--soft-labels has a schedule of its own"),
        ([*FEW, "--use-synthetic"], "--labelled-patients is not for the arm augmented: labels that it needs are"),
        ([*FEW, "--control", "class-weight"], "--labelled-patients is not for the arm control_weight"),
    ],
)
def test_wrong_usage(in_tmp, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2 and message in capsys.readouterr().err
