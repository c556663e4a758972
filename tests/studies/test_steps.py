"""Steps in order: finished ones are skipped, interrupted ones go on; stub scripts show how."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.file_formats import format_problems
from studies import steps as pipeline_steps
from studies.file_formats import StepEntry
from studies.steps import Step, run_steps, time_left
from utils import UserError, load_json

STUB = """
import os, pathlib, sys
if os.environ.get("CHECK_OPTIONS_ONLY"):
    if "--bad" in sys.argv:
        print("usage: ...\\none.py: error: unrecognized arguments: --bad", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
with open("calls.txt", "a") as log:
    log.write(" ".join([pathlib.Path(__file__).stem, *sys.argv[1:]]) + "\\n")
if pathlib.Path("fail").exists():
    sys.exit(1)
pathlib.Path(sys.argv[1]).write_text("done")
"""


@pytest.fixture
def stubs(in_tmp, monkeypatch):
    """Two scripts that log their call and write the file they are given."""
    (in_tmp / "src").mkdir()
    for name in ("one", "two"):
        (in_tmp / "src" / f"{name}.py").write_text(STUB)
    monkeypatch.setattr(pipeline_steps, "SRC", in_tmp / "src")
    return in_tmp


def steps(option: str = "x") -> list[Step]:
    first = Step("first", "one", ["a.txt", option], Path("a.txt"), resumable=True)
    return [first, Step("second", "two", ["b.txt"], Path("b.txt"))]


def calls() -> list[str]:
    return Path("calls.txt").read_text(encoding="utf-8").splitlines()


LOG = Path("results/pipeline.json")


def test_steps_run_in_order_and_are_printed_as_typed(stubs, capfd):
    run_steps(steps(), LOG)
    assert calls() == ["one a.txt x", "two b.txt"]
    assert "$ python src/one.py a.txt x" in capfd.readouterr().out
    assert {entry["state"] for entry in load_json(LOG).values()} == {"finished"}


def test_the_time_left_follows_from_known_shares():
    parts = [Step(name, "one", [], Path(name), share=share) for name, share in (("a", 0.2), ("b", 0.6), ("c", 0.2))]
    assert time_left(parts, {}) is None, "nothing has been timed"
    assert time_left(parts, {"a": 30.0}) == pytest.approx(120)
    assert time_left(parts, {"a": 30.0, "b": 90.0}) == pytest.approx(30)
    assert time_left([*parts, Step("d", "one", [], Path("d"))], {"a": 30.0}) is None, "one share is unknown"


def test_steps_say_how_much_time_is_left(stubs, monkeypatch, caplog):
    monkeypatch.setattr(pipeline_steps, "run_step", lambda *_: 60.0)
    caplog.set_level("INFO")
    run_steps([replace(step, share=share) for step, share in zip(steps(), (0.2, 0.8), strict=True)], LOG)
    assert "step 1/2: first\n" in caplog.text and "step 2/2: second, about 4 min left\n" in caplog.text


def test_steps_know_the_file_of_the_sequence(stubs, monkeypatch):
    script = "import os, pathlib; pathlib.Path('a.txt').write_text(os.environ['CONFIG_SHA256'])"
    (stubs / "src" / "one.py").write_text(script)
    monkeypatch.setattr(pipeline_steps, "config_sha256", lambda: "abc")
    run_steps(steps()[:1], LOG)
    assert Path("a.txt").read_text(encoding="utf-8") == "abc"


def test_logs_of_all_steps_lie_beside_the_results_of_the_sequence(stubs):
    script = "import os, pathlib; pathlib.Path('a.txt').write_text(os.environ['RUN_LOGS_DIR'])"
    (stubs / "src" / "one.py").write_text(script)
    run_steps(steps()[:1], LOG)
    assert Path("a.txt").read_text(encoding="utf-8") == str(Path("results/logs"))


def test_finished_steps_are_skipped(stubs, capfd):
    run_steps(steps(), LOG)
    run_steps(steps(), LOG)
    assert len(calls()) == 2
    assert capfd.readouterr().out.count("already finished") == 2


def test_a_folder_is_the_same_with_and_without_a_dot_before_it(stubs, capfd):
    run_steps([Step("first", "one", ["./a.txt", "--here", "./"], Path("a.txt"))], LOG)
    run_steps([Step("first", "one", ["a.txt", "--here", "."], Path("a.txt"))], LOG)
    assert calls() == ["one ./a.txt --here ./"] and "already finished" in capfd.readouterr().out


def test_a_changed_option_or_a_lost_file_reruns_the_step_and_all_after_it(stubs):
    run_steps(steps(), LOG)
    run_steps(steps("y"), LOG)
    assert calls()[2:] == ["one a.txt y", "two b.txt"]
    Path("b.txt").unlink()
    run_steps(steps("y"), LOG)
    assert calls()[4:] == ["two b.txt"]


def test_a_failed_step_stops_the_pipeline_and_is_resumed(stubs):
    Path("fail").touch()
    with pytest.raises(UserError, match="step 'first' ended with exit code 1.*go on from this step"):
        run_steps(steps(), LOG)
    Path("fail").unlink()
    run_steps(steps(), LOG)
    assert calls() == ["one a.txt x", "one a.txt x --resume", "two b.txt"]


def test_a_step_that_makes_nothing_is_not_finished(stubs):
    (stubs / "src" / "one.py").write_text("")
    with pytest.raises(UserError, match=r"step 'first' ended without an error, but a\.txt is not there"):
        run_steps(steps(), LOG)
    assert load_json(LOG)["first"]["state"] == "started" and not Path("calls.txt").exists()


# --- outdated synthetic images ---------------------------------------------------------------------
GENERATE = """
import pathlib, sys
with open("calls.txt", "a") as log:
    log.write(" ".join([pathlib.Path(__file__).stem, *sys.argv[1:]]) + "\\n")
folder = pathlib.Path(sys.argv[1])
manifest = folder / "manifest.json"
made_for = pathlib.Path("a.txt").read_text() + " ".join(sys.argv[1:3])
if pathlib.Path("fail_early").exists():
    sys.exit(1)
folder.mkdir(exist_ok=True)
if "--overwrite" in sys.argv:
    manifest.unlink(missing_ok=True)
    for image in folder.glob("*.png"):
        image.unlink()
if any(folder.glob("*.png")) and (not manifest.exists() or manifest.read_text() != made_for):
    sys.exit("holds images of another generator")
if not manifest.exists():
    manifest.write_text(made_for)
(folder / "synthetic_00001.png").touch()
if pathlib.Path("fail_late").exists():
    sys.exit(1)
"""
GAN = """
import pathlib, sys
with open("calls.txt", "a") as log:
    log.write(" ".join(["gan", *sys.argv[1:]]) + "\\n")
pathlib.Path("a.txt").write_text(sys.argv[1])
"""


@pytest.fixture
def generating(stubs):
    """A GAN, a generator that refuses a folder of other images as the real one does, a classifier."""
    (stubs / "src" / "gan.py").write_text(GAN)
    (stubs / "src" / "generate.py").write_text(GENERATE)
    return stubs


def generation_steps(gan: str = "g", count: str = "5", folder: str = "made") -> list[Step]:
    images = Path(folder)
    return [
        Step("gan", "gan", [gan], Path("a.txt"), resumable=True),
        Step("generate", "generate", [folder, count], images / "manifest.json", images=images),
        Step("train", "two", ["b.txt"], Path("b.txt"), resumable=True, needs=("generate",)),
    ]


def new_calls(steps: list[Step], failing: bool = False) -> list[str]:
    Path("calls.txt").unlink(missing_ok=True)
    if failing:
        with pytest.raises(UserError):
            run_steps(steps, LOG)
    else:
        run_steps(steps, LOG)
    assert format_problems(load_json(LOG), dict[str, StepEntry]) == []
    return calls()


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"gan": "h"}, ["gan h", "generate made 5 --overwrite"]),
        ({"count": "3"}, ["generate made 3 --overwrite"]),
    ],
    ids=["gan", "fewer images"],
)
def test_images_of_the_pipeline_are_replaced_when_they_are_outdated(generating, changed, again):
    assert new_calls(generation_steps()) == ["gan g", "generate made 5", "two b.txt"]
    assert new_calls(generation_steps(**changed)) == [*again, "two b.txt"]


@pytest.mark.parametrize("changed", [{"gan": "h"}, {"count": "3"}], ids=["gan", "fewer images"])
def test_an_interrupted_generation_is_outdated_likewise(generating, changed):
    Path("fail_late").touch()
    new_calls(generation_steps(), failing=True)
    Path("fail_late").unlink()
    assert any(call.endswith(" --overwrite") for call in new_calls(generation_steps(**changed)))


def test_an_interrupted_generation_is_taken_up(generating):
    Path("fail_late").touch()
    new_calls(generation_steps(), failing=True)
    assert new_calls(generation_steps(), failing=True) == ["generate made 5"]
    Path("fail_late").unlink()
    assert new_calls(generation_steps()) == ["generate made 5", "two b.txt"]


def test_an_interrupted_replacement_is_taken_up_where_it_stopped(generating):
    new_calls(generation_steps())
    Path("fail_early").touch()  # nothing has been removed yet
    assert new_calls(generation_steps("h"), failing=True) == ["gan h", "generate made 5 --overwrite"]
    Path("fail_early").unlink()
    Path("fail_late").touch()
    assert new_calls(generation_steps("h"), failing=True) == ["generate made 5 --overwrite"]
    Path("fail_late").unlink()
    assert new_calls(generation_steps("h")) == ["generate made 5", "two b.txt"]


def test_images_that_the_log_knows_nothing_of_are_never_replaced(generating):
    own = Path("mine", "synthetic_00007.png")
    own.parent.mkdir()
    own.touch()
    new_calls(generation_steps())
    for changed in ({}, {"count": "3"}, {"gan": "h"}, {"gan": "h"}):
        made = new_calls(generation_steps(folder="mine", **changed), failing=True)
        assert not any("--overwrite" in call for call in made)
    assert own.exists()


def test_training_on_replaced_images_starts_afresh(generating):
    Path("fail").touch()
    new_calls(generation_steps(), failing=True)
    assert new_calls(generation_steps(), failing=True) == ["two b.txt --resume"]
    Path("fail").unlink()
    assert new_calls(generation_steps("h"))[-1] == "two b.txt"


# --- options ---------------------------------------------------------------------------------------
def test_wrong_options_end_before_anything_runs(stubs, capsys):
    with pytest.raises(SystemExit) as stop:
        pipeline_steps.check_options(steps("--bad"))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "one.py: error: unrecognized arguments: --bad\n"
    assert not Path("calls.txt").exists()


@pytest.mark.parametrize("content", ["[]", "null", '{"first": 3}', '{"first": {"command": "x", "state": "finished"}}'])
def test_another_file_in_place_of_the_log_is_refused(stubs, content):
    LOG.parent.mkdir()
    LOG.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="is no log of steps"):
        run_steps(steps(), LOG)
    assert not Path("calls.txt").exists()
