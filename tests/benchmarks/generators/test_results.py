"""The result file: rows kept, replaced, and added by several commands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import benchmark_paths
from benchmarks.file_formats import GeneratorBenchmark
from benchmarks.generators import contender_runs as runs
from benchmarks.generators.contenders import Budget, Contender, Unit
from benchmarks.generators.results import GeneratorResults, measure_unit, measure_units
from common.file_formats import format_problems
from fake_contenders import BODIES, DRIVER, MACHINE, SCORER, unit
from gan import options as gan_options
from utils import UserError, load_json

RESULTS = Path(__file__).resolve().parents[3] / "results"


def test_finished_rows_are_kept_and_failures_tried_again(results, setup, judge, tmp_path, monkeypatch, capsys):
    units = [unit(tmp_path, "noise"), unit(tmp_path, "fails")]
    measure_units(units, setup, judge, results, "peers", again=False)
    made = []
    original = runs.make_unit_images
    monkeypatch.setattr(
        "benchmarks.generators.results.make_unit_images", lambda *a: (made.append(a[0].id), original(*a))[1]
    )
    later = GeneratorResults(results.file, results.header, judge)
    measure_units([*units, unit(tmp_path, "copies")], setup, judge, later, "peers", again=False)
    assert made == [units[1].id, unit(tmp_path, "copies").id]
    rows = load_json(results.file)["rows"]
    assert [(row["contender"], row["status"]) for row in rows] == [
        ("noise", "done"), ("fails", "failed"), ("copies", "done")
    ]  # fmt: skip
    assert "1 finished earlier and kept" in capsys.readouterr().out


def test_the_file_has_its_documented_form(results, setup, judge, tmp_path):
    units = [unit(tmp_path, "both"), unit(tmp_path, "fails")]
    measure_units(units, setup, judge, results, "peers", again=False)
    assert format_problems(load_json(results.file), GeneratorBenchmark) == []


@pytest.mark.parametrize("folder", [".", "gan_benchmark_options", "gan_benchmark_peers"])
def test_the_committed_files_have_their_documented_form(folder):
    content = load_json(benchmark_paths.gan_benchmark_results(RESULTS / folder))
    assert format_problems(content, GeneratorBenchmark) == []
    assert {row["status"] for row in content["rows"]} == {"done"}


def test_another_command_may_have_added_rows_meanwhile(results, setup, judge, tmp_path):
    other = GeneratorResults(results.file, results.header, judge)
    other.add(measure_unit(unit(tmp_path, "noise"), setup, judge, "peers"))
    results.add(measure_unit(unit(tmp_path, "noise", seed=1), setup, judge, "peers"))
    assert [row["seed"] for row in load_json(results.file)["rows"]] == [0, 1]


def test_an_interruption_while_writing_leaves_the_file_whole(results, setup, judge, tmp_path, monkeypatch):
    results.add(measure_unit(unit(tmp_path, "noise"), setup, judge, "peers"))
    before = results.file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        place = {"what": "peers", "contender": "x", "budget": "1 min", "seed": 0}
        results.add(place | {"id": "x", "status": "done"})
    assert results.file.read_bytes() == before
    assert not list(results.file.parent.glob(".*tmp"))


def test_again_trains_again(results, setup, judge, tmp_path):
    here = unit(tmp_path, "noise")
    measure_units([here], setup, judge, results, "peers", again=False)
    made = benchmark_paths.made_images(setup.folder(here)).stat().st_mtime_ns
    measure_units([here], setup, judge, results, "peers", again=True)
    assert benchmark_paths.made_images(setup.folder(here)).stat().st_mtime_ns != made
    assert len(load_json(results.file)["rows"]) == 1
    assert not benchmark_paths.unit_again(setup.folder(here)).exists()


def test_a_failure_takes_the_place_of_nothing(results, setup, judge, tmp_path, capsys):
    here = unit(tmp_path, "noise")
    measure_units([here], setup, judge, results, "peers", again=False)
    before = load_json(results.file)["rows"]
    images = benchmark_paths.made_images(setup.folder(here)).read_bytes()
    Path(here.contender.driver).write_text(DRIVER.format(body=BODIES["fails"]), encoding="utf-8")
    measure_units([here], setup, judge, results, "peers", again=True)
    assert load_json(results.file)["rows"] == before and "the finished row stays" in capsys.readouterr().out
    assert benchmark_paths.made_images(setup.folder(here)).read_bytes() == images


def test_two_commands_do_not_train_one_contender(results, setup, judge, tmp_path, capsys):
    here = unit(tmp_path, "noise")
    with runs.locked_folder(setup.folder(here)):
        measure_units([here], setup, judge, results, "peers", again=False)
    assert "another command" in capsys.readouterr().out and load_json(results.file)["rows"] == []
    measure_units([here], setup, judge, results, "peers", again=False)
    assert len(load_json(results.file)["rows"]) == 1


def test_rows_added_at_the_same_time_are_all_there(results, judge):
    row = {"what": "peers", "contender": "x", "budget": "1 min", "status": "failed", "reason": "", "id": ""}

    def add(seed: int) -> None:
        GeneratorResults(results.file, results.header, judge).add(row | {"seed": seed})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert sorted(row["seed"] for row in load_json(results.file)["rows"]) == list(range(24))


def test_a_file_of_another_scorer_is_refused(results, setup, judge, tmp_path):
    here = unit(tmp_path, "noise")
    measure_units([here], setup, judge, results, "peers", again=False)
    assert results.has(here)
    with pytest.raises(UserError, match="other scorer"):
        GeneratorResults(results.file, results.header | {"scorer": SCORER | {"weights_digest": "another"}}, judge)


def test_a_preset_that_was_changed_is_measured_anew_and_replaces_its_row(results, judge, monkeypatch):
    before = Unit(Contender("ours-cpu", ("--preset", "cpu")), 0, Budget(minutes=10))
    row = {"what": "peers", "contender": "ours-cpu", "budget": "10 min", "seed": 0, "status": "done"}
    results.add(row | {"id": before.id})
    assert results.has(before)
    monkeypatch.setitem(gan_options.PRESETS, "cpu", gan_options.PRESETS["cpu"] | {"r1": 123.0})
    now = Unit(before.contender, 0, before.budget)
    assert not results.has(now)
    results.add(row | {"id": now.id})
    assert [kept["id"] for kept in load_json(results.file)["rows"]] == [now.id]


@pytest.mark.parametrize("part", ["machine", "data", "images"])
def test_a_file_of_another_machine_or_other_images_is_refused(results, judge, part):
    header = results.header | {part: "another"}
    with pytest.raises(UserError, match=f"other {part}"):
        GeneratorResults(results.file, header, judge)


@pytest.mark.parametrize("text", ["[]", '{"format": "x"}', "{"])
def test_a_foreign_file_is_refused(text, tmp_path):
    file = tmp_path / "gan_benchmark.json"
    file.write_text(text)
    with pytest.raises(UserError):
        GeneratorResults(file, {"machine": MACHINE, "data": {}, "images": 1}, None)
