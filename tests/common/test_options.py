import pytest

from common.command_line import argument_parser
from common.options import Affects, Option, flags_set_by_study, names_affecting, values_affecting

TABLE = (
    Option("--data-dir", "folder", default="./data", metavar="PATH", set_by_study=True),
    Option("--lr", "learning rate", Affects.RUN | Affects.COMPARISON, type=float, default=0.1),
    Option("--unfreeze", "all layers", Affects.RUN | Affects.FOLDS, switch=True, group="training"),
    Option("--epochs", "passes", type=int, default=3, group="training", excludes="length"),
    Option("--kimg", "images (default: as --epochs says)", type=float, group="training", excludes="length"),
    Option("--diffaug", "augment", default=True, on_off=True),
)


def test_the_parser_follows_from_the_table():
    parser = argument_parser("A script.", TABLE)
    args = parser.parse_args(["--lr", "2", "--no-diffaug"])
    assert (args.data_dir, args.lr, args.unfreeze, args.epochs, args.kimg, args.diffaug) == (
        "./data", 2.0, False, 3, None, False,
    )  # fmt: skip
    text = " ".join(parser.format_help().split())
    for part in ("training: --unfreeze all layers (default: off)", "--lr LR learning rate (default: 0.1)",
                 "--kimg KIMG images (default: as --epochs says)"):  # fmt: skip
        assert part in text
    with pytest.raises(SystemExit):
        parser.parse_args(["--epochs", "1", "--kimg", "2"])


def test_what_options_change_follows_from_the_table():
    assert names_affecting(TABLE, Affects.RUN) == {"lr", "unfreeze"}
    assert names_affecting(TABLE, Affects.COMPARISON) == {"lr"}
    values = {"unfreeze": True, "lr": 2, "epochs": 1}
    assert values_affecting(TABLE, Affects.RUN, values) == {"lr": 2, "unfreeze": True}
    assert flags_set_by_study(TABLE) == {"--data-dir"}
