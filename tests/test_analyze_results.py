"""The script as users run it, on made-up results and phantoms; then its files are read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from analyze_results import main
from arms.options import TRAIN_OPTIONS, differing_options
from arms.result_files import (
    Arm,
    find_arms,
    warnings_of,
    why_not_comparable,
)
from common import paths
from common.file_formats import format_problems
from common.options import Affects, names_affecting
from comparison.arms import compare_arms
from comparison.image_file_formats import FidScore, ImageQuality, SsimAnalysis
from fake_results import fake_records, held_out_records, write_arm, write_classifier, write_synthetic
from networks import backbone_builder
from networks.backbone_builder import LITE_PACKAGE  # which most tests take away
from phantom.dataset import make_phantom_dataset
from utils import UserError, load_json, save_json, without_folders

CLAIMS = re.compile(
    r"improv|significan|better|worse|outperform|superior|inferior|succe|enhanc|boost|\bbeat|\bgain|\bwin(s|ner)?\b",
    re.IGNORECASE,
)
# The only places where the two words may stand: verdicts of comparison.json, word for word.
VERDICTS = re.compile(
    r"(is|and) (better|worse) in (accuracy|AUROC) \(|verdict, (accuracy|AUROC)</dt><dd>(better|worse)<"
    r"|verdict, (accuracy|AUROC) +(better|worse)$|\"(accuracy|auroc)_verdict\": \"(better|worse)\"",
    re.MULTILINE,
)


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """No pretrained weights either, of a package or from the network."""

    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which every other script has run, as far as files can tell."""
    root = tmp_path_factory.mktemp("finished")
    data_dir = make_phantom_dataset(root / "data", 160, image_size=48, num_test_images=2, workers=1)
    records, split = held_out_records(data_dir)
    write_arm(root / "metrics", "baseline", records, folds=3, split_sha256=split)
    write_arm(root / "metrics", "augmented", records, folds=3, seed=1, contaminated=True, n_synthetic=24,
              split_sha256=split)  # fmt: skip
    write_synthetic(root / "synthetic", data_dir)
    write_classifier(root / "models", split)
    return root


def flags(root: Path, **changes: Path | str) -> list[str]:
    folders = {"metrics_dir": "metrics", "analysis_dir": "analysis", "data_dir": "data",
               "synthetic_dir": "synthetic", "model_dir": "models"}  # fmt: skip
    values = {name: root / folder for name, folder in folders.items()} | changes
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
    return [word for pair in pairs for word in pair] + ["--cpu", "--workers", "1", "--num-compare", "10"]


def read_report(folder: Path) -> str:
    return paths.comparison_report(folder).read_text()


def one_line(text: str) -> str:
    return " ".join(text.split())


# --- everything there ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def analysed(finished) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(finished / "torch"))
        patch.setattr(torch.hub, "download_url_to_file", _unreachable)
        patch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")
        main(flags(finished))
    return finished / "analysis"


def _unreachable(*_args, **_kwargs):
    raise urllib.error.URLError("no network in tests")


def test_all_documented_files_are_written(analysed):
    assert {file.name for file in analysed.iterdir()} == {
        "comparison_acc.png", "comparison_loss.png", "cv_comparison.png", "ssim_analysis.json",
        "fid_score.json", "real_vs_synthetic_comparison.png", "comparison_report.txt", "comparison.json",
        "report.html", "image_quality.json", "roc_pr.png", "calibration.png", "confusion.png",
        "subgroups.png", "differences.png", "nearest_neighbours.png", "gradcam.png", "patient_flow.json",
        "patient_flow.png", "model_card.md", "dataset_card.md", "checklist.md", "decision_curve.png",
        "worst_errors.patient.png",
    }  # fmt: skip
    for picture in analysed.glob("*.png"):
        with Image.open(picture) as image:
            assert image.format == "PNG" and min(image.size) > 300


def test_report_states_the_numbers_of_the_files(analysed, finished):
    text = read_report(analysed)
    metrics = load_json(finished / "metrics" / "baseline_final_metrics.json")
    own = load_json(analysed / "comparison.json")["arms"]["baseline"]
    low, high = (100 * bound for bound in own["accuracy_ci95_image_level"])
    accuracy, negative = 100 * metrics["accuracy"], 100 * (1 - metrics["prevalence"])
    row = rf"^baseline +{accuracy:.1f} \({low:.1f}–{high:.1f}\)  {metrics['auroc']:.3f} \("
    assert re.search(row, text, re.MULTILINE)
    gap = accuracy - 85
    goal = f"met by baseline (by {gap:.1f}" if gap > 0 else f"not met by baseline ({-gap:.1f} points short)"
    flat = one_line(text)
    assert f"accuracy is {goal}" in flat
    assert f"calling every image negative accuracy {negative:.1f} %" in flat
    n = f"{metrics['n_images']} images of {metrics['n_patients']} patients"
    assert n in flat and metrics["split_sha256"][:12] in flat and "NIH patient" in flat
    assert "thumbnails of 16 x 16 pixels AUROC 0.700" in flat and "view, sex and age alone AUROC 0.620" in flat
    assert "leave out the variance between training seeds (baseline: 1 run, augmented: 1 run)" in flat
    assert "augmented trained on 24 synthetic images" in flat
    assert "baseline trained on" not in flat


