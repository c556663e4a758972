import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from common import paths
from common.file_lock import hold_lock, try_lock


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock file until it is told to end, or killed."""
    code = (
        f"import sys; sys.path.insert(0, {str(paths.SRC)!r})\n"
        "from pathlib import Path; from common.file_lock import hold_lock\n"
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
