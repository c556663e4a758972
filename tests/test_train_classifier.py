"""The classifier's script as users run it: flags in, files out."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from arms import data as arms_data
from classifier import load_classifier
from classifier_runs import METRICS, QUICK, frozen, make_synthetic, run, training_positives
from common import paths
from conftest import SMALL, write_csv
from networks.backbones import DEFAULT
from stats.metric_registry import classification_metrics
from utils import UserError, load_checkpoint, load_json

SCORES = ("accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "auroc", "auprc", "sensitivity",
          "specificity", "brier")  # fmt: skip
OWN = ["--weights", f"models/baseline_{SMALL}.pth", "--backbone", SMALL, "--image-size", "32"]  # as initial weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("baseline")


class TestBaselineWithFolds:
    """One run of the default options with 3 folds, whose files these tests look at."""

    @pytest.fixture(autouse=True)
    def trained(self, folder, monkeypatch, request, thin_network):
        monkeypatch.chdir(folder)
        if not (folder / "results").exists():
            make = request.getfixturevalue("make_dataset")
            data = make()
            data.parent.rename(folder / "data")
            run(*frozen(folder, DEFAULT), "--k-folds", "3")

    def test_every_promised_file_is_there(self):
        expected = [
            "models/baseline_resnet50.pth", "models/best_overall_baseline_resnet50.pth",
            "results/metrics/baseline_training_history.json", "results/metrics/baseline_final_metrics.json",
            "results/metrics/baseline_cv_summary.json", "results/metrics/baseline_test_predictions.csv",
            "results/metrics/baseline_cv_predictions.csv",
            "results/metrics/baseline_unlabelled_predictions.csv",
            "results/figures/baseline_loss.png", "results/figures/baseline_acc.png",
            "results/figures/cv_comparison.png",
        ]  # fmt: skip
        for name in expected:
            assert Path(name).stat().st_size > 0, name
        assert not Path("models/baseline_unfinished").exists()

    def test_predictions_and_metrics_agree(self):
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        table = pd.read_csv(METRICS / "baseline_test_predictions.csv")
        assert list(table) == [
            "image_id",
            "patient",
            "class",
            "view",
            "sex",
            "age",
            "label",
            "probability",
            "predicted",
        ]
        assert (table["predicted"] == (table["probability"] >= 0.5)).all()
        again = classification_metrics(table["label"].to_numpy(), table["probability"].to_numpy())
        for name in SCORES:
            assert metrics[name] == pytest.approx(again[name]), name
        assert metrics["n_images"] == len(table) and metrics["prevalence"] == table["label"].mean()

    def test_test_images_are_the_frozen_ones_and_folds_cover_the_rest(self):
        splits = pd.DataFrame(load_json("data/processed/splits.json")["images"]).set_index("image_id")
        test = pd.read_csv(METRICS / "baseline_test_predictions.csv")
        folds = pd.read_csv(METRICS / "baseline_cv_predictions.csv")
        assert set(test["image_id"]) == set(splits.index[splits["role"] == "test"])
        assert set(folds["image_id"]) == set(splits.index[splits["role"] == "train"])
        assert set(folds["fold"]) == {1, 2, 3}
        assert (folds.groupby("patient")["fold"].nunique() == 1).all()

    def test_metrics_say_where_they_come_from(self):
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["split_sha256"] == load_json("data/processed/splits.json")["sha256"]
        assert metrics["grouped_by"] == "nih_patient" and metrics["seed"] == 42
        assert metrics["red_flags"] == [] and metrics["synthetic"] is None
        best = [fold["best_epoch"] for fold in load_json(METRICS / "baseline_cv_summary.json")["folds"]]
        assert metrics["epochs_final"] == sorted(best)[1]
        assert metrics["optimizer_steps"] == metrics["epochs_final"] * -(-metrics["n_train_images"] // 8)
        for side in ("test", "out_of_fold"):
            reference = metrics["references"][side]
            assert 0 < reference["thumbnail_auroc"] <= 1 and 0 < reference["metadata_auroc"] <= 1
            low, high = reference["auroc_minus_thumbnail_ci95"]
            assert low <= reference["auroc_minus_thumbnail"] <= high
        assert metrics["references"]["test"]["always_negative_accuracy"] == 1 - metrics["prevalence"]

    def test_no_file_tells_of_this_machine(self, folder):
        for file in METRICS.iterdir():
            text = file.read_text()
            assert str(folder) not in text and socket.gethostname() not in text, file

    def test_history_and_summary(self):
        history = load_json(METRICS / "baseline_training_history.json")
        summary = load_json(METRICS / "baseline_cv_summary.json")
        assert [fold["fold"] for fold in history["folds"]] == [1, 2, 3]
        for fold, row in zip(history["folds"], summary["folds"], strict=True):
            assert all(len(fold[name]) == 3 for name in ("train_loss", "train_acc", "val_loss", "val_acc"))
            assert fold["best_epoch"] == int(np.argmin(fold["val_loss"])) + 1
            assert row["val_loss"] == min(fold["val_loss"])
        assert history["final"]["val_loss"] is None
        assert summary["contaminated"] is False and summary["k"] == 3
        for content in (history, summary):
            assert content["grouped_by"] == "nih_patient" and content["red_flags"] == []
            assert content["skipped_images"] == {"count": 0, "image_ids": []}
        accuracies = [row["accuracy"] for row in summary["folds"]]
        assert summary["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
        assert summary["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))

    def test_unlabelled_images_get_probabilities_and_nothing_else(self):
        table = pd.read_csv(METRICS / "baseline_unlabelled_predictions.csv")
        assert list(table) == ["image_id", "probability"] and len(table) == 4
        assert table["probability"].between(0, 1).all()

    def test_the_saved_model_gives_the_saved_predictions(self):
        from classifier import InputPipeline, load_classifier, predict_batches
        from data_loader import load_images
        from dataset.records import load_dataset

        model, checkpoint = load_classifier("models/baseline_resnet50.pth")
        table = pd.read_csv(METRICS / "baseline_test_predictions.csv").set_index("image_id")
        images = load_dataset("data/processed").images
        images = images[images["image_id"].isin(table.index)].reset_index(drop=True)
        pixels = load_images(images, checkpoint["image_size"]).pixels
        logits = predict_batches(
            model,
            InputPipeline(torch.from_numpy(pixels)),
            np.arange(len(pixels)),
            batch_size=8,
            precision="fp32",
        )
        expected = table.loc[images["image_id"], "probability"].to_numpy()
        # bf16 features (where the hardware has them) against fp32 ones.
        assert np.abs(torch.sigmoid(logits).numpy() - expected).max() < 0.05

    def test_same_seed_same_numbers(self, folder, unrendered):
        before = (METRICS / "baseline_test_predictions.csv").read_text()
        probabilities = pd.read_csv(METRICS / "baseline_test_predictions.csv")["probability"]
        assert probabilities.nunique() == len(probabilities), "full precision: no ties"
        run(
            *frozen(folder, DEFAULT),
            "--k-folds",
            "3",
            "--results-dir",
            "again",
            "--model-dir",
            "again",
            "--figures-dir",
            "again",
        )
        assert Path("again/baseline_test_predictions.csv").read_text(encoding="utf-8") == before


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestFeaturesComputedOnce:
    @pytest.fixture
    def counted(self, monkeypatch) -> list[int]:
        """Numbers of images that went through a frozen network."""
        import classifier

        calls, extract = [], classifier.FeatureExtractor.__call__
        monkeypatch.setattr(
            classifier.FeatureExtractor,
            "__call__",
            lambda self, pixels: (calls.append(len(pixels)), extract(self, pixels))[1],
        )
        return calls

    def test_with_and_without_a_cache_all_numbers_are_the_same(self, make_dataset, in_tmp, counted):
        """A cold cache, a warm one, one that another arm filled, and none."""
        make_dataset()
        options = [*frozen(in_tmp), "--k-folds", "2"]
        for name, more in (("cold", []), ("warm", []), ("none", ["--no-cache"])):
            counted.clear()
            run(*options, *more, "--results-dir", name, "--model-dir", name, "--figures-dir", name)
            assert sum(counted) == (0 if name == "warm" else 128 + 4)
        for file in ("baseline_test_predictions.csv", "baseline_cv_predictions.csv",
                     "baseline_unlabelled_predictions.csv"):  # fmt: skip
            assert len({(Path(name) / file).read_text() for name in ("cold", "warm", "none")}) == 1, file
        counted.clear()
        few = ["--train-fraction", "0.5", "--repeats", "2", "--seed", "7", "--epochs-final", "1"]
        run(*options, *few)
        assert sum(counted) == 0, "a fraction of the training patients, and other seeds"

    def test_unfreezing_uses_no_features(self, make_dataset, in_tmp, counted):
        make_dataset(n=48)
        run(*QUICK, "--epochs", "1", "--k-folds", "0")
        assert not counted and not Path("data/cache/features").exists()

    def test_views_are_computed_once_and_only_those_asked_for(self, make_dataset, in_tmp, counted):
        make_dataset()
        options = [*frozen(in_tmp), "--k-folds", "2", "--augment", "light", "--feature-views"]
        run(*options, "3", "--results-dir", "three")
        table = pd.read_csv("three/baseline_test_predictions.csv")
        n_test, n_train = len(table), 128 - len(table)
        assert sum(counted) == 3 * n_train + n_test + 4
        counted.clear()
        run(*options, "2", "--results-dir", "two")
        assert sum(counted) == 0, "two of the three"
        two = load_json("two/baseline_training_history.json")["folds"][0]["train_loss"]
        assert two != load_json("three/baseline_training_history.json")["folds"][0]["train_loss"]

    @pytest.mark.parametrize(
        ("more", "needs"),
        [(["--unfreeze", "--augment", "light"], "leave --unfreeze out"), ([], "needs --augment light")],
    )
    def test_views_of_nothing_are_refused_in_one_line(self, capsys, more, needs):
        with pytest.raises(SystemExit) as stop:
            run("--feature-views", "4", *more)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and needs in error and len(error.strip().splitlines()) == 1

    def test_the_analysis_finds_the_features_of_the_training_run(self, make_dataset, in_tmp, counted, quick):
        import analyze_results

        data_dir = make_dataset()
        run(*frozen(in_tmp), "--k-folds", "0", "--epochs", "1")
        positives = training_positives(data_dir)
        make_synthetic(Path("data/synthetic"), 8, list(positives["image_id"]), list(positives["patient"]))
        counted.clear()
        analysis = ["--extractor", "classifier", "--num-compare", "4", "--skip-ssim", "--no-real-images"]
        for new in (8, 0):
            analyze_results.main(analysis)
            assert sum(counted) == new, "the synthetic images, once"
            counted.clear()
        fid = load_json("results/analysis/fid_score.json")
        analyze_results.main([*analysis, "--no-cache"])
        assert load_json("results/analysis/fid_score.json") == fid and sum(counted) > 8


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestAugmented:
    @pytest.fixture
    def arms(self, data_dir):
        positives = training_positives(data_dir)
        make_synthetic(Path("data/synthetic"), 40, list(positives["image_id"]), list(positives["patient"]))
        return data_dir

    def test_equal_steps_baseline_epochs_and_contamination(self, arms, in_tmp):
        run(*frozen(in_tmp), "--k-folds", "2", "--use-synthetic", "--synthetic-ratio", "0.25")
        baseline = load_json(METRICS / "baseline_final_metrics.json")
        augmented = load_json(METRICS / "augmented_final_metrics.json")
        assert augmented["optimizer_steps"] == baseline["optimizer_steps"]
        assert augmented["epochs_final"] == baseline["epochs_final"]
        assert augmented["n_synthetic"] == round(0.25 * augmented["n_train_images"])
        assert augmented["synthetic"]["verified"] is True
        summary = load_json(METRICS / "augmented_cv_summary.json")
        assert summary["contaminated"] is True and "enter no comparison" in summary["note"]
        folds = pd.read_csv(METRICS / "augmented_cv_predictions.csv")
        assert not folds["image_id"].str.startswith("synthetic").any()

    def test_options_that_differ_from_the_baseline_are_flagged(self, arms, in_tmp):
        run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", "--lr", "0.01")
        flags = load_json(METRICS / "augmented_final_metrics.json")["red_flags"]
        assert flags == ["--lr was 0.01 here and 0.001 in the baseline"]

    def test_a_leak_is_refused_or_flagged_in_every_result(self, arms, in_tmp):
        test_ids = pd.read_csv(METRICS / "baseline_test_predictions.csv")["image_id"]
        make_synthetic(Path("data/synthetic"), 40, [test_ids[0]], [])
        with pytest.raises(UserError, match="patients of the test set"):
            run(*frozen(in_tmp), "--use-synthetic")
        assert not (METRICS / "augmented_final_metrics.json").exists()
        run(*frozen(in_tmp), "--k-folds", "0", "--use-synthetic", "--allow-unverified-synthetic")
        metrics = load_json(METRICS / "augmented_final_metrics.json")
        assert metrics["synthetic"]["verified"] is False
        assert any("saw patients of 2 test images" in flag for flag in metrics["red_flags"])
        assert load_json(METRICS / "augmented_training_history.json")["red_flags"] == metrics["red_flags"]

    def test_without_a_baseline_the_number_of_epochs_must_be_given(self, arms, in_tmp):
        (METRICS / "baseline_final_metrics.json").unlink()
        with pytest.raises(UserError, match="train the baseline first.*--epochs-final"):
            run(*frozen(in_tmp), "--use-synthetic")
        run(*frozen(in_tmp), "--use-synthetic", "--epochs-final", "1", "--k-folds", "0")
        assert load_json(METRICS / "augmented_final_metrics.json")["epochs_final"] == 1


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestInitialWeights:
    """A classifier of this project as --weights has seen training images already."""

    def test_of_another_split_they_are_refused(self, data_dir, make_dataset):
        make_dataset("data/other", n=160)
        with pytest.raises(UserError, match="--weights .* was trained on another split"):
            run("--data-dir", "data/other", *OWN)

    def test_of_the_same_split_they_are_flagged_and_contaminate_the_folds(self, data_dir):
        own = [*OWN, "--epochs", "1"]
        run(*own, "--k-folds", "2", "--results-dir", "second", "--model-dir", "second")
        summary = load_json("second/baseline_cv_summary.json")
        assert summary["contaminated"] is True
        assert any("had learned from these training images" in flag for flag in summary["red_flags"])
        with pytest.raises(UserError, match=f"models/baseline_{SMALL}.pth says itself that it is a checkpoint"):
            run(*own, "--weights-trained-on", "ImageNet")
        checkpoint = load_checkpoint(f"second/baseline_{SMALL}.pth")
        assert checkpoint["weights_flags"] == summary["red_flags"][:1]
        assert "weights_flags" not in load_checkpoint(f"models/baseline_{SMALL}.pth")

    @pytest.mark.parametrize(
        ("more", "message"),
        [([], "nobody knows what it was trained on.*--weights-trained-on NAME"),
         (["--weights-trained-on", "NIH + CheXpert"], "RSNA's images are a part of NIH ChestX-ray14.*--allow-unver")],
    )  # fmt: skip
    def test_foreign_ones_end_before_an_image_is_decoded(self, make_dataset, in_tmp, monkeypatch, more, message):
        make_dataset()
        monkeypatch.setattr("arms.data.load_images", lambda *_, **__: pytest.fail("an image was decoded"))
        quick = frozen(in_tmp)
        del quick[2:4]
        with pytest.raises(UserError, match=message):
            run(*quick, *more)
        torch.save({"state_dict": None}, in_tmp / "weights.pth")
        with pytest.raises(UserError, match="weights.pth holds no ResNet-18.*'state_dict': NoneType"):
            run(*quick, "--weights-trained-on", "ImageNet")

    def test_allowed_ones_flag_every_result_and_what_is_trained_from_them(self, make_dataset, in_tmp):
        make_dataset()
        quick = [*frozen(in_tmp), "--k-folds", "2", "--epochs", "1", "--allow-unverified-weights"]
        quick[3] = "NIH"
        run(*quick)
        flag = ("--weights weights.pth was trained on NIH, says its user: RSNA's images are a part of NIH "
                "ChestX-ray14, so it may have seen the test patients")  # fmt: skip
        for name in ("final_metrics", "cv_summary", "training_history"):
            content = load_json(METRICS / f"baseline_{name}.json")
            assert content["red_flags"] == [flag], name
            assert content["config"]["weights_trained_on"] == "NIH" and len(content["weights_sha256"]) == 64
        assert load_json(METRICS / "baseline_cv_summary.json")["contaminated"] is True
        own = [*OWN, "--epochs", "1", "--k-folds", "0"]
        with pytest.raises(UserError, match="is of unverified origin: --weights weights.pth was trained on NIH"):
            run(*own)
        run(*own, "--allow-unverified-weights", "--prefix", "second")
        assert flag in load_json(METRICS / "second_final_metrics.json")["red_flags"]


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestWithoutFolds:
    def test_folds_of_an_earlier_run_of_the_same_options_choose_the_epoch(self, make_dataset, in_tmp):
        make_dataset()
        run(*frozen(in_tmp), "--k-folds", "2")
        with_folds = load_json(METRICS / "baseline_final_metrics.json")
        folds = (METRICS / "baseline_cv_predictions.csv").read_text()
        curves = load_json(METRICS / "baseline_training_history.json")["folds"]
        run(*frozen(in_tmp), "--k-folds", "0", "--prefix", "baseline")
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["epochs_final_from"] == "median best epoch of the 2 folds of an earlier run"
        for key in ("epochs_final", "accuracy", "auroc", "references"):
            assert metrics[key] == with_folds[key], key
        assert (METRICS / "baseline_cv_predictions.csv").read_text() == folds
        assert load_json(METRICS / "baseline_training_history.json")["folds"] == curves and len(curves) == 2

    def test_one_validation_tenth_chooses_the_epoch_and_folds_of_other_options_go(self, make_dataset, in_tmp, capsys):
        make_dataset()
        run(*frozen(in_tmp), "--k-folds", "2")
        assert (METRICS / "baseline_cv_summary.json").is_file()
        run(*frozen(in_tmp), "--k-folds", "0", "--lr", "0.002")
        said = capsys.readouterr().out
        warning = said.index("of another run (--lr was 0.001 there and is 0.002 here) and will be removed")
        assert warning < said.index("last layer only, weights weights.pth", warning), "before training"
        history = load_json(METRICS / "baseline_training_history.json")
        assert [fold["fold"] for fold in history["folds"]] == [0]
        assert history["final"]["epochs"] == history["folds"][0]["best_epoch"]
        assert not (METRICS / "baseline_cv_summary.json").exists()
        assert not Path(f"models/best_overall_baseline_{SMALL}.pth").exists()
        assert load_json(METRICS / "baseline_final_metrics.json")["references"]["out_of_fold"] is None


@pytest.mark.usefixtures("unrendered")
class TestUnfrozen:
    def test_it_learns_bright_squares(self, make_dataset, in_tmp, thin_network):
        make_dataset()
        learning = ["--epochs", "8", "--epochs-final", "8", "--schedule", "onecycle", "--augment", "light"]
        run(*QUICK, *learning, "--batch-size", "12", "--k-folds", "0")
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["auroc"] > 0.9
        state = load_checkpoint(paths.classifier_model("models", "baseline_", SMALL))["state_dict"]
        assert "backbone.layer4.0.bn1.running_mean" in state and "head.weight" in state

    def test_interrupted_and_resumed_is_uninterrupted(self, make_dataset, in_tmp, monkeypatch, capsys, thin_network):
        from arms import training as arm_training

        make_dataset(n=48)
        options = [*QUICK, "--k-folds", "2", "--image-size", "32"]
        run(*options, "--results-dir", "whole", "--model-dir", "whole", "--figures-dir", "whole")
        fit, calls = arm_training.fit, []

        def interrupted(*args, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return fit(*args, **kwargs)

        monkeypatch.setattr(arm_training, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(*options)
        assert not METRICS.exists(), "nothing half-made"
        with pytest.raises(UserError, match="--resume: lr was 0.001 in the interrupted run and is 0.1 now"):
            run(*options, "--lr", "0.1", "--resume")
        run(*options, "--resume")
        assert "fold_1: finished before the interruption" in capsys.readouterr().out
        for name in ("baseline_test_predictions.csv", "baseline_cv_predictions.csv"):
            assert (METRICS / name).read_text() == (Path("whole") / name).read_text(), name
        here, whole = (load_json(f / "baseline_training_history.json") for f in (METRICS, Path("whole")))
        assert here["folds"] == whole["folds"] and here["final"] == whole["final"]
        run(*options, "--resume")
        assert "nothing to resume" in capsys.readouterr().out


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestBadData:
    def test_bad_images_stop_or_are_counted_in_every_result(self, make_dataset, in_tmp):
        data_dir = make_dataset()
        (paths.training_images(data_dir) / "img-0003.png").unlink()
        with pytest.raises(UserError, match="img-0003"):
            run(*frozen(in_tmp))
        run(*frozen(in_tmp), "--k-folds", "0", "--skip-bad-images")
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["skipped_images"] == {"count": 1, "image_ids": ["img-0003"]}
        assert any("1 missing or unreadable" in flag for flag in metrics["red_flags"])

    def test_grouping_by_image_is_flagged(self, make_dataset, in_tmp):
        make_dataset(with_map=False)
        run(*frozen(in_tmp), "--k-folds", "0")
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["grouped_by"] == "image_id"
        assert any("grouped by image id" in flag for flag in metrics["red_flags"])

    def test_red_flags_of_the_data_reach_the_results(self, make_dataset, in_tmp, monkeypatch, capsys):
        make_dataset()
        load = arms_data.load_dataset
        findings = {"notes": ["sex: Male -> M"], "red_flags": ["half of the images are black"]}
        monkeypatch.setattr(arms_data, "load_dataset", lambda *given: replace(load(*given), **findings))
        run(*frozen(in_tmp), "--k-folds", "0")
        assert load_json(METRICS / "baseline_final_metrics.json")["red_flags"] == findings["red_flags"]
        printed = capsys.readouterr().out
        assert "note: sex: Male -> M" in printed and "RED FLAG: half of the images are black" in printed

    def test_a_placeholder_test_csv_is_never_scored(self, make_dataset, in_tmp):
        make_dataset()
        with pytest.raises(
            UserError, match="--test-set official: the official test images have no labels.*placeholder"
        ):
            run(*frozen(in_tmp), "--test-set", "official")

    def test_a_labelled_official_test_set_is_scored_and_said(self, make_dataset, in_tmp):
        data_dir = make_dataset()
        rows = [{"patientId": f"test-{i}", "Target": int(i < 2)} for i in range(4)]
        write_csv(data_dir / paths.TEST_METADATA, rows)
        run(*frozen(in_tmp), "--k-folds", "0", "--test-set", "official")
        metrics = load_json(METRICS / "baseline_final_metrics.json")
        assert metrics["test_set"] == "official" and metrics["n_images"] == 4
        assert not (METRICS / "baseline_unlabelled_predictions.csv").exists()

    def test_without_any_readable_image_there_is_nothing_to_train(self, make_dataset, in_tmp):
        data_dir = make_dataset()
        for file in paths.training_images(data_dir).iterdir():
            file.unlink()
        with pytest.raises(UserError, match="readable training images are of one class only"):
            run(*frozen(in_tmp), "--skip-bad-images")

    def test_a_schedule_shorter_than_the_baselines_epochs_is_refused(self, make_dataset, in_tmp):
        data_dir = make_dataset()
        run(*frozen(in_tmp), "--k-folds", "0", "--epochs-final", "3")
        positives = training_positives(data_dir)
        make_synthetic(Path("data/synthetic"), 4, list(positives["image_id"]), list(positives["patient"]))
        with pytest.raises(UserError, match="--schedule onecycle ends after --epochs 1"):
            run(*frozen(in_tmp), "--use-synthetic", "--epochs", "1", "--schedule", "onecycle")


@pytest.mark.usefixtures("unrendered", "thin_network")
class TestBackbones:
    @pytest.mark.parametrize(
        ("backbone", "flags"),
        [("resnet18", [*QUICK, "--epochs", "1"]), ("efficientnet_lite0", ["--image-size", "32", "--epochs", "2"])],
    )
    def test_another_backbone_has_files_of_its_name(self, make_dataset, in_tmp, backbone, flags):
        """EfficientNet-Lite0 has real ImageNet weights here, frozen; a thin ResNet is trained from scratch."""
        make_dataset()
        run("--backbone", backbone, *flags, "--k-folds", "2")
        assert {file.name for file in Path("models").glob("*.pth")} == {
            f"baseline_{backbone}.pth", f"best_overall_baseline_{backbone}.pth",
        }  # fmt: skip
        model, checkpoint = load_classifier(f"models/baseline_{backbone}.pth")
        assert model.name == checkpoint["backbone"] == backbone
        assert load_json(METRICS / "baseline_final_metrics.json")["config"]["backbone"] == backbone

    def test_missing_weights_end_before_anything_is_written(self, make_dataset, in_tmp, monkeypatch):
        make_dataset()
        monkeypatch.setenv("TORCH_HOME", str(in_tmp / "empty"))
        monkeypatch.setattr(
            "networks.backbone_builder.imagenet_url", lambda _: "http://127.0.0.1:9/resnet50-0676ba61.pth"
        )
        with pytest.raises(UserError, match="resnet50-0676ba61.pth.*--weights none --unfreeze"):
            run("--image-size", "32")
        assert not METRICS.exists()

    @pytest.mark.parametrize(
        "argv",
        [["--k-folds", "1"], ["--lr", "0"], ["--epochs", "0"], ["--augment", "heavy"], ["--epoch", "3"],
         ["--batch-size", "x"], ["--synthetic-ratio", "1"],
         ["--schedule", "onecycle", "--epochs-final", "99"], ["--control", "more"], ["--repeats", "0"],
         ["--control", "class-weight", "--use-synthetic"], ["--pretrain-synthetic", "2"],
         ["--synthetic-schedule", "0:0.5"], ["--train-fraction", "0"], ["--train-fraction", "1.5"],
         ["--use-synthetic", "--pretrain-synthetic", "2", "--synthetic-schedule", "0:0.5"],
         ["--prefix", "a/b"], ["--prefix", "gan_"], ["--prefix", "baseline_r1_"], ["--prefix", "_"],
         ["--prefix", "baseline_r1_more"], ["--prefix", "best_overall_baseline"],
         ["--prefix", "gan_fold_1"], ["--prefix", "augmented"], ["--use-synthetic", "--prefix", "baseline"],
         ["--compile"], ["--weights-trained-on", "ImageNet"], ["--allow-unverified-weights"],
         ["--weights", "none", "--unfreeze", "--weights-trained-on", "NIH"]],
    )  # fmt: skip
    def test_wrong_usage_is_exit_code_2(self, argv):
        with pytest.raises(SystemExit) as stop:
            run(*argv)
        assert stop.value.code == 2
