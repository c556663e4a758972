"""Imports point strictly down: scripts -> domain -> ground, no cycle, and --help stays light."""

import ast
import functools
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
SCRIPTS = {file.stem for file in SRC.glob("*.py") if "run_script(main)" in file.read_text(encoding="utf-8")}
SCRIPTS -= {"data_loader"}  # loads images; its main() is the checker of the data
# Rooms and single files, lowest first. Each may import those before it; those of one layer do not import
# each other. import-linter holds the order of the rooms, but does not see the files at the top of src/.
LAYERS = (
    {"utils"},
    {"common"},
    {"stats"},
    {"dataset"},
    {"data_loader"},
    {"networks"},
    {"classifier", "dcgan"},
    {"image_metrics"},
    {"phantom", "synthetic", "importers"},
    {"arms", "gan"},
    {"comparison", "prediction"},
    {"report"},
    {"studies"},
    {"benchmarks"},
    SCRIPTS,
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
BENCHMARK_SCRIPTS = {"benchmark", "benchmark_gan"}


FILES = {
    ".".join(file.relative_to(SRC).with_suffix("").parts): file
    for file in SRC.rglob("*.py")
    if file.name != "__init__.py" and "peer_drivers" not in file.parts  # run in an environment of their own
}


def imports(file: Path) -> set[str]:
    """Our modules that a file imports anywhere, type-checking blocks left out."""
    return {module for module in imported_names(file) if module in FILES}


@functools.cache
def imported_names(file: Path) -> set[str]:
    """All that a file imports: modules, and ``module.name`` for each name taken from one."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def forbidden_imports(graph: dict[str, set[str]]) -> list[str]:
    """Say which imports point up or sideways, and which but the two scripts import benchmarks."""
    problems = []
    for name, needs in sorted(graph.items()):
        room = name.split(".")[0]
        for module in sorted(needs):
            below = module.split(".")[0]
            only_for_scripts = below == "benchmarks" and room not in {"benchmarks", *BENCHMARK_SCRIPTS}
            if room != below and (LAYER_OF[below] >= LAYER_OF[room] or only_for_scripts):
                problems.append(f"{name} imports {module}")
    return problems


def test_every_module_has_a_layer():
    assert {name.split(".")[0] for name in FILES} == set(LAYER_OF)


def test_imports_point_down():
    assert forbidden_imports({name: imports(file) for name, file in FILES.items()}) == []


def plant(file: Path, line: str) -> None:
    """Put the import ``line`` at the beginning of ``file``."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("from __future__ import annotations", line, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("data_loader.py", "import train_gan", "data_loader imports train_gan"),
        ("dataset/splits.py", "import data_loader", "dataset.splits imports data_loader"),
        ("networks/weights.py", "from classifier import FEATURES", "networks.weights imports classifier"),
        ("classifier.py", "from dcgan import Generator", "classifier imports dcgan"),
        ("gan/losses.py", "from arms import registry", "gan.losses imports arms.registry"),
        ("prediction/models.py", "from comparison import arms", "prediction.models imports comparison.arms"),
        ("train_gan.py", "from benchmarks import machine", "train_gan imports benchmarks.machine"),
        ("train_gan.py", "import run_study", "train_gan imports run_study"),
    ],
)
def test_a_planted_import_is_seen(file, line, problem, tmp_path):
    planted = Path(shutil.copy(SRC / file, tmp_path))
    plant(planted, line)
    name = file.removesuffix(".py").replace("/", ".")
    assert forbidden_imports({name: imports(planted)}) == [problem]


def lint_imports(src: Path) -> subprocess.CompletedProcess:
    """Run import-linter with the project's contracts on ``src``."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--config", ROOT / "pyproject.toml", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(src)}
    return subprocess.run(command, capture_output=True, text=True, cwd=src, env=environment)


def test_import_linter_sees_a_planted_import(tmp_path):
    clean = lint_imports(SRC)
    assert clean.returncode == 0 and "0 broken" in clean.stdout, clean.stdout + clean.stderr
    copy = tmp_path / "src"
    shutil.copytree(SRC, copy, ignore=shutil.ignore_patterns("__pycache__"))
    plant(copy / "gan" / "losses.py", "import studies")
    planted = lint_imports(copy)
    assert planted.returncode == 1 and "gan is not allowed to import studies" in planted.stdout


def test_no_cycles():
    graph = {name: imports(file) for name, file in FILES.items()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs}
        assert leaves, f"import cycle among {sorted(graph)}"
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}


def test_only_figures_import_matplotlib():
    drawing = {name for name in FILES if name.endswith(("figures", "figure", "plot_style"))}
    for name in set(FILES) - drawing:
        roots = {module.split(".")[0] for module in imported_names(FILES[name])}
        assert not roots & {"matplotlib", "seaborn"}, name


def test_only_paths_spells_artifacts():
    artifact = re.compile(r"""["'][\w{}/]*(final_metrics|cv_summary|resnet50|_final)\.(json|pth|csv)""")
    for name in set(FILES) - {"common.paths"}:
        assert not artifact.search(FILES[name].read_text(encoding="utf-8")), name


@pytest.mark.parametrize("script", sorted(SCRIPTS | {"data_loader"}))
def test_help_is_quick_offline_imports_nothing_heavy_and_tells_every_default(script):
    heavy = ("torch", "numpy", "pandas", "matplotlib", "sklearn", "kaggle", "requests", "skimage", "pydicom", "gdcm")
    code = (
        f"import sys; sys.argv = ['{script}', '--help']\n"
        f"try:\n    import runpy; runpy.run_path(r'{SRC / script}.py', run_name='__main__')\n"
        f"except SystemExit: pass\nprint('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SRC)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time of the processor, not of the clock: the machine may be busy.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0 and seconds < 1.0
    text, _, imported = done.stdout.rpartition("HEAVY ")
    assert imported.strip() == "[]"
    options = re.split(r"\n  (?=-)", text)[1:]
    assert len(options) > 1
    for option in options:
        if option.startswith(("-h", "--version")):
            continue
        option = re.split(r"\n\n|\n\w", option)[0]
        assert re.search(r"\(default:[^()]*(\([^()]*\)[^()]*)*\)$", " ".join(option.split())), option
