"""Several processes on one machine, by gloo: they agree with one, and with each other, and end together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from arms.fitting import FitTask, Pool, Recipe, fit
from classifier import ClassifierHead, InputPipeline
from common import distributed, paths
from dataset.feature_cache import BLOCK_PATTERN
from utils import UserError, load_checkpoint, load_json

# gan_data and classifier_runs are imported where they are used: both processes of ``trained_by_two`` import this file.
SRC = paths.SRC
GAN = [
    "--image-size", "32", "--num-channels", "1", "--latent-dim", "6", "--feature-maps-g", "4",
    "--feature-maps-d", "4", "--batch-size", "4", "--vis-batch-size", "4", "--workers", "1", "--cpu",
    "--precision", "fp32", "--perceptual", "off",
]  # fmt: skip


def python(*arguments: str, **variables: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(SRC), *map(str, Path(__file__).parents[1:3])])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *arguments], env=environment, **pipes)


def run(script: str, *arguments: str, processes: int = 2) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a script, started by torchrun if in more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    started = python(*(launcher if processes > 1 else []), str(SRC / f"{script}.py"), *arguments)
    out, err = started.communicate(timeout=300)
    return started.returncode, out, err


def two_processes(code: str) -> list[tuple[int, str]]:
    """(exit code, stderr) of two processes that run ``code``, as torchrun starts them but without it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    imports = "from common.command_line import run_script\nfrom common.distributed import *\nfrom utils import *"
    code = f"{imports}\n{code}\nrun_script(main)"
    started = [python("-c", code, RANK=str(rank), LOCAL_RANK=str(rank), **both) for rank in (0, 1)]
    return [(process.returncode, err) for process in started for _, err in [process.communicate(timeout=300)]]


# --- one process -----------------------------------------------------------------------------------
def test_one_process_does_the_obvious_thing():
    with distributed.process_group(cpu=True), distributed.main_first():
        assert (distributed.process_count(), distributed.rank(), distributed.is_main()) == (1, 0, True)
        assert [1, 2, 3][distributed.my_share()] == [1, 2, 3]
        assert distributed.from_main(lambda x: x + 1, 2) == 3
        assert distributed.gather("a") == ["a"]
        assert list(distributed.interleave(iter("abc"))) == ["a", "b", "c"]
        distributed.check_batch_size(1)
        distributed.require_same("nothing", 1)
        values = torch.tensor([1.0, 2.0])
        distributed.average([values])
        assert values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("n", "processes"), [(7, 3), (6, 2), (1, 2), (5, 1)])
