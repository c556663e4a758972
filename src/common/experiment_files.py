"""Experiment files: the options of one or several scripts in YAML, for --config, written by --save-config.

A file holds either options of the script that reads it, or a section of options for each of several scripts.
A key is a flag without its leading dashes. Every value is text, as on a command line, and is read by the
option's own type: PyYAML's BaseLoader turns no ``off`` into False and no ``010`` into 8. All problems raise
``UserError`` with the file and the line.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from common.paths import SRC
from utils import UserError, save_text

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 100_000
MANY = ("+", "*")  # nargs of options that take a list
YES, NO = ("yes", "true", "on"), ("no", "false", "off")  # values of switches, in any case
FILE_FLAGS = ("--config", "--save-config")
NO_KEYS = ("--help", "--version", *FILE_FLAGS)
CONFIG_VARIABLE = "CONFIG_SHA256"  # environment variable: of the file whose options a sequence hands on
TEXT, LIST, MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
CONFIG_KEY = "SHA-256 of the file of --config; absent without one"  # of config_sha256 in result files
SAVED = "written by --save-config"  # in the first line of files that may be written over

_sha256: str | None = None  # of the file that this process has read


@dataclass(frozen=True)
class Entry:
    """One option as it stands in a file, or was typed: its ``texts``, several if it ``is_list``."""

    key: str
    texts: tuple[str, ...]
    is_list: bool = False
    line: int = 0  # from 1; 0: not of a file

    @property
    def name(self) -> str:
        """The name in the parsed arguments: "image-size" -> "image_size"."""
        return self.key.replace("-", "_")


Section = dict[str, Entry]  # key -> entry


@dataclass(frozen=True)
class ExperimentFile:
    """A file that was read: ``options`` of any script, or ``sections`` (script -> its options)."""

    name: str
    sha256: str
    options: Section | None
    sections: dict[str, Section]

    def problem(self, line: int, text: str) -> UserError:
        return UserError(f"--config {self.name}, line {line}: {text}")


def config_sha256() -> str | None:
    """Return the SHA-256 of the experiment file behind this run, None without one; result files name it.

    It is the file of --config, or that of the sequence of scripts that started this one.
    """
    return _sha256 or os.environ.get(CONFIG_VARIABLE) or None


class NamedConfig(TypedDict, total=False):
    """What a result file says of the experiment file of its run."""

    config_sha256: str


def named_config() -> NamedConfig:
    """Return {"config_sha256": ...} for a result file, {} without an experiment file."""
    return {"config_sha256": sha256} if (sha256 := config_sha256()) else {}


def remember_config(file: ExperimentFile | None) -> None:
    """Make ``file`` the one that ``config_sha256`` names."""
    global _sha256
    _sha256 = file.sha256 if file else None


# --- reading ---------------------------------------------------------------------------------------
def read_experiment(path: str) -> ExperimentFile:
    """Read an experiment file; raises ``UserError`` if it is none."""
    import yaml

    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError:
        raise UserError(f"--config {path} is not a text file in UTF-8") from None
    except RecursionError:
        raise UserError(f"--config {path} is nested too deeply: write options as `image-size: 64`") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {path}{_yaml_problem(error)}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if root is None or (isinstance(root, yaml.MappingNode) and not root.value):
        raise UserError(f"--config {path} holds no options: write them as `image-size: 64`, one a line")
    file = ExperimentFile(path, sha256, None, {})
    if not isinstance(root, yaml.MappingNode):
        raise file.problem(root.start_mark.line + 1, "this is no option: write options as `image-size: 64`")
    scripts = find_scripts()
    pairs = list(_pairs(file, root))
    if not any(key in scripts or isinstance(value, yaml.MappingNode) for key, _, value in pairs):
        return ExperimentFile(path, sha256, {key: _entry(file, *pair) for pair in pairs if (key := pair[0])}, {})
    return ExperimentFile(path, sha256, None, dict(_sections(file, pairs, scripts)))


def find_scripts() -> set[str]:
    """Return the names of the scripts, as sections are called."""
    return {file.stem for file in SRC.glob("*.py") if "run_script(main)" in file.read_text("utf-8")}


def _read_bytes(path: str) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"--config {path} is missing") from None
    except IsADirectoryError:
        raise UserError(f"--config {path} is a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--config {path} cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"--config {path} has more than {MAX_BYTES // 1000} KB: this is no file of options")
    return content


def _yaml_problem(error: Any) -> str:
    """Say in one line where YAML cannot be read, and why."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    place = f", line {mark.line + 1}" if mark else ""
    hint = "; indent with spaces" if "\\t" in reason else ""
    return f"{place}: not YAML: {reason}{hint}"


