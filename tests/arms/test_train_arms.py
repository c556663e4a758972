"""The arms beside the baseline, as users train them: controls, schedules, repeats, clean folds, fractions."""

import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classifier_runs import METRICS, frozen, make_synthetic, run, training_positives
from common import paths
from conftest import SMALL
from dataset.splits import assign_folds, load_or_create_splits
from utils import UserError, load_checkpoint, load_json

pytestmark = pytest.mark.usefixtures("unrendered", "thin_network")


def metrics_of(name: str) -> dict:
    return load_json(METRICS / f"{name}_final_metrics.json")


@pytest.fixture
def data_dir(data_dir) -> Path:
    """A dataset, a baseline without folds, and 40 synthetic images of a generator of all positives."""
    positives = training_positives(data_dir)
    make_synthetic(Path("data/synthetic"), 40, list(positives["image_id"]), list(positives["patient"]))
    return data_dir


class TestResolution:
    """Synthetic images of 16 pixels in a classifier of 32."""

    @pytest.fixture
    def coarse(self, data_dir) -> Path:
        folder = Path("data/synthetic")
        for file in folder.glob(paths.SYNTHETIC_PATTERN):
            with Image.open(file) as image:
                image.resize((16, 16)).save(file)
        return folder

    def test_blurry_positives_are_flagged_and_reducing_all_images_takes_that_away(self, coarse, in_tmp):
        quick = [*frozen(in_tmp), "--k-folds", "0"]
        run(*quick, "--use-synthetic")
        metrics = metrics_of("augmented")
        assert any("blurry positives" in flag for flag in metrics["red_flags"])
        assert metrics["synthetic"]["side"] == 16 and metrics["config"]["match_resolution"] is None
        run(*quick, "--use-synthetic", "--match-resolution", "16")
        flags = metrics_of("augmented")["red_flags"]
        assert flags == ["--match-resolution was 16 here and None in the baseline"]
        before = pd.read_csv(METRICS / "baseline_test_predictions.csv")["probability"]
        run(*quick, "--match-resolution", "16")
        after = pd.read_csv(METRICS / "baseline_test_predictions.csv")["probability"]
        assert not np.allclose(before, after), "the baseline saw reduced images"

    def test_images_that_would_stay_blurrier_are_refused(self, coarse, in_tmp):
        with pytest.raises(UserError, match="give --match-resolution 16 in every arm"):
            run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", "--match-resolution", "20")

    def test_a_reduction_to_no_fewer_pixels_is_wrong_usage(self, in_tmp, capsys):
        with pytest.raises(SystemExit):
            run("--image-size", "64", "--match-resolution", "64")
        assert "--match-resolution 64 reduces nothing: give fewer pixels than" in capsys.readouterr().err


class TestControls:
    def test_duplicates_are_as_many_real_positives_as_there_are_synthetic_images(self, data_dir, in_tmp, monkeypatch):
        from arms import training as arm_training

        pools, fit = [], arm_training.fit_heads
        monkeypatch.setattr(
            arm_training,
            "fit_heads",
            lambda *a, **k: (pools.extend((task.pool, a[2]) for task in a[0]), fit(*a, **k))[1],
        )
        run(*frozen(in_tmp), "--k-folds", "0", "--control", "duplicate-positives")
        pool, labels = pools[-1]
        n_real = metrics_of("baseline")["n_train_images"]
        assert len(pool.extra) == 40 and set(pool.extra) <= set(range(n_real))
        assert (labels.numpy()[pool.extra] == 1).all()
        assert len(set(pool.extra)) < 40, "with replacement, from fewer positives than 40"
        metrics = metrics_of("control_duplicate")
        assert metrics["n_duplicated"] == 40 and metrics["n_synthetic"] == 0
        assert metrics["optimizer_steps"] == metrics_of("baseline")["optimizer_steps"]
        assert metrics["epochs_final_from"] == "the baseline's"

    def test_class_weights_are_those_of_the_augmented_balance(self, data_dir, in_tmp):
        run(*frozen(in_tmp), "--k-folds", "0", "--control", "class-weight", "--synthetic-ratio", "0.25")
        metrics, positives = metrics_of("control_weight"), len(training_positives(data_dir))
        n = metrics["n_train_images"]
        extra = round(0.25 * n)
        negative, positive = metrics["class_weights"]
        assert positive * positives / (negative * (n - positives)) == pytest.approx(
            (positives + extra) / (n - positives)
        )
        assert metrics["n_duplicated"] == metrics["n_synthetic"] == 0

    def test_a_control_never_trains_on_synthetic_images_so_their_origin_does_not_matter(self, data_dir, in_tmp):
        paths.synthetic_manifest("data/synthetic").unlink()
        run(*frozen(in_tmp), "--k-folds", "2", "--control", "duplicate-positives")
        assert metrics_of("control_duplicate")["red_flags"] == []
        assert load_json(METRICS / "control_duplicate_cv_summary.json")["contaminated"] is False

    def test_without_synthetic_images_nobody_knows_how_many(self, data_dir, in_tmp):
        with pytest.raises(UserError, match="elsewhere holds no synthetic images"):
            run(*frozen(in_tmp), "--control", "duplicate-positives", "--synthetic-dir", "elsewhere")