def test_shares_are_merged_into_the_whole(n, processes, monkeypatch):
    rows, parts = torch.arange(2 * n).reshape(n, 2), []
    monkeypatch.setattr(distributed, "process_count", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(rows[distributed.my_share()])
    assert torch.equal(distributed.merge_shares(parts), rows)


@pytest.mark.parametrize(("batch_size", "fits"), [(6, True), (12, True), (8, False), (3, False), (0, False)])
def test_a_batch_is_shared_evenly_with_two_images_each_or_refused(batch_size, fits, monkeypatch):
    monkeypatch.setattr(distributed, "process_count", lambda: 3)
    if fits:
        distributed.check_batch_size(batch_size)
        return
    with pytest.raises(UserError, match="a multiple of 3, at least 6"):
        distributed.check_batch_size(batch_size)


# --- two processes ---------------------------------------------------------------------------------
@pytest.mark.slow
def test_exchange_of_two_processes(tmp_path):
    """Each process asserts what it ought to see; the main one alone is heard."""
    code = f"""
def main():
    from pathlib import Path
    with process_group(cpu=True):
        import torch
        me = rank()
        assert process_count() == 2 and is_main() == (me == 0)
        assert list(range(5))[my_share()] == [[0, 2, 4], [1, 3]][me]
        assert from_main(lambda: f"by {{me}}") == "by 0"
        assert gather(me * 10) == [0, 10]
        assert list(interleave(iter([["a", "c", "d"], ["b"]][me]))) == ["a", "b", "c", "d"]
        with main_first():
            assert Path({str(tmp_path / "file")!r}).exists() == (me == 1)
            Path({str(tmp_path / "file")!r}).touch()
        try:
            with main_first():
                raise WeightsUnavailableError("every process goes on without them")
        except WeightsUnavailableError:
            pass
        if me == 1:
            with single_process(), main_first():
                barrier()
                assert (process_count(), rank(), from_main(rank), gather(me)) == (1, 0, 0, [1])
        assert process_count() == 2
        means = [torch.full((2, 3), float(me)), torch.tensor(4.0 * me)]
        average(means)
        assert means[0].tolist() == [[0.5] * 3] * 2 and means[1].item() == 2.0
        require_same("things", [1, "a"])
        print(f"heard {{me}}"), print("heard too", file=sys.stderr)
        try:
            require_same("numbers", me)
        except UserError as error:
            assert "process 1 has other numbers than process 0" in str(error)
import sys"""
    (code_0, err_0), (code_1, err_1) = two_processes(code)
    assert (code_0, code_1) == (0, 0), err_0 + err_1
    assert "heard too" in err_0 and "heard too" not in err_1


@pytest.mark.slow
@pytest.mark.parametrize(("end", "exit_code"), [("raise UserError('no')", 1), ("os._exit(7)", 7)])
def test_a_process_that_ends_ends_the_other(end, exit_code):
    code = f"""
import os
def main():
    with process_group(cpu=True):
        if rank() == 1:
            {end}
        barrier()"""
    started = time.monotonic()
    (code_0, err_0), (code_1, _) = two_processes(code)
    assert (code_0, code_1) == (1, exit_code) and time.monotonic() - started < 90
    assert err_0.startswith("error: process 0 lost the others: one of them has ended"), err_0
    assert len(err_0.splitlines()) == 1


def fit_a_head() -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, list[float]]]:
    """The same in every process; (weights, validation logits, history)."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 2, 50).astype(np.float32))
    features = torch.from_numpy(rng.normal(size=(50, 2048)).astype(np.float32)) + labels[:, None] * 0.1
    torch.manual_seed(3)
    pool = Pool(np.arange(40), np.arange(0))
    recipe = Recipe(epochs=3, batch_size=8, lr=1e-3, weight_decay=0.0, schedule="none", precision="fp32")
    data = InputPipeline(features)
    task = FitTask("training", ClassifierHead(), pool, seed=5, val_rows=np.arange(40, 49))
    result = fit(task, data, labels, recipe)
    return result.state_dict, result.val_logits, result.history


def network_after(rows: slice) -> nn.Module:
    """A small network with BatchNorm that has seen those rows, forward and backward."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    network(torch.randn(8, 3)[rows]).square().mean().backward()
    return network


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory) -> dict[str, Any]:
    """What two processes gave: "fits" (of each), "means" (gradients and buffers of the main one)."""
    file = tmp_path_factory.mktemp("two") / "results.pth"
    code = f"""
def main():
    with process_group(cpu=True):
        import torch
        from tests.common.test_distributed import fit_a_head, network_after
        network = network_after(my_share())
        average_training(network)
        means = {{name: weight.grad for name, weight in network.named_parameters()}}
        results = {{"fits": gather(fit_a_head()), "means": means | dict(network.named_buffers())}}
        from_main(torch.save, results, {str(file)!r})"""
    for exit_code, err in two_processes(code):
        assert exit_code == 0, err
    return torch.load(file)


