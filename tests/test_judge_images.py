"""judge_images.py as a user runs it: two folders, or a folder and a generator; pages, JSON, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import judge_images
from common import paths
from common.file_formats import format_problems
from fake_pictures import pictures
from gan_data import save_generator
from image_metrics import energy_distance, planted_copies
from image_metrics.file_formats import Judgement
from utils import UserError, load_json

SIZE = 48


@pytest.fixture(autouse=True)
def quick(monkeypatch, in_tmp):
    monkeypatch.setattr(energy_distance, "PERMUTATIONS", 60)
    monkeypatch.setattr(planted_copies, "PLANTED", 4)


def save_all(folder: Path, images: np.ndarray, start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for row, image in enumerate(images):
        Image.fromarray(image).save(folder / f"p{(start + row) // 2:02d}_{row % 2}.png")
    return folder


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    made = pictures(np.random.default_rng(0), 76, SIZE)
    return save_all(tmp_path / "real", made[:48]), save_all(tmp_path / "made", made[48:], start=48)


def judge(folders: tuple[Path, Path], *flags: str, output: str = "out") -> dict:
    words = ["--real", str(folders[0]), "--synthetic", str(folders[1]), "--output-dir", output, "--cpu"]
    judge_images.main([*words, *flags])
    return load_json(paths.judgement(output))


def files_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*")}


def test_two_folders_become_a_verdict_a_table_and_a_page(folders, tmp_path, capsys):
    before = files_below(folders[0]) | files_below(folders[1])
    found = judge(folders, "--group-pattern", r"^(p\d+)_")
    assert format_problems(found, Judgement) == []
    assert found["real"] == {
        "source": "real", "found": 48, "used": 48, "unreadable": [], "side": SIZE, "groups": 24, "ungrouped": 0,
    }  # fmt: skip
    text = capsys.readouterr().out
    assert f"VERDICT: {found['verdict']['verdict']}" in text
    for axis in found["axes"]:
        (line,) = [line for line in text.splitlines() if line.startswith(axis["name"] + "  ")]
        assert axis["better"] in line
    page = (tmp_path / "out/judgement.html").read_text(encoding="utf-8")
    assert found["verdict"]["sentence"][5:40] in page and "<img" not in page and "http" not in page
    assert files_below(tmp_path / "out") == {"judgement.html", "judgement.json"}
    assert files_below(folders[0]) | files_below(folders[1]) == before  # nothing is kept in the user's folders


def test_a_seed_gives_the_same_result_again(folders):
    first = judge(folders, "--max-images", "30")
    assert first == judge(folders, "--max-images", "30")
    assert first["real"]["found"] == 48 and first["real"]["used"] == 30
    assert any("30 of the 48 images of --real were drawn at random" in note for note in first["notes"])
    other = judge(folders, "--max-images", "30", "--seed", "1")
    assert other["axes"] != first["axes"]


def test_patients_of_a_table_make_the_interval_wider_than_single_images(folders, tmp_path):
    names = sorted(file.name for folder in folders for file in folder.iterdir())
    rows = [f"{name},{name.split('_')[0]}" for name in names]
    (tmp_path / "who.csv").write_text("filename;patient_id\n" + "\n".join(rows).replace(",", ";"), encoding="utf-8")
    named, alone = judge(folders, "--patients", "who.csv"), judge(folders)
    assert named["real"]["groups"] == 24 and alone["real"]["groups"] == 48
    assert alone["real"]["ungrouped"] == 48
    assert any("every image counts as another patient's" in note for note in alone["notes"])
    assert not any("every image counts" in note for note in named["notes"])


def test_images_are_shown_only_on_request_on_a_page_that_git_leaves_out(folders, tmp_path):
    judge(folders)
    judge(folders, "--show-images")
    assert files_below(tmp_path / "out") == {"judgement.json", "judgement.patient.html"}
    page = (tmp_path / "out/judgement.patient.html").read_text(encoding="utf-8")
    assert "shows patients' images" in page and page.count("data:image/png;base64,") >= 24
    assert "*.patient.html" in (Path(__file__).parent.parent / ".gitignore").read_text(encoding="utf-8")
    judge(folders)
    assert files_below(tmp_path / "out") == {"judgement.json", "judgement.html"}


def test_file_names_cannot_put_marks_into_the_page(folders, tmp_path):
    for file in folders[1].iterdir():
        file.rename(file.with_name(f"<b>{file.name}"))
    judge(folders)
    page = (tmp_path / "out/judgement.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;p" in page and "<b>" not in page


def test_a_generator_is_judged_by_the_images_that_it_makes(folders, tmp_path):
    generator = save_generator(tmp_path / "generator_final.pth")
    words = ["--real", str(folders[0]), "--generator", str(generator), "--num-images", "30", "--cpu"]
    judge_images.main([*words, "--output-dir", "out"])
    found = load_json(paths.judgement("out"))
    assert found["verdict"]["verdict"] == "farther than other patients"  # it has learned nothing
    assert found["synthetic"]["used"] == 30 and found["synthetic"]["source"] == "generator_final.pth"
    assert found["image_size"] == 32  # the generator's; the real images have 48
    assert any("real images have 48 pixels a side, synthetic ones 32" in note for note in found["notes"])


def test_unreadable_files_are_named_and_left_out_on_request(folders):
    (folders[0] / "cut.png").write_bytes(next(folders[0].iterdir()).read_bytes()[:200])
    with pytest.raises(UserError, match=r"--real .*1 image \(cut.png: .*\) cannot be read; --skip-bad-images"):
        judge(folders)
    found = judge(folders, "--skip-bad-images")
    assert [bad["file"] for bad in found["real"]["unreadable"]] == ["cut.png"] and found["real"]["used"] == 48
    assert any("1 image of --real unreadable and left out" in note for note in found["notes"])


def test_odd_shapes_and_kinds_of_files_are_said(folders):
    for file in sorted(folders[1].iterdir()):
        with Image.open(file) as image:
            image.resize((SIZE, 2 * SIZE)).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    notes = " ".join(judge(folders)["notes"])
    assert "28 images of --synthetic not square" in notes and "compression alone" in notes


def test_folders_below_are_read_where_a_folder_holds_no_image_itself(folders, tmp_path):
    below = tmp_path / "sorted"
    for row, file in enumerate(sorted(folders[0].iterdir())):
        target = below / ("a" if row % 2 else "b") / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    (below / "notes.txt").write_text("no image", encoding="utf-8")
    found = judge((below, folders[1]))
    assert found["real"]["used"] == 48
    assert any(pair["real"].startswith(("a/", "b/")) for pair in found["copies"]["closest"])


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--real", "nowhere"], "--real nowhere does not exist"),
        (["--real", "empty"], "--real empty holds no image"),
        (["--real", "who.csv"], "who.csv is a file, not a folder"),
        (["--synthetic", "real"], "the same folder"),
        (["--real", "."], "share 28 files"),
        (["--synthetic", "one"], "holds 1 image: too few images to measure anything"),
        (["--patients", "who.csv"], "no column names the image"),
        (["--patients", "twice.csv"], "line 3 gives image p00_0.png a second patient"),
        (["--patients", "others.csv"], "names the patient of none of the 48 images"),
        (["--group-pattern", "^p"], r"puts the 48 images of --real .* into 1 group \(patient p, ...\)"),
        (["--features", "none.pth"], "none.pth is missing"),
    ],
)
def test_what_cannot_be_judged_ends_in_one_line(folders, tmp_path, flags, match):
    (tmp_path / "empty").mkdir()
    save_all(tmp_path / "one", pictures(np.random.default_rng(1), 1, SIZE))
    for name, text in {
        "who": "a,b\n1,2\n", "twice": "file,patient\np00_0.png,a\np00_0.png,b\n", "others": "file,patient\nx.png,a\n",
    }.items():  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=match):
        judge((Path("real"), Path("made")), *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--real", "real"], "give --synthetic PATH"),
        (["--real", "real", "--synthetic", "made", "--num-images", "5"], "--num-images needs --generator"),
        (["--real", "real", "--synthetic", "made", "--generator", "x.pth"], "not allowed with"),
        (["--real", "real", "--synthetic", "made", "--group-pattern", "("], "is not a regular expression"),
        (["--real", "r", "--synthetic", "m", "--group-pattern", "a", "--patients", "b"], "not allowed with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        judge_images.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_numbers_on_the_page_are_those_of_the_json(folders, tmp_path):
    from report.judgement import table_rows

    found = judge(folders)
    page = (tmp_path / "out/judgement.html").read_text(encoding="utf-8")
    for row in table_rows(found["axes"]):
        assert f'<th scope="row">{row[0]}</th><td>{row[1]}</td>' in page.replace("\n  ", "").replace("\n", "")
    assert json.dumps(found["config"]).count(str(tmp_path)) == 0