def _pairs(file: ExperimentFile, node: yaml.MappingNode) -> Iterator[tuple[str, int, Any]]:
    """Yield (key, line, value) of a mapping; duplicate keys and tags are refused."""
    import yaml

    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise file.problem(line, "a key must be the name of an option")
        _refuse_tags(file, [key, value])
        if key.value in lines:
            raise file.problem(line, f"{key.value} stands on line {lines[key.value]} already: give it once")
        lines[key.value] = line
        yield key.value, line, value


def _refuse_tags(file: ExperimentFile, nodes: Iterable[yaml.Node]) -> None:
    """Raise ``UserError`` if a node says its type: all values are text, and some types could run code."""
    for node in nodes:
        if node.tag not in (TEXT, LIST, MAPPING):
            name = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise file.problem(node.start_mark.line + 1, f"{name} is not allowed: every value is plain text")


def _sections(
    file: ExperimentFile, pairs: Sequence[tuple[str, int, Any]], scripts: set[str]
) -> Iterator[tuple[str, Section]]:
    import yaml

    for name, line, node in pairs:
        if name not in scripts and not isinstance(node, yaml.MappingNode):
            raise file.problem(line, f"{name} stands beside sections: put it into the section of a script")
        if name not in scripts:
            near = _nearest(name, scripts) or f"; sections are called {', '.join(sorted(scripts))}"
            raise file.problem(line, f"{name} is no script{near}")
        if isinstance(node, yaml.MappingNode):
            yield name, {pair[0]: _entry(file, *pair) for pair in _pairs(file, node)}
        elif isinstance(node, yaml.ScalarNode) and not node.value:
            yield name, {}
        else:
            raise file.problem(line, f"the section {name} holds no options: write them below it, indented")


