"""README and docs/: generated pages are current, links lead somewhere, quoted commands and flags exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


# --- what the specification promises to stand in README ----------------------------------------------
SPECIFIED_COMMANDS = """
git clone https://github.com/yourusername/gan-enhanced-pneumonia-classifier.git
cd gan-enhanced-pneumonia-classifier
py -m venv .venv
.\\.venv\\Scripts\\activate
python3 -m venv .venv
source .venv/bin/activate
pip install -r requirements.txt
pip install torch
mkdir -p ~/.kaggle
cp /path/to/downloaded/kaggle.json ~/.kaggle/
chmod 600 ~/.kaggle/kaggle.json
python src/download_dataset.py
python src/data_loader.py --data-dir ./data/processed
python src/train_classifier.py
python src/train_gan.py
python src/generate_synthetic.py --model-path ./models/gan/generator_final.pth
python src/train_classifier.py --use-synthetic
python src/analyze_results.py
""".strip().splitlines()
SPECIFIED_FILES = re.findall(
    r"\S+",
    """
.gitignore .gitattributes .kaggle/ .venv/ LICENSE README.md requirements.txt
data/ processed/ stage2_train_metadata.csv stage2_test_metadata.csv Training/ Images/ Test/ synthetic/
synthetic_00001.png models/ baseline_resnet50.pth augmented_resnet50.pth best_overall_baseline_resnet50.pth
best_overall_augmented_resnet50.pth gan/ generator_final.pth discriminator_final.pth notebooks/
results/ metrics/ baseline_training_history.json baseline_final_metrics.json baseline_cv_summary.json
augmented_training_history.json augmented_final_metrics.json augmented_cv_summary.json
gan_training_history.json figures/ baseline_loss.png augmented_loss.png cv_comparison.png gan_loss_curve.png
analysis/ comparison_acc.png comparison_loss.png comparison_report.txt ssim_analysis.json fid_score.json
real_vs_synthetic_comparison.png gan_images/ src/ __init__.py analyze_results.py classifier.py data_loader.py
dcgan.py download_dataset.py generate_synthetic.py train_classifier.py train_gan.py utils.py tests/
""",
)
SPECIFIED_HEADINGS = """
Task
Related Work
Approach
Dataset and Metrics
File Structure
Setup and Usage
Prerequisites
Installation
Dependencies
Dataset Preparation
Training the Baseline Classifier
Training the GAN
Generating Synthetic Images
Training the Augmented Classifier
Analyzing Results
References
""".strip().splitlines()

# Flags that belong to other people's programs.
FOREIGN_FLAGS = {"--check", "--index-url", "--screenshot"}


# --- reading pages -----------------------------------------------------------------------------------
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def split_page(text: str) -> tuple[str, list[str]]:
    """Return (the text without its fenced blocks, the contents of these)."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, flags=re.M | re.S)
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.M | re.S), blocks


def headings(text: str) -> list[str]:
    return re.findall(r"^#{1,6} +(.+?) *$", split_page(text)[0], flags=re.M)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    names: list[str] = []
    for heading in headings(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return set(names)


def links(text: str) -> list[str]:
    """Return the targets of links and pictures outside of code."""
    prose = re.sub(r"`[^`\n]*`", "", split_page(text)[0])
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def commands(text: str) -> Iterator[str]:
    """Yield the command lines of a page: continued lines joined, variables filled in; and those in prose."""
    prose, blocks = split_page(text)
    variables: dict[str, str] = {}
    for block in blocks:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line.strip())
            if assignment := re.fullmatch(r'(?:export )?([A-Z_]+)="?([^"#]*)"?\s*(?:#.*)?', line):
                variables[assignment[1]] = assignment[2]
            elif "src/" in line:
                yield line
    yield from (span for span in re.findall(r"`([^`\n]+)`", prose) if re.search(r"src/\w+\.py ", span))


def flags_of(words: list[str]) -> set[str]:
    """Return the flags among ``words``; a quoted word of several flags is no flag of its own."""
    flags = {word.split("=")[0].strip("'") for word in words if " " not in word}
    return {flag for flag in flags if re.fullmatch(r"--[a-z][a-z0-9-]*", flag)}