def test_text_page_and_numbers_say_the_same(analysed, finished):
    """What the reports state is what comparison.json holds, and that is ``compare_arms`` of the files."""
    comparison = load_json(analysed / "comparison.json")
    expected = compare_arms(find_arms(finished / "metrics"), seed=42)
    (pair,), (same,) = comparison["pairs"], expected["pairs"]
    assert pair["accuracy_ci95"] == pytest.approx(same["accuracy_ci95"], abs=0)
    low, high = (100 * bound for bound in pair["accuracy_ci95"])
    sentence = f"{100 * pair['accuracy_difference']:+.1f} points, 95 % CI {low:+.1f} to {high:+.1f}"
    sentence = sentence.replace("-", "−")
    assert sentence in one_line(read_report(analysed))
    assert sentence in paths.report_page(analysed).read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_every_command_that_made_it_stands_there(finished, tmp_path, quick):
    config = {"epochs": 3, "lr": 0.1, "cpu": True, "resume": True, "fold": None}
    write_arm(tmp_path / "metrics", "augmented", fake_records(), config=config | {"splits": "my file.json"})
    write_arm(tmp_path / "metrics", "baseline", fake_records(), config=config)
    history = {"config": {"epochs": 9, "data_dir": "rsna", "fold": None, "cpu": False}}
    save_json(paths.gan_history(tmp_path / "metrics"), history)
    main([*flags(tmp_path), "--margin", "2"])
    text, page = read_report(tmp_path / "analysis"), paths.report_page(tmp_path / "analysis").read_text()
    for command in (
        "python src/train_classifier.py --epochs 3 --lr 0.1 --cpu",
        "python src/train_gan.py --epochs 9 --data-dir rsna",
        "python src/analyze_results.py --analysis-dir analysis --cpu --data-dir data --margin 2.0",
    ):
        assert f"\n  {command}" in text and f"<code>{command}" in page
    assert "--lr 0.1 --cpu --splits 'my file.json'\n" in text  # can be pasted into a shell


def test_the_run_that_trained_the_folds_stands_before_the_last_one(tmp_path):
    from report.steps import commands

    write_arm(tmp_path, "baseline", fake_records(), folds=2, config={"epochs": 9, "k_folds": 2})
    file = paths.final_metrics(tmp_path, "baseline_")
    arm = "python src/train_classifier.py --epochs 9 --k-folds"
    last = ("Make this report, its numbers and its figures", "own")
    for k_folds, rows in (
        (2, [("Train the arm baseline", f"{arm} 2")]),
        (0, [("Train the folds of the arm baseline", f"{arm} 2"), ("Train the arm baseline", f"{arm} 0")]),
    ):
        save_json(file, load_json(file) | {"config": {"epochs": 9, "k_folds": k_folds}})
        arms = find_arms(tmp_path)
        assert commands(arms, compare_arms(arms, n_resamples=20), tmp_path, None, "own") == [*rows, last]


def test_the_command_of_a_generator_trained_for_kimg_can_be_typed(tmp_path):
    """Of --epochs and --kimg train_gan.py takes one, and records both."""
    import train_gan
    from gan.options import recorded_config
    from report.steps import commands

    config = recorded_config(train_gan.parse_arguments(["--kimg", "2.5", "--preset", "cpu"]))
    assert config["epochs"] is not None
    save_json(paths.gan_history(tmp_path), {"config": config})
    (_, command), _ = commands({}, {"arms": {}}, tmp_path, None, "own")
    again = recorded_config(train_gan.parse_arguments(shlex.split(command)[2:]))
    kept = ("kimg", "r1", "image_size")
    assert [again[name] for name in kept] == [config[name] for name in kept] and again["kimg"] == 2.5


def test_the_command_of_a_generator_that_made_other_images_is_left_out(tmp_path):
    from report.steps import commands

    save_json(paths.gan_history(tmp_path), {"config": {"model_dir": "./models", "fold": None}})
    for generator, shown in (
        ("models/gan/generator_best.pth", True), ("generator_final.pth", True),
        ("models/other/gan/generator_final.pth", False), ("models/gan/fold_1/generator_final.pth", False),
    ):  # fmt: skip
        rows = commands({}, {"arms": {}}, tmp_path, {"generator": generator}, "own")
        assert ("Train the generator" in dict(rows)) == shown, generator


