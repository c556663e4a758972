import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import utils
from utils import (
    UserError,
    atomic_path,
    load_checkpoint,
    load_json,
    save_checkpoint,
    save_json,
)

SRC = Path(utils.__file__).parent


class TestAtomicFiles:
    def test_a_failure_leaves_what_was_there(self, tmp_path):
        file = tmp_path / "deep" / "a.json"
        save_json(file, {"a": 1})
        for failure in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(failure), atomic_path(file) as temporary:
                temporary.write_text("half")
                raise failure
            assert load_json(file) == {"a": 1}
            assert list(file.parent.iterdir()) == [file], "the temporary file is gone"

    def test_others_may_read_the_result(self, tmp_path):
        save_json(tmp_path / "a.json", [])
        umask = os.umask(0)
        os.umask(umask)
        assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~umask

    def test_a_killed_writer_leaves_the_old_file(self, tmp_path):
        (tmp_path / "a.json").write_text('"old"')
        code = (
            "import os, signal, sys; from pathlib import Path; from utils import atomic_path\n"
            "with atomic_path(sys.argv[1]) as temporary:\n"
            "    temporary.write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.json"], cwd=SRC)
        assert done.returncode == -signal.SIGKILL
        assert load_json(tmp_path / "a.json") == "old"
        (tmp_path / ".notes.tmp").touch()  # of another program
        with atomic_path(tmp_path / "b.json") as busy:  # the first file that this process writes here
            assert sorted(tmp_path.glob(".*")) == sorted([busy, tmp_path / ".notes.tmp"])
            utils._remove_abandoned.cache_clear()
            save_json(tmp_path / "c.json", "another")
            assert busy.exists(), "a file that is being written is not abandoned"


def test_a_checkpoint_of_the_same_content_is_the_same_file(tmp_path):
    """Its sha256 names a generator or a classifier elsewhere."""
    for name in ("one.pth", "other.pth"):
        save_checkpoint(tmp_path / name, {"weights": torch.ones(3), "step": 5})
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "other.pth").read_bytes()


class TestJson:
    def test_numpy_torch_and_nan_become_plain(self, tmp_path):
        content = {
            "a": np.float32(0.5),
            "b": np.arange(2),
            "c": torch.tensor(3),
            "d": float("nan"),
            5: Path("x/y"),
        }
        save_json(tmp_path / "a.json", content)
        assert load_json(tmp_path / "a.json") == {"a": 0.5, "b": [0, 1], "c": 3, "d": None, "5": "x/y"}

    def test_missing_and_broken(self, tmp_path):
        with pytest.raises(UserError, match=r"a.json is missing; `make it` writes it"):
            load_json(tmp_path / "a.json", "`make it`")
        (tmp_path / "a.json").write_text('{"a": 1')
        with pytest.raises(UserError, match="not valid JSON"):
            load_json(tmp_path / "a.json")

    def test_hash_does_not_depend_on_order_or_layout(self):
        assert utils.sha256_json({"a": 1, "b": [2.0]}) == utils.sha256_json({"b": [2.0], "a": 1})
        assert utils.sha256_json({"a": 1}) != utils.sha256_json({"a": 2})


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


class TestCheckpoints:
    def test_round_trip(self, tmp_path):
        save_checkpoint(tmp_path / "a.pth", {"weights": torch.arange(3), "name": "x", "ids": ["1", "2"]})
        content = load_checkpoint(tmp_path / "a.pth")
        assert torch.equal(content["weights"], torch.arange(3)) and content["ids"] == ["1", "2"]

    def test_loading_never_runs_code(self, tmp_path):
        torch.save({"a": Malicious(tmp_path / "pwned")}, tmp_path / "a.pth")
        with pytest.raises(UserError, match="refused"):
            load_checkpoint(tmp_path / "a.pth")
        assert not (tmp_path / "pwned").exists()

    def test_damage_is_noticed(self, tmp_path):
        file = tmp_path / "a.pth"
        save_checkpoint(file, {"weights": torch.zeros(1000)})
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1  # inside the tensor: torch itself would load it silently
        for content in (whole[: len(whole) // 2], b"", b"garbage", bytes(flipped)):
            file.write_bytes(content)
            with pytest.raises(UserError, match="damaged"):
                load_checkpoint(file)
        with pytest.raises(UserError, match="is missing"):
            load_checkpoint(tmp_path / "none.pth")
        torch.save([1, 2], file)
        with pytest.raises(UserError, match="holds a list"):
            load_checkpoint(file)

    def test_a_file_that_may_not_be_read_is_not_called_damaged(self, tmp_path, monkeypatch):
        def refuse(path, **_):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        save_checkpoint(tmp_path / "a.pth", {})
        monkeypatch.setattr(torch, "load", refuse)
        with pytest.raises(PermissionError):
            load_checkpoint(tmp_path / "a.pth")


class TestSeedsAndDevices:
    def test_derived_seeds_are_pure_and_differ(self):
        assert utils.derive_seed(42, "fold", 1) == utils.derive_seed(42, "fold", 1)
        seeds = {utils.derive_seed(a, b) for a in range(20) for b in range(20)}
        assert len(seeds) == 400 and all(0 <= seed < 2**63 for seed in seeds)

    def test_set_seed_fixes_every_generator(self):
        import random

        draws = []
        for _ in range(2):
            utils.set_seed(5)
            draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        assert draws[0] == draws[1]

    def test_precision(self, monkeypatch):
        cpu = utils.select_device(cpu=True)
        assert cpu.type == "cpu"
        monkeypatch.setattr(utils, "fast_bf16", lambda _: False)
        assert utils.resolve_precision("auto", cpu) == "fp32" and utils.resolve_precision("bf16", cpu) == "bf16"
        monkeypatch.setattr(utils, "fast_bf16", lambda _: True)
        assert utils.resolve_precision("auto", cpu) == "bf16"
        with utils.autocast(cpu, "bf16"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        with utils.autocast(cpu, "fp32"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32

    def test_a_machine_that_cannot_compile_says_so_in_one_line(self, monkeypatch):
        def compile_(_):
            raise RuntimeError("\nno compiler\nlong\ntrace")

        monkeypatch.setattr(torch, "compile", compile_)
        utils.prepare_arithmetic(torch.device("cpu"), "fp32")
        with pytest.raises(UserError, match=r"cannot compile .* \(no compiler\): leave --compile out$"):
            utils.prepare_arithmetic(torch.device("cpu"), "fp32", compiled=True)

    def test_environment_names_no_host_or_user(self):
        import getpass
        import socket

        text = str(utils.environment())
        assert torch.__version__ in text
        assert socket.gethostname() not in text and str(Path.home()) not in text
        assert f"'{getpass.getuser()}'" not in text
