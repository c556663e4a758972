import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from common.locks import claim, hold_lock, try_lock
from common.paths import SRC
from gan_data import make_dataset
from utils import UserError


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock file until it is told to end, or killed."""
    code = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        "from pathlib import Path; from common.locks import hold_lock\n"
        f"with hold_lock(Path({str(tmp_path / 'lock')!r})):\n"
        "    print('HELD', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"HELD\n"
        yield process
        process.kill()


def test_a_lock_is_free_again_after_the_block_and_makes_its_folder(tmp_path):
    lock = tmp_path / "new" / "lock"
    with hold_lock(lock):
        assert lock.is_file()
    with try_lock(lock) as ours:
        assert ours


def test_a_held_lock_is_not_got_at_once(other_process, tmp_path):
    with try_lock(tmp_path / "lock") as ours:
        assert not ours
    with try_lock(tmp_path / "another") as ours:
        assert ours


def test_waiting_is_told_once(other_process, tmp_path, caplog):
    threading.Timer(0.4, other_process.stdin.close).start()
    with caplog.at_level(logging.INFO), hold_lock(tmp_path / "lock", "waiting for it"):
        pass
    assert [record.message for record in caplog.records] == ["waiting for it"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_holds_nothing(other_process, tmp_path):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    with try_lock(tmp_path / "lock") as ours:
        assert ours


def test_what_is_no_lock_file_is_an_error(tmp_path):
    with pytest.raises(OSError), hold_lock(tmp_path):
        pass


# --- claims ----------------------------------------------------------------------------------------
def test_a_second_run_in_the_same_folder_ends_in_one_line_with_the_number_of_the_process(tmp_path):
    with claim([tmp_path / "a", tmp_path / "b"], "gan", "train_gan.py"):
        said = rf"another train_gan.py \(process {os.getpid()}\) is writing to .*b; wait"
        with pytest.raises(UserError, match=said), claim([tmp_path / "c", tmp_path / "b"], "gan", "train_gan.py"):
            pass
        with claim([tmp_path / "c", tmp_path / "b"], "gan_fold_1", "train_gan.py"):
            pass
    with claim([tmp_path / "b"], "gan", "train_gan.py"):
        pass
    assert not list(tmp_path.glob("*/.*")), "no lock file stays"


def test_a_lock_file_left_by_a_killed_process_blocks_nobody(tmp_path):
    left = tmp_path / ".gan.lock"
    left.write_text("4711\n", encoding="utf-8")
    with claim([tmp_path], "gan", "train_gan.py"):
        assert left.read_text(encoding="utf-8") == f"{os.getpid()}\n"


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claim([tmp_path], "gan", "train_gan.py"):
        pass


@pytest.mark.slow
def test_of_two_trainings_in_the_same_folders_one_goes_on(tmp_path):
    """Two real processes, started at once."""
    flags = (
        "--image-size 32 --num-channels 1 --latent-dim 6 --feature-maps-g 4 --feature-maps-d 4 --batch-size 4 "
        "--workers 1 --cpu --perceptual off --no-cache --epochs 80 --metrics-interval 0"
    )
    data = ["--data-dir", make_dataset(tmp_path / "data"), "--model-dir", "m", "--output-dir", "r"]
    command = [sys.executable, SRC / "train_gan.py", *data, *flags.split()]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    both = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    (_, good), (said, bad) = sorted(((p.communicate()[1], p.returncode) for p in both), key=lambda pair: pair[1])
    assert (good, bad) == (0, 1)
    assert re.fullmatch(r"error: another train_gan.py \(process \d+\) is writing to m; wait .*\n", said)
    lines = (tmp_path / "r" / "metrics" / "gan_stats.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line).get("step") for line in lines]
    assert steps and steps == sorted(set(steps))