def test_the_command_of_the_synthetic_images_names_their_folder(tmp_path):
    from report.steps import commands

    manifest = {"created_by": "generate_synthetic.py", "generator": "g.pth", "count": 9, "seed": 4,
                "output_dir": "data/mine"}  # fmt: skip
    (_, command), _ = commands({}, {"arms": {}}, tmp_path, manifest, "own")
    assert command == (
        "python src/generate_synthetic.py --model-path g.pth --output-dir data/mine --num-images 9 --seed 4"
    )
    (_, command), _ = commands({}, {"arms": {}}, tmp_path, manifest | {"class": "normal"}, "own")
    assert command.endswith("--output-dir data/mine --label normal --num-images 9 --seed 4")


def test_contaminated_folds_are_marked_and_not_compared(analysed):
    text = read_report(analysed)
    table = text[text.index("Training and cross-validation") :]
    assert re.search(r"^baseline +3  0\.", table, re.MULTILINE)
    assert re.search(r"^augmented \* +3  0\.", table, re.MULTILINE)
    assert "CONTAMINATED" in text and "not compared with any other row" in one_line(text)


def test_ssim_has_its_yardstick_and_its_n(analysed):
    ssim = load_json(analysed / "ssim_analysis.json")
    rows = ssim["comparisons"]
    assert set(rows) == {
        "synthetic_vs_training", "synthetic_vs_heldout", "training_vs_training", "synthetic_vs_synthetic"
    }  # fmt: skip
    for row in rows.values():
        assert row["n_pairs"] == 10 and -1 <= row["ssim"] <= 1 and row["ssim_sd"] > 0
    assert "similarity, not quality" in ssim["what"] and "cannot tell" in ssim["cannot_tell"]
    assert ssim["image_size"] == 32 and ssim["seed"] == 42 and ssim["grouped_by"] == "nih_patient"


def test_the_files_about_images_are_as_their_formats_describe(analysed):
    for name, kind in (
        ("ssim_analysis", SsimAnalysis), ("fid_score", FidScore), ("image_quality", ImageQuality),
    ):  # fmt: skip
        assert format_problems(load_json(analysed / f"{name}.json"), kind) == []


def test_fid_of_the_classifier_is_labelled_and_has_a_floor(analysed):
    fid = load_json(analysed / "fid_score.json")
    assert fid["extractor"] == "classifier" and fid["comparability"].startswith("NOT COMPARABLE")
    assert set(fid["comparisons"]) == {
        "synthetic_vs_training", "synthetic_vs_heldout", "heldout_vs_training", "floor"
    }  # fmt: skip
    assert fid["fid"] == fid["comparisons"]["synthetic_vs_training"]["fid"] > fid["fid_floor"] > 0
    assert 2 <= fid["n"] <= min(fid["available"].values())
    text = one_line(read_report(analysed))
    assert "NOT COMPARABLE with published FID" in text and f"n: {fid['n']} and {fid['n']} images" in text


def test_nothing_claims_anything_and_nothing_names_this_machine(analysed, finished):
    for file in analysed.iterdir():
        content = file.read_bytes()
        assert str(finished).encode() not in content, file.name
        if file.suffix in (".txt", ".json", ".html", ".md"):
            words = VERDICTS.sub("", re.sub(r"base64,[\w+/=]*", "", content.decode()))
            assert not CLAIMS.search(words), (file.name, CLAIMS.search(words))


@pytest.mark.slow
def test_same_flags_same_files(analysed, finished, tmp_path):
    main(flags(finished, analysis_dir=tmp_path / "again"))
    for file in analysed.iterdir():
        name = file.name
        if name in ("comparison_report.txt", "report.html", "model_card.md"):  # they state their own command line
            continue
        assert (tmp_path / "again" / name).read_bytes() == (analysed / name).read_bytes(), name


# --- less than everything --------------------------------------------------------------------------
def test_no_metrics_is_an_error_that_names_the_command(tmp_path, as_script):
    (tmp_path / "metrics").mkdir()
    paths.gan_history(tmp_path / "metrics").write_text("{}")
    with pytest.raises(UserError, match="holds no metrics.*train_classifier.py"):
        main(flags(tmp_path))
    code, _, err = as_script(main, *flags(tmp_path))
    assert code == 1 and err.count("\n") == 1 and err.startswith("error: ")


def test_one_arm_alone_is_reported_with_what_is_missing(tmp_path, unrendered):
    write_arm(tmp_path / "metrics", "baseline", fake_records())
    main(flags(tmp_path))
    text = one_line(read_report(tmp_path / "analysis"))
    assert "There is no augmented arm, so this report cannot say what the synthetic images do" in text
    assert "There is only one arm, so there is nothing to compare." in text
    for command in ("train_classifier.py --use-synthetic", "download_dataset.py", "--k-folds 5"):
        assert command in text
    assert "minus baseline" not in text
    assert {file.name for file in (tmp_path / "analysis").iterdir()} == {
        "comparison_acc.png", "comparison_loss.png", "comparison_report.txt", "comparison.json",
        "report.html", "roc_pr.png", "calibration.png", "confusion.png", "subgroups.png", "patient_flow.json",
        "patient_flow.png", "model_card.md", "dataset_card.md", "checklist.md", "decision_curve.png",
    }  # fmt: skip