# --- generated pages ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def write_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", DOCS / "write_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known_flags() -> dict[str, set[str]]:
    """Script name -> the flags in its help page (which another test holds current)."""
    pages = (DOCS / "help").glob("*.txt")
    return {page.stem: set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", read(page))) for page in pages}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays out help differently by version")
def test_generated_pages_are_current(write_docs):
    assert write_docs.find_stale(write_docs.make_pages()) == [], "run `make docs`"


def test_check_names_stale_missing_and_superfluous_pages(write_docs, monkeypatch, tmp_path, capsys):
    pages = {"help/a.txt": "text of a", "help/b.txt": "text of b"}
    monkeypatch.setattr(write_docs, "DOCS", tmp_path)
    monkeypatch.setattr(write_docs, "GENERATORS", (lambda: pages,))
    assert write_docs.main([]) == 0 and write_docs.main(["--check"]) == 0
    (tmp_path / "help/a.txt").write_text("edited by hand")
    (tmp_path / "help/old.txt").write_text("of a script that is gone")
    (tmp_path / "help/b.txt").unlink()
    capsys.readouterr()
    assert write_docs.main(["--check"]) == 1
    assert "docs/help/a.txt, docs/help/b.txt, docs/help/old.txt" in capsys.readouterr().out
    assert write_docs.main([]) == 0 and write_docs.main(["--check"]) == 0
    assert not (tmp_path / "help/old.txt").exists()


# --- README ------------------------------------------------------------------------------------------
def test_readme_keeps_its_limits():
    text = read(ROOT / "README.md")
    lines = text.splitlines()
    assert len(lines) <= 300
    assert len(text.encode()) <= 16_384
    assert [line for line in lines if len(line) > 120] == []


def test_readme_holds_what_the_specification_promises():
    text = read(ROOT / "README.md")
    lines = [line.strip() + " " for line in text.splitlines()]
    for command in SPECIFIED_COMMANDS:
        assert any(line.startswith(command + " ") for line in lines), command
    assert [name for name in SPECIFIED_FILES if name not in text] == []


def test_headings_of_the_specification_stand_in_readme_or_docs():
    found = {heading.lower() for page in PAGES for heading in headings(read(page))}
    assert [heading for heading in SPECIFIED_HEADINGS if heading.lower() not in found] == []


def test_pictures_of_readme_are_small():
    for target in re.findall(r"!\[[^]]*\]\((\S+)\)", read(ROOT / "README.md")):
        assert (ROOT / target).stat().st_size < 300_000, target


# --- links, commands, flags --------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name):
    page = ROOT / name
    broken = []
    for link in links(read(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(read(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", NAMES)
def test_quoted_commands_parse(name, known_flags):
    wrong = []
    for line in commands(read(ROOT / name)):
        words = shlex.split(line, comments=True)
        at = next((i for i, word in enumerate(words) if re.fullmatch(r"src/\w+\.py", word)), None)
        if at is None:
            continue
        script = Path(words[at]).stem
        if script not in known_flags:
            wrong.append(f"{line}: no such script")
            continue
        given = {script: flags_of(words[at + 1 :])}
        for option, other in (("--classifier-args", "train_classifier"), ("--gan-args", "train_gan")):
            if option in words:
                given[other] = flags_of(words[words.index(option) + 1].split())
        for other, flags in given.items():
            wrong += [f"{line}: {other} has no {flag}" for flag in flags - known_flags[other]]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_named_flags_exist(name, known_flags):
    known = set().union(*known_flags.values()) | FOREIGN_FLAGS
    spans = re.findall(r"`([^`\n]+)`", split_page(read(ROOT / name))[0])
    named = {flag for span in spans if span.startswith("--") for flag in flags_of(span.split())}
    assert named - known == set()


def test_pages_name_files_of_src_that_exist():
    paths = {(name, path) for name in NAMES for path in re.findall(r"`(src/[\w/.]+)`", read(ROOT / name))}
    assert [(name, path) for name, path in sorted(paths) if not (ROOT / path).exists()] == []


def test_architecture_has_the_table_it_promises():
    table = read(DOCS / "architecture.md").split("## To change X, open Y")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 30
