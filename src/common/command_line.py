"""Command lines of the scripts: running ``main``, parsers, argument types, and commands written down.

Every script offers ``--quiet``, ``--verbose`` and ``--version``. It answers a user's mistake with one line
and writes the traceback of an unexpected error to its log file.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from common import REMEDY
from common.distributed import is_main, launched
from common.experiment_files import (
    MANY,
    Entry,
    ExperimentFile,
    as_words,
    options_for,
    read_experiment,
    remember_config,
    save_experiment,
    typed_values,
    without_typed,
)
from common.logs import begin_run_log, record_traceback, start_console
from common.options import HandedOn, Option, add_options
from common.startup import (
    EndingSignalError,
    check_current_folder,
    settle_home,
    settle_streams,
    signals_as_interrupts,
)
from utils import UserError, is_out_of_memory, plain, public_path, readable

log = logging.getLogger(__name__)

VERSION = "0.1.0"
NOT_RECORDED = frozenset({"quiet", "verbose"})  # options that say nothing about a result
_flags: set[str] = set()  # of the script that has parsed its options, for messages


# --- running a script ------------------------------------------------------------------------------
def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; a ``UserError`` ends in one line and exit code 1, Ctrl-C in one line and 130.

    SIGTERM and SIGHUP are treated like Ctrl-C (exit codes 143 and 129), so that temporary files are removed
    when a scheduler stops a job or a terminal is closed. An unexpected error ends in one line that names the
    log file with its traceback. No character and no closed stream makes output fail.
    """
    settle_streams()
    code = _exit_code(main)
    sys.stdout.flush()
    sys.stderr.flush()
    if launched() is not None:
        # Threads of gloo may still free tensors while the interpreter is torn down, which now and then
        # aborts a process that has done all its work (pytorch/pytorch#190489): end without tearing down.
        os._exit(code)
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    start_console()
    begin_run_log()
    try:
        with signals_as_interrupts():
            settle_home()
            check_current_folder()
            main()
    except UserError as error:
        log.error(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, EndingSignalError) else signal.SIGINT
        log.error(_interrupted(number, getattr(error, "__notes__", [])))
        return 128 + number
    except Exception as error:
        if (sentence := _known_fault(error)) is not None:
            log.error(f"error: {sentence}")
            return 1
        if (file := record_traceback(error)) is None:
            raise
        what = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
        log.error(f"error: unexpected {what}; the traceback is in {public_path(file)}")
    else:
        return 0
    return 1


def _interrupted(number: int, notes: Sequence[str]) -> str:
    """Say that a signal ended the run, and how it goes on: in a script's own words (``notes``), if it has some."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    kept = "finished files are kept, unfinished removed"
    if "--resume" in _flags:
        kept += "; --resume goes on from there"
    return f"interrupted{by}: {'; '.join(notes) or kept}"


def _known_fault(error: Exception) -> str | None:
    """Say what is wrong if the machine is to blame, not this project; None else."""
    if is_out_of_memory(error):
        fewer = [flag for flag in ("--batch-size", "--image-size", "--workers") if flag in _flags]
        remedy = f"a smaller {' or '.join(fewer)} needs less" if fewer else "close other programs"
        return f"out of memory; {remedy}"
    if isinstance(error, OSError):
        # A full disk, a folder that cannot be written: the user's to mend, and the message says which.
        where = f": {error.filename}" if error.filename else ""
        kept = "; finished files are kept: make room, then give the same command again"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{error.strerror or error}{where}{kept if full else ''}"
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        text = readable(ascii(error.object))
        return f"file names are limited to {error.encoding} here, which cannot write {text}: set PYTHONUTF8=1"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed for {sys.executable}: {REMEDY}"
    return None


# --- command lines ---------------------------------------------------------------------------------
class HelpFormatter(argparse.HelpFormatter):
    """Ends the help of every option with ``(default: X)`` unless the text already says it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction | argparse._VersionAction) or "(default:" in text:
            return text
        if isinstance(action, argparse._StoreTrueAction):
            return f"{text} (default: off)"
        return f"{text} (default: %(default)s)"