@pytest.mark.slow
def test_two_processes_fit_what_one_fits(trained_by_two):
    """Without BatchNorm the mean of the shares' gradients is the gradient of the batch."""
    first, second = trained_by_two["fits"]
    alone = fit_a_head()
    for name, value in alone[0].items():
        assert torch.equal(first[0][name], second[0][name])
        torch.testing.assert_close(first[0][name], value, rtol=0, atol=1e-6)
    torch.testing.assert_close(first[1], alone[1], rtol=0, atol=1e-5)
    assert first[2] == second[2]
    for name, values in alone[2].items():
        np.testing.assert_allclose(first[2][name], values, atol=1e-6)


@pytest.mark.slow
def test_gradients_and_running_statistics_are_means_of_the_shares(trained_by_two):
    means = trained_by_two["means"]
    shares = [network_after(slice(rank, None, 2)) for rank in (0, 1)]
    for (name, first), (_, second) in zip(*(share.named_parameters() for share in shares), strict=True):
        torch.testing.assert_close(means[name], (first.grad + second.grad) / 2)
    for name in ("running_mean", "running_var"):
        expected = sum(getattr(share[1], name) for share in shares) / 2
        torch.testing.assert_close(means[f"1.{name}"], expected)


# --- scripts by torchrun ---------------------------------------------------------------------------
def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}


@pytest.mark.slow
def test_two_processes_generate_the_images_of_one(in_tmp):
    import gan_data

    model = str(gan_data.save_generator(in_tmp / "generator_final.pth"))
    options = ["--model-path", model, "--num-images", "9", "--batch-size", "2", "--cpu"]
    assert run("generate_synthetic", *options, "--output-dir", "one", processes=1)[0] == 0
    code, out, err = run("generate_synthetic", *options, "--output-dir", "two")
    assert code == 0 and out.count("9 images of 32 px") == 1, err
    one = contents(in_tmp / "one", "*.png")
    assert len(one) == 9 and contents(in_tmp / "two", "*.png") == one
    manifests = [load_json(paths.synthetic_manifest(in_tmp / name)) for name in ("one", "two")]
    assert [manifest.pop("output_dir") for manifest in manifests] == ["one", "two"]
    assert manifests[0] == manifests[1] and manifests[0]["complete"] is True

    missing = in_tmp / "two" / "synthetic_00004.png"  # of what is left, the shares are made anew
    missing.unlink()
    code, out, err = run("generate_synthetic", *options, "--output-dir", "two")
    assert code == 0 and "8 images of this generator and seed are there already" in out, err
    assert contents(in_tmp / "two", "*.png") == one

    code, out, err = run("generate_synthetic", *options, "--output-dir", "two", "--seed", "1")
    assert code != 0 and err.count("error: two holds images of another seed") == 1
    assert contents(in_tmp / "two", "*.png") == one


