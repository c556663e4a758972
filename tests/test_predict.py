"""predict.py as a user calls it: files in, a table, heat maps and a page out."""

import csv
import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import predict
from classifier_runs import METRICS
from common import paths
from conftest import SMALL
from dicom_data import as_stored, write_dicom
from prediction import runs
from prediction.output_table import COLUMNS
from utils import UserError, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("thin_network")


@pytest.fixture
def home(trained: Path, in_tmp: Path) -> Path:
    """An empty folder with the trained baseline as ``model.pth``, and a copy of eight test images in ``x``."""
    Path("model.pth").symlink_to(paths.classifier_model(trained / "models", "baseline_", SMALL))
    table = pd.read_csv(paths.test_predictions(trained / METRICS, "baseline_r1_"))
    for name in table["image_id"][:8]:
        target = Path("x") / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((paths.training_images(trained / "data/processed") / f"{name}.png").read_bytes())
    return trained


def run(*argv: str, model: str = "model.pth") -> list[dict[str, str]]:
    predict.main(["--model-path", model, "--cpu", *argv])
    return rows(argv[argv.index("--output") + 1] if "--output" in argv else "predictions.csv")


def rows(file: str = "predictions.csv") -> list[dict[str, str]]:
    with Path(file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_probabilities_are_those_of_the_test_and_decisions_follow(home):
    found = run("--images", "x")
    assert list(found[0]) == list(COLUMNS)
    expected = pd.read_csv(paths.test_predictions(home / METRICS, "baseline_r1_")).set_index("image_id")["probability"]
    points = load_checkpoint("model.pth")["operating_points"]
    assert len(found) == 8 and not Path("predictions.csv.part").exists()
    for row in found:
        probability, calibrated = float(row["probability"]), float(row["probability_calibrated"])
        assert probability == pytest.approx(expected[Path(row["path"]).stem], abs=1e-6)
        logit = math.log(probability / (1 - probability)) / points["temperature"]
        assert calibrated == pytest.approx(1 / (1 + math.exp(-logit)))
        assert row["decision_050"] == str(int(calibrated >= 0.5))
        for column, rule in (("decision_youden", "youden"), ("decision_sens90", "sensitivity_90")):
            assert row[column] == str(int(calibrated >= points[rule]["threshold"]))
        assert row["error"] == ""


def test_repeats_are_averaged_without_thresholds_of_a_single_run(home, caplog):
    prefixes = [paths.repeat_prefix("baseline_", number) for number in (1, 2)]
    files = [str(paths.classifier_model(home / "models", prefix, SMALL)) for prefix in prefixes]
    predict.main(["--model-path", *files, "--images", "x", "--results-dir", str(home / METRICS), "--cpu"])
    expected = pd.read_csv(paths.test_predictions(home / METRICS, "baseline_")).set_index("image_id")["probability"]
    for row in rows():
        assert float(row["probability"]) == pytest.approx(expected[Path(row["path"]).stem], abs=1e-6)
        assert [row[name] for name in ("probability_calibrated", "decision_youden", "decision_sens90")] == [""] * 3
        assert row["decision_050"] == str(int(float(row["probability"]) >= 0.5))
    assert "2 averaged models need as many" in caplog.text


def test_thresholds_are_found_in_the_results_of_the_same_recipe(home):
    content = load_checkpoint("model.pth")
    points = content["operating_points"]
    save_checkpoint("bare.pth", content | {"operating_points": None, "operating_points_note": "none"})
    found = run("--images", "x", "--results-dir", str(home / METRICS), model="bare.pth")
    assert [row["decision_youden"] for row in found] == [row["decision_youden"] for row in run("--images", "x")]
    save_checkpoint("other.pth", content | {"operating_points": None, "recipe_sha256": "other"})
    assert {
        row["decision_youden"] for row in run("--images", "x", "--results-dir", str(home / METRICS), model="other.pth")
    } == {""}
    assert points["runs"] == 1


def test_a_fold_model_says_so(home, caplog):
    fold = paths.best_fold_model(home / "models", "baseline_", SMALL)
    run("--images", "x", "--report", "page", model=str(fold))
    assert "RED FLAG: best_overall_baseline_resnet18.pth was trained without fold" in caplog.text
    assert "was trained without fold" in Path("page.patient.html").read_text(encoding="utf-8")


def test_an_unreadable_file_is_a_row(home, caplog):
    Path("x/broken.png").write_bytes(Path("x").glob("img*.png").__next__().read_bytes()[:200])
    Path("x/empty.jpg").touch()
    found = run("--images", "x")
    errors = {Path(row["path"]).name: row["error"] for row in found if row["error"]}
    assert set(errors) == {"broken.png", "empty.jpg"} and len(found) == 10
    assert all(row["probability"] == row["decision_050"] == "" for row in found if row["error"])
    assert "8 images predicted, 2 unreadable" in caplog.text


def test_nothing_readable_is_an_error_after_the_table(home):
    Path("y").mkdir()
    Path("y/empty.png").touch()
    with pytest.raises(UserError, match="none of 1 images could be read; ./predictions.csv says why"):
        run("--images", "y")
    assert rows()[0]["error"] == "empty (0 bytes)"


ODD_NAMES = ["=1+1.png", "+x.png", "-x.png", "@x.png", " blank.png", 'a,"b".png', "two\nlines.png", "Übung.png",
             os.fsdecode(b"byte\xff.png"), "back\\slash.png"]  # fmt: skip


def test_odd_names_come_back_and_are_no_formulas(home, monkeypatch):
    picture = next(Path("x").iterdir()).read_bytes()
    for name in ODD_NAMES:
        Path(name).write_bytes(picture)
    found = run("--images", *[f"./{name}" for name in ODD_NAMES])
    cells = [row["path"] for row in found]
    assert not any(cell.startswith(tuple("=+-@\t\r ")) for cell in cells)
    assert cells[:5] == [f"./{name}" for name in ODD_NAMES[:5]]
    again = run("--images", "predictions.csv", "--output", "again.csv")
    assert [row["path"] for row in again] == cells
    assert {row["error"] for row in again} == {""} and len({row["probability"] for row in again}) == 1


def test_an_interrupted_run_goes_on(home, monkeypatch, caplog):
    whole = run("--images", "x", "--output", "whole.csv")
    monkeypatch.setattr(runs, "BATCH", 3)
    real, batches = runs._predict_batch, []

    def stop_at_third(files, *rest):
        batches.append(len(files))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(files, *rest)

    monkeypatch.setattr(runs, "_predict_batch", stop_at_third)
    with pytest.raises(KeyboardInterrupt) as stop:
        run("--images", "x")
    assert "goes on with what is in predictions.csv.part" in stop.value.__notes__[0]
    assert not Path("predictions.csv").exists()
    with Path("predictions.csv.part").open("a", encoding="ascii") as part:
        part.write('[["x/cut')  # a killed process may leave half a line
    assert run("--images", "x") == whole
    assert batches == [3, 3, 2, 2] and "6 of 8 images were predicted before an interruption" in caplog.text


@pytest.mark.parametrize("change", ["model", "file", "other files"])
def test_other_models_or_files_begin_anew(change, home, monkeypatch):
    files = sorted(Path("x").iterdir())
    monkeypatch.setattr(runs, "BATCH", 4)
    real, done = runs._predict_batch, []

    def stop_at_second(batch, *rest):
        done.extend(batch)
        if len(done) == 8:
            raise KeyboardInterrupt
        return real(batch, *rest)

    monkeypatch.setattr(runs, "_predict_batch", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run("--images", "x")
    done.clear()
    monkeypatch.setattr(runs, "_predict_batch", lambda batch, *rest: done.extend(batch) or real(batch, *rest))
    if change == "model":
        run("--images", "x", model=str(paths.classifier_model(home / "models", "baseline_r2_", SMALL)))
        assert done == files
    elif change == "file":
        files[2].write_bytes(files[3].read_bytes())
        run("--images", "x")
        assert done == files[2:]
    else:
        files[1].unlink()
        run("--images", "x")
        assert done == files[2:]


def test_heat_maps_and_page_of_the_most_suspicious(home, monkeypatch):
    (Path("x") / "<script>alert(1)&.png").write_bytes(next(Path("x").iterdir()).read_bytes())
    Path("x/empty.png").touch()
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save("x/flat.png")
    found = run("--images", "x", "--heatmaps", "maps", "--report", "page.html", "--report-images", "5")
    good = [row for row in found if not row["error"]]
    maps = sorted(Path("maps").iterdir())
    assert len(maps) == len(good) == 10 and all(file.name.endswith(paths.REAL_PICTURE_SUFFIX) for file in maps)
    with Image.open(maps[0]) as picture:
        assert picture.size == (32, 32) and picture.mode == "RGB"
    assert not Path("page.html").exists()
    page = Path(f"page{paths.REAL_PAGE_SUFFIX}").read_text(encoding="utf-8")
    shown = re.findall(r'<p class="name">(.*?)</p>', page)
    by_probability = sorted(good, key=lambda row: -float(row["probability"]))
    assert len(shown) == 5 and shown[0].endswith(Path(by_probability[0]["path"]).name.replace("&", "&amp;")[-8:])
    assert page.count("data:image/jpeg;base64,") == 10
    assert "<script" not in page and "http" not in page and "no medical device" in page and "empty (0 bytes)" in page
    assert "chosen on fold models" in page


def test_own_outputs_in_the_folder_are_left_out(home):
    options = ["--images", "x", "--heatmaps", "x/maps", "--report", "x/page", "--output", "x/predictions.csv"]
    first = run(*options)
    assert run(*options) == first and len(first) == 8


def test_gitignore_holds_what_shows_patients(home):
    ignored = (Path(predict.__file__).parent.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"*{paths.REAL_PICTURE_SUFFIX}", f"*{paths.REAL_PAGE_SUFFIX}", "predictions.csv"} <= set(ignored)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--images", "absent"], "--images absent is not there"),
        (["--images", "x/..", "--output", "x"], "--output x is a folder"),
        (["--images", "x", "list.csv", "--output", "./list.csv"], "--output ./list.csv is read, too"),
        (["--images", "x", "--model-path", "absent.pth"], "absent.pth is missing"),
        (["--images", "x", "--model-path", "x/wrong.pth"], "is not a classifier"),
    ],
)
def test_wrong_options_end_before_any_image_is_read(argv, problem, home, monkeypatch):
    save_checkpoint("x/wrong.pth", {"format": "another"})
    monkeypatch.setattr("prediction.runs.read_images", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(UserError, match=problem):
        predict.main(["--model-path", "model.pth", "--cpu", *argv])


def test_dicom_files_predict_as_their_png_and_no_identifier_leaves_them(home):
    planted = {"PatientName": "Planted^Jane", "PatientID": "PLANTED7", "AccessionNumber": "PLANTED8",
               "StudyDescription": "PLANTED9", "InstitutionName": "PLANTED10"}  # fmt: skip
    for file in sorted(Path("x").iterdir())[:3]:
        gray = np.asarray(Image.open(file))
        Path("png").mkdir(exist_ok=True)
        file.rename(Path("png") / file.name)
        stored = as_stored(gray, 12, "MONOCHROME1")
        write_dicom(f"dcm/{file.stem}", stored, photometric="MONOCHROME1", bits=12, **planted)
    write_dicom("dcm/lateral.dcm", as_stored(gray, 8), ViewPosition="LL", **planted)
    write_dicom("dcm/ct.dcm", as_stored(gray, 8), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", **planted)
    expected = [float(row["probability"]) for row in run("--images", "png")]
    written = ["--heatmaps", "out/maps", "--report", "out/page", "--output", "out/p.csv"]
    ct, *same, lateral = run("--images", "dcm", *written)
    assert [float(row["probability"]) for row in same] == pytest.approx(expected, abs=0.01)
    assert "CT" in ct["error"] and lateral["warnings"].startswith("lateral view") and lateral["probability"]
    for file in Path("out").rglob("*"):
        if file.is_file():
            assert b"planted" not in file.read_bytes().lower(), file