class TestLabels:
    """Synthetic images of a conditional generator: 12 positives and 24 normal ones, in two folders."""

    BOTH = ("--synthetic-dir", "data/ill", "data/normal")

    @pytest.fixture
    def both(self, data_dir) -> pd.DataFrame:
        """The training images, all of which the generator has seen."""
        images = pd.DataFrame(load_json(data_dir / paths.SPLITS)["images"])
        train = images[images["role"] == "train"]
        origin = list(train["image_id"]), list(train["patient"])
        make_synthetic(Path("data/ill"), 12, *origin, **{"class": "lung_opacity"})
        make_synthetic(Path("data/normal"), 24, *origin, label=0, **{"class": "normal"})
        return train

    @pytest.fixture
    def tasks(self, monkeypatch) -> list:
        """(name, pool, labels of the inputs, class weights) of every fit."""
        from arms import training as arm_training

        found, fit = [], arm_training.fit_heads
        monkeypatch.setattr(
            arm_training,
            "fit_heads",
            lambda *a, **k: (
                found.extend((task.name, task.pool, a[2].numpy(), task.class_weights) for task in a[0]),
                fit(*a, **k),
            )[1],
        )
        return found

    def test_two_folders_join_training_with_their_labels(self, both, tasks, in_tmp, capsys):
        run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", *self.BOTH)
        _, pool, labels, _ = tasks[-1]
        assert len(pool.extra) == 36 and labels[pool.extra].sum() == 12
        assert f"{len(both)} real + 36 synthetic (12 of them positive) training" in capsys.readouterr().out
        metrics = metrics_of("augmented")
        assert (metrics["n_synthetic"], metrics["n_extra_positive"]) == (36, 12)
        assert metrics["config"]["synthetic_dir"] == ["data/ill", "data/normal"]
        assert metrics["red_flags"] == [] and metrics["synthetic"]["label"] is None
        folders = [(row["dir"], row["label"], row["class"]) for row in metrics["synthetic"]["folders"]]
        assert folders == [("data/ill", 1, "lung_opacity"), ("data/normal", 0, "normal")]
        assert metrics["optimizer_steps"] == metrics_of("baseline")["optimizer_steps"]
        sha256 = metrics["manifest_sha256"]["0"]
        assert sha256 == metrics["synthetic"]["manifest_sha256"]
        assert sha256 not in [row["manifest_sha256"] for row in metrics["synthetic"]["folders"]]

    def test_a_ratio_takes_of_each_folder_in_proportion(self, both, tasks, in_tmp):
        ratio = 18 / len(both)
        run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", *self.BOTH, "--synthetic-ratio", f"{ratio}")
        _, pool, labels, _ = tasks[-1]
        assert len(pool.extra) == 18 and labels[pool.extra].sum() == 6

    def test_controls_stand_for_the_labels_of_the_synthetic_images(self, both, tasks, in_tmp):
        options = [*frozen(in_tmp), "--k-folds", "0", *self.BOTH]
        run(*options, "--control", "duplicate-positives")
        _, pool, labels, _ = tasks[-1]
        assert pool.extra.max() < len(both), "real images"
        assert len(pool.extra) == 36 and labels[pool.extra].sum() == 12
        run(*options, "--control", "class-weight")
        negative, positive = tasks[-1][3]
        n, n_positive = len(both), int(both["label"].sum())
        assert positive * n_positive / (negative * (n - n_positive)) == pytest.approx(
            (n_positive + 12) / (n - n_positive + 24)
        )

    def test_negatives_alone_are_trained_on_as_negatives(self, both, tasks, in_tmp):
        options = [*frozen(in_tmp), "--k-folds", "0", "--synthetic-dir", "data/normal"]
        for more in (["--use-synthetic"], ["--control", "duplicate-positives"]):
            run(*options, *more)
            _, pool, labels, _ = tasks[-1]
            assert len(pool.extra) == 24 and not labels[pool.extra].any()
        assert metrics_of("augmented")["config"]["synthetic_dir"] == "data/normal"
        assert metrics_of("augmented")["synthetic"]["label"] == 0
        assert metrics_of("control_duplicate")["n_extra_positive"] == 0

    def test_a_generator_that_saw_negatives_of_a_fold_or_of_the_test_set_is_found_out(self, both, data_dir, in_tmp):
        run(*frozen(in_tmp), "--k-folds", "2", "--use-synthetic", *self.BOTH)
        assert load_json(METRICS / "augmented_cv_summary.json")["contaminated_folds"] == [1, 2]
        images = pd.DataFrame(load_json(data_dir / paths.SPLITS)["images"])
        unseen = images[(images["role"] == "test") & (images["label"] == 0)].iloc[0]
        make_synthetic(Path("data/normal"), 24, [*both["image_id"], unseen["image_id"]], list(both["patient"]), label=0)
        with pytest.raises(UserError, match=r"normal: its generator was trained on patients of the test set"):
            run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", *self.BOTH)

    def test_each_folder_may_have_folds_of_its_own(self, both, data_dir, tasks, in_tmp):
        from dataset.records import load_dataset

        folds = assign_folds(load_or_create_splits(load_dataset(data_dir)), 2)
        for folder, label, n in (("data/ill", 1, 4), ("data/normal", 0, 8)):
            for fold in (1, 2):
                seen = both[both["image_id"].map(folds) != fold]
                origin = list(seen["image_id"]), list(seen["patient"])
                make_synthetic(paths.synthetic_fold(folder, fold), n, *origin, label=label)
        run(*frozen(in_tmp), "--k-folds", "2", "--use-synthetic", *self.BOTH)
        for name, pool, labels, _ in tasks[-3:]:
            expected = (36, 12) if name.startswith("final") else (12, 4)
            assert (len(pool.extra), labels[pool.extra].sum()) == expected, name
        assert load_json(METRICS / "augmented_cv_summary.json")["contaminated"] is False
        assert metrics_of("augmented")["synthetic"]["folds_of_their_own"] == [1, 2]


