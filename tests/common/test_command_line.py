import argparse
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from common.command_line import VERSION, argument_parser, number, public_config
from common.paths import SRC
from common.progress import progress_bar


@pytest.mark.parametrize(
    ("kind", "limits", "good", "bad"),
    [
        (int, {"low": 1}, ["1", "7"], ["0", "-1", "1.5", "x", ""]),
        (float, {"above": 0}, ["0.1", "1e-4"], ["0", "-1", "nan", "inf", "x"]),
        (float, {"low": 0, "high": 1}, ["0", "1"], ["1.1", "-0.1"]),
    ],
)
def test_numbers(kind, limits, good, bad):
    parse = number(kind, low=limits.get("low"), high=limits.get("high"), above=limits.get("above"))
    assert [parse(text) for text in good] == [kind(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


def test_configuration_shows_no_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(a=str(tmp_path / "data" / "x"), b="/somewhere/else/y", c=1, d=None, e="./z")
    assert public_config(vars(args)) == {
        "a": "data/x",
        "b": "y",
        "c": 1,
        "d": None,
        "e": "./z",
    }
    outside = argparse.Namespace(f="../../home/someone/data")
    assert public_config(vars(outside)) == {"f": "data"}


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("raise UserError('the file\\nis bad')", 1, "error: the file is bad\n"),
        ("raise KeyboardInterrupt", 130, "interrupted: finished files are kept, unfinished removed\n"),
        ("raise MemoryError", 1, "error: out of memory; close other programs\n"),
        ("open('/none/such', 'w')", 1, "error: No such file or directory: /none/such\n"),
    ],
)
def test_errors_end_in_one_line(body, code, text):
    imports = "from common.command_line import run_script; from utils import UserError"
    program = f"{imports}\ndef main():\n    {body}\nrun_script(main)"
    done = subprocess.run([sys.executable, "-c", program], cwd=SRC, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, text)


def test_wrong_usage_ends_in_one_line_and_exit_code_2(capsys):
    parser = argument_parser("A script.")
    parser.add_argument("--size", type=number(int, 1), default=1)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--size", "0"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "argument --size: must be a whole number >= 1, got 0" in error


def run_and_fail(folder: Path, before: str = "") -> subprocess.CompletedProcess:
    """Run a script that logs beside ``folder``/results/metrics and then has a bug."""
    program = (
        "import logging, sys\n"
        "from common.command_line import run_script; from common.logs import keep_run_log\n"
        f"sys.path.insert(0, {str(SRC)!r}); sys.argv = ['train_x.py', '--data-dir', '/home/jo/data']\n"
        "def main():\n"
        "    logging.getLogger('x').warning('RED FLAG: /home/jo/data/a.png is odd')\n"
        f"    keep_run_log('results/metrics')\n    {before or 'pass'}\n    1 / 0\n"
        "run_script(main)"
    )
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env=environment)


def test_a_bug_ends_in_one_line_and_its_traceback_is_in_the_log_file(tmp_path):
    done = run_and_fail(tmp_path)
    (file,) = (tmp_path / "results" / "logs").glob("train_x-*.log")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: unexpected ZeroDivisionError: division by zero; the traceback is in results/logs/{file.name}\n"
    )
    text = file.read_text()
    assert text.startswith("python train_x.py --data-dir data\nPython 3.") and "torch" in text.splitlines()[1]
    assert "WARNING RED FLAG: a.png is odd" in text, "what was said before the file was opened"
    assert "Traceback" in text and "ZeroDivisionError" in text
    assert str(SRC) not in text and "/home/jo" not in text


def test_a_bug_shows_its_traceback_where_there_is_no_log_file(tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    done = run_and_fail(tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", "from common.command_line import run_script\nrun_script(lambda: 1 / 0)"],
        cwd=SRC, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_the_log_file_holds_warnings_of_python_and_outlives_its_folder(tmp_path):
    done = run_and_fail(tmp_path, "import warnings; warnings.warn('old habit')")
    (file,) = (tmp_path / "results" / "logs").glob("*.log")
    assert "old habit" in file.read_text()
    done = run_and_fail(tmp_path, "import shutil; shutil.rmtree('results'); logging.warning('on')")
    assert done.stdout.splitlines()[-1] == "on", "the run goes on"
    assert "Traceback" in done.stderr


def record_of(file: str, level: str) -> None:
    """Log the word ``level`` at that level as if ``file`` did."""
    log, number = logging.getLogger("any"), logging.getLevelNamesMapping()[level.upper()]
    if log.isEnabledFor(number):
        log.handle(logging.LogRecord("any", number, file, 1, level, None, None))


@pytest.mark.parametrize(
    ("flags", "said"),
    [([], ["info", "warning"]), (["--quiet"], ["warning"]), (["--verbose"], ["debug", "info", "warning"])],
)
def test_quiet_and_verbose(flags, said, capsys):
    argument_parser("A script.").parse_args(flags)
    for level in ("debug", "info", "warning", "error"):
        record_of(str(SRC / "any.py"), level)
    out, err = capsys.readouterr()
    assert out.split() == said and err.split() == ["error"]
    bar = progress_bar([1], desc="bar")
    assert bar.disable == ("--quiet" in flags)


def test_messages_of_libraries_are_shown_from_warnings_up(capsys):
    argument_parser("A script.").parse_args([])
    for level in ("info", "warning"):
        record_of("/somewhere/lib.py", level)
    assert capsys.readouterr().out == "warning\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        argument_parser("A script.").parse_args(["--version"])
    assert stop.value.code == 0
    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out.split()[-1] == VERSION == project["version"]
