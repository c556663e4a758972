"""Experiment files: what is read, what is refused, and that --save-config gives the same options again."""

import argparse
import hashlib
import importlib
import os
import shlex
import sys
from pathlib import Path

import pytest

from common import experiment_files
from common.command_line import argument_parser, number
from common.experiment_files import CONFIG_VARIABLE, MAX_BYTES, config_sha256, find_scripts
from common.options import HandedOn, Option

RATE = number(float, above=0)
OTHER = (
    Option("--lr", "rate", type=RATE, default=0.1),
    Option("--unfreeze", "all layers", switch=True),
    Option("--diffaug", "augment", default=True, on_off=True),
    Option("--dir", "folders", nargs="+", default="./d"),
    Option("--add", "more", append=True),
    Option("--shift", "pixels", type=int, default=0),
    Option("--model-dir", "place"),
)
TABLE = (
    Option("--data-dir", "folder", default="./data"),
    Option("--name", "a name", required=True),
    Option("--lr", "rate", type=RATE, default=0.1),
    Option("--mode", "choice", choices=("off", "on"), default="on"),
    Option("--size", "pixels", type=int, choices=(8, 10), default=8),
    Option("--unfreeze", "all layers", switch=True),
    Option("--no-cache", "nothing kept", switch=True),
    Option("--diffaug", "augment", default=True, on_off=True),
    Option("--synthetic-dir", "folders", nargs="+", default="./synthetic"),
    Option("--extra", "more", append=True),
    Option("--resume", "go on", nargs="?", const="auto"),
    Option("--epochs", "passes", type=int, default=3, excludes="length"),
    Option("--kimg", "images", type=float, excludes="length"),
    Option("--gan-args", "words", type=shlex.split, default=[],
           hands_on=HandedOn("train_gan", OTHER, {"--model-dir": "own"})),
)  # fmt: skip


@pytest.fixture
def parse(in_tmp, monkeypatch):
    """Parse words with the file ``x.yaml``, as run_study.py would."""
    monkeypatch.setattr(sys, "argv", ["src/run_study.py"])

    def parsed(text: str | bytes, *words: str):
        Path("x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return argument_parser("A script.", TABLE).parse_args(["--config", "x.yaml", *words])

    return parsed


# --- values ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr: 1e-4", {"lr": 1e-4}),  # text for safe_load
        ("size: 010", {"size": 10}),  # 8 for safe_load
        ("mode: off", {"mode": "off"}),  # False for safe_load
        ("data-dir: 2026-11-29", {"data_dir": "2026-11-29"}),  # a date
        ("data-dir: null", {"data_dir": "null"}),
        ("data-dir: ''", {"data_dir": ""}),
        ("data-dir: -x", {"data_dir": "-x"}),
        ("data-dir: ../d  # relative to the current folder", {"data_dir": "../d"}),
        ("unfreeze: yes\nno-cache: off", {"unfreeze": True, "no_cache": False}),
        ("unfreeze: TRUE\ndiffaug: No", {"unfreeze": True, "diffaug": False}),
        ("synthetic-dir: [a, b]", {"synthetic_dir": ["a", "b"]}),
        ("synthetic-dir: a", {"synthetic_dir": ["a"]}),
        ("extra:\n- a\n- b", {"extra": ["a", "b"]}),
        ("resume: auto", {"resume": "auto"}),
        ("gan-args: --lr 2 --unfreeze", {"gan_args": ["--lr", "2", "--unfreeze"]}),
        ("quiet: true", {"quiet": True}),
        (b"\xef\xbb\xbflr: 2\r\nmode: on\r\n", {"lr": 2.0, "mode": "on"}),
        ("lr: &rate 2\nkimg: *rate", {"lr": 2.0, "kimg": 2.0}),
    ],
)
def test_values_are_read_as_the_command_line_reads_them(parse, text, values):
    assert parse(text, "--name", "n").__dict__.items() >= values.items()


