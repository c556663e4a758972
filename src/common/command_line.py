"""Command lines of the scripts: running ``main``, parsers, argument types, and commands written down.

Every script offers ``--quiet``, ``--verbose`` and ``--version``. It answers a user's mistake with one line
and writes the traceback of an unexpected error to its log file.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.logs import begin_run_log, record_traceback, start_console
from common.options import Option, add_options
from utils import UserError, plain, public_path

log = logging.getLogger(__name__)

VERSION = "0.1.0"
NOT_RECORDED = frozenset({"quiet", "verbose"})  # options that say nothing about a result


# --- running a script ------------------------------------------------------------------------------
def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; a ``UserError`` ends in one line and exit code 1, Ctrl-C in one line and 130.

    SIGTERM is treated like Ctrl-C, so that temporary files are removed when a scheduler stops a job. An
    unexpected error ends in one line that names the log file with its traceback.
    """
    code = _exit_code(main)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Threads of gloo may still free tensors while the interpreter is torn down, which now and then
        # aborts a process that has done all its work (pytorch/pytorch#190489): end without tearing down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    start_console()
    begin_run_log()
    try:
        main()
    except UserError as error:
        log.error(f"error: {' '.join(str(error).split())}")
        return 1
    except KeyboardInterrupt:
        log.error("interrupted: finished files are kept, unfinished removed")
        return 130
    except OSError as error:
        # A full disk, a folder that cannot be written: the user's to mend, and the message says which.
        where = f": {error.filename}" if error.filename else ""
        log.error(f"error: {error.strerror or error}{where}")
        return 1
    except Exception as error:
        # torch.OutOfMemoryError is a RuntimeError; torch must not be imported here to name it.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            log.error("error: out of memory; a smaller --batch-size or --image-size needs less")
            return 1
        if (file := record_traceback(error)) is None:
            raise
        what = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
        log.error(f"error: unexpected {what}; the traceback is in {public_path(file)}")
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to be removed
    return 0


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

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and set up the console as --quiet and --verbose say."""
        parsed = super().parse_args(args, namespace)
        start_console(parsed.quiet, parsed.verbose)
        return parsed


def argument_parser(description: str, options: Sequence[Option] = ()) -> ArgumentParser:
    """Make a parser of ``options`` in the project's help style; flags must be written out in full."""
    parser = ArgumentParser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    add_options(parser, options)
    output = parser.add_argument_group("console").add_mutually_exclusive_group()
    output.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    output.add_argument("--verbose", action="store_true", help="also print details for finding faults")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}", help="print the version")
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
