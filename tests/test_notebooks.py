"""The notebooks define nothing, are committed without outputs, and run on phantoms from top to bottom."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from common import paths
from fake_results import held_out_records, write_arm, write_synthetic
from phantom.dataset import make_phantom_dataset
from utils import save_json, save_text

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ["explore_dataset", "inspect_results"]


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in README's layout, with what the scripts would have left."""
    root = tmp_path_factory.mktemp("project")
    data_dir = make_phantom_dataset(root / paths.DATA_DIR, 120, image_size=48, num_test_images=2, workers=1)
    records, split = held_out_records(data_dir)
    metrics_dir = root / paths.METRICS_DIR
    write_arm(metrics_dir, "baseline", records, split_sha256=split)
    write_arm(metrics_dir, "augmented", records, seed=1, split_sha256=split)
    write_synthetic(root / paths.SYNTHETIC_DIR, data_dir)
    save_text(paths.comparison_report(root / paths.ANALYSIS_DIR), "COMPARISON REPORT\n")
    row = {"ssim": 0.3, "ssim_sd": 0.1, "ssim_median": 0.3, "n_pairs": 10}
    ssim = {"comparisons": {"synthetic_vs_training": row}, "cannot_tell": "It cannot tell."}
    save_json(paths.ssim_analysis(root / paths.ANALYSIS_DIR), ssim)
    terms = ["g_loss", "g_adversarial", "g_feature_matching", "d_loss", "d_loss_real", "d_loss_fake",
             "d_real", "d_fake"]  # fmt: skip
    epochs = [{"epoch": epoch, **dict.fromkeys(terms, 0.5)} for epoch in (1, 2, 3)]
    save_json(paths.gan_history(metrics_dir), {"n_images": 20, "n_patients": 15, "epochs": epochs})
    return root


def run(name: str, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> nbformat.NotebookNode:
    """The notebook after all its cells have run; an error in one of them is raised here."""
    monkeypatch.setenv("PROJECT_DIR", str(project))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(name)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    return client.execute()


def outputs(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """(all text that was printed or shown, number of pictures)."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in found]
    texts = [output.get("text", "") for output in found] + [item.get("text/plain", "") for item in data]
    return "\n".join(texts), sum("image/png" in item for item in data)


@pytest.mark.slow
def test_explore_dataset_runs_on_phantoms(project, monkeypatch, tmp_path):
    text, pictures = outputs(run("explore_dataset", project, monkeypatch, tmp_path))
    assert pictures == 5  # classes, patients, boxes, and two kinds of negatives
    assert "n = 120 images of" in text and "grouped by NIH patient" in text


@pytest.mark.slow
def test_inspect_results_runs_on_what_the_scripts_left(project, monkeypatch, tmp_path):
    text, pictures = outputs(run("inspect_results", project, monkeypatch, tmp_path))
    assert pictures == 3  # images that changed, real beside synthetic, the GAN's losses
    assert "COMPARISON REPORT" in text and "augmented" in text and "It cannot tell." in text


@pytest.mark.slow
def test_inspect_results_needs_one_arm_only(project, monkeypatch, tmp_path):
    alone = tmp_path / "alone"
    records, _ = held_out_records(project / paths.DATA_DIR)
    write_arm(alone / paths.METRICS_DIR, "baseline", records)
    shutil.copytree(project / paths.DATA_DIR, alone / paths.DATA_DIR)
    text, pictures = outputs(run("inspect_results", alone, monkeypatch, tmp_path))
    assert pictures == 0 and "one arm only" in text
    for script in ("analyze_results.py", "generate_synthetic.py", "train_gan.py"):
        assert script in text


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_define_nothing_and_hold_no_outputs(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    source = "\n".join(re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE) for cell in code)
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, defined)]
    assert len(source.splitlines()) < 120
    assert "/home/" not in source and "/Users/" not in source


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_read_text_as_it_was_written(name):
    """Without an encoding, Windows would read the report's UTF-8 as something else."""
    source = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    assert source.count("read_text(") == source.count('read_text(encoding="utf-8")')


def test_every_notebook_is_tested():
    assert sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb")) == NAMES