def _entry(file: ExperimentFile, key: str, line: int, node: Any) -> Entry:
    """Make an entry of a key and its value: one text, or a list of texts."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        raise file.problem(line, f"{key} holds options of its own: only the name of a script can do that")
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    _refuse_tags(file, items)
    if not items or not all(isinstance(item, yaml.ScalarNode) for item in items):
        raise file.problem(line, f"{key} must be one value, or a list of values")
    if any(item.style is None and not item.value for item in items):
        raise file.problem(line, f"{key} has no value: give one, or leave the line out")
    return Entry(key, tuple(item.value for item in items), isinstance(node, yaml.SequenceNode), line)


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about a wrong ``name``; "" if none of the ``known`` ones is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


# --- from texts to values --------------------------------------------------------------------------
def options_for(file: ExperimentFile, script: str, hands_on: Iterable[str]) -> Section:
    """Return the options of ``script``: all of the file, or its section.

    Raises ``UserError`` if the file has sections and none is for ``script`` or for those it ``hands_on`` to.
    """
    if file.options is not None:
        return file.options
    if script not in file.sections and not file.sections.keys() & set(hands_on):
        raise UserError(f"--config {file.name} has no section {script}, only {', '.join(file.sections)}")
    return file.sections.get(script, {})


def typed_values(parser: argparse.ArgumentParser, file: ExperimentFile, section: Section) -> dict[str, Any]:
    """Return the values of a ``section`` (name in the parsed arguments -> value), checked by the ``parser``."""
    values: dict[str, Any] = {}
    for entry in section.values():
        action = _action_of(parser, file, entry)
        try:
            values[action.dest] = _typed(parser, action, entry)
        except argparse.ArgumentError as error:
            raise file.problem(entry.line, f"{entry.key}: {error.message}") from None
    for group in parser._mutually_exclusive_groups:
        names = {action.dest for action in group._group_actions if values.get(action.dest, False) is not False}
        both = [entry for entry in section.values() if entry.name in names]
        if len(both) > 1:
            raise file.problem(both[1].line, f"{both[1].key} and {both[0].key} exclude each other: give one of them")
    return values


def without_typed(parser: argparse.ArgumentParser, section: Section, words: Sequence[str]) -> Section:
    """Return a ``section`` without the options that a command line of ``words`` gives, or excludes."""
    flags = {word.split("=")[0] for word in words}
    typed = {action.dest for flag, action in parser._option_string_actions.items() if flag in flags}
    for group in parser._mutually_exclusive_groups:
        names = {action.dest for action in group._group_actions}
        typed |= names if names & typed else set()
    return {key: entry for key, entry in section.items() if entry.name not in typed}


def as_words(parser: argparse.ArgumentParser, file: ExperimentFile, section: Section) -> list[str]:
    """Write a ``section`` as the words of a command line, checked by the ``parser`` of its script."""
    values, words = typed_values(parser, file, section), []
    for entry in section.values():
        value, flag = values[entry.name], f"--{entry.key}"
        if isinstance(value, bool):
            action = parser._option_string_actions[flag]
            negative = [f"--no-{entry.key}"] if isinstance(action, argparse.BooleanOptionalAction) else []
            words += [flag] if value else negative
        elif isinstance(parser._option_string_actions[flag], argparse._AppendAction):
            words += [f"{flag}={text}" for text in entry.texts]
        elif len(entry.texts) == 1 and entry.texts[0].startswith("-"):
            words.append(f"{flag}={entry.texts[0]}")
        else:
            words += [flag, *entry.texts]
    return words


def _action_of(parser: argparse.ArgumentParser, file: ExperimentFile, entry: Entry) -> argparse.Action:
    """Return the option that an entry names; negative forms are no keys."""
    actions = parser._option_string_actions
    action = actions.get(f"--{entry.key}")
    if f"--{entry.key}" in NO_KEYS and action is not None:
        raise file.problem(entry.line, f"{entry.key} cannot stand in an experiment file")
    if action is None:
        known = {flag[2:]: each for flag, each in actions.items() if flag.startswith("--") and flag not in NO_KEYS}
        positive = [name for name, each in known.items() if name.replace("-", "_") == each.dest]
        raise file.problem(entry.line, f"there is no option {entry.key}{_nearest(entry.key, positive)}")
    if entry.name != action.dest:
        raise file.problem(entry.line, f"write {entry.key.removeprefix('no-')}: no in place of {entry.key}")
    return action


def _typed(parser: argparse.ArgumentParser, action: argparse.Action, entry: Entry) -> Any:
    """Return the value of one entry. Raises ``ArgumentError``, as the command line does, for a wrong one."""
    appends = isinstance(action, argparse._AppendAction)
    if entry.is_list and not appends and action.nargs not in MANY:
        example = ",".join(entry.texts)
        raise argparse.ArgumentError(action, f"takes one value, not a list; {example!r} perhaps?")
    if action.nargs == 0:  # a switch
        word = entry.texts[0].lower()
        if word not in (*YES, *NO):
            raise argparse.ArgumentError(action, f"must be yes or no, got {entry.texts[0]!r}")
        return word in YES
    values = [parser._get_value(action, text) for text in entry.texts]
    for value in values:
        parser._check_value(action, value)
    return values if appends or action.nargs in MANY else values[0]


# --- writing ---------------------------------------------------------------------------------------
def save_experiment(path: str, head: str, sections: Mapping[str, Section]) -> None:
    """Write ``sections`` (script -> its options) behind the comment ``head``.

    Raises ``UserError`` if ``path`` holds something that ``save_experiment`` has not written.
    """
    import yaml

    file = Path(path)
    if file.is_dir():
        raise UserError(f"--save-config {path} is a folder: give the name of a file")
    if file.exists():
        with file.open("rb") as stream:
            first = stream.readline(500)
        if SAVED.encode() not in first:
            raise UserError(f"--save-config {path} exists and was not {SAVED}: give another name")

    def scalar(value: str) -> yaml.Node:
        return yaml.ScalarNode(TEXT, value, style=None if value else "'")

    def value_of(entry: Entry) -> yaml.Node:
        items = [scalar(each) for each in entry.texts]
        return yaml.SequenceNode(LIST, items, flow_style=True) if entry.is_list else items[0]

    def mapping(values: Mapping[str, yaml.Node]) -> yaml.Node:
        return yaml.MappingNode(MAPPING, [(scalar(key), node) for key, node in values.items()], flow_style=not values)

    root = mapping({
        script: mapping({key: value_of(entry) for key, entry in section.items()})
        for script, section in sections.items()
    })  # fmt: skip
    body = yaml.serialize(root, Dumper=yaml.BaseDumper, allow_unicode=True, width=10_000)
    save_text(file, f"# {head}, {SAVED}\n{body.rstrip()}\n")