def test_augmented_alone_and_arms_of_other_names(tmp_path, quick):
    records = fake_records()
    write_arm(tmp_path / "metrics", "augmented", records)
    write_arm(tmp_path / "metrics", "my_own", records, seed=3)
    assert list(find_arms(tmp_path / "metrics")) == ["augmented", "my_own"]
    write_arm(tmp_path / "metrics", "baseline", records, seed=4)
    assert list(find_arms(tmp_path / "metrics")) == ["baseline", "augmented", "my_own"]
    main(flags(tmp_path))
    text = read_report(tmp_path / "analysis")
    assert "augmented minus baseline" in text and "my_own minus augmented" in text
    main([*flags(tmp_path), "--arms", "baseline, my_own"])
    text = read_report(tmp_path / "analysis")
    assert "my_own minus baseline" in text and "augmented minus" not in text
    assert "The augmented arm was left out (--arms)" in text
    assert "There is no " not in text and "there is no augmented arm" not in text
    with pytest.raises(UserError, match="--arms.*there is no nobody"):
        main([*flags(tmp_path), "--arms", "nobody"])


def test_predictions_alone_take_part(tmp_path, unrendered):
    """An arm of which nothing but the four columns is left."""
    write_arm(tmp_path / "metrics", "baseline", fake_records())
    file = paths.test_predictions(tmp_path / "metrics", "augmented_")
    columns = ["image_id", "patient", "label", "probability"]
    own = pd.read_csv(paths.test_predictions(tmp_path / "metrics", "baseline_"), dtype=str)[columns]
    own.to_csv(file, index=False)
    main(flags(tmp_path))
    text = one_line(read_report(tmp_path / "analysis"))
    assert "augmented minus baseline accuracy 0.0 points" in text
    assert "augmented: provenance unknown" in text[: text.index("Verdict")]
    assert "augmented: its training is not known, because its file of metrics is missing" in text
    assert "augmented_final_metrics.json: without it, nothing says how augmented was trained" in text
    assert paths.analysis_figure(tmp_path / "analysis", "subgroups").exists()  # of the baseline alone


def test_no_synthetic_images_is_said_with_the_command(finished, tmp_path, quick):
    main(flags(finished, synthetic_dir=tmp_path / "no", model_dir="no", analysis_dir=tmp_path / "out"))
    text = read_report(tmp_path / "out")
    assert "python src/generate_synthetic.py" in one_line(text)
    assert str(tmp_path) not in text
    assert not paths.ssim_analysis(tmp_path / "out").exists()


def test_skip_ssim_and_a_chosen_size(finished, tmp_path, quick):
    main([*flags(finished, analysis_dir=tmp_path), "--skip-ssim", "--image-size", "40", "--num-fid", "4"])
    assert not paths.ssim_analysis(tmp_path).exists()
    fid = load_json(paths.fid_score(tmp_path))
    assert fid["image_size"] == 40 and 2 <= fid["n"] <= 4
    assert "--skip-ssim" in read_report(tmp_path)


def test_without_any_extractor_fid_is_missing_not_wrong(finished, tmp_path, quick):
    main([*flags(finished, analysis_dir=tmp_path, model_dir=tmp_path / "none"), "--skip-ssim"])
    assert not paths.fid_score(tmp_path).exists()
    assert "neither FID's Inception weights nor a baseline classifier" in one_line(read_report(tmp_path))
    wanted = [*flags(finished, analysis_dir=tmp_path), "--extractor", "inception"]
    with pytest.raises(UserError, match="pt_inception-2015-12-05-6726825d.pth is not in"):
        main(wanted)
    wanted[-1] = "efficientnet_lite0"
    with pytest.raises(UserError, match="EfficientNet-Lite0 needs no_such_package: pip install"):
        main(wanted)


@pytest.mark.slow
def test_efficientnet_lite0_adds_rows_and_changes_none(finished, tmp_path, monkeypatch, quick):
    """With its package it comes last of its own accord, and first if it is named."""
    few = ["--skip-ssim", "--num-fid", "4"]
    main([*flags(finished, analysis_dir=tmp_path / "without"), *few])
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", LITE_PACKAGE)
    main([*flags(finished, analysis_dir=tmp_path / "with"), *few])
    main([*flags(finished, analysis_dir=tmp_path / "first"), *few, "--extractor", "efficientnet_lite0"])
    fid = {name: load_json(paths.fid_score(tmp_path / name)) for name in ("without", "with", "first")}
    quality = {name: load_json(paths.image_quality(tmp_path / name)) for name in fid}
    assert fid["with"] == fid["without"]
    assert list(quality["with"]["extractors"]) == ["classifier", "efficientnet_lite0"]
    rows = {name: {row["id"]: row for row in quality[name]["rows"]} for name in fid}
    added = set(rows["with"]) - set(rows["without"])
    assert added and all(name.endswith("_efficientnet_lite0") for name in added)
    assert {name: rows["with"][name] for name in rows["without"]} == rows["without"]
    named = "Fréchet distance in EfficientNet-Lite0 features, not comparable with published FID"
    assert rows["with"]["fid_efficientnet_lite0"]["name"] == named
    assert fid["first"]["extractor"] == "efficientnet_lite0" and "NOT COMPARABLE" in fid["first"]["comparability"]
    assert fid["first"]["fid"] == rows["with"]["fid_efficientnet_lite0"]["value"]
    assert list(quality["first"]["extractors"]) == ["efficientnet_lite0", "classifier"]


