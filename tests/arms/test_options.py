"""The option table of train_classifier.py: what it affects, and that one more entry is enough for a flag."""

import pytest

import train_classifier
from arms import options as arm_options
from arms.options import FIT, SHARED, TRAIN_OPTIONS, differing_options
from arms.result_files import find_arms, warnings_of
from classifier_runs import QUICK, run
from common.command_line import number
from common.options import Affects, Option, flags_set_by_study, names_affecting
from fake_results import fake_records, write_arm
from utils import UserError


def affecting(what: Affects) -> frozenset[str]:
    return names_affecting(TRAIN_OPTIONS, what)


class TestTable:
    def test_a_resumed_run_may_change_what_changes_no_number(self):
        everything = {option.name for option in TRAIN_OPTIONS}
        assert everything - affecting(Affects.RUN) == {
            "workers", "resume", "model_dir", "results_dir", "figures_dir", "synthetic_dir", "data_dir",
            "splits", "repeats", "cache_dir", "no_cache", "estimate",
            "plan",  # its SHA-256 is compared
        }  # fmt: skip

    def test_folds_stay_usable_where_nothing_changes_what_they_learned(self):
        everything = {option.name for option in TRAIN_OPTIONS}
        assert everything - affecting(Affects.FOLDS) == {
            "k_folds", "repeats", "epochs_final", "workers", "resume", "model_dir", "results_dir",
            "figures_dir", "synthetic_dir", "data_dir", "splits", "cpu", "cache_dir", "no_cache", "prefix",
            "test_set", "patient_map", "patient_column", "skip_bad_images", "estimate",
            "plan", "labelled_patients", "soft_labels",  # such arms have no folds
        }  # fmt: skip

    def test_arms_must_share_how_they_are_trained_but_not_what_they_are(self):
        more = {"seed", "test_set", "weights_trained_on", "labelled_patients"}
        assert affecting(Affects.COMPARISON) == affecting(Affects.THRESHOLDS) | more
        assert not affecting(Affects.COMPARISON) & {"use_synthetic", "control", "synthetic_ratio"}

    def test_a_study_sets_what_makes_another_arm_itself(self):
        own = flags_set_by_study(TRAIN_OPTIONS)
        assert {"--control", "--use-synthetic", "--epochs", "--data-dir"} <= own and "--lr" not in own


class TestToyFlag:
    @pytest.fixture
    def toy(self, monkeypatch) -> Option:
        option = Option("--toy", "a toy option", SHARED, type=number(int, 0), default=1, metavar="N")
        monkeypatch.setattr(arm_options, "TRAIN_OPTIONS", (*TRAIN_OPTIONS, option))
        return option

    def test_it_is_in_the_help(self, toy, capsys):
        with pytest.raises(SystemExit):
            train_classifier.main(["--help"])
        assert "--toy N" in capsys.readouterr().out

    def test_resuming_with_another_value_is_refused(self, toy, make_dataset, in_tmp, monkeypatch):
        from arms import training as arm_training

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        make_dataset()
        monkeypatch.setattr(arm_training, "fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(*QUICK, "--toy", "2")
        with pytest.raises(UserError, match="--resume: toy was 2 in the interrupted run and is 3 now"):
            run(*QUICK, "--toy", "3", "--resume")

    def test_arms_that_differ_in_it_are_warned_of(self, toy, tmp_path):
        write_arm(tmp_path, "baseline", fake_records(), config={"toy": 1})
        write_arm(tmp_path, "augmented", fake_records(), config={"toy": 4})
        flags = warnings_of(list(find_arms(tmp_path).values()))
        assert "augmented: --toy was 4 here and 1 in the baseline" in flags

    def test_an_option_that_arms_need_not_share_raises_no_warning(self, monkeypatch):
        option = Option("--toy", "a toy option", FIT)
        monkeypatch.setattr(arm_options, "TRAIN_OPTIONS", (*TRAIN_OPTIONS, option))
        assert differing_options({"toy": 1}, {"toy": 2}) == []
