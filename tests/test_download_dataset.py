"""The download as users run it: the real Kaggle client, against a server on 127.0.0.1."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

import download_dataset
from common import paths
from common.file_formats import format_problems
from dataset import download as dataset_archive
from dataset.download import EXTRACTING, KEY_FILE, TOKEN_FILES
from dataset.file_formats import DownloadMarker
from download_dataset import DATASET, main
from kaggle_server import KEY, TOKEN, USERNAME, KaggleServer
from utils import UserError

SCRIPT = Path(__file__).resolve().parents[1] / "src" / "download_dataset.py"
DATA_DIR = Path(paths.DATA_DIR)
WORK = download_dataset.download_dir(DATA_DIR, DATASET)
PARTIAL = WORK / (DATASET.split("/")[1] + ".zip")
MAPPING = json.dumps([{"subset_img_id": "image-1", "img_id": "00000001_000.png"}]).encode()
MEGABYTE = 1 << 20  # the client writes what it receives in chunks of this size
FILES = {
    paths.TRAIN_METADATA: b"patientId,Target,class\nimage-1,0,Normal\n",
    paths.TEST_METADATA: b"patientId,PredictionString\nimage-4,0.5 0 0 100 100\n",
    "Training/Images/image-1.png": os.urandom(MEGABYTE),
    "Training/Images/image-2.png": os.urandom(MEGABYTE),
    "Training/Masks/image-1.png": os.urandom(MEGABYTE),
    "Test/image-4.png": b"not looked into",
}
Usage = namedtuple("Usage", "total used free")


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ARCHIVE = zip_of(FILES)
BROKEN = ARCHIVE[: len(ARCHIVE) // 2]


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    """An empty home and working folder, no settings of Kaggle, a client that has never been imported."""
    for folder in ("home", "project"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "project")
    unwanted = {"KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME", "NO_PROXY", "no_proxy"}
    for name in unwanted | {name for name in os.environ if name.startswith("KAGGLE_")}:
        monkeypatch.setenv(name, "")  # noted first, so that it is put back whatever the script sets
        monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in [name for name in sys.modules if name.split(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def kaggle(isolated, monkeypatch):  # noqa: ARG001
    """A Kaggle that works, and a user with a good token whose client does not wait between attempts."""
    state = KaggleServer(archives=[ARCHIVE], mapping=MAPPING)
    server = state.start()
    for name, value in {**state.environment(), "KAGGLE_API_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    yield state
    server.shutdown()
    server.server_close()


def download(kaggle: KaggleServer, *options: str) -> None:
    main(["--mapping-url", kaggle.mapping_url, *options])


def error_of(kaggle: KaggleServer, *options: str) -> str:
    with pytest.raises(UserError) as raised:
        download(kaggle, *options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_installed(files: dict[str, bytes] = FILES) -> None:
    assert {name: (DATA_DIR / name).read_bytes() for name in files} == files
    marker = json.loads(paths.download_marker(DATA_DIR).read_text())
    assert marker["dataset"] == DATASET and not format_problems(marker, DownloadMarker)
    assert not download_dataset.downloads_dir(DATA_DIR).exists()


def assert_nothing_in_place() -> None:
    assert dataset_archive.entries_present(DATA_DIR) == []
    assert not paths.download_marker(DATA_DIR).exists()
    assert not (WORK / EXTRACTING).exists()


# --- the usual course ------------------------------------------------------------------------------
def test_download_unpacks_the_dataset_and_fetches_the_mapping(kaggle, capsys):
    download(kaggle)
    assert_installed()
    assert (DATA_DIR / paths.PATIENT_MAP).read_bytes() == MAPPING
    said = capsys.readouterr().out
    assert "Training/Images: 2 PNG files" in said
    assert "Test: 1 PNG files" in said
    assert "Authentication required" not in said  # the client's help page
    assert said.splitlines()[-1] == "next: python src/data_loader.py --data-dir data/processed"


def test_a_finished_download_is_not_repeated(kaggle, capsys):
    download(kaggle)
    kaggle.requests.clear()
    download(kaggle)
    assert kaggle.requests == []
    assert "nothing to download" in capsys.readouterr().out


def test_force_replaces_the_dataset_and_keeps_all_other_files(kaggle):
    download(kaggle)
    own = {"splits.json": b"{}", "Training/Images/mine.png": b"mine", "notes/read.me": b"mine"}
    for name, content in own.items():
        (DATA_DIR / name).parent.mkdir(exist_ok=True)
        (DATA_DIR / name).write_bytes(content)
    newer = FILES | {"Training/Images/image-1.png": b"newer", "splits.json": b"theirs"}
    kaggle.archives = [zip_of(newer)]
    download(kaggle, "--force")
    assert_installed(newer | own)


def test_files_of_the_user_survive_a_first_download(kaggle):
    own = {".gitkeep": b"", "splits.json": b"{}", paths.PATIENT_MAP: b"[]", "Training/Images/.gitkeep": b""}
    for name, content in own.items():
        (DATA_DIR / name).parent.mkdir(parents=True, exist_ok=True)
        (DATA_DIR / name).write_bytes(content)
    download(kaggle)
    assert_installed(FILES | own)
    assert kaggle.count("mapping.json") == 0


def test_a_dataset_put_there_by_hand_is_left_alone(kaggle, capsys):
    (DATA_DIR / "Training" / "Images").mkdir(parents=True)
    (DATA_DIR / "Training" / "Images" / "phantom.png").write_bytes(b"mine")
    assert "--force" in error_of(kaggle)  # images without labels: half a dataset
    (DATA_DIR / paths.TRAIN_METADATA).write_bytes(b"mine")
    download(kaggle)
    assert "it stays" in capsys.readouterr().out
    assert (DATA_DIR / paths.TRAIN_METADATA).read_bytes() == b"mine"
    assert kaggle.count("DownloadDataset") == 0


def test_a_dataset_that_replaced_the_download_is_not_taken_for_it(kaggle, capsys):
    download(kaggle)
    (DATA_DIR / paths.TRAIN_METADATA).write_bytes(b"phantoms")
    download(kaggle)
    assert "it stays" in capsys.readouterr().out


def test_another_dataset_is_not_taken_for_the_one_asked_for(kaggle):
    download(kaggle)
    assert DATASET in error_of(kaggle, "--dataset", "someone/else")


@pytest.mark.parametrize(
    "change",
    [lambda name: f"wrapped/{name}", lambda name: name.replace("Test/", "Test/Images/")],
    ids=["wrapped", "test"],
)
def test_known_variants_of_the_layout_are_accepted(kaggle, capsys, change):
    kaggle.archives = [zip_of({change(name): content for name, content in FILES.items()})]
    download(kaggle)
    expected = {change(name).removeprefix("wrapped/"): content for name, content in FILES.items()}
    assert_installed(expected)
    assert "Test: 1 PNG files" in capsys.readouterr().out


# --- interruptions ---------------------------------------------------------------------------------
def test_one_drop_heals_itself(kaggle):
    kaggle.drop_after = [2 * MEGABYTE + 1000]
    download(kaggle)
    assert_installed()
    assert kaggle.ranges == [f"bytes={2 * MEGABYTE}-"]


def test_a_download_that_keeps_dropping_is_resumed_by_the_next_run(kaggle):
    kaggle.drop_after = [2 * MEGABYTE + 1000] + [0] * 5
    message = error_of(kaggle)
    assert "broke several times" in message and "2.10MB" in message and "same command" in message
    assert PARTIAL.stat().st_size == 2 * MEGABYTE
    assert_nothing_in_place()
    kaggle.requests.clear()
    download(kaggle)
    assert_installed()
    assert kaggle.ranges == [f"bytes={2 * MEGABYTE}-"]


def test_a_complete_archive_is_unpacked_without_asking_kaggle_again(kaggle, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", raise_disk_full)
        error_of(kaggle)
    junk = WORK / EXTRACTING / "Training" / "Images" / "junk.png"  # of a run that was killed
    junk.parent.mkdir(parents=True)
    junk.write_bytes(b"half")
    kaggle.requests.clear()
    download(kaggle)
    assert_installed()
    assert list(DATA_DIR.rglob(junk.name)) == []
    assert kaggle.count("DownloadDataset") == 0


def test_a_file_in_the_way_of_a_folder_is_never_overwritten(kaggle):
    DATA_DIR.mkdir(parents=True)
    (DATA_DIR / "Training").write_bytes(b"mine")
    assert "Training but not a whole dataset" in error_of(kaggle)
    assert "stands where the dataset's" in error_of(kaggle, "--force")
    assert (DATA_DIR / "Training").read_bytes() == b"mine"
    (DATA_DIR / "Training").unlink()
    download(kaggle)
    assert_installed()
    assert kaggle.count("DownloadDataset") == 1


@pytest.mark.parametrize("moves_before_interruption", range(4))
def test_an_interrupted_move_is_finished_by_the_next_run(kaggle, monkeypatch, moves_before_interruption):
    moves = iter(range(moves_before_interruption))
    move = dataset_archive._move

    def interrupted_move(*arguments, **options):
        if next(moves, None) is None:
            raise KeyboardInterrupt
        move(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(dataset_archive, "_move", interrupted_move)
        with pytest.raises(KeyboardInterrupt):
            download(kaggle)
    assert len(dataset_archive.entries_present(DATA_DIR)) == moves_before_interruption
    kaggle.requests.clear()
    download(kaggle)
    assert_installed()
    assert kaggle.count("DownloadDataset") == 0


def test_an_interrupted_clean_up_is_finished_by_the_next_run(kaggle, monkeypatch):
    def interrupted_removal(folder, ignore_errors=False):
        if folder == download_dataset.downloads_dir(DATA_DIR):
            raise KeyboardInterrupt
        remove(folder, ignore_errors)

    remove = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted_removal)
        with pytest.raises(KeyboardInterrupt):
            download(kaggle)
    assert not (WORK / download_dataset.ARCHIVE).exists()
    kaggle.requests.clear()
    download(kaggle)
    assert_installed()
    assert kaggle.count("DownloadDataset") == 0


def test_ctrl_c_while_unpacking_leaves_nothing_half_done(kaggle, monkeypatch):
    copy, calls = shutil.copyfileobj, []

    def interrupted_copy(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted_copy)
        with pytest.raises(KeyboardInterrupt) as stopped:
            download(kaggle)
    assert "same command" in stopped.value.__notes__[0]
    assert [path.name for path in WORK.iterdir()] == [download_dataset.ARCHIVE]
    assert_nothing_in_place()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a process cannot be sent Ctrl-C alone on Windows")
def test_ctrl_c_while_downloading_keeps_what_is_there(kaggle):
    kaggle.delay = 0.5  # seconds per 64 KiB: the whole would take more than twenty
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (PARTIAL.is_file() and PARTIAL.stat().st_size) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted: the same command goes on")
    assert "Traceback" not in err
    kept = PARTIAL.stat().st_size
    assert 0 < kept < len(ARCHIVE)
    kaggle.delay = 0
    download(kaggle)
    assert_installed()
    assert kaggle.ranges == [f"bytes={kept}-"]


# --- archives --------------------------------------------------------------------------------------
def damaged(archive: bytes) -> bytes:
    """One flipped bit inside the first image: only its checksum tells."""
    position = archive.index(FILES["Training/Images/image-1.png"][:64])
    return archive[:position] + bytes([archive[position] ^ 1]) + archive[position + 1 :]


@pytest.mark.parametrize("body", [BROKEN, b"<html>please log in</html>", damaged(ARCHIVE)], ids=["cut", "html", "bit"])
def test_a_broken_archive_is_fetched_once_more(kaggle, capsys, body):
    kaggle.archives = [body, ARCHIVE]
    download(kaggle)
    assert_installed()
    assert kaggle.count("archive.zip") == 2
    assert "downloaded once more" in capsys.readouterr().out


def test_an_archive_that_is_broken_twice_is_an_error_and_the_next_run_starts_afresh(kaggle):
    kaggle.archives = [BROKEN]
    assert "broken twice" in error_of(kaggle)
    assert kaggle.count("archive.zip") == 2
    assert_nothing_in_place()
    kaggle.archives = [ARCHIVE]
    download(kaggle)
    assert_installed()


UNSAFE_NAMES = ["../escape.png", "Training/../../escape.png", "/abs.png", "C:/abs.png", "..\\escape.png"]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_a_member_that_would_leave_the_data_folder_is_refused(kaggle, name):
    kaggle.archives = [zip_of(FILES | {name: b"bad"})]
    assert "outside the data folder" in error_of(kaggle)
    assert kaggle.count("archive.zip") == 1
    assert list(Path().rglob("*escape*")) == list(Path().rglob("*abs.png")) == []
    assert_nothing_in_place()


def test_a_link_is_refused(kaggle):
    buffer = io.BytesIO(ARCHIVE)
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("Training/Images/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    kaggle.archives = [buffer.getvalue()]
    assert "Training/Images/link.png" in error_of(kaggle)
    assert_nothing_in_place()


def test_an_archive_of_something_else_is_refused(kaggle):
    kaggle.archives = [zip_of({"cats/1.png": b"", "cats.csv": b""})]
    message = error_of(kaggle)
    assert paths.TRAIN_METADATA in message and "Training/Images" in message and "--dataset" in message
    assert_nothing_in_place()


# --- the disk --------------------------------------------------------------------------------------
def raise_disk_full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_too_little_disk_is_noticed_before_anything_is_downloaded(kaggle, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 5 * 10**6))
    message = error_of(kaggle)
    assert "disk full" in message and "5.00MB are free" in message and "6.29MB" in message
    assert not PARTIAL.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_full_while_downloading(kaggle):
    WORK.mkdir(parents=True)
    PARTIAL.symlink_to("/dev/full")
    message = error_of(kaggle)
    assert "disk full while downloading" in message and "make room" in message
    assert_nothing_in_place()


def test_too_little_disk_is_noticed_before_anything_is_unpacked(kaggle, monkeypatch):
    free = iter([10**9, 10**6])  # enough for the download, then something else fills the disk
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, next(free)))
    assert "disk full: the unpacked dataset takes" in error_of(kaggle)
    assert_nothing_in_place()
    assert (WORK / download_dataset.ARCHIVE).is_file()


def test_disk_full_while_unpacking(kaggle, monkeypatch):
    monkeypatch.setattr(shutil, "copyfileobj", raise_disk_full)
    assert "disk full while unpacking" in error_of(kaggle)
    assert_nothing_in_place()


# --- credentials -----------------------------------------------------------------------------------
def project_file(name: str, content: str) -> None:
    file = Path(paths.KAGGLE_DIR) / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    file.chmod(0o600)


def test_no_credentials(kaggle, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    message = error_of(kaggle)
    assert message.startswith("there are no Kaggle credentials; make a token on https://www.kaggle.com/settings")
    assert "./.kaggle/access_token" in message
    assert capsys.readouterr().out == ""
    assert kaggle.requests == []
    assert not DATA_DIR.exists()


@pytest.mark.parametrize("file", TOKEN_FILES)
def test_a_token_in_the_folder_of_the_project_is_used(kaggle, monkeypatch, file):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(file, TOKEN + "\n")
    download(kaggle)
    assert_installed()


def test_a_key_in_the_folder_of_the_project_is_used(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(KEY_FILE, json.dumps({"username": USERNAME, "key": KEY}))
    download(kaggle)
    assert_installed()
    assert kaggle.count("IntrospectToken") == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_key_file_with_a_byte_order_mark_and_other_line_ends_is_read(kaggle, monkeypatch, encoding):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.setenv(name, "")  # set by the script: gone again after the test
    project_file(KEY_FILE, "")
    text = json.dumps({"username": USERNAME, "key": KEY}, indent=1).replace("\n", "\r\n")
    Path(paths.KAGGLE_DIR, KEY_FILE).write_bytes(text.encode(encoding))
    download(kaggle)
    assert_installed()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_warning_about_a_readable_key_is_passed_on(kaggle, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(KEY_FILE, json.dumps({"username": USERNAME, "key": KEY}))
    Path(paths.KAGGLE_DIR, KEY_FILE).chmod(0o644)
    download(kaggle)
    assert capsys.readouterr().out.count("chmod 600") == 1


def test_a_bad_token_is_named(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired")
    assert error_of(kaggle).startswith("Kaggle credentials in KAGGLE_API_TOKEN are not valid; make a token")


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"username": USERNAME})])
def test_an_unusable_key_file_is_named(kaggle, monkeypatch, content):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(KEY_FILE, content)
    assert f"{Path(paths.KAGGLE_DIR, KEY_FILE).resolve()} are not valid" in error_of(kaggle)


def test_a_token_file_that_is_no_plain_text_is_named(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file("access_token", "")
    Path(paths.KAGGLE_DIR, "access_token").write_bytes(TOKEN.encode("utf-16"))
    assert "access_token are not valid" in error_of(kaggle)


def test_a_key_that_kaggle_does_not_accept(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(KEY_FILE, json.dumps({"username": USERNAME, "key": "wrong"}))
    message = error_of(kaggle)
    assert "kaggle.json are not valid" in message and "401: Unauthorized" in message


def bad_token_at_home() -> None:
    file = Path.home() / ".kaggle" / TOKEN_FILES[0]
    file.parent.mkdir()
    file.write_text("of somebody else")


def key_in_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", USERNAME)
    monkeypatch.setenv("KAGGLE_KEY", KEY)


def test_a_key_in_the_environment_wins_over_any_token_file(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    key_in_the_environment(monkeypatch)
    project_file("access_token", "of somebody else")
    bad_token_at_home()
    download(kaggle)
    assert_installed()
    assert kaggle.count("IntrospectToken") == 0


def test_a_refused_key_of_the_environment_is_named(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    key_in_the_environment(monkeypatch)
    monkeypatch.setenv("KAGGLE_KEY", "wrong")
    bad_token_at_home()
    assert error_of(kaggle).startswith("Kaggle credentials in KAGGLE_USERNAME and KAGGLE_KEY are not valid")


def test_the_key_of_the_project_wins_over_a_token_at_home(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    project_file(KEY_FILE, json.dumps({"username": USERNAME, "key": KEY}))
    bad_token_at_home()
    download(kaggle)
    assert_installed()
    assert kaggle.count("IntrospectToken") == 0


def test_a_token_at_home_is_used_where_nothing_else_is(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    bad_token_at_home()
    (Path.home() / ".kaggle" / TOKEN_FILES[0]).write_text(TOKEN)
    download(kaggle)
    assert_installed()


# --- answers of the network ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (403, "Permission 'datasets.get' was denied", f"kaggle.com/datasets/{DATASET}, accept the rules"),
        (404, "Dataset not found", "check --dataset"),
        (429, "Too many requests", "run the same command again in a few minutes"),
        (503, "Unavailable", "run the same command again later"),
    ],
)
def test_an_error_of_kaggle_says_what_to_do(kaggle, status, said, advice):
    kaggle.error = (status, said)
    message = error_of(kaggle)
    assert f"({status}: {said})" in message and advice in message
    assert_nothing_in_place()


def test_the_waiting_time_that_kaggle_asks_for_is_passed_on(kaggle):
    kaggle.error, kaggle.error_headers = (429, "Too many requests"), {"Retry-After": "90"}
    assert "again in 90 seconds" in error_of(kaggle)


def test_no_network(kaggle, monkeypatch):
    for name in kaggle.environment():
        if "proxy" in name.lower():
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    message = error_of(kaggle)
    assert message.startswith("Kaggle could not be reached (ProxyError); check the internet connection")
    assert_nothing_in_place()


# --- the patient mapping ---------------------------------------------------------------------------
@pytest.mark.parametrize("body", [None, b"", b"<html>", b"{}", b"[]", b"[1]", b'[{"img_id": "00000001_000.png"}]'])
def test_without_a_usable_mapping_the_user_is_told_how_to_get_it(kaggle, capsys, body):
    kaggle.mapping = body
    download(kaggle)
    assert_installed()
    assert not (DATA_DIR / paths.PATIENT_MAP).exists()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "by hand" in line]
    assert "https://s3.amazonaws.com/" in line and line.endswith(f"save it as {DATA_DIR / paths.PATIENT_MAP}")


def test_a_missing_mapping_is_fetched_by_a_later_run(kaggle):
    kaggle.mapping = None
    download(kaggle)
    kaggle.mapping = MAPPING
    download(kaggle)
    assert (DATA_DIR / paths.PATIENT_MAP).read_bytes() == MAPPING
    assert kaggle.count("DownloadDataset") == 1


@pytest.mark.parametrize("url", ["no-address", "http://[", "https://unreachable.invalid/x"])
def test_an_address_without_a_mapping_is_not_fatal(kaggle, capsys, url):
    download(kaggle, "--mapping-url", url)
    assert "by hand" in capsys.readouterr().out


# --- the command line ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["rsna", "https://www.kaggle.com/datasets/a/b", "a/b/latest", "../b"])
def test_a_malformed_dataset_name_is_wrong_usage(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--dataset", name])
    assert stopped.value.code == 2
    assert "OWNER/NAME" in capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_1(kaggle):
    kaggle.error = (404, "Dataset not found")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: Kaggle has no dataset")