def test_inception_is_used_when_its_weights_are_cached(finished, tmp_path, monkeypatch, quick):
    from networks import inception

    torch.manual_seed(0)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / inception.WEIGHTS_URL.rsplit("/", 1)[1]
    torch.save(inception.build_network().state_dict(), file)
    monkeypatch.setattr(inception, "INPUT_SIZE", 75)  # the smallest that the network takes, for speed
    main([*flags(finished, analysis_dir=tmp_path / "out"), "--skip-ssim", "--num-fid", "4"])
    fid = load_json(paths.fid_score(tmp_path / "out"))
    assert fid["extractor"] == "inception" and "Inception" in fid["extractor_description"]
    assert "NOT COMPARABLE" not in read_report(tmp_path / "out")


@pytest.mark.parametrize(
    ("asked", "left"), [("auto", ["classifier"]), ("classifier", ["classifier"]), ("inception", None)]
)
def test_features_that_overflow_are_left_out_unless_they_were_asked_for(monkeypatch, tmp_path, asked, left):
    from dataset.feature_cache import FeaturesOverflowError
    from image_metrics.feature_spaces import Space
    from report import image_steps as analysis_images
    from report.steps import Outcome

    def measure(_images, extractor, *_):
        if extractor.name == "inception":
            raise FeaturesOverflowError("features of it are not finite; use the other")
        return extractor.name

    monkeypatch.setattr(analysis_images, "measure_features", measure)
    options = SimpleNamespace(extractor=asked, num_fid=4, seed=0, cache_dir=None)
    extractors = [Space(name, None, None, 4) for name in ("inception", "classifier")]
    outcome = Outcome(tmp_path)
    if left is None:
        with pytest.raises(FeaturesOverflowError):
            analysis_images._measure_all(options, None, extractors, outcome)
        return
    assert analysis_images._measure_all(options, None, extractors, outcome) == left
    assert [what for what, _ in outcome.missing] == [
        "distances in FID's Inception network: features of it are not finite; use the other"
    ]


def test_features_have_the_precision_that_the_baseline_was_trained_in():
    from comparison.image_sets import training_precision

    config = {"precision": "auto", "seed": 42}
    baseline = Arm("baseline", "baseline_", metrics={"config": config, "precision": "bf16"})
    other = Arm("augmented", "augmented_", metrics={"config": config, "precision": "fp32"})
    arms = {"augmented": other, "baseline": baseline}
    assert training_precision({"config": config}, arms) == "bf16"
    assert training_precision({"config": config | {"seed": 1}}, arms) == "auto", "metrics of another training"
    assert training_precision({"config": config}, {"augmented": other}) == "auto"
    assert training_precision({}, arms) == "fp32"


def test_why_fid_is_missing_is_told_without_the_folder(finished, tmp_path, monkeypatch, capsys, quick):
    from report import image_steps as analysis_images

    def refuse(*_):
        raise UserError(f"{tmp_path}/cache/weights.pth is damaged; delete it")

    monkeypatch.setattr(analysis_images, "usable_extractors", refuse)
    main([*flags(finished, analysis_dir=tmp_path / "out"), "--skip-ssim"])
    text = one_line(read_report(tmp_path / "out"))
    assert "fid_score.json: weights.pth is damaged; delete it" in text
    assert str(tmp_path) not in text
    assert f"{tmp_path}/cache/weights.pth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in /home/jo/.cache/torch: x", "in torch: x"),
        (r"C:\Users\Jo\a.pth is bad", "a.pth is bad"),
        ("(/a/b.png; `/c/d.json`)", "(b.png; `d.json`)"),
        ("from https://host.org/a/b.pth or ./data/x", "from https://host.org/a/b.pth or ./data/x"),
        ("`python src/x.py` and/or 16 / 16", "`python src/x.py` and/or 16 / 16"),
    ],
)
def test_only_absolute_paths_lose_their_folders(text, expected):
    assert without_folders(text) == expected


