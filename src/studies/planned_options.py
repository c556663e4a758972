"""What a plan fixes of the options of every command, and whether a study is the one that was planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from arms.options import TRAIN_OPTIONS
from arms.registry import ARMS
from common.command_line import parser_of_words
from common.options import Affects, Option, names_affecting
from common.plan_files import WRITE_ANOTHER, PlanFile, PlannedStudy
from gan.options import GENERATION_OPTIONS, read_settings
from gan.options import OPTIONS as GAN_OPTIONS
from utils import UserError, plain

if TYPE_CHECKING:
    from studies.cross_fit import CrossFitPlan

Allowed = dict[str, dict[str, list[Any]]]  # script -> option -> values
# Not planned: where things lie, the machine, and what makes an arm the arm that it is.
FREE = {"patient_map", "prefix", "cpu"} | {name for kind in ARMS.values() for name in kind.options}
# What the scripts' own tables do not list, because --resume may change it, or because it makes other files.
ALSO = {
    "train_classifier": {"repeats"}, "train_gan": {"epochs", "kimg"},
    "generate_synthetic": {"num_images", "label", "seed"},
}  # fmt: skip
TABLES: dict[str, tuple[Option, ...]] = {
    "train_classifier": TRAIN_OPTIONS, "train_gan": GAN_OPTIONS, "generate_synthetic": GENERATION_OPTIONS,
}  # fmt: skip


def planned_names(script: str) -> list[str]:
    """List the options of a script that a plan fixes."""
    names = names_affecting(TABLES[script], Affects.RUN) | ALSO[script]
    return [option.name for option in TABLES[script] if option.name in names - FREE]


def values_of(script: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the values that the ``words`` of a command give to the planned options of ``script``.

    Raises ``UserError`` for words that the script does not know.
    """
    required = {option.name for option in TABLES[script] if option.required}
    parser = parser_of_words([option for option in TABLES[script] if option.name not in required], f"{script}.py")
    parsed, unknown = parser.parse_known_args(list(words))
    if wrong := [word for word in unknown if word.startswith("--") and word[2:].replace("-", "_") not in required]:
        raise UserError(f"{script}.py has no option {wrong[0]}")
    values: Mapping[str, Any] = vars(parsed)
    if script == "train_gan":
        values = read_settings(values).values
    return {name: plain(values[name]) for name in planned_names(script)}


def planned_options(commands: Iterable[tuple[str, Sequence[str]]]) -> Allowed:
    """Collect, from ``commands`` (script, words), the values that each planned option takes."""
    allowed: Allowed = {}
    for script, words in commands:
        if script not in TABLES:
            continue
        known = allowed.setdefault(script, {})
        for name, value in values_of(script, words).items():
            values = known.setdefault(name, [])
            if value not in values:
                values.append(value)
    return allowed


def commands_of_study(study: CrossFitPlan) -> list[tuple[str, Sequence[str]]]:
    """List the commands (script, words) of all runs of a study."""
    return [(step.script, step.options) for steps in study.steps.values() for step in steps]


def study_numbers(options: Mapping[str, Any]) -> PlannedStudy:
    """Return how often a study trains, from its ``options``, as plan.json says it."""
    return {
        "folds": options["cross_fit"], "gans": options["gan_seeds"], "repeats": options["repeats"],
        "seed": options["seed"],
    }  # fmt: skip


def check_numbers(plan: PlanFile, options: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless a study of these ``options`` trains what the ``plan`` says, as often as it says."""
    planned = plan.content
    flags = {"folds": "--cross-fit", "gans": "--gan-seeds", "repeats": "--repeats", "seed": "--seed"}
    before, now = dict(planned["study"]), dict(study_numbers(options))
    for key, flag in flags.items():
        if before[key] != now[key]:
            was = f"{flag} {before[key]}" if before[key] else "one frozen split"
            raise UserError(f"{plan.name} planned {was}, and {flag} is {now[key]} here: give that, {WRITE_ANOTHER}")
    for name in (planned["primary"]["arm"], planned["primary"]["against"]):
        if name not in options["arms"]:
            raise UserError(f"{plan.name} asks about the arm {name}: add it to --arms, {WRITE_ANOTHER}")


def check_study(plan: PlanFile, study: CrossFitPlan, data_sha256: str) -> None:
    """Raise ``UserError`` unless a study has the images, folds and options of the ``plan``."""
    if plan.content["images"]["data_sha256"] != data_sha256:
        raise UserError(f"{plan.name} was made for other metadata than that of --data-dir; give the planned one")
    for splits in study.splits.values():
        plan.check_split(splits.sha256)
    for script, words in commands_of_study(study):
        if script in TABLES:
            plan.check_options(script, values_of(script, words))
