"""The script that compares generators."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import benchmark_gan
from benchmarks import benchmark_paths
from benchmarks.generators import scorer
from common import paths
from fake_contenders import SCORER, fake, simple_features
from gan_data import make_dataset
from utils import UserError, load_json


@pytest.fixture
def quick(monkeypatch):
    """A scorer that need not be trained."""
    ready = SimpleNamespace(features=simple_features, facts=SCORER)
    monkeypatch.setattr(scorer, "load_scorer", lambda *_: ready)


@pytest.mark.slow
def test_the_whole_command_with_fakes(quick, in_tmp, monkeypatch, capsys):
    fakes = {name: fake(in_tmp, name) for name in ("noise", "both", "fails")}
    monkeypatch.setattr("benchmarks.generators.contenders.contenders", lambda: fakes)
    make_dataset(Path(paths.DATA_DIR), n_images=320, side=8)
    flags = ["--images", "40", "--minutes", "0.01", "--image-size", "32", "--cpu", "--workers", "1"]
    benchmark_gan.main([*flags, "--seeds", "0", "--contenders", "both,fails"])
    benchmark_gan.main([*flags, "--seeds", "0"])
    content = load_json(benchmark_paths.gan_benchmark_results("results"))
    assert len(content["rows"]) == 3 and content["data"]["learned_positives"] > 50
    assert all(row["status"] == "done" for row in content["rows"] if row["contender"] != "fails")
    for file in (
        benchmark_paths.gan_benchmark_figure("results", "peers"),
        benchmark_paths.gan_benchmark_grid("results", "peers"),
    ):
        assert file.stat().st_size > 10_000
    assert str(in_tmp) not in benchmark_paths.gan_benchmark_results("results").read_text()
    capsys.readouterr()
    benchmark_gan.main(["--what", "report"])
    assert "noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--contenders", "nobody"], "no such contender"), (["--what", "options", "--set", "x"], "no such set"),
     (["--set", "best"], "--set is for --what options"),
     (["--what", "options", "--contenders", "ours-best"], "--contenders is for --what peers"),
     (["--what", "report"], "is missing")],
)  # fmt: skip
def test_errors_say_what_is_allowed(flags, message, in_tmp):
    with pytest.raises(UserError, match=message):
        benchmark_gan.main(flags)


@pytest.mark.parametrize("flags", [["--seeds", "-1"], ["--seeds", "a"], ["--minutes", "0"], ["--what", "x"]])
def test_wrong_usage_ends_with_2(flags, in_tmp):
    with pytest.raises(SystemExit) as ended:
        benchmark_gan.main(flags)
    assert ended.value.code == 2
