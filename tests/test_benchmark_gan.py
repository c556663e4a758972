"""The comparison of generators: with made-up contenders whose place is known, and files that were cut off."""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import benchmark_gan
from benchmarks.generators import contender_runs as runs
from benchmarks.generators import scorer as gan_benchmark_scorer
from benchmarks.generators.contenders import (
    OPTION_SETS,
    Budget,
    Contender,
    Unit,
    contenders,
    option_contender,
)
from benchmarks.generators.data import load_benchmark_data
from benchmarks.generators.figure import gan_benchmark
from benchmarks.generators.kid import KernelReference, difference, kid_of, resampled_weights
from benchmarks.generators.rows import GANResults, is_trained, measure, measure_units, merge_into, merged
from benchmarks.generators.scores import SPACES, Judge, better_of
from benchmarks.generators.table import cost_table, rows_of, summaries, table
from common import paths
from gan import options as gan_options
from gan_data import make_dataset
from image_metrics.distances import kernel_distance
from utils import UserError, load_json, save_json

SIDE, COUNT = 32, 40
MACHINE = {"cpu": "made up", "cores": 1, "gpu": None}

DRIVER = """
import json, sys, time
import numpy as np
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
reals = np.load(args["--images"])
rng, count = np.random.default_rng(int(args["--seed"])), int(args["--count"])
facts = {{"train_seconds": 2.0, "images_seen": 100, "parameters": 7, "steps": 1}}
{body}
np.savez(args["--out"], facts=np.array(json.dumps(facts)), **made)
"""
BODIES = {
    "noise": "made = {'raw': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8)}",
    "copies": "made = {'raw': reals[rng.integers(0, len(reals), count)]}",
    # The average is as good as the reals, the weights themselves give noise.
    "both": "made = {'raw': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8),"
    " 'averaged': reals[rng.integers(0, len(reals), count)]}",
    "worse average": "made = {'averaged': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8),"
    " 'raw': reals[rng.integers(0, len(reals), count)]}",
    "one image": "made = {'raw': np.repeat(reals[:1], count, axis=0)}",
    "too few": "made = {'raw': reals[:3]}",
    "wrong size": "made = {'raw': np.zeros((count, 8, 8), np.uint8)}",
    "fails": "sys.exit('AssertionError: /some/where/file.py is not what it needs')",
    "slow": "open(args['--out'] + '.pid', 'w').write(str(__import__('os').getpid())); time.sleep(60)",
}