class ArgumentParser(argparse.ArgumentParser):
    """Ends wrong usage in one line and exit code 2, without the whole list of options before it."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.hands_on: dict[str, HandedOn] = {}  # name of an option -> the script that its words are for
        self._given: dict[str, Entry] = {}  # name -> entry of each option that was given, in the file or typed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with the options of --config unless they are typed; set up the console as options say."""
        words = sys.argv[1:] if args is None else list(args)
        namespace = namespace or argparse.Namespace()
        self._given = {}
        try:
            path = _config_of(words)
            file = None if path is None else read_experiment(path)
            if file:
                section = options_for(file, _script(), [each.script for each in self.hands_on.values()])
                values = typed_values(self, file, section)
                self._given = {entry.name: entry for entry in without_typed(self, section, words).values()}
                for name in self._given:
                    setattr(namespace, name, values[name])
            with self._without_need_of(self._given):
                parsed = super().parse_args(words, namespace)
            if parsed.config != path:
                raise UserError(f"argument --config: {parsed.config} is no name of a file")
            for name, target in self.hands_on.items():
                flag = f"--{name.replace('_', '-')}"
                setattr(parsed, name, self._words_for(target, flag, getattr(parsed, name), file))
            if parsed.save_config and is_main():
                self._save(parsed, file)
        except UserError as error:
            self.error(str(error))
        remember_config(file)
        del parsed.config, parsed.save_config  # not of the run: its values are, and the file's SHA-256
        start_console(parsed.quiet, parsed.verbose)
        _flags.clear()
        _flags.update(self._option_string_actions)
        return parsed

    def _words_for(self, target: HandedOn, flag: str, typed: list[str], file: ExperimentFile | None) -> list[str]:
        """Return the words that are handed on: the options of the ``file``'s section, then what was ``typed``.

        Raises ``UserError`` if one of them cannot be handed on.
        """
        for word in typed:
            if reason := target.refused.get(word.split("=")[0]):
                raise UserError(f"{flag}: {word} cannot be passed on: {reason}")
        if file is None or not (section := file.sections.get(target.script)):
            return typed
        for entry in section.values():
            if reason := target.refused.get(f"--{entry.key}"):
                raise file.problem(entry.line, f"{entry.key} cannot stand in the section {target.script}: {reason}")
        parser = parser_of_words(target.options)
        return [*as_words(parser, file, without_typed(parser, section, typed)), *typed]

    @contextlib.contextmanager
    def _without_need_of(self, names: Collection[str]) -> Iterator[None]:
        """Take options ``names`` for given in the block."""
        needed = [action for action in self._actions if action.required and action.dest in names]
        for action in needed:
            action.required = False
        try:
            yield
        finally:
            for action in needed:
                action.required = True

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Return the value of an option on the command line; remembers what was typed."""
        texts = arg_strings or ([action.const] if action.nargs == "?" else [])
        if action.option_strings:
            appends = isinstance(action, argparse._AppendAction)
            before = self._given.get(action.dest) if appends else None
            all_texts = (*(before.texts if before else ()), *texts)
            key = action.option_strings[0].lstrip("-")
            self._given[action.dest] = Entry(key, all_texts, is_list=appends or action.nargs in MANY)
        return super()._get_values(action, arg_strings)

    def _save(self, parsed: argparse.Namespace, file: ExperimentFile | None) -> None:
        """Write all options that were given to --save-config, and the sections that are handed on."""
        own = {}
        for name, entry in self._given.items():
            value = getattr(parsed, name)
            if name not in (*NOT_RECORDED, "config", "save_config"):
                own[entry.key] = replace(entry, texts=(("no", "yes")[value],)) if isinstance(value, bool) else entry
        sections = {_script(): own}
        for target in self.hands_on.values():
            if file and target.script in file.sections:
                sections[target.script] = file.sections[target.script]
        save_experiment(parsed.save_config, f"Options of {_script()}.py {VERSION}", sections)


def _script() -> str:
    """Return the name of the running script, as its section in an experiment file is called."""
    return Path(sys.argv[0]).stem


def _config_of(words: Sequence[str]) -> str | None:
    """Return the file that --config names; None without one, or where the script only says something of itself."""
    if {"-h", "--help", "--version"} & set(words):
        return None
    path = None
    for word, following in zip(words, [*words, "-"][1:], strict=True):
        if word == "--config" and not following.startswith("-"):
            path = following
        elif word.startswith("--config="):
            path = word.partition("=")[2]
    return path


def argument_parser(description: str, options: Sequence[Option] = ()) -> ArgumentParser:
    """Make a parser of ``options`` in the project's help style; flags must be written out in full."""
    parser = ArgumentParser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    add_options(parser, options)
    parser.hands_on = {option.name: option.hands_on for option in options if option.hands_on}
    in_file = parser.add_argument_group("options in a file")
    in_file.add_argument(
        "--config", metavar="FILE",
        help="read options from this YAML file; what is typed wins (default: none)",
    )  # fmt: skip
    in_file.add_argument(
        "--save-config", metavar="FILE",
        help="write the options of this run to this file, for --config (default: none)",
    )  # fmt: skip
    output = parser.add_argument_group("console").add_mutually_exclusive_group()
    output.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    output.add_argument("--verbose", action="store_true", help="also print details for finding faults")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}", help="print the version")
    return parser


