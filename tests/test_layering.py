"""Imports point strictly down: scripts -> domain -> ground, no cycle, and --help stays light."""

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"
GROUND = {"paths", "utils"}
SCRIPTS = {file.stem for file in SRC.glob("*.py") if "run_script(main)" in file.read_text(encoding="utf-8")}
ALSO_DOMAIN = {"data_loader"}  # a checker of the data too
MODULES = {file.stem for file in SRC.glob("*.py")} - {"__init__"}


def imports(name: str) -> set[str]:
    """Top-level names that ``name`` imports anywhere, type-checking blocks left out."""
    tree = ast.parse((SRC / f"{name}.py").read_text(encoding="utf-8"))
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
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_nobody_imports_a_script():
    for name in MODULES:
        assert not imports(name) & (SCRIPTS - ALSO_DOMAIN), f"{name} imports a script"


def test_ground_imports_nothing_of_ours():
    for name in GROUND:
        assert not imports(name) & MODULES, f"{name} must stand alone"


def test_no_cycles():
    # data_loader's main() runs splits.py's check of the data; as a module it does not need splits.
    graph = {
        name: imports(name) & MODULES - ({"splits"} if name == "data_loader" else set()) for name in MODULES
    }
    while graph:
        leaves = {name for name, needs in graph.items() if not needs}
        assert leaves, f"import cycle among {sorted(graph)}"
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}


def test_only_plots_import_matplotlib():
    for name in {name for name in MODULES if not name.startswith("plots")}:
        assert not imports(name) & {"matplotlib", "seaborn"}, name


def test_only_paths_spells_artifacts():
    artifact = re.compile(r"""["'][\w{}/]*(final_metrics|cv_summary|resnet50|_final)\.(json|pth|csv)""")
    for name in MODULES - {"paths"}:
        assert not artifact.search((SRC / f"{name}.py").read_text(encoding="utf-8")), name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_is_quick_offline_and_tells_every_default(script):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, SRC / f"{script}.py", "--help"], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time of the processor, not of the clock: the machine may be busy.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0 and seconds < 1.0
    options = re.split(r"\n  (?=-)", done.stdout)[1:]
    assert len(options) > 1
    for option in options[1:]:  # the first is --help itself
        option = re.split(r"\n\n|\n\w", option)[0]
        assert re.search(r"\(default:[^()]*(\([^()]*\)[^()]*)*\)$", " ".join(option.split())), option


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_imports_nothing_heavy(script):
    heavy = ("torch", "pandas", "matplotlib", "sklearn", "kaggle", "skimage")
    code = (
        f"import sys; sys.argv = ['{script}', '--help']\n"
        f"try:\n    import runpy; runpy.run_path(r'{SRC / script}.py', run_name='__main__')\n"
        f"except SystemExit: pass\nprint('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SRC)
    assert done.stdout.rstrip().endswith("HEAVY []")