def smooth_faces(rng: np.random.Generator, n: int, base: int) -> np.ndarray:
    """uint8 [n, SIDE, SIDE]: smooth fields, each its own; ``base`` is the mean gray level."""
    coarse = torch.from_numpy(rng.normal(size=(n, 1, 8, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic")[:, 0].numpy()
    return (base + 40 * fine).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Some 80 training positives, two per patient, as smooth fields instead of the dataset's noise."""

    def pixels(path, size):
        return smooth_faces(np.random.default_rng(zlib.crc32(Path(path).stem.encode())), 1, 120)[0]

    folder = make_dataset(tmp_path_factory.mktemp("data") / "processed", n_images=320, side=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_loader.read_image", pixels)
        return load_benchmark_data(str(folder), None, None, SIDE, workers=1, skip_bad=False, cache_dir=None)


def simple_features(pixels: np.ndarray) -> np.ndarray:
    """[N, 16]: a stand-in for the scorer's, which need not be trained here."""
    return pixels.reshape(len(pixels), 4, SIDE // 4, 4, SIDE // 4).mean(axis=(2, 4)).reshape(-1, 16) / 255.0


@pytest.fixture(scope="module")
def judge(data):
    made = Judge(data, simple_features, "digest")
    found = made.floors(), made.controls()  # once: many tests describe the reals
    made.floors, made.controls = (lambda part=part: part for part in found)
    return made


@pytest.fixture
def field(data, tmp_path):
    python = Path(sys.executable)
    return runs.Field(data, (), tmp_path / "work", python, "cpu", COUNT, grace=20.0)


def fake(tmp_path: Path, name: str) -> Contender:
    file = tmp_path / f"{name}.py"
    file.write_text(DRIVER.format(body=BODIES[name]))
    return Contender(name, driver=str(file))


def unit(tmp_path: Path, name: str, seed: int = 0, minutes: float = 0.01) -> Unit:
    return Unit(fake(tmp_path, name), seed, Budget(minutes=minutes))


# --- the parts -------------------------------------------------------------------------------------
def test_nobody_sees_a_heldout_patient_and_nobody_a_test_image(data):
    learned, heldout = (set(part.records["patient"]) for part in (data.learned, data.heldout))
    assert not learned & heldout
    assert set(data.training_patients) <= learned and set(data.reference_patients) <= heldout
    split = load_json(data.splits_file)["images"]
    test = {image["patient"] for image in split if image["role"] == "test"}
    assert test and not test & (learned | heldout)
    everybody = {image["patient"] for image in split if image["role"] == "train"}
    assert learned | heldout == everybody
    share = len(data.reference) / (len(data.reference) + len(data.training))
    assert 0.15 < share < 0.25


def test_the_heldout_part_is_the_fold_that_train_gan_leaves_out(data):
    import train_gan
    from gan.training_set import training_part_of

    flags = ["--data-dir", str(data.splits_file.parent), "--fold", "1", "--k-folds", "5"]
    _, splits = training_part_of(train_gan.parse_arguments(flags).images)
    seen = splits.images[(splits.images["role"] == "train") & (splits.images["label"] == 1)]
    assert set(seen["patient"]) == set(data.training_patients)


def test_another_fold_holds_out_others(tmp_path):
    folder = make_dataset(tmp_path / "processed", n_images=320, side=4)
    load = lambda fold: load_benchmark_data(  # noqa: E731
        str(folder), None, None, SIDE, workers=1, skip_bad=False, cache_dir=None, fold=fold
    )
    first, third = load(1), load(3)
    assert not set(first.heldout.records["patient"]) & set(third.heldout.records["patient"])
    assert first.summary() != third.summary() and "fold 3 of 5" in third.summary()["held_out"]
    field = runs.Field(third, (), tmp_path, Path(sys.executable), "cpu", COUNT, grace=20.0)
    commands = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run_limited", lambda command, *_: commands.append(" ".join(command)) or {})
        facts = {"precision": "fp32", "perceptual": "off"}
        patch.setattr(runs, "sample_ours", lambda *_: ({"raw": np.zeros(1)}, facts))
        runs.make_images(Unit(Contender("ours-cpu"), 7, Budget(minutes=10)), field)
    assert "--fold 3 --k-folds 5" in commands[0]


def test_the_summary_names_nobody(data):
    text = json.dumps(data.summary())
    assert not any(name in text for name in [*data.training_patients, *data.learned.records["image_id"]])
    assert data.summary()["learned_positives"] == len(data.training)


def test_too_few_positives_are_refused(tmp_path):
    folder = make_dataset(tmp_path / "data", n_images=90, side=8)
    with pytest.raises(UserError, match="at least 12"):
        load_benchmark_data(str(folder), None, None, SIDE, workers=1, skip_bad=False, cache_dir=None)


# --- scores ----------------------------------------------------------------------------------------
def test_copies_noise_and_collapse_are_told_apart(data, judge, field, tmp_path):
    rows = {
        name: measure(unit(tmp_path, name), field, judge, "peers")
        for name in ("noise", "copies", "one image")
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
    floors = judge.floors()
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
    controls = judge.controls()
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


def test_the_generator_that_counts_is_chosen_without_the_heldout_images(field, judge, tmp_path):
    row = measure(unit(tmp_path, "both"), field, judge, "peers")
    assert row["better"] == better_of(row["scores"]) == "averaged"
    assert row["images_per_second"] == 50.0 and row["parameters"] == 7
    scores = scored_by({"raw": (1, 1, 9), "averaged": (2, 2, 3)}, {"raw": (9, 9, 9), "averaged": (1, 1, 1)})
    assert better_of(scores) == "raw"
    assert better_of({"raw": scores["raw"]}) == "raw"


def test_of_options_the_average_counts_whatever_it_scores(field, judge, tmp_path):
    row = measure(unit(tmp_path, "worse average"), field, judge, "options")
    assert row["better"] == "averaged" and not row["trained"]
    assert measure(unit(tmp_path, "worse average"), field, judge, "peers")["better"] == "raw"


@pytest.mark.parametrize(
    ("recall", "precision", "diversity", "trained"),
    [(0.11, 0.11, 0.51, True), (0.1, 0.9, 0.9, False), (0.9, 0.9, 0.49, False),
     (1.0, 0.0, 1.2, False)],  # the last is noise, which surrounds the reals without being near any
)  # fmt: skip
@pytest.mark.parametrize("where", SPACES)
def test_trained_means_recall_precision_and_diversity_in_every_space(
    recall, precision, diversity, trained, where
):
    spaces = {space: {"recall": 0.9, "precision": 0.9, "diversity": 0.9} for space in SPACES}
    spaces[where] = {"recall": recall, "precision": precision, "diversity": diversity}
    assert is_trained({"spaces": spaces}) is trained


# --- KID and its intervals -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def features():
    """Three sets: 30 real ones of 30 patients, 50 like them, 50 that are off."""
    rng = np.random.default_rng(3)
    return [rng.normal(shift, 1, (n, 12)) for n, shift in ((30, 0.0), (50, 0.0), (50, 0.4))]


def test_kid_is_the_unbiased_one_and_its_interval_that_of_resampled_patients(features):
    real, good, bad = features
    reference = KernelReference(real, np.arange(30))
    for made in (good, bad):
        assert reference.beside(made)["kid"] == pytest.approx(kernel_distance(made, real), abs=1e-6)
    # The same by hand for a few resamples: real rows repeated, pairs of an image with itself left out.
    kernel = lambda a, b: (a @ b.T / 12 + 1) ** 3  # noqa: E731
    for weights, within in zip(reference.weights[:5], reference.within, strict=False):
        rows = np.repeat(np.arange(30), weights.astype(int))
        apart = rows[:, None] != rows[None, :]
        assert within == pytest.approx(kernel(real[rows], real[rows])[apart].mean())
    found = reference.beside(bad)
    low, high = found["kid_ci95"]
    assert low < found["kid"] < high


def test_both_images_of_a_patient_come_and_go_together():
    weights = resampled_weights(["a", "b", "a", "c"])
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 0] != weights[:, 1]).any()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (weights == resampled_weights([0, 1, 0, 2])).all()  # numbers for names


def test_an_interval_covers_other_samples_of_reals():
    """KID beside 30 reals, against KID of the same images beside 4,000: 95 % of intervals hold it."""
    rng = np.random.default_rng(0)
    made, many = rng.normal(0.3, 1, (100, 6)), rng.normal(0, 1, (4000, 6))
    truth, inside = kernel_distance(made, many), 0
    for _ in range(100):
        real = rng.normal(0, 1, (30, 6))
        low, high = KernelReference(real, np.arange(30)).beside(made)["kid_ci95"]
        inside += low <= truth <= high
    assert inside >= 85


def test_a_paired_difference_is_surer_than_its_parts(features):
    real, good, bad = features
    reference = KernelReference(real, np.arange(30))
    a, b = reference.beside(bad), reference.beside(good)
    gap = difference([a], [b], reference.weights)
    assert gap["kid"] == pytest.approx(a["kid"] - b["kid"]) and gap["ci95"][0] > 0
    width = lambda interval: interval[1] - interval[0]  # noqa: E731
    assert width(gap["ci95"]) < width(a["kid_ci95"])
    assert difference([a], [a], reference.weights) == {"kid": 0.0, "ci95": [0.0, 0.0]}
    both = kid_of([a, b], reference.facts(), reference.weights)
    assert both["kid"] == pytest.approx((a["kid"] + b["kid"]) / 2)


# --- contenders that fail --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "reason"),
    [("fails", "AssertionError: file.py is not what it needs"), ("too few", "3 raw images are fewer"),
     ("wrong size", r"its raw images are uint8 \[40, 8, 8\]")],
)  # fmt: skip
def test_one_that_fails_stands_in_the_table_with_the_reason(name, reason, field, judge, tmp_path):
    row = measure(unit(tmp_path, name), field, judge, "peers")
    assert row["status"] == "failed"
    assert re.search(reason, row["reason"]), row["reason"]
    assert "/some" not in row["reason"]


def test_one_that_runs_over_its_time_is_ended(data, judge, field, tmp_path):
    short = runs.Field(**{**vars(field), "grace": 1.5})
    start = time.monotonic()
    slow = unit(tmp_path, "slow")
    row = measure(slow, short, judge, "peers")
    assert row["status"] == "over_time" and "minutes" in row["reason"]
    assert time.monotonic() - start < 30
    pid = int(next(short.folder(slow).glob("*.pid")).read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_what_a_driver_learned_from_does_not_stay(field, judge, tmp_path):
    for name in ("noise", "fails"):
        measure(unit(tmp_path, name), field, judge, "peers")
        assert not list(field.work.rglob("reals*"))


def test_a_package_that_is_not_installed_is_said_so(field, judge, tmp_path):
    bare = runs.Field(**{**vars(field), "peers_python": tmp_path / "nothing" / "bin" / "python"})
    peer = Unit(Contender("p", driver="drive_ddpm.py", package="diffusers"), 0, Budget(minutes=1))
    row = measure(peer, bare, judge, "peers")
    assert row["status"] == "not_installed" and "--what install" in row["reason"]


# --- the result file -------------------------------------------------------------------------------
@pytest.fixture
def results(tmp_path, data, judge):
    header = {"machine": MACHINE, "data": data.summary(), "images": COUNT}
    made = GANResults(tmp_path / "gan_benchmark.json", header, judge.mark)
    made.describe_reals({"heldout_auroc": 0.5}, judge)
    return made


def test_finished_rows_are_kept_and_failures_tried_again(
    results, field, judge, tmp_path, monkeypatch, capsys
):
    units = [unit(tmp_path, "noise"), unit(tmp_path, "fails")]
    measure_units(units, field, judge, results, "peers", again=False)
    made = []
    original = runs.make_images
    monkeypatch.setattr(
        "benchmarks.generators.rows.make_images", lambda *a: (made.append(a[0].id), original(*a))[1]
    )
    later = GANResults(results.file, results.header, results.mark)
    measure_units([*units, unit(tmp_path, "copies")], field, judge, later, "peers", again=False)
    assert made == [units[1].id, unit(tmp_path, "copies").id]
    rows = load_json(results.file)["rows"]
    assert [(row["contender"], row["status"]) for row in rows] == [
        ("noise", "done"), ("fails", "failed"), ("copies", "done")
    ]  # fmt: skip
    assert "1 finished before and kept" in capsys.readouterr().out


def test_another_command_may_have_added_rows_meanwhile(results, field, judge, tmp_path):
    other = GANResults(results.file, results.header, results.mark)
    other.add(measure(unit(tmp_path, "noise"), field, judge, "peers"))
    results.add(measure(unit(tmp_path, "noise", seed=1), field, judge, "peers"))
    assert [row["seed"] for row in load_json(results.file)["rows"]] == [0, 1]


def test_an_interruption_while_writing_leaves_the_file_whole(results, field, judge, tmp_path, monkeypatch):
    results.add(measure(unit(tmp_path, "noise"), field, judge, "peers"))
    before = results.file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        place = {"what": "peers", "contender": "x", "budget": "1 min", "seed": 0}
        results.add(place | {"id": "x", "status": "done"})
    assert results.file.read_bytes() == before
    assert not list(results.file.parent.glob(".*tmp"))


def test_images_of_an_earlier_time_are_scored_without_training_again(field, judge, tmp_path):
    here = unit(tmp_path, "noise")
    first = measure(here, field, judge, "peers")
    Path(here.contender.driver).unlink()
    assert measure(here, field, judge, "peers") == first
    paths.made_images(field.folder(here)).write_bytes(b"PK cut off")
    assert measure(here, field, judge, "peers")["status"] == "failed"


def test_again_trains_again(results, field, judge, tmp_path):
    here = unit(tmp_path, "noise")
    measure_units([here], field, judge, results, "peers", again=False)
    made = paths.made_images(field.folder(here)).stat().st_mtime_ns
    measure_units([here], field, judge, results, "peers", again=True)
    assert paths.made_images(field.folder(here)).stat().st_mtime_ns != made
    assert len(load_json(results.file)["rows"]) == 1
    assert not paths.unit_again(field.folder(here)).exists()


def test_a_failure_takes_the_place_of_nothing(results, field, judge, tmp_path, capsys):
    here = unit(tmp_path, "noise")
    measure_units([here], field, judge, results, "peers", again=False)
    before = load_json(results.file)["rows"]
    images = paths.made_images(field.folder(here)).read_bytes()
    Path(here.contender.driver).write_text(DRIVER.format(body=BODIES["fails"]))
    measure_units([here], field, judge, results, "peers", again=True)
    assert load_json(results.file)["rows"] == before and "the finished row stays" in capsys.readouterr().out
    assert paths.made_images(field.folder(here)).read_bytes() == images


def test_two_commands_do_not_train_one_contender(results, field, judge, tmp_path, capsys):
    here = unit(tmp_path, "noise")
    with runs.only_one(field.folder(here)):
        measure_units([here], field, judge, results, "peers", again=False)
    assert "another command" in capsys.readouterr().out and load_json(results.file)["rows"] == []
    measure_units([here], field, judge, results, "peers", again=False)
    assert len(load_json(results.file)["rows"]) == 1


def test_rows_added_at_the_same_time_are_all_there(results):
    row = {"what": "peers", "contender": "x", "budget": "1 min", "status": "failed", "reason": "", "id": ""}

    def add(seed: int) -> None:
        GANResults(results.file, results.header, results.mark).add(row | {"seed": seed})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert sorted(row["seed"] for row in load_json(results.file)["rows"]) == list(range(24))


def older(file: Path) -> None:
    """The file as an older version, without marks, left it."""
    content = load_json(file)
    for row in [row for row in content["rows"] if row["status"] == "done"]:
        del row["scoring"]
        row["scores"], row["trained"] = {"raw": {"spaces": {}}}, True
    for part in ("references", "controls"):
        del content[part]
    content["scorer"] = {"heldout_auroc": 0.5}
    save_json(file, content)


def test_rows_of_an_older_scoring_are_scored_anew_and_not_trained(
    results, field, judge, tmp_path, monkeypatch, capsys
):
    units = [unit(tmp_path, "noise"), unit(tmp_path, "copies")]
    measure_units(units, field, judge, results, "peers", again=False)
    before = load_json(results.file)["rows"]
    older(results.file)
    paths.made_images(field.folder(units[1])).unlink()
    monkeypatch.setattr(runs, "run_limited", lambda *_: pytest.fail("trained"))
    later = GANResults(results.file, results.header, results.mark)
    later.describe_reals({"heldout_auroc": 0.5}, judge)
    assert not later.has(units[0]) and rows_of(later.content, "peers") == []
    later.rescore(field, judge)
    printed = capsys.readouterr().out
    assert "2 rows" in printed and "1 of them have no images" in printed
    assert rows_of(later.content, "peers") == [before[0]]
    assert later.has(units[0]) and not later.has(units[1])
    assert len(later.content["rows"]) == 2  # nothing is lost
    assert "copies" not in "".join(line.split()[0] for line in table(later.content, "peers"))


def test_another_scorer_is_another_scoring(results, field, judge, tmp_path):
    here = unit(tmp_path, "noise")
    measure_units([here], field, judge, results, "peers", again=False)
    other = GANResults(results.file, results.header, results.mark | {"scorer": "another"})
    assert results.has(here) and not other.has(here)
    with pytest.raises(UserError, match="other scoring"):
        changed = load_json(results.file)
        changed["scorer"]["mark"]["scorer"] = "another"
        merged([results.content, changed], ["a", "b"])


def test_a_file_of_a_newer_version_is_refused(results):
    content = load_json(results.file)
    content["scorer"]["mark"]["version"] += 1
    save_json(results.file, content)
    with pytest.raises(UserError, match="newer version"):
        GANResults(results.file, results.header, results.mark)


def test_files_are_merged_row_by_row(results):
    row = {"what": "peers", "contender": "x", "budget": "1 min", "id": ""}
    statuses = [{"seed": 0, "status": "failed"}, {"seed": 1, "status": "done"}]
    one = results.content | {"rows": [row | status for status in statuses]}
    two = results.content | {"rows": [row | {"seed": seed, "status": "done"} for seed in (0, 1, 2)]}
    rows = merged([one, two], ["one", "two"])["rows"]
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "done"), (1, "done"), (2, "done")]
    with pytest.raises(UserError, match="two was measured with other images"):
        merged([one, two | {"images": 3}], ["one", "two"])


def test_rows_of_one_thread_and_of_two_are_of_one_machine(results, tmp_path):
    """A row tells its threads; an earlier version said so of the machine."""
    earlier = tmp_path / "earlier.json"
    machine = results.header["machine"] | {"threads": 1}
    save_json(earlier, results.content | {"machine": machine, "rows": []})
    assert merge_into(results.file, [earlier])["machine"] == results.header["machine"]


def test_a_preset_that_was_changed_is_measured_anew_and_replaces_its_row(results, judge, monkeypatch):
    before = Unit(Contender("ours-cpu", ("--preset", "cpu")), 0, Budget(minutes=10))
    row = {"what": "peers", "contender": "ours-cpu", "budget": "10 min", "seed": 0, "status": "done"}
    row["scoring"] = results.mark
    results.add(row | {"id": before.id})
    assert results.has(before)
    monkeypatch.setitem(gan_options.PRESETS, "cpu", gan_options.PRESETS["cpu"] | {"r1": 123.0})
    now = Unit(before.contender, 0, before.budget)
    assert not results.has(now)
    results.add(row | {"id": now.id})
    assert [kept["id"] for kept in load_json(results.file)["rows"]] == [now.id]


@pytest.mark.parametrize("part", ["machine", "data", "images"])
def test_a_file_of_another_machine_or_other_images_is_refused(results, part):
    header = results.header | {part: "another"}
    with pytest.raises(UserError, match=f"other {part}"):
        GANResults(results.file, header, results.mark)


@pytest.mark.parametrize("text", ["[]", '{"format": "x"}', "{"])
def test_a_foreign_file_is_refused(text, tmp_path):
    file = tmp_path / "gan_benchmark.json"
    file.write_text(text)
    with pytest.raises(UserError):
        GANResults(file, {"machine": MACHINE, "data": {}, "images": 1}, {})


def test_the_table_is_in_the_order_of_ranks_and_ends_with_the_failures(results, field, judge, tmp_path):
    names = ("noise", "fails", "copies")
    measure_units([unit(tmp_path, name) for name in names], field, judge, results, "peers", again=False)
    lines = table(results.content, "peers")
    assert [line.split()[0] for line in lines] == [
        "contender", "copies", "noise", "fails", "reals", "bad:", "bad:", "bad:", "bad:", "KID", "fails,"
    ]  # fmt: skip
    assert "1/1" in lines[1] and "0/1" in lines[3]
    found = {contender: one for (_, contender), one in summaries(results.content, "peers").items()}
    assert [one["rank"] for one in found.values()] == [1.0, 2.0, None]
    for space in SPACES:
        assert found["copies"]["spaces"][space]["tied"] and not found["noise"]["spaces"][space]["tied"]
    assert "(hardly begun: 1 steps)" in lines[1]


def test_what_cannot_be_told_from_the_best_is_marked(results, field, judge, tmp_path):
    for seed in (0, 1):
        row = measure(unit(tmp_path, "copies", seed), field, judge, "peers")
        results.add(row | {"contender": f"c{seed}"})
    found = summaries(results.content, "peers").values()
    assert all(one["spaces"][space]["tied"] for one in found for space in SPACES)


def test_a_machine_with_other_work_is_marked(results, field, judge, tmp_path):
    row = measure(unit(tmp_path, "noise"), field, judge, "peers")
    assert row["cpu_seconds"] > 0 and row["command_seconds"] > 0
    row |= {"threads": 2, "command_seconds": 10.0, "settings": {"precision": "bf16", "perceptual": "off"}}
    for seconds, mark in ((19.0, "0.95"), (9.0, "0.45 busy")):
        results.add(row | {"cpu_seconds": seconds})
        line = cost_table(results.content, "peers")[1]
        assert f" {mark} " in line and "bf16" in line and " off " in line
        assert re.search(rf" 2 +{mark} ", line)  # of two threads
    results.add(row | {"cpu_seconds": None})
    assert "busy" not in cost_table(results.content, "peers")[1]
    figure = gan_benchmark(results.content, summaries(results.content, "peers"))
    assert "made up, 1 core, 2 threads each" in figure._suptitle.get_text().replace("\n", " ")


# --- who -------------------------------------------------------------------------------------------
def test_all_that_the_comparison_is_about_are_contenders():
    names = list(contenders())
    assert names == [
        "ours-default", "ours-cpu", "ours-best",
        "lightweight-gan", "lightweight-gan small", "stylegan2_pytorch", "stylegan2_pytorch small",
        "diffusers-ddpm", "diffusers-ddpm small", "plain-dcgan",
    ]  # fmt: skip
    for contender in contenders().values():
        assert contender.ours or (paths.PEER_DRIVERS / contender.driver).is_file()
        assert contender.ours or contender.package is None or contender.package in runs.PACKAGES


@pytest.mark.parametrize("name", OPTION_SETS)
def test_every_set_of_options_is_accepted_by_the_trainer(name):
    import train_gan
    from gan.options import read_settings

    args = train_gan.build_parser().parse_args([*option_contender(name).flags, "--image-size", "64"])
    read_settings(vars(args))


def test_sets_of_options_are_known_or_spelt():
    assert option_contender("mine=--d-norm none --r1 2").flags == ("--d-norm", "none", "--r1", "2")
    with pytest.raises(UserError, match="no set of options"):
        option_contender("mine")


def test_a_driver_that_does_something_else_is_measured_anew():
    known = contenders()
    for name in ("lightweight-gan", "stylegan2_pytorch"):
        default, small = (Unit(known[one], 0, Budget(10)) for one in (name, f"{name} small"))
        assert "driver 2" in default.id and default.id != small.id and "--variant small" in small.id
    assert "driver" not in Unit(known["diffusers-ddpm"], 0, Budget(10)).id


def test_units_differ_by_what_they_measure():
    one, other = Contender("a", ("--x",)), Contender("a", ("--y",))
    units = [Unit(one, 0, Budget(10)), Unit(one, 1, Budget(10)), Unit(one, 0, Budget(30)),
             Unit(one, 0, Budget(kimg=10)), Unit(other, 0, Budget(10))]  # fmt: skip
    assert len({unit.id for unit in units}) == len({unit.folder_name("k") for unit in units}) == 5
    assert units[0].folder_name("k") != units[0].folder_name("other data")


@pytest.mark.parametrize(
    ("budget", "wanted", "unwanted"),
    [(Budget(minutes=10), ["--max-minutes 10", "--epochs 1000000"], "--resume"),
     (Budget(kimg=64), ["--kimg 64", "--resume"], "--max-minutes")],
)  # fmt: skip
def test_ours_are_trained_by_a_command_that_train_gan_understands(
    budget, wanted, unwanted, field, monkeypatch
):
    import train_gan

    commands = []
    monkeypatch.setattr(
        runs, "run_limited", lambda command, _, limit: commands.append((command, limit)) or {}
    )
    facts = {"precision": "fp32", "perceptual": "off"}
    monkeypatch.setattr(runs, "sample_ours", lambda *_: ({"raw": np.zeros(1)}, dict(facts)))
    ours = Unit(Contender("ours-cpu", ("--preset", "cpu")), 7, budget)
    made = runs.make_images(ours, field)
    ((command, limit),) = commands
    text = " ".join(command)
    wanted = [*wanted, "--fold 1 --k-folds 5", "--seed 7", "--perceptual off --preset cpu"]
    assert all(words in text for words in wanted)
    assert unwanted not in text and "--no-real-images" in text
    assert limit == (None if budget.minutes is None else 600 + field.grace)
    assert train_gan.parse_arguments(command[2:]).images.image_size == SIDE
    assert made.facts["settings"] == {"flags": "--preset cpu"} | facts


# --- the scorer ------------------------------------------------------------------------------------
def test_the_scorer_is_trained_once_and_never_on_heldout_patients(data, tmp_path, monkeypatch):
    seen = []
    original = gan_benchmark_scorer.train_scorer

    def spied(images, *args):
        seen.append(set(images.records["patient"]))
        return original(images, *args) if len(seen) == 1 else gan_benchmark_scorer.build_scorer(SIDE).eval()

    monkeypatch.setattr(gan_benchmark_scorer, "train_scorer", spied)
    cpu = torch.device("cpu")
    first = gan_benchmark_scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    again = gan_benchmark_scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    assert len(seen) == 1 and not seen[0] & set(data.heldout.records["patient"])
    np.testing.assert_array_equal(first.features(data.reference), again.features(data.reference))
    assert first.features(data.reference).shape == (len(data.reference), 512)
    assert (
        again.digest
        == first.digest
        != gan_benchmark_scorer.weights_digest(gan_benchmark_scorer.build_scorer(SIDE))
    )
    assert again.facts == first.facts and 0 <= first.facts["heldout_auroc"] <= 1
    file = next((tmp_path / "gan_scorer").glob("*.pth"))
    file.write_bytes(file.read_bytes()[:1000])
    gan_benchmark_scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    assert len(seen) == 2


# --- drivers ---------------------------------------------------------------------------------------
@pytest.fixture
def drivers(monkeypatch):
    """Their folder on the path, as it is when one of them is run."""
    monkeypatch.syspath_prepend(str(paths.PEER_DRIVERS))
    yield lambda name: importlib.import_module(name)
    for name in [file.stem for file in paths.PEER_DRIVERS.glob("*.py")]:
        sys.modules.pop(name, None)


def driver_flags(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "reals.npy", smooth_faces(np.random.default_rng(0), 8, 120))
    files = ["--images", str(tmp_path / "reals.npy"), "--out", str(tmp_path / "made.npz")]
    return [*files, "--seconds", "0.3", "--seed", "3", "--count", "5"]


class CountingPeer:
    """Knows what it was given; a step takes 50 ms and looks at 4 images."""

    settings, parameters = {"batch": 4}, 11

    def __init__(self, reals, device):
        self.reals = reals

    def step(self):
        time.sleep(0.05)
        return 4

    def sample(self, count):
        return {"raw": torch.rand(count, 3, 8, 8), "averaged": self.reals[:count]}


def test_a_driver_counts_time_and_images_and_leaves_both_generators(drivers, tmp_path):
    drivers("protocol").main(CountingPeer, "torch", driver_flags(tmp_path))
    made = runs.read_made(tmp_path / "made.npz")
    assert made.images["raw"].shape == (5, 8, 8)
    reals = np.load(tmp_path / "reals.npy")
    np.testing.assert_array_equal(made.images["averaged"], reals[:5])  # [0, 1] and back without a loss
    facts = made.facts
    assert 0.3 <= facts["train_seconds"] < 2 and facts["images_seen"] == 4 * facts["steps"] > 0
    assert facts["parameters"] == 11 and facts["package"].startswith("torch ")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made.npz", "reals.npy"]


def test_a_driver_ends_without_a_file_if_its_images_are_not_finite(drivers, tmp_path):
    class Lost(CountingPeer):
        def sample(self, count):
            return {"raw": torch.full((count, 1, 8, 8), float("nan"))}

    with pytest.raises(SystemExit, match="not finite"):
        drivers("protocol").main(Lost, None, driver_flags(tmp_path))
    assert not (tmp_path / "made.npz").exists()


@pytest.mark.parametrize("missing", ["--images", "--out", "--seconds"])
def test_a_driver_tells_what_it_lacks(missing, drivers, tmp_path, capsys):
    flags = driver_flags(tmp_path)
    del flags[flags.index(missing) : flags.index(missing) + 2]
    with pytest.raises(SystemExit) as ended:
        drivers("protocol").main(CountingPeer, None, flags)
    assert ended.value.code == 2 and missing in capsys.readouterr().err


def test_batches_go_on_without_end_and_miss_no_image(drivers):
    batches = drivers("protocol").batches_of(torch.arange(6)[:, None], 3)
    epochs = [torch.cat([next(batches), next(batches)]).flatten().tolist() for _ in range(2)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert next(drivers("protocol").batches_of(torch.zeros(2, 1), 64)).shape == (2, 1)


def test_the_textbook_driver_trains_and_samples(drivers, tmp_path):
    plain = drivers("drive_plain_dcgan")
    plain.main(plain.PlainDCGAN, None, driver_flags(tmp_path))
    made = runs.read_made(tmp_path / "made.npz")
    assert list(made.images) == ["raw"] and made.images["raw"].shape == (5, SIDE, SIDE)
    assert made.images["raw"].std() > 0 and made.facts["images_seen"] == 8 * made.facts["steps"]


def test_an_average_begins_with_the_training(drivers):
    network, average = (torch.nn.BatchNorm1d(1, affine=True) for _ in range(2))
    moving = drivers("protocol").Average([network], [average], 0.5)
    mean, calls = 1.0, []
    gan = SimpleNamespace(
        EMA=lambda: calls.append("EMA"), reset_parameter_averaging=lambda: calls.append("reset")
    )
    assert "from step 0" in moving.take_over(gan)
    for step in range(1, 30):
        torch.nn.init.constant_(network.weight, value := 1.0 + step)
        network.running_mean.fill_(step)
        moving.step()
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
        gan.EMA(), gan.reset_parameter_averaging()  # the package's own do nothing any more
    assert calls == ["reset"]
    assert average.weight.item() == pytest.approx(mean) and average.running_mean.item() == 29


@pytest.mark.parametrize(("side", "trained"), [(64, 64), (112, 128), (224, 256)])
def test_reals_are_enlarged_to_a_power_of_two_and_samples_come_back(side, trained, drivers):
    protocol = drivers("protocol")
    ramp = torch.linspace(0, 1, side)[None, None, None].expand(2, 1, side, side)
    large = protocol.enlarged(ramp)
    assert large.shape == (2, 1, trained, trained)
    back = protocol.reduced(large, side)
    assert back.shape == ramp.shape and (back - ramp).abs().max() < 0.01
    assert bool(protocol.side_words(side, trained)) is (side != trained)


def test_the_small_variant_reaches_its_builder(drivers, tmp_path, capsys):
    built = []

    def build(reals, device, small):
        built.append(small)
        return CountingPeer(reals, device)

    protocol = drivers("protocol")
    for flags in ([], ["--variant", "small"]):
        protocol.main(build, None, [*driver_flags(tmp_path), *flags], variants=True)
    assert built == [False, True]
    with pytest.raises(SystemExit):
        protocol.main(CountingPeer, None, [*driver_flags(tmp_path), "--variant", "small"])


def test_a_step_that_fails_is_tried_again_and_not_for_ever(drivers):
    failures = iter([True, True, False, True, True, True])

    def step() -> None:
        if next(failures):
            raise ArithmeticError

    tried = drivers("protocol").tried
    tried(step, ArithmeticError)
    with pytest.raises(ArithmeticError):
        tried(step, ArithmeticError)
    assert next(failures, None) is None


@pytest.mark.parametrize("size", [32, 64, 112, 224])
def test_the_textbook_networks_fit_every_size(size, drivers):
    plain = drivers("drive_plain_dcgan")
    with torch.device("meta"):
        made = plain.generator(size)(torch.zeros(2, 100, 1, 1))
        assert made.shape == (2, 1, size, size)
        assert plain.discriminator(size)(made).shape == (2, 1, 1, 1)


def test_packages_that_insist_on_a_gpu_can_be_imported_and_torch_stays_honest(drivers):
    without_gpu = drivers("without_gpu")
    kept = torch.Tensor.cuda, torch.nn.Module.cuda, torch.cuda.is_available
    try:
        with without_gpu.importable(torch.device("cpu")):
            assert torch.cuda.is_available()
        assert torch.cuda.is_available is kept[2]
        number, layer = torch.ones(2), torch.nn.Linear(1, 1)
        assert number.cuda(0) is number and layer.cuda(0) is layer
        assert without_gpu.TorchOnCPU().device("cuda:0") == torch.device("cpu")
        assert without_gpu.TorchOnCPU().zeros is torch.zeros
    finally:
        torch.Tensor.cuda, torch.nn.Module.cuda = kept[:2]
        for name in without_gpu.LOGGING:
            sys.modules.pop(name, None)


# --- the command -----------------------------------------------------------------------------------
@pytest.fixture
def quick(monkeypatch):
    """A scorer that need not be trained."""
    scorer = SimpleNamespace(features=simple_features, facts={"heldout_auroc": 0.75}, digest="d")
    monkeypatch.setattr(gan_benchmark_scorer, "load_scorer", lambda *_: scorer)


def test_the_whole_command_with_fakes(quick, in_tmp, monkeypatch, capsys):
    fakes = {name: fake(in_tmp, name) for name in ("noise", "both", "fails")}
    monkeypatch.setattr("benchmarks.generators.contenders.contenders", lambda: fakes)
    make_dataset(Path(paths.DATA_DIR), n_images=320, side=8)
    flags = ["--images", "40", "--minutes", "0.01", "--image-size", "32", "--cpu", "--workers", "1"]
    benchmark_gan.main([*flags, "--seeds", "0", "--contenders", "both,fails"])
    benchmark_gan.main([*flags, "--seeds", "0"])
    content = load_json(paths.gan_benchmark_results("results"))
    assert len(content["rows"]) == 3 and content["data"]["learned_positives"] > 50
    assert all(row["status"] == "done" for row in content["rows"] if row["contender"] != "fails")
    for file in (
        paths.gan_benchmark_figure("results", "peers"),
        paths.gan_benchmark_grid("results", "peers"),
    ):
        assert file.stat().st_size > 10_000
    assert str(in_tmp) not in paths.gan_benchmark_results("results").read_text()
    capsys.readouterr()
    benchmark_gan.main(["--what", "report"])
    assert "noise" in capsys.readouterr().out
    file = paths.gan_benchmark_results("results")
    before, other = load_json(file)["rows"], in_tmp / "other.json"
    save_json(other, load_json(file) | {"rows": [before[0] | {"contender": "elsewhere"}]})
    benchmark_gan.main(["--what", "report", "--merge", str(other)])
    assert "elsewhere" in capsys.readouterr().out
    rows = load_json(file)["rows"]
    assert len(rows) == len(before) + 1
    save_json(file, load_json(file) | {"rows": before})
    older(other)
    with pytest.raises(UserError, match="older version"):
        benchmark_gan.main(["--what", "report", "--merge", str(other)])
    older(file)
    benchmark_gan.main(["--what", "report", "--cpu", "--workers", "1"])
    assert "scored anew" in capsys.readouterr().out
    assert sorted(load_json(file)["rows"], key=str) == sorted(before, key=str)


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--contenders", "nobody"], "no contender"), (["--what", "options", "--set", "x"], "no set of options"),
     (["--what", "report"], "is missing")],
)  # fmt: skip
def test_errors_say_what_is_allowed(flags, message, in_tmp):
    with pytest.raises(UserError, match=message):
        benchmark_gan.main(flags)


@pytest.mark.parametrize("flags", [["--seeds", "-1"], ["--seeds", "a"], ["--minutes", "0"], ["--what", "x"]])
def test_wrong_usage_ends_with_2(flags, in_tmp):
    with pytest.raises(SystemExit) as ended:
        benchmark_gan.main(flags)
    assert ended.value.code == 2
