"""The benchmark: every row at a tiny size, agreement of both paths, the file's form, resuming, and words."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark
from benchmarks.speed import commands, plan, rows, steps
from benchmarks.speed import plain as plain_path
from benchmarks.speed.figure import benchmark as draw
from classifier import FeatureExtractor, build_classifier
from common import paths
from dataset.image_reader import read_image
from dataset.records import load_dataset
from image_metrics.distances import frechet_distance_of_features, kernel_distance_of_subsets
from utils import UserError, load_json, set_seed

TINY = replace(
    plan.QUICK, side=32, source_side=64, small_side=32, epochs=1, folds=2, baseline_images=40, plain_images=8,
    full_images=160, batch=4, feature_maps=4, generated=6, compared=40, features=16, inference_images=4,
    growth=(40, 48, 56, 64), repeats=1, matrix=64, copied_bytes=2**16,
)  # fmt: skip
ROW_KEYS = ["id", "name", "plain", "ours", "unit", "ratio", "target", "extrapolated", "status", "note"]


@pytest.fixture
def bench(tmp_path) -> plan.Bench:
    return plan.Bench(TINY, torch.device("cpu"), "fp32", "none", 1, tmp_path / "work")


def fake_row(row_id: str) -> dict:
    item = plan.PLAN_OF[row_id]
    return plan.measured(row_id, 2.0, None if item.kind == "limit" else 3.0, note="made up")


@pytest.fixture
def fake_measures(monkeypatch) -> list[str]:
    """Rows that take no time; the list names those measured."""
    asked: list[str] = []

    def measure(_: plan.Bench, row_id: str) -> dict:
        asked.append(row_id)
        return fake_row(row_id)

    monkeypatch.setattr(rows, "measure", measure)
    monkeypatch.setattr(
        rows, "peaks", lambda _: {"bf16_gflops": 2.0, "fp32_gflops": 1.0, "copy_gb_per_s": 3.0}
    )
    return asked


def run(folder, *flags: str) -> dict:
    benchmark.main(
        [
            "--output-dir",
            str(folder),
            "--work-dir",
            str(folder / "work"),
            "--weights",
            "none",
            "--cpu",
            *flags,
        ]
    )
    return load_json(paths.benchmark(folder))


# --- ratios and rows -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row_id", "ours", "theirs", "ratio"),
    [("gan_step", 2.0, 16.0, 8.0), ("memory", 1.5, None, 2.0), ("warm_full", 60.0, None, 0.5),
     ("growth", 5.0, None, 2.0), ("peak_share", 140.0, 200.0, 0.7)],
)  # fmt: skip
def test_a_larger_ratio_is_better_whatever_a_row_compares_with(row_id, ours, theirs, ratio):
    row = plan.measured(row_id, ours, theirs, note="")
    assert row["ratio"] == pytest.approx(ratio)
    assert rows.reached(row) == (ratio >= row["target"])


def test_a_quick_run_is_small_throughout_and_growth_doubles():
    for name in (
        "baseline_images",
        "plain_images",
        "full_images",
        "batch",
        "generated",
        "compared",
        "repeats",
    ):
        assert getattr(plan.QUICK, name) < getattr(plan.FULL, name)
    assert plan.FULL.full_images == plan.REAL_SIZE == 26_684
    assert plan.FULL.growth == (500, 1000, 2000, 4000)
    for sizes in (plan.QUICK.growth, plan.FULL.growth):
        assert [b / a for a, b in zip(sizes, sizes[1:], strict=False)] == [2, 2, 2]


def test_targets_are_those_that_were_set():
    targets = {item.id: item.target for item in plan.PLANS}
    assert targets == {
        "baseline_default": 150, "first_pass": 3, "warm_full": 1, "unfreeze_step": 2, "gan_step": 8,
        "gan_step_no_vgg": 2, "generate": 4, "quality": 5, "peak_share": 0.7, "memory": 1, "growth": 1,
    }  # fmt: skip
    assert (plan.MAX_SECONDS, plan.MAX_GB, plan.MAX_DEVIATION) == (30, 3, 10)
    assert set(rows.MEASURES) == set(targets) == set(benchmark.ROW_IDS)


def test_a_pass_is_timed_without_its_constant_cost():
    assert commands.seconds_per_image([(10, 3.0 + 10 * 0.2), (40, 3.0 + 40 * 0.2)]) == pytest.approx(0.2)


def test_the_plain_path_passes_the_images_as_often_as_the_result_says():
    metrics = {"n_train_images": 100, "n_images": 20, "epochs_final": 3}
    # Four of five folds train, in 15 epochs of 5 folds: 6,000; the final model: 300. Scored: 1,500 and 20.
    assert commands.passes(metrics, epochs=15, folds=5) == (6300, 1520)


def test_different_answers_are_no_measurement(bench, monkeypatch):
    def disagree(_: plan.Bench) -> dict:
        plan.agree("numbers", float("nan"), 1.0)

    monkeypatch.setitem(rows.MEASURES, "quality", disagree)
    row = rows.measure(bench, "quality")
    assert row["status"] == "not_measured" and "different answers" in row["note"]
    assert list(row) == ROW_KEYS and row["ratio"] is None


# --- both paths agree ------------------------------------------------------------------------------
@pytest.fixture
def png(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_plain_pixels_and_features_are_ours(png):
    set_seed(0)
    model = build_classifier("none", frozen=True)
    loader = plain_path.loader_of(plain_path.PlainImages([png], [1], 32), 1, 0, shuffle=False)
    (images, _) = next(iter(loader))
    ours = read_image(png, 32)
    assert np.abs(plain_path.gray_levels(images)[0] - ours).max() <= 1.001
    theirs = plain_path.features_of(model, loader, torch.device("cpu"))
    features = FeatureExtractor(model, torch.device("cpu"))(ours[None])
    assert np.linalg.norm(features - theirs) < 0.01 * np.linalg.norm(theirs)


def test_plain_distances_are_ours():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((60, 8)), rng.standard_normal((50, 8)) * 1.3 + 0.2
    assert plain_path.frechet_distance(a, b) == pytest.approx(frechet_distance_of_features(a, b))
    ours = kernel_distance_of_subsets(a, b, size=20, seed=3, n_subsets=5)
    theirs = plain_path.kernel_distances(a, b, 20, 5, 3)
    assert theirs.mean() == pytest.approx(ours["mean"]) and theirs.std(ddof=1) == pytest.approx(ours["sd"])


def test_untrained_vgg16_fits_and_the_plain_one_uses_its_layers():
    vgg = steps.untrained_vgg16(0)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    maps = plain_path.PlainVGG16(vgg)(images)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, 7) for x in maps]
    torch.testing.assert_close(pooled, vgg(images), atol=1e-4, rtol=1e-4)
    assert all(0.1 < float(x.std()) < 10 for x in maps)  # neither dying out nor exploding


# --- every row at a tiny size ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "row_id", ["unfreeze_step", "gan_step", "gan_step_no_vgg", "generate", "quality", "peak_share"]
)
def test_a_row_of_steps_measures_and_finds_agreement(bench, row_id):
    row = rows.MEASURES[row_id](bench)
    assert list(row) == ROW_KEYS and row["status"] == "measured"
    assert row["ours"] > 0 and row["plain"] > 0 and not row["extrapolated"]
    assert row_id == "peak_share" or "agree within" in row["note"]
    assert row_id == "quality" or "untrained" in row["note"] or row_id == "gan_step_no_vgg"


def test_operations_of_resnet50_are_the_published_ones():
    # 4.09 thousand million multiply-adds at 224 pixels: torchvision's table of models.
    assert steps.inference_operations(224) == pytest.approx(2 * 4.09e9, rel=0.01)


def test_first_pass_measures_and_finds_agreement(bench):
    row = commands.first_pass(bench)
    assert row["plain"] > 0 and "features (relative) agree" in row["note"]
    assert "pixels (gray levels) agree" in row["note"]


@pytest.mark.slow
def test_rows_of_whole_commands(bench):
    baseline = commands.baseline_default(bench)
    assert baseline["extrapolated"] and "test images agree" in baseline["note"]
    memory = commands.memory(bench)
    assert memory["extrapolated"] and 0.2 < memory["ours"] < 4.0
    warm = commands.warm_full(bench)
    assert warm["extrapolated"] and warm["ours"] > 1.0
    growth = commands.growth(bench)
    assert growth["status"] in ("measured", "not_measured") and growth["note"]


def test_a_command_tells_its_time_and_memory_and_its_last_words_when_it_fails(tmp_path):
    done = commands.run_command([sys.executable, "-c", "x = bytearray(150_000_000); x[::4096] = x[::4096]"])
    assert 0 < done.seconds < 30 and 150e6 < done.peak_bytes < 400e6
    small = commands.run_command([sys.executable, "-c", "pass"])
    assert small.peak_bytes < 100e6  # of this child alone, not of the largest so far
    with pytest.raises(UserError, match=r"ended with code 3: the end"):
        commands.run_command([sys.executable, "-c", "print('the end'); raise SystemExit(3)"])


def test_the_command_is_the_default_baseline(bench, tmp_path):
    import train_classifier

    command = commands.baseline_command(bench, tmp_path / "d", tmp_path / "c", tmp_path / "o")
    args = train_classifier.parse_args(command[2:])
    assert (args.epochs, args.k_folds, args.image_size, args.weights) == (1, 2, 32, "none")
    assert args.cpu and not args.unfreeze and args.cache_dir == str(tmp_path / "c")
    assert (plan.FULL.epochs, plan.FULL.folds, plan.FULL.side) == (15, 5, 224)


def test_phantoms_are_made_once_and_all_labelled(bench):
    folder = commands.phantoms(bench, 12, 32)
    table = load_dataset(folder).images
    times = [path.stat().st_mtime_ns for path in table["path"]]
    assert len(table) == 12 and commands.phantoms(bench, 12, 32) == folder
    assert [path.stat().st_mtime_ns for path in table["path"]] == times


# --- the file --------------------------------------------------------------------------------------
def test_the_file_has_its_form_and_the_figure_lies_beside_it(fake_measures, tmp_path, capsys):
    content = run(tmp_path, "--quick")
    assert set(content) == {"format", "settings", "machine", "peaks", "rows"}
    assert [row["id"] for row in content["rows"]] == list(benchmark.ROW_IDS)
    assert all(list(row) == ROW_KEYS for row in content["rows"])
    assert set(content["machine"]) == {"cpu", "cores", "threads", "gpu", "system", "python", "torch"}
    assert content["machine"]["gpu"] is None and str(tmp_path) not in json.dumps(content)
    assert paths.benchmark_figure(tmp_path).stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "peaks: bf16 2, fp32 1 GFLOP/s, copying 3 GB/s" in out
    assert len([line for line in out.splitlines() if line.endswith(("reached", "missed"))]) >= 11


def test_rows_are_chosen_kept_and_resumed(fake_measures, tmp_path):
    content = run(tmp_path, "--quick", "--rows", "quality,memory")
    states = {row["id"]: row["status"] for row in content["rows"]}
    assert {row_id for row_id, state in states.items() if state == "measured"} == {"quality", "memory"}
    assert fake_measures == ["quality", "memory"]
    run(tmp_path, "--quick", "--resume")
    assert len(fake_measures) == len(benchmark.ROW_IDS)  # each once
    content = run(tmp_path, "--quick", "--rows", "quality")  # measured anew, the others stay
    assert fake_measures.count("quality") == 2
    assert all(row["status"] == "measured" for row in content["rows"])


def test_an_interruption_keeps_the_rows_before_it(fake_measures, tmp_path, monkeypatch):
    measure = rows.measure

    def interrupted(bench: plan.Bench, row_id: str) -> dict:
        if row_id == "gan_step":
            raise KeyboardInterrupt
        return measure(bench, row_id)

    monkeypatch.setattr(rows, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--quick")
    states = {row["id"]: row["status"] for row in load_json(paths.benchmark(tmp_path))["rows"]}
    assert states["unfreeze_step"] == "measured" and states["gan_step"] == "not_measured"


def test_rows_of_other_settings_are_refused_by_resume_and_else_replaced(fake_measures, tmp_path, capsys):
    run(tmp_path, "--quick", "--rows", "quality")
    with pytest.raises(UserError, match=r"quick True \(now False\).*--output-dir"):
        run(tmp_path, "--resume")
    content = run(tmp_path, "--rows", "memory")
    assert "it is replaced" in capsys.readouterr().out
    assert [row["id"] for row in content["rows"] if row["status"] == "measured"] == ["memory"]


def test_an_unknown_row_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        benchmark.build_parser().parse_args(["--rows", "quality,speed"])
    assert "'speed' is no row; they are baseline_default" in capsys.readouterr().err


def test_the_figure_says_reached_missed_and_not_measured():
    content = {
        "machine": {"gpu": None, "cpu": "a CPU", "cores": 2},
        "settings": {"quick": True},
        "rows": [fake_row("quality"), fake_row("memory"), plan.not_measured("growth", "no")],
    }
    (ax,) = draw(content).axes
    words = {text.get_text() for text in ax.texts}
    assert words == {"1.5x, target 5x", "2 GB, limit 3 GB", "not measured"}