@pytest.mark.parametrize(
    ("text", "words", "values"),
    [
        ("lr: 1\nname: f", "--lr 2", {"lr": 2.0, "name": "f"}),
        ("name: f", "--name=n", {"name": "n"}),
        ("diffaug: no\nname: f", "--diffaug", {"diffaug": True}),
        ("diffaug: yes\nname: f", "--no-diffaug", {"diffaug": False}),
        ("synthetic-dir: [a, b]\nname: f", "--synthetic-dir c", {"synthetic_dir": ["c"]}),
        ("extra: [a, b]\nname: f", "--extra c --extra d", {"extra": ["c", "d"]}),
        ("extra: [a, b]\nname: f", "", {"extra": ["a", "b"]}),
        ("kimg: 5\nname: f", "--epochs 9", {"epochs": 9, "kimg": None}),
        ("epochs: 5\nname: f", "--kimg 9", {"epochs": 3, "kimg": 9.0}),
        ("quiet: yes\nname: f", "--verbose", {"quiet": False, "verbose": True}),
    ],
)
def test_what_is_typed_wins(parse, text, words, values):
    assert parse(text, *words.split()).__dict__.items() >= values.items()


def test_a_required_option_may_stand_in_the_file_and_is_asked_for_without(parse, capsys):
    assert parse("name: f").name == "f"
    with pytest.raises(SystemExit):
        parse("lr: 1")
    assert "required: --name" in capsys.readouterr().err


def test_config_leaves_no_trace_in_the_arguments(parse):
    assert vars(parse("name: f")).keys() == vars(argument_parser("A.", TABLE).parse_args(["--name", "n"])).keys()