def test_a_home_folder_with_spaces_is_left_out_too(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/Users/Jo Doe"))
    assert without_folders("in /Users/Jo Doe/.cache/a.pth here") == "in a.pth here"


# --- real X-rays are not shown ---------------------------------------------------------------------
def test_no_real_images_shows_none_and_says_so(finished, tmp_path, monkeypatch, quick):
    from report import image_figures as plots_images

    drawn = []

    def record(real, synthetic, title):
        drawn.append((real, synthetic, title))
        return plots_images.image_grid(synthetic)

    monkeypatch.setattr(plots_images, "real_vs_synthetic", record)
    main([*flags(finished, analysis_dir=tmp_path, model_dir="no"), "--no-real-images", "--image-size", "32"])
    real, synthetic, title = drawn[0]
    assert real is None and "real X-rays left out" in title
    folder = finished / "synthetic"
    own = {np.asarray(Image.open(file)).tobytes() for file in folder.glob(paths.SYNTHETIC_PATTERN)}
    assert all(image.tobytes() in own for image in synthetic)
    assert "every picture that would show a real X-ray was left out" in one_line(read_report(tmp_path))


def test_no_real_images_leaves_the_heat_maps_out_and_the_neighbours_alone(finished, tmp_path, monkeypatch, unrendered):
    from report import image_figures as plots_images

    asked = []
    draw = plots_images.nearest_neighbours
    monkeypatch.setattr(plots_images, "nearest_neighbours", lambda **given: asked.append(given) or draw(**given))
    main([*flags(finished, analysis_dir=tmp_path), "--no-real-images", "--skip-ssim"])
    assert not paths.analysis_figure(tmp_path, "gradcam").exists()
    assert [given["no_real_images"] for given in asked] == [True]
    text, page = read_report(tmp_path), paths.report_page(tmp_path).read_text()
    assert "shows real X-rays" not in text + page and "gradcam" not in text + page
    assert not list(tmp_path.glob(f"*{paths.REAL_PICTURE_SUFFIX}")) and "Worst errors of each arm" in text


def test_an_old_picture_of_real_images_does_not_stay(finished, tmp_path, quick):
    picture = paths.real_vs_synthetic_figure(tmp_path)
    picture.write_bytes(b"real")
    main([*flags(finished, analysis_dir=tmp_path, data_dir="no", model_dir="no"), "--no-real-images"])
    assert not picture.exists()


def test_robustness_that_cannot_be_measured_is_a_line_and_no_section(tmp_path, quick):
    write_arm(tmp_path / "metrics", "baseline", fake_records())
    main([*flags(tmp_path), "--robustness", "60"])
    text = one_line(read_report(tmp_path / "analysis"))
    assert "robustness (--robustness 60): it needs baseline_resnet50.pth; --model-dir says where" in text
    assert "Robustness to small changes" not in text
    assert load_json(paths.comparison(tmp_path / "analysis"))["robustness"] is None


def test_files_of_an_earlier_run_do_not_pass_for_new(finished, tmp_path, capsys, unrendered):
    write_arm(tmp_path / "metrics", "baseline", fake_records())
    stale = {
        "ssim_analysis.json", "fid_score.json", "real_vs_synthetic_comparison.png", "cv_comparison.png",
        "image_quality.json", "differences.png", "nearest_neighbours.png", "gradcam.png",
        "subgroup_differences.png", "robustness.png", "worst_errors.patient.png", "perturbations.patient.png",
    }  # fmt: skip
    kept = {"comparison_of_my_own.png", "notes.txt", "comparison_acc.png"}
    (tmp_path / "analysis").mkdir()
    for name in stale | kept:
        (tmp_path / "analysis" / name).write_bytes(b"old")
    main(flags(tmp_path))
    there = {file.name for file in (tmp_path / "analysis").iterdir()}
    assert there == kept | {
        "comparison_loss.png", "comparison_report.txt", "comparison.json", "report.html", "roc_pr.png",
        "calibration.png", "confusion.png", "subgroups.png", "decision_curve.png", "patient_flow.json",
        "patient_flow.png", "model_card.md", "dataset_card.md", "checklist.md",
    }  # fmt: skip
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("removed from")]
    assert all(name in said for name in stale) and "comparison_acc.png" not in said


# --- warnings --------------------------------------------------------------------------------------
def test_red_flags_unequal_steps_and_other_splits_come_first(tmp_path, quick):
    records = fake_records()
    write_arm(tmp_path / "metrics", "baseline", records)
    write_arm(tmp_path / "metrics", "augmented", records, optimizer_steps=500, split_sha256="6" * 64,
              red_flags=["the images have no manifest"])  # fmt: skip
    main(flags(tmp_path))
    text = read_report(tmp_path / "analysis")
    head = one_line(text[: text.index("Verdict")])
    assert "augmented: the images have no manifest" in head
    assert "DIFFERENT NUMBERS OF STEPS: baseline 84, augmented 500" in head
    assert "DIFFERENT SPLITS: baseline 555555555555, augmented 666666666666" in head
    assert "augmented and baseline are not compared: they were trained and tested on different splits" in (
        one_line(text)
    )


