"""Tables and figure."""

from __future__ import annotations

import re

from benchmarks.file_formats import GeneratorBenchmark
from benchmarks.generators.figure import contenders_figure
from benchmarks.generators.results import measure_unit, measure_units
from benchmarks.generators.scores import SPACES
from benchmarks.generators.table import cost_table, quality_table, summarise_contenders
from fake_contenders import unit


def test_the_table_is_in_the_order_of_ranks_and_ends_with_the_failures(results, setup, judge, tmp_path):
    names = ("noise", "fails", "copies")
    measure_units([unit(tmp_path, name) for name in names], setup, judge, results, "peers", again=False)
    summaries = summarise_contenders(results.content, "peers")
    lines = quality_table(results.content, summaries)
    assert [line.split()[0] for line in lines] == [
        "contender", "copies", "noise", "fails", "reals", "bad:", "bad:", "bad:", "bad:", "KID", "fails,"
    ]  # fmt: skip
    assert "1/1" in lines[1] and "0/1" in lines[3]
    found = {contender: one for (_, contender), one in summaries.items()}
    assert [one.rank for one in found.values()] == [1.0, 2.0, None]
    for space in SPACES:
        assert found["copies"].spaces[space].tied and not found["noise"].spaces[space].tied
    assert "(hardly begun: 1 steps)" in lines[1]


def test_what_cannot_be_told_from_the_best_is_marked(results, setup, judge, tmp_path):
    for seed in (0, 1):
        row = measure_unit(unit(tmp_path, "copies", seed), setup, judge, "peers")
        results.add(row | {"contender": f"c{seed}"})
    found = summarise_contenders(results.content, "peers").values()
    assert all(one.spaces[space].tied for one in found for space in SPACES)


def costs(content: GeneratorBenchmark) -> str:
    return cost_table(content["machine"], summarise_contenders(content, "peers"))[1]


def test_a_machine_with_other_work_is_marked(results, setup, judge, tmp_path):
    row = measure_unit(unit(tmp_path, "noise"), setup, judge, "peers")
    assert row["cpu_seconds"] > 0 and row["command_seconds"] > 0
    row |= {"threads": 2, "command_seconds": 10.0, "settings": {"precision": "bf16", "perceptual": "off"}}
    for seconds, mark in ((19.0, "0.95"), (9.0, "0.45 busy")):
        results.add(row | {"cpu_seconds": seconds})
        line = costs(results.content)
        assert f" {mark} " in line and "bf16" in line and " off " in line
        assert re.search(rf" 2 +{mark} ", line)  # of two threads
    results.add(row | {"cpu_seconds": None})
    assert "busy" not in costs(results.content)
    figure = contenders_figure(results.content, summarise_contenders(results.content, "peers"))
    assert "made up, 1 core, 2 threads each" in figure._suptitle.get_text().replace("\n", " ")