class TestSchedules:
    def test_a_curriculum_and_pretraining_have_names_and_shares_of_their_own(self, data_dir, in_tmp):
        options = [*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", "--epochs-final", "3"]
        run(*options, "--synthetic-schedule", "0:0,1:0.25,2:0.5")
        assert metrics_of("curriculum")["synthetic_shares"] == [[1, 0.0], [2, 0.25], [3, 0.5]]
        run(*options, "--pretrain-synthetic", "1")
        assert metrics_of("pretrain")["synthetic_shares"] == [[1, None], [2, 0.0]]
        run(*options, "--prefix", "mine")
        assert metrics_of("mine")["n_synthetic"] == 40
        steps = {metrics_of(name)["optimizer_steps"] for name in ("curriculum", "pretrain", "mine")}
        assert len(steps) == 1

    def test_a_schedule_beyond_the_last_epoch_is_refused(self, data_dir, in_tmp):
        options = [*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", "--epochs-final", "3"]
        with pytest.raises(UserError, match="--pretrain-synthetic still changes after epoch 3"):
            run(*options, "--pretrain-synthetic", "3")
        with pytest.raises(UserError, match="--synthetic-schedule still changes after epoch 7"):
            run(*options, "--synthetic-schedule", "0:0.1,7:0.5")


class TestRepeats:
    def test_the_arm_is_the_mean_of_its_repeats_and_each_is_a_run_of_its_own_seed(self, make_dataset, in_tmp):
        make_dataset()
        options = [*frozen(in_tmp), "--k-folds", "0", "--epochs-final", "2"]
        run(*options, "--repeats", "3")
        tables = [pd.read_csv(METRICS / f"baseline_r{r}_test_predictions.csv") for r in (1, 2, 3)]
        mean = pd.read_csv(METRICS / "baseline_test_predictions.csv")
        stacked = np.stack([table["probability"] for table in tables])
        assert np.allclose(mean["probability"], stacked.mean(axis=0), atol=1e-12)
        assert (stacked.std(axis=0) > 0).all(), "seeds differ"
        metrics = metrics_of("baseline")
        assert metrics["repeats"] == 3 and metrics["seeds"] == [42, 43, 44]
        assert [row["seed"] for row in metrics["per_repeat"]] == [42, 43, 44]
        for r, row in enumerate(metrics["per_repeat"], start=1):
            assert metrics_of(f"baseline_r{r}")["accuracy"] == row["accuracy"]
        run(*options, "--seed", "43", "--results-dir", "alone", "--model-dir", "alone")
        alone = pd.read_csv("alone/baseline_test_predictions.csv")
        assert np.allclose(alone["probability"], tables[1]["probability"], atol=1e-6)
        states = [load_checkpoint(f"models/{name}_{SMALL}.pth")["state_dict"]["head.weight"]
                  for name in ("baseline", "baseline_r1", "baseline_r2")]  # fmt: skip
        assert states[0].equal(states[1]) and not states[0].equal(states[2])

    def test_fewer_repeats_leave_nothing_of_the_earlier_ones(self, make_dataset, in_tmp):
        make_dataset()
        options = [*frozen(in_tmp), "--k-folds", "0", "--epochs-final", "1"]
        run(*options, "--repeats", "2")
        assert list(METRICS.glob("baseline_r2_*")) and list(Path("models").glob("baseline_r2_*"))
        run(*options)
        assert not list(METRICS.glob("baseline_r?_*")) and not list(Path("models").glob("baseline_r?_*"))
        assert metrics_of("baseline")["repeats"] == 1

    def test_resumed_runs_do_not_train_finished_repeats_again(self, make_dataset, in_tmp, monkeypatch, capsys):
        from arms import training as arm_training

        make_dataset()
        options = [*frozen(in_tmp), "--k-folds", "0", "--epochs-final", "1"]
        fit, trained, save = arm_training.fit_heads, [], arm_training.save_checkpoint

        def interrupted(path, content):
            if path.name == "final_r2.pth":
                raise KeyboardInterrupt
            save(path, content)

        monkeypatch.setattr(arm_training, "save_checkpoint", interrupted)
        monkeypatch.setattr(
            arm_training,
            "fit_heads",
            lambda tasks, *a, **k: (trained.append([task.name for task in tasks]), fit(tasks, *a, **k))[1],
        )
        with pytest.raises(KeyboardInterrupt):
            run(*options, "--repeats", "2")
        monkeypatch.setattr(arm_training, "save_checkpoint", save)
        run(*options, "--repeats", "3", "--resume")
        assert "final_r1: finished before the interruption" in capsys.readouterr().out
        assert trained == [["final r1", "final r2"], ["final r2", "final r3"]]
        assert metrics_of("baseline")["repeats"] == 3


class TestCleanFolds:
    def test_fold_folders_make_the_folds_clean_and_the_main_folder_the_final_model(self, data_dir, in_tmp, monkeypatch):
        from arms import training as arm_training
        from dataset.records import load_dataset

        folds = assign_folds(load_or_create_splits(load_dataset(data_dir)), 2)
        positives = training_positives(data_dir)
        for fold, count in ((1, 8), (2, 12)):
            seen = positives[positives["image_id"].map(folds) != fold]
            folder = paths.synthetic_fold("data/synthetic", fold)
            make_synthetic(folder, count, list(seen["image_id"]), list(seen["patient"]))
        pools, fit = {}, arm_training.fit_heads
        monkeypatch.setattr(
            arm_training,
            "fit_heads",
            lambda *a, **k: (pools.update({task.name: task.pool for task in a[0]}), fit(*a, **k))[1],
        )
        run(*frozen(in_tmp), "--k-folds", "2", "--use-synthetic")
        n = metrics_of("augmented")["n_train_images"]
        assert list(pools["final r1"].extra) == list(range(n, n + 40))
        assert list(pools["fold 1"].extra) == list(range(n + 40, n + 48))
        assert list(pools["fold 2"].extra) == list(range(n + 48, n + 60))
        assert load_json(METRICS / "augmented_cv_summary.json")["contaminated"] is False
        assert metrics_of("augmented")["synthetic"]["folds_of_their_own"] == [1, 2]

    def test_a_fold_whose_generator_saw_another_image_of_its_patients_is_contaminated(self, data_dir, in_tmp):
        from dataset.records import load_dataset

        folds = assign_folds(load_or_create_splits(load_dataset(data_dir)), 2)
        positives = training_positives(data_dir)
        clean = positives[positives["image_id"].map(folds) != 1]
        make_synthetic(paths.synthetic_fold("data/synthetic", 1), 8, list(clean["image_id"]), [])
        leaky = positives[positives["image_id"].map(folds) != 2]
        one_more = positives[positives["image_id"].map(folds) == 2]["patient"].iloc[0]
        make_synthetic(paths.synthetic_fold("data/synthetic", 2), 8, list(leaky["image_id"]), [one_more])
        run(*frozen(in_tmp), "--k-folds", "2", "--use-synthetic")
        summary = load_json(METRICS / "augmented_cv_summary.json")
        assert summary["contaminated_folds"] == [2]
        assert "come from the baseline's folds" in summary["note"]

    def test_fold_folders_of_another_class_are_refused(self, tmp_path):
        """Both are negatives, but the final model and the folds would learn from different ones."""
        from arms import data as arm_data

        fold = paths.synthetic_manifest(paths.synthetic_fold(tmp_path, 1))
        fold.parent.mkdir()
        fold.touch()
        classes = {tmp_path: "normal", fold.parent: "not_normal"}

        def load(place):
            facts = {"label": 0, "class_flag": classes[place], "red_flags": [], "generator_patients": set()}
            return types.SimpleNamespace(**facts)

        with pytest.raises(UserError, match="other labels or classes"):
            arm_data._sets_of_folder(tmp_path, 1, load)
        classes[tmp_path] = "not_normal"
        assert list(arm_data._sets_of_folder(tmp_path, 1, load)) == [0, 1]


class TestTrainFraction:
    def test_a_fraction_trains_on_fewer_patients_and_tests_on_the_same_images(self, data_dir, in_tmp):
        whole = metrics_of("baseline")
        test_images = pd.read_csv(METRICS / "baseline_test_predictions.csv")["image_id"]
        options = [*frozen(in_tmp), "--k-folds", "0", "--train-fraction", "0.5", "--results-dir", "half"]
        run(*options)
        half = load_json("half/baseline_final_metrics.json")
        assert half["train_fraction"] == 0.5
        assert half["n_train_patients"] == pytest.approx(whole["n_train_patients"] / 2, abs=1)
        assert half["split_sha256"] == whole["split_sha256"]
        assert list(pd.read_csv("half/baseline_test_predictions.csv")["image_id"]) == list(test_images)
        # The generator of the synthetic images learned from all the patients: more than this arm has.
        run(*options, "--use-synthetic")
        flags = load_json("half/augmented_final_metrics.json")["red_flags"]
        assert len(flags) == 1 and "patients that this classifier does not train on" in flags[0]

    def test_a_baseline_of_another_fraction_gives_no_epochs(self, data_dir, in_tmp):
        with pytest.raises(UserError, match="is of --train-fraction 1, not 0.5"):
            run(*frozen(in_tmp), "--k-folds", "0", "--train-fraction", "0.5", "--use-synthetic")
