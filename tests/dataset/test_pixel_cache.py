"""The cache of decoded images: the same pixels as without it, decoded once, and never from a damaged file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data_loader
import train_gan
from classifier_runs import METRICS, QUICK, run
from common import paths
from data_loader import load_images
from dataset import images as image_files
from dataset import pixel_cache as image_cache
from dataset.image_list import ImageList
from dataset.images import read_image
from dataset.picture_facts import read_and_measure
from dataset.records import load_dataset
from utils import UserError, as_tensor, load_checkpoint

SIZE = 16


@pytest.fixture
def records(tmp_path):
    """Twelve images of 24 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"img-{i:02d}" for i in range(12)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (24, 24), dtype=np.uint8)).save(folder / f"{name}.png")
    return pd.DataFrame({"image_id": names, "path": [folder / f"{name}.png" for name in names]})


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from now on."""
    names = []

    def spy(path, *args):
        names.append(Path(path).stem)
        return read_and_measure(path, *args)

    monkeypatch.setattr(data_loader, "read_and_measure", spy)
    return names


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "BLOCK", 4)
    return tmp_path / "cache"


def files_of(cache: Path, pattern: str = "*") -> list[Path]:
    return sorted(file for file in cache.rglob(pattern) if file.is_file() and file.name != "lock")


def load(records, cache, **options):
    return load_images(records, SIZE, workers=2, cache_dir=cache, **options)


def expected(records) -> np.ndarray:
    return np.stack([read_image(path, SIZE) for path in records["path"]])


def loading_process(records, cache: Path, before_decoding: str) -> list[str]:
    """A command that loads ``records``; ``before_decoding``: what it does before each ``path``."""
    code = (
        f"import functools, sys, time; sys.path.insert(0, {str(paths.SRC)!r})\n"
        "from pathlib import Path; from dataset import image_list, images as image_files, pixel_cache\n"
        "pixel_cache.BLOCK = 4; print = functools.partial(print, flush=True)\n"
        f"def decode(path):\n    {before_decoding}\n    return image_files.read_image(path, {SIZE}), 0\n"
        f"files = [Path(file) for file in {[str(path) for path in records['path']]!r}]\n"
        f"images = image_list.list_images(files, {SIZE}, image_files.decoder_version())\n"
        f"pixels, _, _ = pixel_cache.load_pixels(images, {str(cache)!r}, decode, workers=1, desc='loading')\n"
        "print('SUM', int(pixels.sum()))\n"
    )
    return [sys.executable, "-c", code]


class TestHitAndMiss:
    def test_same_pixels_and_key_as_without_a_cache(self, records, cache):
        plain = load_images(records, SIZE)
        for _ in ("miss", "hit"):
            images = load(records, cache)
            assert np.array_equal(images.pixels, plain.pixels) and images.pixels.dtype == np.uint8
            assert images.key == plain.key and images.skipped == []
            assert images.records.equals(plain.records)

    def test_a_second_run_decodes_nothing_and_maps_the_file_read_only(self, records, cache, decoded):
        load(records, cache)
        assert sorted(decoded) == list(records["image_id"])
        decoded.clear()
        images = load(records, cache)
        assert not decoded
        assert isinstance(images.pixels, np.memmap) and not images.pixels.flags.writeable

    def test_the_file_is_a_plain_array(self, records, cache):
        load(records, cache)
        (file,) = files_of(cache, "*.npy")
        assert np.array_equal(np.load(file, allow_pickle=False), expected(records))
        assert len(files_of(cache)) == 2  # it and its index

    def test_a_tensor_over_a_mapped_file_warns_of_nothing(self, records, cache, recwarn):
        pixels = load(records, cache).pixels
        assert np.array_equal(as_tensor(pixels).numpy(), pixels)
        assert not [w for w in recwarn if "writable" in str(w.message)]

    def test_other_sizes_and_other_ways_of_decoding_do_not_mix(self, records, cache, decoded, monkeypatch):
        key = load(records, cache).key
        decoded.clear()
        assert load_images(records, 8, cache_dir=cache).pixels.shape == (12, 8, 8)
        assert len(decoded) == 12
        monkeypatch.setattr(image_files, "DECODING", 999)
        assert load(records, cache).key != key
        assert len(decoded) == 24

    def test_the_size_of_the_decoded_images_alone_is_told(self, records, cache, capsys, monkeypatch):
        def vanished(*_):
            raise FileNotFoundError("a temporary file of another process")

        # Nothing else below the folder is looked at: it may be gone a moment later.
        monkeypatch.setattr(Path, "rglob", vanished)
        (cache / "features").mkdir(parents=True)
        with (cache / "features" / "large").open("wb") as other:
            other.truncate(10**9)
        load(records, cache)
        out = capsys.readouterr().out
        assert "12 decoded images" in out and "0.00 GB" in out and "cannot be used" not in out

    def test_no_records(self, records, cache):
        assert load(records.iloc[:0], cache).pixels.shape == (0, SIZE, SIZE)
        assert not cache.exists()


class TestStale:
    def test_a_changed_time_decodes_that_image_again(self, records, cache, decoded):
        key = load(records, cache).key
        decoded.clear()
        os.utime(records["path"][3], ns=(1, 1))
        images = load(records, cache)
        assert decoded == ["img-03"] and images.key != key
        assert np.array_equal(images.pixels, expected(records))

    def test_another_size_at_the_same_time_is_seen(self, records, cache):
        path = records["path"][5]
        before = path.stat()
        load(records, cache)
        Image.fromarray(np.full((24, 24), 7, np.uint8)).save(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size != before.st_size
        assert np.all(load(records, cache).pixels[5] == 7)

    def test_another_order_is_another_array(self, records, cache, decoded, monkeypatch):
        monkeypatch.setattr(image_cache, "IN_MEMORY", 0)
        load(records, cache)
        decoded.clear()
        turned = records.iloc[::-1]
        assert np.array_equal(load(turned, cache).pixels, expected(turned))
        assert not decoded


class TestDamaged:
    def damage(self, cache: Path, change) -> Path:
        (file,) = files_of(cache, "*.npy")
        data = bytearray(file.read_bytes())
        file.write_bytes(change(data))
        return file

    @pytest.mark.parametrize("rows", [0.5, 3, 11.99])
    def test_a_truncated_file_is_mended(self, records, cache, decoded, rows):
        load(records, cache)
        decoded.clear()
        self.damage(cache, lambda data: data[: len(data) - 12 * SIZE**2 + int(rows * SIZE**2)])
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert sorted(decoded) == list(records["image_id"])[int(rows) :]
        assert len(files_of(cache)) == 2

    @pytest.mark.parametrize("row", [0, 6, 11])
    def test_a_flipped_byte_is_found_and_only_that_image_decoded_again(self, records, cache, decoded, row):
        load(records, cache)
        decoded.clear()

        def flip(data: bytearray) -> bytearray:
            data[len(data) - (12 - row) * SIZE**2 + 5] ^= 1
            return data

        self.damage(cache, flip)
        images = load(records, cache)
        assert np.array_equal(images.pixels, expected(records))
        assert decoded == [f"img-{row:02d}"]
        assert len(files_of(cache)) == 2

    @pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00\x04\x00abcd"])
    def test_another_file_in_its_place(self, records, cache, content):
        load(records, cache)
        self.damage(cache, lambda data: content)
        assert np.array_equal(load(records, cache).pixels, expected(records))

    def test_pickled_objects_are_never_read(self, records, cache):
        load(records, cache)
        (file,) = files_of(cache, "*.npy")

        class Bomb:
            def __reduce__(self):
                return os.abort, ()

        with file.open("wb") as opened:
            np.save(opened, np.array([Bomb()], dtype=object), allow_pickle=True)
        assert np.array_equal(load(records, cache).pixels, expected(records))

    @pytest.mark.parametrize("content", ["", "[[", '[["img-00.png", 1]]\n', "[1]\n", '{"a": 1}\n'])
    def test_a_damaged_index(self, records, cache, content):
        load(records, cache)
        (index,) = files_of(cache, "*.jsonl")
        index.write_text(content)
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert len(files_of(cache)) == 2

    def test_a_part_takes_no_damaged_row(self, records, cache):
        load(records, cache)

        def flip(data: bytearray) -> bytearray:
            data[-1] ^= 1
            return data

        self.damage(cache, flip)
        part = records.iloc[8:]
        assert np.array_equal(load(part, cache).pixels, expected(part))


class TestInterrupted:
    def interrupt(self, records, cache, monkeypatch, at: str) -> None:
        """As a killed process would, leave behind what was written before image ``at``."""

        def stop(path, *args):
            if Path(path).stem == at:
                raise KeyboardInterrupt
            return read_and_measure(path, *args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(data_loader, "read_and_measure", stop)
            load(records, cache)

    def test_finished_blocks_are_taken_up(self, records, cache, decoded, monkeypatch):
        self.interrupt(records, cache, monkeypatch, "img-09")
        decoded.clear()
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert sorted(decoded) == ["img-08", "img-09", "img-10", "img-11"]
        assert len(files_of(cache)) == 2

    def test_finished_blocks_are_verified(self, records, cache, decoded, monkeypatch):
        self.interrupt(records, cache, monkeypatch, "img-09")
        (file,) = files_of(cache, "*.npy")
        data = bytearray(file.read_bytes())
        data[128 + 5 * SIZE**2] ^= 1
        file.write_bytes(data)
        assert np.array_equal(load(records, cache).pixels, expected(records))

    def test_a_cut_off_index_line_counts_for_nothing(self, records, cache, monkeypatch):
        self.interrupt(records, cache, monkeypatch, "img-09")
        (index,) = files_of(cache, "*.jsonl")
        index.write_text(index.read_text()[:-20])
        assert np.array_equal(load(records, cache).pixels, expected(records))

    @pytest.mark.parametrize("renamed", [0, 1])
    def test_killed_between_the_last_two_renames(self, records, cache, decoded, renamed):
        load(records, cache)
        file, index = files_of(cache, "*.npy")[0], files_of(cache, "*.jsonl")[0]
        index.replace(index.with_suffix(".partial.jsonl"))
        if not renamed:
            file.replace(file.with_suffix(".partial.npy"))
        decoded.clear()
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert not decoded and len(files_of(cache)) == 2

    def test_killed_for_good(self, records, cache):
        """SIGKILL in the middle of decoding; the next process goes on, and the lock is free."""
        command = loading_process(records, cache, "if path.stem == 'img-06': print('HERE'); time.sleep(60)")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout.readline() == b"HERE\n"
            process.send_signal(signal.SIGKILL)
        (index,) = files_of(cache, "*.jsonl")
        assert index.name.endswith(".partial.jsonl") and len(json.loads(index.read_text())) == 4
        assert np.array_equal(load(records, cache).pixels, expected(records))


class TestSharing:
    def test_parts_cost_no_decoding_and_leave_no_file(self, records, cache, decoded):
        load(records, cache)
        decoded.clear()
        part = records.iloc[[1, 4, 9]]
        images = load(part, cache)
        assert np.array_equal(images.pixels, expected(part)) and not decoded
        assert images.key == load_images(part, SIZE).key
        assert len(files_of(cache)) == 2

    def test_large_parts_are_copied_to_be_mapped(self, records, cache, decoded, monkeypatch):
        load(records, cache)
        decoded.clear()
        monkeypatch.setattr(image_cache, "IN_MEMORY", 3 * SIZE**2)
        part = records.iloc[4:]
        images = load(part, cache)
        assert isinstance(images.pixels, np.memmap)
        assert np.array_equal(images.pixels, expected(part)) and not decoded

    def test_a_larger_list_decodes_only_what_is_new(self, records, cache, decoded):
        load(records.iloc[2:6], cache)
        decoded.clear()
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert sorted(decoded) == [name for name in records["image_id"] if name not in
                                   ("img-02", "img-03", "img-04", "img-05")]  # fmt: skip

    def test_folders_with_the_same_names_are_apart(self, records, cache, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        for path in records["path"]:
            state = path.stat()
            copy = other / path.name
            copy.write_bytes(path.read_bytes()[:-1] + b"x")
            Image.fromarray(np.zeros((24, 24), np.uint8)).save(copy)
            os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
        load(records, cache)
        there = records.assign(path=[other / path.name for path in records["path"]])
        assert not load(there, cache).pixels.any()

    def test_images_of_several_folders(self, records, cache, tmp_path):
        moved = tmp_path / "elsewhere" / "img-00.png"
        moved.parent.mkdir()
        records["path"][1].rename(moved)  # has the name of another image
        records.loc[1, "path"] = moved
        for _ in range(2):
            assert np.array_equal(load(records, cache).pixels, expected(records))


class TestBadImages:
    @pytest.fixture
    def bad(self, records):
        records["path"][1].unlink()
        records["path"][6].write_bytes(b"not a png")
        return records

    def test_they_stop_the_run_by_name_every_time(self, bad, cache):
        for _ in range(2):
            with pytest.raises(UserError, match=r"2 images \(img-01: missing, img-06: not an image\) missing or"):
                load(bad, cache)

    def test_they_are_skipped_and_have_no_row(self, bad, cache, decoded):
        plain = load_images(bad, SIZE, skip_bad=True)
        load(bad, cache, skip_bad=True)
        decoded.clear()
        images = load(bad, cache, skip_bad=True)
        assert images.skipped == ["img-01", "img-06"] and decoded == ["img-06"]
        assert np.array_equal(images.pixels, plain.pixels) and len(images.pixels) == 10
        assert images.key == plain.key and images.records.equals(plain.records)
        (file,) = files_of(cache, "*.npy")
        assert len(np.load(file)) == 10

    def test_mended_ones_are_found(self, bad, cache, decoded):
        load(bad, cache, skip_bad=True)
        decoded.clear()
        for row in (1, 6):
            Image.fromarray(np.full((24, 24), 50, np.uint8)).save(bad["path"][row])
        images = load(bad, cache, skip_bad=True)
        assert images.skipped == [] and sorted(decoded) == ["img-01", "img-06"]
        assert np.array_equal(images.pixels, expected(bad))

    def test_one_that_could_not_be_read_for_a_while_comes_back(self, records, cache, monkeypatch):
        def fails(path, *args):
            if path.stem == "img-06":
                raise OSError("a disk that was away")
            return read_and_measure(path, *args)

        with monkeypatch.context() as patch:
            patch.setattr(data_loader, "read_and_measure", fails)
            assert load(records, cache, skip_bad=True).skipped == ["img-06"]
        images = load(records, cache)
        assert np.array_equal(images.pixels, expected(records))
        assert len(files_of(cache)) == 2

    def test_interrupted_after_a_bad_one(self, bad, cache, monkeypatch, decoded):
        TestInterrupted().interrupt(bad, cache, monkeypatch, "img-10")
        decoded.clear()
        images = load(bad, cache, skip_bad=True)
        assert images.skipped == ["img-01", "img-06"]
        assert np.array_equal(images.pixels, load_images(bad, SIZE, skip_bad=True).pixels)
        assert "img-00" not in decoded[:-12] and "img-05" not in decoded[:-12]

    def test_all_bad(self, records, cache):
        for path in records["path"]:
            path.write_bytes(b"x")
        for _ in range(2):
            assert load(records, cache, skip_bad=True).pixels.shape == (0, SIZE, SIZE)


class TestUnusable:
    def test_a_file_where_the_folder_should_be(self, records, cache, capsys):
        cache.write_text("in the way")
        images = load(records, cache)
        assert np.array_equal(images.pixels, expected(records))
        out = capsys.readouterr().out
        assert out.count("WARNING") == 1 and "--cache-dir" in out and str(cache) in out
        assert cache.read_text() == "in the way"

    def test_a_folder_that_cannot_be_written(self, records, cache, capsys):
        cache.mkdir()
        cache.chmod(0o500)
        try:
            if os.access(cache, os.W_OK):
                pytest.skip("this user may write everywhere")
            assert np.array_equal(load(records, cache).pixels, expected(records))
        finally:
            cache.chmod(0o700)
        assert "WARNING" in capsys.readouterr().out

    def test_too_little_room_is_known_before(self, records, cache, capsys, monkeypatch, decoded):
        usage = image_cache.shutil.disk_usage(cache.parent)
        monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        assert np.array_equal(load(records, cache).pixels, expected(records))
        assert len(decoded) == 12 and "do not fit" in capsys.readouterr().out
        assert not files_of(cache)

    def test_a_disk_that_fills_up_leaves_nothing(self, records, cache, capsys):
        """A file size limit stands in for the full disk: writing fails in the middle of a block."""
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 7 * SIZE**2, before[1]))
            images = load(records, cache)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, previous)
        assert np.array_equal(images.pixels, expected(records))
        assert "WARNING" in capsys.readouterr().out
        assert np.array_equal(load(records, cache).pixels, expected(records))


class TestTogether:
    def test_builders_of_the_same_list_wait_for_each_other(self, records, cache):
        """Three processes at once: each gets the pixels, and every image is decoded by one of them alone."""
        command = loading_process(records, cache, "time.sleep(0.02); print('DECODED')")
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(3)
        ]
        out = [process.communicate(timeout=60)[0] for process in processes]
        assert sum(text.count("DECODED") for text in out) == 12
        total = expected(records).sum()
        assert all(f"SUM {total}\n" in text for text in out)
        assert len(files_of(cache)) == 2


@pytest.mark.usefixtures("unrendered")
class TestResults:
    """Without a cache, with a new one, and with a warm one: the same files to the bit."""

    RUNS = (["--no-cache"], [], [])

    def test_the_classifier(self, make_dataset, in_tmp, decoded, thin_network):
        make_dataset(n=64)
        counts, predictions = [], []
        for flags in self.RUNS:
            decoded.clear()
            run(*QUICK, *flags, "--k-folds", "0", "--epochs-final", "1", "--cpu")
            counts.append(len(decoded))
            predictions.append((METRICS / "baseline_test_predictions.csv").read_bytes())
        assert counts == [68, 68, 0] and predictions[0] == predictions[1] == predictions[2]

    def test_the_gan_takes_what_the_classifier_decoded(self, make_dataset, in_tmp, decoded):
        records = load_dataset(make_dataset(n=64)).images
        load_images(records, 32, cache_dir="data/cache")
        small = [
            "--image-size", "32", "--num-channels", "1", "--feature-maps-g", "4", "--feature-maps-d", "4",
            "--batch-size", "4", "--epochs", "1", "--perceptual", "off", "--cpu", "--no-real-images",
        ]  # fmt: skip
        weights = []
        for flags in self.RUNS[:2]:
            decoded.clear()
            train_gan.main([*small, *flags])
            weights.append(load_checkpoint(paths.generator_final("models"))["state_dict"])
        assert not decoded
        assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_opening_a_full_sized_cache_is_quick(tmp_path):
    """1.3 GB, as of 26,684 images at 224 pixels, are verified within seconds and count as little memory."""
    size, n = 224, 26_684
    folder = tmp_path / "images"
    folder.mkdir()
    states = tuple((f"{i}.png", 1, 1) for i in range(n))
    images = ImageList(folder, states, size, "made up")
    row = np.arange(size * size, dtype=np.uint32).astype(np.uint8).reshape(size, size)
    options = {"workers": 4, "desc": "made up"}
    facts = [1024, 1024, 400_000, "L", 1, 0, 240, 250, None, "00" * 64, "00" * 16, ""]
    image_cache.load_pixels(images, tmp_path / "cache", lambda _: (row, facts), **options)
    start = time.monotonic()
    pixels, good, notes = image_cache.load_pixels(images, tmp_path / "cache", lambda _: None, **options)
    assert time.monotonic() - start < 10
    assert len(pixels) == good.sum() == n and np.array_equal(pixels[-1], row) and notes[-1] == facts