def test_arms_trained_otherwise_than_the_baseline_are_named(tmp_path):
    records = fake_records()
    options = {"epochs": 15, "lr": 0.001, "unfreeze": False, "workers": 4}
    said = "--epochs was 9 here and 15 in the baseline"
    write_arm(tmp_path, "baseline", records, config=options, precision="fp32")
    write_arm(tmp_path, "same", records, config=options | {"workers": 1}, precision="fp32")
    write_arm(tmp_path, "older", records, config={})
    write_arm(tmp_path, "augmented", records, config=options | {"epochs": 9, "unfreeze": True},
              precision="bf16", red_flags=[said])  # fmt: skip
    assert warnings_of(list(find_arms(tmp_path).values())) == [
        f"augmented: {said}",
        "augmented: --unfreeze was True here and False in the baseline",
        "augmented: precision was bf16 here and fp32 in the baseline",
    ]


def test_every_compared_option_is_compared():
    compared = names_affecting(TRAIN_OPTIONS, Affects.COMPARISON)
    assert {"lr", "seed", "test_set"} <= compared and not {"workers", "use_synthetic", "cpu"} & compared
    baseline = dict.fromkeys(compared, 1)
    for key in compared:
        (sentence,) = differing_options(baseline | {key: 2}, baseline)
        assert sentence == f"--{key.replace('_', '-')} was 2 here and 1 in the baseline"
    assert differing_options(baseline, baseline) == differing_options(baseline, {}) == []


def test_arms_are_paired_only_on_the_same_images(tmp_path):
    records = fake_records()
    write_arm(tmp_path, "baseline", records)
    write_arm(tmp_path, "augmented", records.iloc[:-3])
    relabelled = records.assign(label=1 - records["label"])
    write_arm(tmp_path, "other", relabelled)
    arms = find_arms(tmp_path)
    assert "3 images are in one set" in why_not_comparable(arms["baseline"], arms["augmented"])
    assert "different labels" in why_not_comparable(arms["baseline"], arms["other"])
    assert why_not_comparable(arms["baseline"], arms["baseline"]) is None
    paths.test_predictions(tmp_path, "augmented_").unlink()
    missing = find_arms(tmp_path)["augmented"]
    assert "augmented_test_predictions.csv is missing" in why_not_comparable(arms["baseline"], missing)


def test_predictions_of_another_run_are_noticed(tmp_path):
    write_arm(tmp_path, "baseline", fake_records())
    (arm,) = find_arms(tmp_path).values()
    assert warnings_of([arm]) == []
    one_by_little = arm.predictions["probability"].copy()
    one_by_little.iloc[0] *= 0.9  # no threshold is crossed: the accuracy stays
    of_one_patient = {"patient": arm.predictions["patient"].iloc[0]}
    for changes in ({"probability": 0.9}, {"probability": one_by_little}, of_one_patient):
        changed = arm.predictions.assign(**changes)
        (warning,) = warnings_of([Arm(arm.name, arm.prefix, metrics=arm.metrics, predictions=changed)])
        assert "DO NOT BELONG TO THE SAME RUN" in warning
    for matrix in ([[1, 2], [3]], arm.metrics["confusion_matrix"] * 2, []):
        metrics = {**arm.metrics, "confusion_matrix": matrix}
        (warning,) = warnings_of([Arm(arm.name, arm.prefix, metrics=metrics, predictions=arm.predictions)])
        assert "DO NOT BELONG TO THE SAME RUN" in warning


def test_unverified_images_and_a_foreign_split_are_flagged(finished, tmp_path, quick):
    shutil.copytree(finished / "synthetic", tmp_path / "synthetic")
    paths.synthetic_manifest(tmp_path / "synthetic").unlink()
    shutil.copytree(finished / "metrics", tmp_path / "metrics")
    for prefix in ("baseline_", "augmented_"):
        file = paths.final_metrics(tmp_path / "metrics", prefix)
        changes = {"split_sha256": "9" * 64, "manifest_sha256": {"0": "8" * 64}}
        file.write_text(json.dumps(load_json(file) | changes))
    main(flags(finished, analysis_dir=tmp_path / "out", synthetic_dir=tmp_path / "synthetic",
               metrics_dir=tmp_path / "metrics", model_dir="no"))  # fmt: skip
    text = one_line(read_report(tmp_path / "out"))
    assert "have no manifest" in text
    assert "NOT the split of baseline, augmented" in text
    assert load_json(paths.ssim_analysis(tmp_path / "out"))["synthetic_verified"] is False
    others = "(no manifest) are NOT THOSE THAT THE ARMS WERE TRAINED ON (augmented manifest 888888888888)"
    assert others in text
    quality = load_json(paths.image_quality(tmp_path / "out"))
    assert others in quality["flags"][0] and quality["manifest_sha256"] is None