# --- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 1\nsise: 8", "line 2: there is no option sise; did you mean size?"),
        ("data_dir: x", "line 1: there is no option data_dir; did you mean data-dir?"),
        ("zzzzz: x", "line 1: there is no option zzzzz ("),
        ("no-diffaug: yes", "line 1: write diffaug: no in place of no-diffaug"),
        ("lr: 1\n\nlr: 2", "line 3: lr stands on line 1 already"),
        ("lr: x", "line 1: lr: must be a number > 0, got 'x'"),
        ("lr: 0", "line 1: lr: must be a number > 0, got 0"),
        ("size: 9", "line 1: size: invalid choice: 9"),
        ("size: 8.0", "line 1: size: invalid int value: '8.0'"),
        ("unfreeze: 1", "line 1: unfreeze: must be yes or no, got '1'"),
        ("unfreeze: [yes]", "line 1: unfreeze: takes one value, not a list"),
        ("lr: [1, 2]", "line 1: lr: takes one value, not a list; '1,2' perhaps?"),
        ("lr:", "line 1: lr has no value"),
        ("extra: [a, ]\nlr: ~", "line 2: lr: must be a number"),
        ("extra: [[a]]", "line 1: extra must be one value, or a list of values"),
        ("extra: []", "line 1: extra must be one value, or a list of values"),
        ("lr:\n  x: 1", "line 1: lr is no script"),
        ("epochs: 1\nkimg: 2", "line 2: kimg and epochs exclude each other"),
        ("config: y.yaml", "line 1: config cannot stand in an experiment file"),
        ("save-config: y.yaml", "line 1: save-config cannot stand in"),
        ("help: yes", "line 1: help cannot stand in"),
        ("<<: {lr: 1}", "line 1: << is no script"),
        ("lr: !!float 1", "line 1: !!float is not allowed"),
        ("lr: !!python/object/apply:os.system [ls]", "line 1: !!python/object/apply:os.system is not allowed"),
        ("extra: [!x a]", "line 1: !x is not allowed"),
        ("? [a]\n: 1", "line 1: a key must be the name of an option"),
        ("", "x.yaml holds no options"),
        ("# nothing\n", "x.yaml holds no options"),
        ("{}", "x.yaml holds no options"),
        ("- lr", "line 1: this is no option"),
        ("--lr 1", "line 1: this is no option"),
        ("a: &a [*a]", "line 1: a must be one value"),
        ("lr: 1\n\tsize: 8", "line 2: not YAML: found character '\\t' that cannot start any token; indent with spaces"),
        ("lr: 'a", "line 1: not YAML: found unexpected end of stream"),
        ("lr: *a", "line 1: not YAML: found undefined alias 'a'"),
        ("lr: 1\n---\nlr: 2", "line 2: not YAML: but found another document"),
        ("[" * 5_000, "x.yaml is nested too deeply"),
        ("lr: " + " " * MAX_BYTES, "x.yaml has more than 100 KB"),
        ("lr: 1".encode("utf-16"), "x.yaml is not a text file in UTF-8"),
        (b"PK\x03\x04", "x.yaml: not YAML: special characters are not allowed"),
        ("run_study:\n  lr: 1\nname: n", "line 3: name stands beside sections"),
        ("run_study:\n  lr: 1\nrun_stady:\n  lr: 1", "line 3: run_stady is no script; did you mean run_study?"),
        ("run_study:\n  lr: 1\nmine:\n  lr: 1", "line 3: mine is no script; sections are called analyze_results"),
        ("run_study: 1", "line 1: the section run_study holds no options"),
        ("run_study: [lr]", "line 1: the section run_study holds no options"),
        ("run_study:\n  lr: {a: 1}", "line 2: lr holds options of its own"),
        ("run_study:\n  lr: 1\n  lr: 1", "line 3: lr stands on line 2 already"),
        ("train_classifier:\n  lr: 1", "x.yaml has no section run_study, only train_classifier"),
        ("train_gan:\n  shift: x", "line 2: shift: invalid int value: 'x'"),
        ("train_gan:\n  mode: on", "line 2: there is no option mode"),
        ("train_gan:\n  model-dir: x", "line 2: model-dir cannot stand in the section train_gan: own"),
    ],
)
def test_bad_files_end_in_one_line(parse, capsys, text, said):
    with pytest.raises(SystemExit) as stop:
        parse(text, "--name", "n")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and "--config x.yaml" in error, error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "none.yaml"], "--config none.yaml is missing"),
        (["--config=."], "--config . is a folder, not a file"),
        (["--config"], "argument --config: expected one argument"),
        (["--config", "-"], "argument --config: - is no name of a file"),
        (["--config="], "--config  is a folder, not a file"),
    ],
)
def test_files_that_cannot_be_read_are_named(in_tmp, capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        argument_parser("A script.", TABLE).parse_args(["--name", "n", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and said in error


def test_help_needs_no_file(in_tmp, capsys):
    with pytest.raises(SystemExit) as stop:
        argument_parser("A script.", TABLE).parse_args(["--config", "none.yaml", "--help"])
    assert stop.value.code == 0 and "--save-config" in capsys.readouterr().out


# --- sections --------------------------------------------------------------------------------------
def test_a_section_is_handed_on_before_what_is_typed(parse):
    text = """
    train_gan: {lr: 2, unfreeze: yes, diffaug: no, dir: [a, b], add: [x, y], shift: -3}
    train_classifier: {anything: goes}
    """
    words = ["--lr", "2", "--unfreeze", "--no-diffaug", "--dir", "a", "b", "--add=x", "--add=y", "--shift=-3"]
    assert parse(text, "--name", "n").gan_args == words
    assert parse(text, "--name", "n", "--gan-args=--lr 3").gan_args == [*words[2:], "--lr", "3"]
    assert argument_parser("A.", OTHER).parse_args(words).__dict__.items() >= {
        "lr": 2.0, "unfreeze": True, "diffaug": False, "dir": ["a", "b"], "add": ["x", "y"], "shift": -3,
    }.items()  # fmt: skip


def test_one_file_serves_several_scripts(parse, monkeypatch):
    text = "run_study:\n  name: s\n  lr: 3\ntrain_gan:\n  name: g\ntrain_classifier:\n"
    assert parse(text.replace("  name: g\n", "")).name == "s"
    monkeypatch.setattr(sys, "argv", ["train_gan.py"])
    own = tuple(option for option in TABLE if option.hands_on is None)
    assert argument_parser("A.", own).parse_args(["--config", "x.yaml", "--name", "n"]).lr == 0.1
    Path("x.yaml").write_text(text, encoding="utf-8")
    assert argument_parser("A.", own).parse_args(["--config", "x.yaml"]).name == "g"


# --- the file's name in results --------------------------------------------------------------------
def test_results_name_the_file_or_that_of_the_sequence(parse, monkeypatch):
    parse(b"name: f")
    assert config_sha256() == hashlib.sha256(b"name: f").hexdigest()
    assert experiment_files.named_config() == {"config_sha256": config_sha256()}
    argument_parser("A script.").parse_args([])
    assert config_sha256() is None and experiment_files.named_config() == {}
    monkeypatch.setitem(os.environ, CONFIG_VARIABLE, "abc")
    assert config_sha256() == "abc"


# --- --save-config ---------------------------------------------------------------------------------
NAMED = ("--name", "n", "--save-config", "saved.yaml")


def test_what_is_saved_gives_the_same_options(parse, monkeypatch):
    text = "run_study: {lr: 1e-4, mode: off, extra: [a, 'b: c'], kimg: 3}\ntrain_gan: {diffaug: no}\n"
    words = shlex.split("--epochs 7 --unfreeze --no-diffaug --resume --synthetic-dir a é --data-dir= --gan-args")
    first = parse(text, *NAMED, *words, "--lr 5 --dir 'a b'")
    lines = Path("saved.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Options of run_study.py 0.1.0, written by --save-config"
    assert "  mode: off" in lines and "  epochs: 7" in lines and "  resume: auto" in lines
    assert not any("kimg" in line for line in lines), "--epochs took its place"
    again = argument_parser("A script.", TABLE).parse_args(["--config", "saved.yaml"])
    assert again == first and first.gan_args == ["--no-diffaug", "--lr", "5", "--dir", "a b"]


def test_a_folder_is_no_place_for_saved_options(parse, capsys):
    Path("saved.yaml").mkdir()
    with pytest.raises(SystemExit) as stop:
        parse("lr: 1", *NAMED)
    assert stop.value.code == 2 and "--save-config saved.yaml is a folder: give the name" in capsys.readouterr().err


def test_only_what_was_saved_is_written_over(parse, capsys):
    Path("saved.yaml").write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        parse("lr: 1", *NAMED)
    assert stop.value.code == 2 and "saved.yaml exists and was not written by --save-config" in capsys.readouterr().err
    assert Path("saved.yaml").read_text(encoding="utf-8") == "name: mine\n"
    Path("saved.yaml").unlink()
    parse("lr: 1", *NAMED)
    parse("lr: 2", *NAMED)
    assert "lr: 2" in Path("saved.yaml").read_text(encoding="utf-8")


SCRIPTS = sorted(find_scripts())


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_gives_its_options_again(script, in_tmp, monkeypatch):
    """Options of every script, most with another value than the default, go through a file unchanged."""
    monkeypatch.setattr(sys, "argv", [f"src/{script}.py"])
    parser = importlib.import_module(script).build_parser()
    first = parser.parse_args([*words_for(parser), "--save-config", "saved.yaml"])
    assert parser.parse_args(["--config", "saved.yaml", "--quiet"]) == first
    defaults = {action.dest: action.default for action in parser._actions}
    changed = [name for name, value in vars(first).items() if value != defaults[name]]
    assert len(changed) > len(vars(first)) / 2


TEXTS = ("x", "3", "0.5", "64", "0:0,5:0.25", "baseline", "default", "quality", "a/b", "class-weight",
         "a:b")  # fmt: skip


def words_for(parser) -> list[str]:
    """Return a command line with every option that takes one of ``TEXTS``, one of those that exclude each other."""
    words, left_out = ["--quiet"], {"help", "version", "config", "save_config", "quiet", "verbose"}
    for action in parser._actions:
        if action.dest in left_out:
            continue
        for group in parser._mutually_exclusive_groups:
            if action in group._group_actions:
                left_out |= {other.dest for other in group._group_actions}
        fitting = [text for text in TEXTS if fits(parser, action, text)]
        if action.nargs == 0:
            words.append(action.option_strings[-1])
        elif action.choices or fitting:
            words += [action.option_strings[0], str(list(action.choices)[-1]) if action.choices else fitting[0]]
    return words


def fits(parser, action, text: str) -> bool:
    try:
        parser._get_value(action, text)
    except argparse.ArgumentError:
        return False
    return True