def parser_of_words(options: Iterable[Option], script: str | None = None) -> ArgumentParser:
    """Make a parser of words for another ``script``, whose ``options`` it knows and whose name is in its errors."""
    parser = ArgumentParser(prog=script, add_help=False, allow_abbrev=False)
    add_options(parser, options)
    return parser


def number(
    kind: type[int] | type[float], low: float | None = None, high: float | None = None,
    *, above: float | None = None,
) -> Callable[[str], Any]:  # fmt: skip
    """Make an argparse type: ``kind`` with low <= value <= high and value > above, finite."""
    bounds = ((">=", low), (">", above), ("<=", high))
    limits = " and ".join(f"{sign} {limit}" for sign, limit in bounds if limit is not None)
    wanted = f"must be {'a whole number' if kind is int else 'a number'} {limits}".strip()

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{wanted}, got {text!r}") from None
        too_low = (low is not None and value < low) or (above is not None and value <= above)
        if not math.isfinite(value) or too_low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{wanted}, got {text}")
        return value

    return parse


def public_config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``options`` of a run (name -> value) as plain types for a result file.

    No path in them leads out of the working directory.
    """

    def public(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [public(item) for item in value]
        leads_out = isinstance(value, str | Path) and (Path(value).is_absolute() or ".." in Path(value).parts)
        return public_path(value) if leads_out else plain(value)

    return {key: public(value) for key, value in sorted(options.items()) if key not in NOT_RECORDED}


def command_line(script: str, options: Mapping[str, Any], leave_out: Collection[str] = ()) -> str:
    """Return the command that runs ``src/<script>.py`` with recorded options (names as in ``public_config``).

    Options that are None or False were not given; ``leave_out`` names others. Lists are written as options
    take them: words one after the other, [[0, 0.0], [5, 0.25]] as 0:0,5:0.25.
    """
    words = ["python", f"src/{script}.py"]
    for name, value in options.items():
        if value is None or value is False or name in leave_out:
            continue
        texts = value if isinstance(value, list) and value and isinstance(value[0], str) else [_typed(value)]
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [shlex.quote(t) for t in texts])
    return " ".join(words)


def _typed(value: Any) -> str:
    """Return a recorded option as it is typed."""
    if isinstance(value, list | tuple):
        parts = (item if isinstance(item, list | tuple) else [item] for item in value)
        return ",".join(":".join(str(part).removesuffix(".0") for part in item) for item in parts)
    return str(value)