def test_a_warning_of_the_generator_stands_once(finished, tmp_path, quick):
    shutil.copytree(finished / "metrics", tmp_path / "metrics")
    write_synthetic(tmp_path / "synthetic", finished / "data", red_flags=["GAN training: too short"])
    places = {"analysis_dir": tmp_path / "out", "metrics_dir": tmp_path / "metrics", "model_dir": "no"}
    main(flags(finished, synthetic_dir=tmp_path / "synthetic", **places))
    assert "comparison of images: GAN training: too short" in one_line(read_report(tmp_path / "out"))
    file = paths.final_metrics(tmp_path / "metrics", "augmented_")
    file.write_text(json.dumps(load_json(file) | {"red_flags": ["GAN training: too short"]}))
    main(flags(finished, synthetic_dir=tmp_path / "synthetic", **places))
    assert one_line(read_report(tmp_path / "out")).count("GAN training: too short") == 1


# --- bad input -------------------------------------------------------------------------------------
def test_broken_files_are_named(tmp_path):
    write_arm(tmp_path, "baseline", fake_records())
    metrics = paths.final_metrics(tmp_path, "baseline_")
    predictions = paths.test_predictions(tmp_path, "baseline_")
    good = metrics.read_text()
    metrics.write_text(good[:50])
    with pytest.raises(UserError, match="baseline_final_metrics.json is not valid JSON"):
        find_arms(tmp_path)
    metrics.write_text('{"accuracy": 1}')
    with pytest.raises(UserError, match="baseline_final_metrics.json: accuracy_ci95 is missing"):
        find_arms(tmp_path)
    metrics.write_text(good)
    predictions.write_text("image_id,patient,label\na,b,1\n")
    with pytest.raises(UserError, match="baseline_test_predictions.csv lacks probability"):
        find_arms(tmp_path)


def test_a_failed_analysis_leaves_no_report_of_an_earlier_one(tmp_path, monkeypatch, quick):
    from report import image_steps as analysis_images

    write_arm(tmp_path / "metrics", "baseline", fake_records())
    reports = [name_of(tmp_path / "analysis") for name_of in (paths.report_page, paths.comparison_report)]
    main(flags(tmp_path))
    with pytest.raises(UserError, match="there is no typo"):
        main([*flags(tmp_path), "--arms", "typo"])
    assert all(file.is_file() for file in reports), "a typo loses nothing"

    def fail(*_):
        raise UserError("the data are unusable")

    monkeypatch.setattr(analysis_images, "look_at_images", fail)
    with pytest.raises(UserError, match="unusable"):
        main(flags(tmp_path))
    assert not any(file.exists() for file in reports)


def test_a_damaged_model_is_missing_from_the_report(finished, tmp_path, monkeypatch, unrendered):
    from report import steps as analysis_steps

    for step in ("draw_comparison", "draw_training"):
        monkeypatch.setattr(analysis_steps, step, lambda *_: None)
    model = paths.classifier_model(tmp_path / "models", "baseline_")
    model.parent.mkdir(parents=True)
    model.write_bytes(b"no model")
    folders = {"model_dir": tmp_path / "models", "analysis_dir": tmp_path / "out"}
    main([*flags(finished, **folders), "--skip-ssim"])
    text = one_line(read_report(tmp_path / "out"))
    missing = text[text.index("What is missing") :]
    for what in ("gradcam.png", "the baseline classifier's features"):
        assert re.search(rf"{what}: {model.name} (is|was) [^*]*damaged", missing)
    assert str(tmp_path) not in text and not paths.analysis_figure(tmp_path / "out", "gradcam").exists()


def test_missing_images_stop_the_run_unless_skipped(finished, tmp_path, quick):
    shutil.copytree(finished / "data", tmp_path / "data")
    images = paths.training_images(tmp_path / "data")
    for file in images.glob("*.png"):
        file.unlink()
    run = flags(finished, data_dir=tmp_path / "data", analysis_dir=tmp_path / "out", model_dir="no")
    with pytest.raises(UserError, match="missing or unreadable.*--skip-bad-images"):
        main(run)
    shutil.copytree(paths.training_images(finished / "data"), images, dirs_exist_ok=True)
    victim = load_json(finished / "synthetic" / "manifest.json")["train_image_ids"][0]
    (images / f"{victim}.png").write_bytes(b"not an image")
    main([*run, "--skip-bad-images"])
    ssim = load_json(paths.ssim_analysis(tmp_path / "out"))
    assert ssim["skipped_images"] == {"count": 1, "image_ids": [victim]}
    assert "1 missing or unreadable ones were left out" in one_line(read_report(tmp_path / "out"))


@pytest.mark.parametrize(
    "wrong",
    [["--num-compare", "0"], ["--image-size", "8"], ["--extractor", "vgg"], ["--seed", str(2**32)]],
)
def test_wrong_usage_is_exit_code_2(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        main(wrong)
    assert stop.value.code == 2 and wrong[0] in capsys.readouterr().err
