"""Scripts on machines as they are: encodings, closed streams, no home folder, leftovers of job scripts."""

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import common
from common.output_folders import CHECK_ONLY
from common.paths import SRC
from utils import UserError, readable

SCRIPTS = sorted(file for file in SRC.glob("*.py") if "run_script(main)" in file.read_text(encoding="utf-8"))
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
BEGIN = """
import logging, os, sys
import common.logs
from common.command_line import *
from utils import UserError
common.logs._is_ours = lambda record: True
log = logging.getLogger("x")
"""


def run(code: str, folder: Path, shell: str = "{}", **environment: str | None) -> subprocess.CompletedProcess:
    """Run a script whose main() is ``code``; ``shell`` says what is done with it, None removes a variable."""
    body = "\n    ".join(code.splitlines())
    (folder / "script.py").write_text(f"{BEGIN}\ndef main():\n    {body}\nrun_script(main)\n", encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(SRC), **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    command = shell.format(f"{sys.executable} script.py")
    # The tests themselves may run under nohup.
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables, capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip


# --- what is printed -------------------------------------------------------------------------------
HELP_OF_ALL = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            sys.exit(f"{script} ended with {stop.code}")
    print("end of", script)
"""


def help_of_all(encoding: str, *python: str) -> None:
    """Look at --help of all scripts, printed by one process; tests/test_layering.py starts one for each."""
    done = subprocess.run(
        [sys.executable, *python, "-c", HELP_OF_ALL, *map(str, SCRIPTS)],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(SRC)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr
    texts = done.stdout.decode(encoding).split("end of ")
    assert len(texts) == len(SCRIPTS) + 1
    for script, text in zip(SCRIPTS, texts, strict=False):
        assert "--verbose" in text, script


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1", "utf-8"])
def test_help_of_every_script_in_every_encoding(encoding):
    help_of_all(encoding)


def test_scripts_start_without_docstrings_and_asserts():
    help_of_all("utf-8", "-OO")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1"])
def test_the_report_can_be_printed_in_every_encoding(encoding, tmp_path):
    sources = [*SRC.rglob("*.py"), *SRC.rglob("*.j2")]
    text = "ü" + "".join(sorted({c for file in sources for c in file.read_text(encoding="utf-8") if ord(c) > 127}))
    done = run(f"log.info({text!r}); log.error({text!r})", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stdout.decode(encoding) and done.stdout == done.stderr


def test_a_file_name_of_other_bytes_is_shown_and_logged_where_the_system_speaks_ascii(tmp_path):
    code = "from common.logs import keep_run_log\nkeep_run_log('results/metrics')\nraise UserError(os.listdir('d')[0])"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "Röntgen").touch()
    done = run(code, tmp_path, **POSIX)
    assert (done.returncode, done.stderr) == (1, rb"error: R\xf6ntgen" + b"\n")
    (file,) = (tmp_path / "results" / "logs").glob("*.log")
    assert "error: Röntgen" in file.read_text(encoding="utf-8")


def test_hidden_bytes_become_letters_or_escapes():
    assert readable(os.fsdecode("Röntgen".encode()) + os.fsdecode(b"\xfc") + "\ud800 ok") == "Röntgen\\xfc\\ud800 ok"
    assert readable("R\udcc3\udcb6ntgen") == "Röntgen"


@pytest.mark.parametrize(
    ("shell", "out", "err"),
    [
        ("{} 2>&-", b"said\nerror: wrong\n", b""),
        ("{} >&-", b"", b"error: wrong\n"),
        ("{} >&- 2>&-", b"", b""),
        ("{} <&- >&- 2>&-", b"", b""),
        ("set -o pipefail; {} 2>&1 | true", b"", b""),
        ("{} > /dev/full", b"", b"error: wrong\n"),
    ],
)
def test_closed_and_full_streams(tmp_path, shell, out, err):
    code = (
        "from common.logs import keep_run_log\nkeep_run_log('results/metrics')\n"
        "import time; time.sleep(0.1)\nlog.info('said')\nopen('made', 'w').write('1')\nraise UserError('wrong')"
    )
    done = run(code, tmp_path, shell)
    assert (done.returncode, done.stdout, done.stderr) == (1, out, err)
    assert (tmp_path / "made").read_text(encoding="ascii") == "1", "no output went into a file"
    (file,) = (tmp_path / "results" / "logs").glob("*.log")
    assert "error: wrong" in file.read_text(encoding="utf-8")


# --- who and where ---------------------------------------------------------------------------------
def test_no_home_and_no_entry_of_the_user(tmp_path):
    code = (
        "import getpass, pathlib, pwd\n"
        "import matplotlib; matplotlib.get_cachedir()\n"
        "print(pathlib.Path.home().is_dir(), getpass.getuser())"
    )
    nobody = "import pwd\ndef nobody(*_): raise KeyError\npwd.getpwuid = nobody\n"
    (tmp_path / "sitecustomize.py").write_text(nobody, encoding="utf-8")
    gone = dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"))
    done = run(code, tmp_path, PYTHONPATH=f"{tmp_path}:{SRC}", TMPDIR=str(tmp_path), **gone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b"True", f"user_{os.getuid()}".encode()]
    assert not (tmp_path / "~").exists()


def test_a_current_folder_that_is_gone(tmp_path):
    (tmp_path / "gone").mkdir()
    done = run("os.chdir('gone'); os.rmdir(os.getcwd())\nrun_script(lambda: None)", tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(b"error: the current folder was removed")


@pytest.mark.parametrize(
    "leftover",
    [
        {"WORLD_SIZE": "4"},
        {"WORLD_SIZE": "banana"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"},
        {"WORLD_SIZE": "2", "RANK": "5", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"RANK": "x", "LOCAL_RANK": ""},
    ],
)
def test_leftovers_of_a_job_script_start_no_processes(leftover, tmp_path, monkeypatch, caplog):
    from common.distributed import launched, process_group

    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in leftover.items():
        monkeypatch.setenv(name, value)
    with process_group(cpu=True):
        assert launched() is None
    assert ("is ignored" in caplog.text) == ("WORLD_SIZE" in leftover)


# --- memory, disk, signals -------------------------------------------------------------------------
SMALLER = "out of memory; a smaller --batch-size or --workers needs less"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ('RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate")', SMALLER),
        ("OSError(12, 'Cannot allocate memory')", SMALLER),
        (
            "OSError(28, 'No space left on device', 'x.png')",
            "No space left on device: x.png; finished files are kept: make room, then give the same command again",
        ),
        (
            "ModuleNotFoundError('No module', name='captum')",
            f"captum is not installed for {sys.executable}: {common.REMEDY}",
        ),
    ],
)
def test_faults_of_the_machine_are_one_line(error, said, tmp_path):
    options = "(Option('--batch-size', 'x'), Option('--workers', 'x'))"
    code = f"argument_parser('x', {options}).parse_args([])\nraise {error}"
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr.decode()) == (1, f"error: {said}\n")


def test_a_full_disk_names_the_file(tmp_path):
    from utils import atomic_path

    with pytest.raises(OSError) as stop, atomic_path(tmp_path / "x.json"):
        raise OSError(28, "No space left on device")
    assert stop.value.filename == str(tmp_path / "x.json") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "shell"), [(1, "{}"), (15, "{}"), (1, "nohup {}")])
def test_a_signal_ends_a_run_like_ctrl_c(number, shell, tmp_path):
    code = (
        "from common.logs import keep_run_log; from utils import atomic_path\nkeep_run_log('results/metrics')\n"
        "with atomic_path('x.pth') as temporary:\n"
        f"    os.kill(os.getpid(), {number}); import time; time.sleep(0.2); log.info('went on')"
    )
    done = run(code, tmp_path, shell)
    (file,) = (tmp_path / "results" / "logs").glob("*.log")
    if shell.startswith("nohup"):
        assert done.returncode == 0 and b"went on" in done.stdout
        return
    said = f"interrupted by {signal.Signals(number).name}: finished files are kept, unfinished removed"
    assert (done.returncode, done.stderr.decode()) == (128 + number, said + "\n")
    assert said in file.read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.pth*")) and not list(tmp_path.glob(".*.tmp"))


# --- the Python that is needed ---------------------------------------------------------------------
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_old_pythons_read_every_script_up_to_the_line_that_refuses_them(script):
    tree = ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 8))
    ours = {file.stem for file in SRC.iterdir()}
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported]
    assert next(name for name in names if name.split(".")[0] in ours).split(".")[0] == "common"


def test_an_unfit_python_is_refused_in_one_line(monkeypatch):
    source = (SRC / "common" / "__init__.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))
    assert common.installation_problem() == ""
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert common.installation_problem().startswith("Python 3.9.2 is too old: `make setup` makes .venv with Python 3.")


def test_a_python_without_packages_is_refused_in_one_line(tmp_path):
    command = [sys.executable, "-S", SRC / "train_gan.py", "--data-dir", "d"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(r"error: torch, .* not installed for .*: `make setup` makes .venv .*\.venv/bin/python", done.stderr)


# --- the whole small run ---------------------------------------------------------------------------
WHOLE_RUN = """
make_phantom_dataset --output-dir {d}/data --num-images 60 --num-test-images 6 --image-size 32 --workers 1
data_loader --data-dir {d}/data
train_classifier {data} {arm}
train_gan {data} --output-dir {d}/r --image-size 32 --num-channels 1 --epochs 2 --batch-size 8 --perceptual off
generate_synthetic --model-path {d}/m/gan/generator_final.pth --output-dir {d}/synthetic --num-images 12 --cpu
register_synthetic --images {d}/foreign --trained-elsewhere Köln --output-dir {d}/registered --data-dir {d}/data
train_classifier {data} {arm} --use-synthetic --synthetic-dir {d}/registered
analyze_results --data-dir {d}/data --cpu --metrics-dir {d}/r/metrics --analysis-dir {d}/r/analysis
"""
ARM = "--results-dir {d}/r/metrics --figures-dir {d}/r/figures --weights none --image-size 32 --epochs 1 --k-folds 0"


@pytest.mark.slow
@pytest.mark.parametrize("optimize", ["", "2"])
def test_the_whole_small_run_in_ascii_below_a_folder_with_an_umlaut(optimize, tmp_path):
    import numpy as np
    from PIL import Image

    folder = tmp_path / "Röntgen"
    data = f"--data-dir {folder}/data --cache-dir {folder}/cache --cpu --model-dir {folder}/m"
    lines = WHOLE_RUN.format(d=folder, data=data, arm=ARM.format(d=folder)).strip().splitlines()
    variables = os.environ | POSIX | {"PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": optimize}
    for script, *words in map(str.split, lines):
        if script == "register_synthetic":
            (folder / "foreign").mkdir()
            noise = np.random.default_rng(0)  # two epochs of a GAN make nothing that could be registered
            for number in range(12):
                pixels = noise.integers(0, 255, (32, 32), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "foreign" / f"{number}.png")
        command = [sys.executable, SRC / f"{script}.py", *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, (script, done.stderr[-2000:])
    assert "Röntgen" in (folder / "r/analysis/comparison_report.txt").read_text(encoding="utf-8")


# --- odd environments ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONWARNINGS", "error"), ("COLUMNS", "0"), ("COLUMNS", "banana"), ("TZ", "Nowhere/Odd"),
        ("TERM", None), ("TMPDIR", "/nonexistent"),
    ],
)  # fmt: skip
def test_odd_environments_change_nothing(name, value, tmp_path):
    code = (
        "from common.logs import keep_run_log\nkeep_run_log('results/metrics')\n"
        "argument_parser('x').format_help(); log.info('said')"
    )
    done = run(code, tmp_path, **{name: value})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said\n", b"")


# --- files that are read ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("script", "flags", "file"),
    [
        ("train_classifier", "--weights-trained-on ImageNet --weights", "gone.pth"),
        ("train_classifier", "--weights-trained-on ImageNet --weights", "unfit.pth"),
        ("train_gan", "--metrics-features", "unfit.pth"),
    ],
)
def test_files_that_cannot_be_read_are_told_before_the_first_step_of_a_pipeline(
    script, flags, file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CHECK_ONLY, "1")
    Path("unfit.pth").write_bytes(b"nothing")
    with pytest.raises(UserError, match=file):
        importlib.import_module(script).main([*flags.split(), file])
    assert [path.name for path in tmp_path.iterdir()] == ["unfit.pth"], "nothing was started"


# --- folders that are written to -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("script", "flags", "wrong"),
    [
        ("train_classifier", ["--results-dir", "taken/x"], "--results-dir taken/x"),
        ("train_classifier", ["--figures-dir", "taken"], "--figures-dir taken"),
        ("train_gan", ["--model-dir", "taken"], "--model-dir taken"),
        ("make_phantom_dataset", ["--output-dir", "taken"], "--output-dir taken"),
        ("analyze_results", ["--analysis-dir", "taken"], "--analysis-dir taken"),
        ("run_pipeline", ["--output-dir", "taken"], "--output-dir taken"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_before_any_work(script, flags, wrong, in_tmp, as_script):
    Path("taken").touch()
    code, _, err = as_script(importlib.import_module(script).main, *flags)
    assert code == 1
    assert err == (
        f"error: {wrong}: no file can be written there (taken is a file); give another folder, or mend this one\n"
    )
    assert [file.name for file in in_tmp.iterdir()] == ["taken"], "nothing is made"
