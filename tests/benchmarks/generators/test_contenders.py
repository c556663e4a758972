"""Contenders, sets of options, and names of rows."""

from __future__ import annotations

import pytest

from benchmarks import benchmark_paths
from benchmarks.generators import contender_runs as runs
from benchmarks.generators.contenders import (
    OPTION_SETS,
    Budget,
    Contender,
    Unit,
    contenders,
    option_contender,
)
from utils import UserError


def test_all_that_the_comparison_is_about_are_contenders():
    names = list(contenders())
    assert names == [
        "ours-default", "ours-cpu", "ours-best",
        "lightweight-gan", "lightweight-gan small", "stylegan2_pytorch", "stylegan2_pytorch small",
        "diffusers-ddpm", "diffusers-ddpm small", "plain-dcgan",
    ]  # fmt: skip
    for contender in contenders().values():
        assert contender.ours or (benchmark_paths.PEER_DRIVERS / contender.driver).is_file()
        assert contender.ours or contender.package is None or contender.package in runs.PACKAGES


@pytest.mark.parametrize("name", OPTION_SETS)
def test_every_set_of_options_is_accepted_by_the_trainer(name):
    import train_gan
    from gan.options import read_settings

    args = train_gan.build_parser().parse_args([*option_contender(name).flags, "--image-size", "64"])
    read_settings(vars(args))


def test_sets_of_options_are_known_or_spelt():
    assert option_contender("mine=--d-norm none --r1 2").flags == ("--d-norm", "none", "--r1", "2")
    with pytest.raises(UserError, match="no such set of options"):
        option_contender("mine")
    with pytest.raises(UserError, match="cannot be split into flags"):
        option_contender("mine=--d-norm 'none")


@pytest.mark.parametrize("flags", ["--preset", "--preset nothing", "--depth 3"])
def test_flags_that_the_trainer_lacks_are_refused_before_anything_is_trained(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        option_contender(f"mine={flags}")
    assert ended.value.code == 2 and "train_gan.py: error: " in capsys.readouterr().err


def test_the_row_of_a_preset_is_named_after_its_values_however_it_is_spelt():
    spelt = [Unit(option_contender(f"mine={flags}"), 0, Budget(10)).id for flags in ("--preset=cpu", "--preset cpu")]
    assert spelt[0][-8:] == spelt[1][-8:] != Unit(option_contender("default"), 0, Budget(10)).id[-8:]


def test_a_small_variant_is_another_contender():
    known = contenders()
    for name in ("lightweight-gan", "stylegan2_pytorch", "diffusers-ddpm"):
        default, small = (Unit(known[one], 0, Budget(10)) for one in (name, f"{name} small"))
        assert default.id != small.id and "--variant small" in small.id


def test_units_differ_by_what_they_measure():
    one, other = Contender("a", ("--x",)), Contender("a", ("--y",))
    units = [Unit(one, 0, Budget(10)), Unit(one, 1, Budget(10)), Unit(one, 0, Budget(30)),
             Unit(one, 0, Budget(kimg=10)), Unit(other, 0, Budget(10))]  # fmt: skip
    assert len({unit.id for unit in units}) == len({unit.folder_name("k") for unit in units}) == 5
    assert units[0].folder_name("k") != units[0].folder_name("other data")
