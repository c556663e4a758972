"""The campaign's own parts, quickly: what is killed at a file operation, what counts as broken, what mutators do."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from campaign import binary_mutators, mutators
from campaign.files import broken_files, differences, leftovers
from campaign.ledger import FAULT, Ledger, kill_table, mutation_table
from campaign.own_readings import scores_of, table_by_image
from utils import atomic_path, save_json


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": 1'), ("a.json", b'{"a": NaN}'), ("a.json", b""), ("a.csv", b"a,b\n1,2"),
        ("a.csv", b"a,b\n1\n"), ("a.png", b"\x89PNG"), ("a.pth", b"PK"), ("a.jsonl", b'{"a": 1}\n{"a"\n'),
        ("a.html", b"<html>"), ("a.txt", b"half a li"),
    ],
)  # fmt: skip
def test_a_half_file_is_broken(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert len(broken_files(tmp_path, killed=False)) == 1


def test_whole_files_are_not_and_temporary_ones_are_left_over(tmp_path):
    save_json(tmp_path / "a.json", {"seconds": 1, "n": 2})
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert broken_files(tmp_path, killed=False) == leftovers(tmp_path) == []
    with atomic_path(tmp_path / "b.json"):
        assert broken_files(tmp_path, killed=True) == [] and len(leftovers(tmp_path)) == 1


def test_clocks_are_no_difference_and_numbers_are(tmp_path):
    for folder, seconds, n in (("one", 1, 5), ("other", 2, 5), ("wrong", 1, 6)):
        save_json(tmp_path / folder / "a.json", {"seconds": seconds, "n": n})
    assert differences(tmp_path / "one", tmp_path / "other") == []
    assert differences(tmp_path / "one", tmp_path / "wrong") == ["a.json differs at n"]


TABLE = b"image_id,patient,label,probability\na,p,1,0.75\nb,q,0,0.5\nc,q,0,0.25\n"


@pytest.mark.parametrize("way", sorted({*mutators.TABLE, *mutators.TABLE_OF_ONE}, key=lambda way: way.__name__))
def test_mutations_of_a_table_are_the_same_for_the_same_seed(way):
    for seed in range(20):
        assert way(random.Random(seed), TABLE) == way(random.Random(seed), TABLE)
    assert any(way(random.Random(seed), TABLE)[1] != TABLE for seed in range(20))


@pytest.mark.parametrize("way", sorted(set(mutators.JSON), key=lambda way: way.__name__))
def test_every_change_of_json_can_be_made(way):
    content = json.dumps({"a": [1, 2, {"b": None}], "c": "word", "d": True}, indent=2).encode()
    assert any(way(random.Random(seed), content)[1] != content for seed in range(20))


def test_every_change_of_an_image_can_be_made(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for way in set(binary_mutators.PNG):
        assert any(way(random.Random(seed), content)[1] != content for seed in range(20)), way.__name__


def test_readings_of_its_own():
    assert scores_of(TABLE) == {
        "n_images": 3, "n_patients": 2, "n_positive": 1, "accuracy": 2 / 3, "brier": (0.0625 + 0.25 + 0.0625) / 3,
        "auroc": 1.0,
    }  # fmt: skip
    assert table_by_image(b"patientId,Target\na,1\na,1\nb,0\n") == {
        "a": {"Target": ["1", "1"]},
        "b": {"Target": ["0"]},
    } | {name: {"patientId": [name] * n, "Target": [target] * n} for name, n, target in (("a", 2, "1"), ("b", 1, "0"))}
    assert table_by_image(b"patientId,Target\na,1,\n") is None


def test_the_ledger_goes_on_after_half_a_line(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(what="mutation", number=1, kind="a.csv", outcome=FAULT, detail="traceback", mutation="cut")
    kills = {"what": "kills", "job": "gan", "number": 1, "kills": 2, "fresh": 0, "ended_before": 0, "faults": {}}
    ledger.add(**kills)
    with ledger.file.open("a") as stream:
        stream.write('{"what": "kil')
    again = Ledger(tmp_path)
    assert again.rows == ledger.rows and len(again.faulty()) == 1
    again.add(what="mutation", number=1, kind="a.csv", outcome="refused", detail="", mutation="cut")
    assert again.faulty() == [], "a trial that was repeated counts once"
    assert "| gan  " in kill_table(again.of("kills")) and "refused" in mutation_table(again.of("mutation"))