def child_of_rank(launcher: int, rank: int) -> int | None:
    """The process id of a rank that torchrun has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()
    for child in map(int, children):
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text(encoding="utf-8").split("\0"):
            return child
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the process in Linux's /proc")
def test_a_killed_process_ends_the_run_with_an_error(in_tmp):
    import gan_data

    model = str(gan_data.save_generator(in_tmp / "generator_final.pth"))
    script = [str(SRC / "generate_synthetic.py"), "--model-path", model, "--num-images", "90000", "--cpu"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = python(*launcher, *script, "--output-dir", "out")
    deadline = time.monotonic() + 120
    while len(list((in_tmp / "out").glob("*.png"))) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child_of_rank(started.pid, 1), signal.SIGKILL)
    killed = time.monotonic()
    _, err = started.communicate(timeout=120)
    assert started.returncode != 0 and time.monotonic() - killed < 60
    assert "SIGKILL" in err
    assert load_json(paths.synthetic_manifest(in_tmp / "out"))["complete"] is False
    # The killed one may leave what its four threads were writing.
    assert not list((in_tmp / "out").glob(".*.tmp"))[4:]


@pytest.mark.slow
def test_gan_of_two_processes_trains_resumes_and_refuses(in_tmp):
    import gan_data

    gan_data.make_dataset(in_tmp / "set")

    def train(folder: str, *options: str, processes: int = 2) -> tuple[int, str, str]:
        where = ["--data-dir", "set", "--model-dir", f"{folder}/models", "--output-dir", folder]
        return run("train_gan", *GAN, *where, *options, processes=processes)

    code, out, err = train("whole", "--epochs", "3")  # ends with an error if weights were to differ
    assert code == 0 and "batch size 4 in all of 2 processes" in out, err
    assert out.count("averaged generator after 9 steps") == 1
    history = load_json(paths.gan_history("whole/metrics"))
    assert (history["processes"], history["batch_size"], history["images_seen"]) == (2, 4, 36)
    assert len(list(Path("whole/gan_images").glob("*.png"))) == 2

    assert train("parts", "--epochs", "1")[0] == 0
    code, out, err = train("parts", "--epochs", "3", "--resume")
    assert code == 0 and "resumed at step 3" in out, err
    states = [paths.gan_state(f"{folder}/models", None) for folder in ("whole", "parts")]
    whole, parts = map(load_checkpoint, states)
    for network in ("G", "D", "G_ema"):
        for name, value in whole[network].items():
            assert torch.equal(parts[network][name], value), name
    assert history["epochs"] == load_json(paths.gan_history("parts/metrics"))["epochs"]

    code, _, err = train("parts", "--epochs", "4", "--resume", processes=1)
    assert code == 1 and "was made with processes 2 (now 1)" in err
    code, _, err = train("other", "--batch-size", "5")
    assert code != 0 and "error: --batch-size 5 cannot be divided among 2 processes" in err

    code, out, err = train("estimated", "--estimate")
    assert code == 0 and out.count("ABOUT ") == 1, err
    assert not Path("estimated").exists()


@pytest.mark.slow
def test_two_processes_compute_the_features_and_results_of_one(in_tmp, make_dataset):
    from classifier_runs import frozen

    make_dataset()
    for folder, processes in (("one", 1), ("two", 2)):
        where = ["--cache-dir", f"{folder}/cache", "--model-dir", folder, "--results-dir", folder,
                 "--figures-dir", folder]  # fmt: skip
        options = [*frozen(in_tmp), "--k-folds", "2", "--precision", "fp32", "--cpu"]
        code, out, err = run("train_classifier", *options, *where, processes=processes)
        assert code == 0 and out.count("test: ") == 1, err
    features = contents(in_tmp / "one/cache", BLOCK_PATTERN)
    assert features and contents(in_tmp / "two/cache", BLOCK_PATTERN) == features
    tables = contents(in_tmp / "one", "*.csv")
    assert len(tables) == 3 and contents(in_tmp / "two", "*.csv") == tables


ALL_LAYERS = [
    "--unfreeze", "--weights", "none", "--image-size", "32", "--batch-size", "12", "--epochs", "2",
    "--precision", "fp32", "--k-folds", "0", "--augment", "light", "--cpu",
]  # fmt: skip


@pytest.mark.slow
def test_one_of_two_processes_estimates_how_long_whole_networks_take(in_tmp, make_dataset):
    make_dataset(n=48)
    code, out, err = run("train_classifier", *ALL_LAYERS, "--estimate")
    assert code == 0 and out.count("ABOUT ") == 1, err
    assert not Path("models").exists()


@pytest.mark.slow
def test_two_processes_train_all_layers(in_tmp, make_dataset):
    make_dataset(n=48)
    code, out, err = run("train_classifier", *ALL_LAYERS)  # ends with an error if weights were to differ
    assert code == 0 and out.count("test: ") == 1, err
    metrics = load_json(paths.final_metrics("results/metrics", "baseline_"))
    assert metrics["processes"] == 2
    weights = load_checkpoint(paths.classifier_model("models", "baseline_"))["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    code, _, err = run("train_classifier", *ALL_LAYERS, "--batch-size", "7")
    assert code != 0 and "error: --batch-size 7 cannot be divided among 2 processes" in err
