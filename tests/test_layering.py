"""Imports point strictly down: scripts -> domain -> ground, no cycle, and --help stays light."""

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"
SCRIPTS = {file.stem for file in SRC.glob("*.py") if "run_script(main)" in file.read_text(encoding="utf-8")}
ALSO_DOMAIN = {"data_loader"}  # a checker of the data too
FILES = {
    ".".join(file.relative_to(SRC).with_suffix("").parts): file
    for file in SRC.rglob("*.py")
    if file.name != "__init__.py" and "peer_drivers" not in file.parts
}


def imports(name: str) -> set[str]:
    """Our modules that the module ``name`` imports anywhere, type-checking blocks left out."""
    return {module for module in imported_names(name) if module in FILES}


def imported_names(name: str) -> set[str]:
    """All that the module ``name`` imports: modules, and ``module.name`` for each name taken from one."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
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


def test_nobody_imports_a_script():
    for name in FILES:
        assert not imports(name) & (SCRIPTS - ALSO_DOMAIN), f"{name} imports a script"


def test_only_the_benchmark_scripts_import_benchmarks():
    for name in FILES:
        if name.split(".")[0] not in ("benchmarks", "benchmark", "benchmark_gan"):
            assert not any(module.startswith("benchmarks.") for module in imports(name)), name


def test_utils_imports_nothing_of_ours():
    assert not imports("utils")


def test_no_cycles():
    # data_loader's main() runs the check of splits; as a module it does not need them.
    graph = {name: imports(name) - ({"dataset.splits"} if name == "data_loader" else set()) for name in FILES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs}
        assert leaves, f"import cycle among {sorted(graph)}"
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}


def test_only_figures_import_matplotlib():
    drawing = {name for name in FILES if name.endswith(("figures", "figure", "plot_style"))}
    for name in set(FILES) - drawing:
        roots = {module.split(".")[0] for module in imported_names(name)}
        assert not roots & {"matplotlib", "seaborn"}, name


def test_only_paths_spells_artifacts():
    artifact = re.compile(r"""["'][\w{}/]*(final_metrics|cv_summary|resnet50|_final)\.(json|pth|csv)""")
    for name in set(FILES) - {"common.paths"}:
        assert not artifact.search(FILES[name].read_text(encoding="utf-8")), name


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
    for option in options:
        if option.startswith(("-h", "--version")):
            continue
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
