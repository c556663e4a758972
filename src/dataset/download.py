"""The dataset's download: the quiet client of ``kaggle``, the archive's checks, and moving it into place.

``download`` fetches the archive; ``extract`` unpacks it into a folder that appears under its final name only
when every file is in it; ``install`` moves the entries into the data folder by renames, and goes on where it
was stopped. A user's own files there (splits.json, ...) are left alone. The ``kaggle`` package is imported
inside functions, because it signs in while it is imported.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import logging
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from common import paths
from common.progress import progress_bar
from utils import UserError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
BLOCK_SIZE = 4096  # bytes; what a small file takes up on most file systems
COPY_SIZE = 1 << 20  # bytes
DISK_REMEDY = "make room there and run the same command again; what was downloaded is kept"
EXTRACTING = "extracting"  # folder that is being filled
TOKEN_FILES = ("access_token", "access_token.txt")
KEY_FILE = "kaggle.json"
LOGIN_FILE = "credentials.json"  # of `kaggle auth login`
CREDENTIALS_HELP = (
    f"make a token on https://www.kaggle.com/settings/api and save it as {paths.KAGGLE_DIR}/{TOKEN_FILES[0]} "
    f"(or a kaggle.json as {paths.KAGGLE_DIR}/{KEY_FILE}), in ~/.kaggle, or in KAGGLE_API_TOKEN"
)
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
KEY_VARIABLES = ("KAGGLE_USERNAME", "KAGGLE_KEY")
# As KAGGLE_API_TOKEN: an empty token file. The client then looks for no other token and goes on to a key.
NO_TOKEN = os.devnull


class BrokenArchiveError(Exception):
    """The file is not a complete zip archive; downloading it again may help."""


class UnsuitableArchiveError(Exception):
    """The archive is whole but must not be unpacked here; downloading it again would not help."""


# --- what a data folder holds ----------------------------------------------------------------------
# The names at the top of a data folder that belong to the dataset, not to the user.
DATASET_ENTRIES = (
    paths.TRAIN_METADATA, paths.TEST_METADATA, paths.training_images("").parent.name, paths.test_images("").name
)  # fmt: skip


def entries_present(data_dir: Path) -> list[str]:
    """Return those of ``DATASET_ENTRIES`` that are files, or folders with at least one file in them."""
    return [name for name in DATASET_ENTRIES if _holds_a_file(data_dir / name)]


def is_complete(data_dir: Path) -> bool:
    """Return whether the labels and at least one labelled image are there."""
    images = paths.training_images(data_dir).glob("*.png")
    return (data_dir / paths.TRAIN_METADATA).is_file() and next(images, None) is not None


def _holds_a_file(path: Path) -> bool:
    return path.is_file() or any(child.is_file() and child.name != ".gitkeep" for child in path.rglob("*"))


# --- disk ------------------------------------------------------------------------------------------
def readable_size(size: int) -> str:
    """Write a number of bytes as text, e.g. "3.71GB" (decimal units)."""
    return tqdm.format_sizeof(size, "B", 1000)


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise ``UserError`` if fewer than ``needed`` bytes are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"disk full: {purpose} takes {readable_size(needed)}, and {readable_size(free)} are free "
            f"for {folder}; {DISK_REMEDY}"
        )


# --- archive -> folder -----------------------------------------------------------------------------
def extract(archive_path: Path, target: Path) -> None:
    """Unpack the dataset in ``archive_path`` into the new folder ``target``, whole or not at all.

    A folder that wraps everything in the archive is dropped; CRC-32 are verified. ``BrokenArchiveError`` if
    the file is no zip archive, truncated or damaged, ``UnsuitableArchiveError`` if it holds no dataset
    or a member that would be written outside ``target``, ``UserError`` if the disk is full.
    """
    temporary = target.with_name(EXTRACTING)
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = dataset_members(archive)
            blocks = sum(-(-info.file_size // BLOCK_SIZE) for info in members.values())
            require_space(target.parent, blocks * BLOCK_SIZE, "the unpacked dataset")
            _write_members(archive, members, temporary)
        temporary.rename(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BrokenArchiveError(str(error)) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"disk full while unpacking into {target.parent}; {DISK_REMEDY}") from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def dataset_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files to unpack, by their path inside the data folder.

    Raises ``UnsuitableArchiveError`` if any member could be written outside of it, or the layout is another.
    """
    for info in archive.infolist():
        _refuse_unsafe(info)
    files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    root = layout_root(list(files))
    return {name.removeprefix(root): info for name, info in files.items() if name.startswith(root)}


def _refuse_unsafe(info: zipfile.ZipInfo) -> None:
    # The Windows rules are the stricter ones: both slashes separate, and drives and UNC names are absolute.
    path = PureWindowsPath(info.filename)
    if path.anchor or ".." in path.parts:
        raise UnsuitableArchiveError(
            f"the archive holds {info.filename!r}, which would be written outside the data folder"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UnsuitableArchiveError(f"the archive holds a link, {info.filename!r}; the dataset has none")


def layout_root(names: list[str]) -> str:
    """Return what precedes the dataset's own paths in ``names``: "", or one wrapping folder and "/"."""
    metadata = [name for name in names if name.split("/", 1)[-1] == paths.TRAIN_METADATA]
    root = min(metadata, key=len, default="").removesuffix(paths.TRAIN_METADATA)
    images = root + paths.training_images("").as_posix() + "/"
    missing = [] if metadata else [paths.TRAIN_METADATA]
    if not any(name.startswith(images) and name.lower().endswith(".png") for name in names):
        missing.append("PNG files in " + paths.training_images("").as_posix())
    if missing:
        raise UnsuitableArchiveError(
            f"the archive lacks {' and '.join(missing)}, so it is not laid out like the RSNA dataset"
        )
    return root


def _write_members(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    total = sum(info.file_size for info in members.values())
    folder.mkdir(parents=True)
    with progress_bar(total=total, unit="B", unit_scale=True, desc="unpacking") as progress:
        for name, info in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, COPY_SIZE)
            progress.update(info.file_size)


# --- folder -> place -------------------------------------------------------------------------------
def install(extracted: Path, data_dir: Path) -> None:
    """Move every entry of ``extracted`` into ``data_dir``; another call goes on after an interruption.

    A folder that exists is kept and filled. A file that exists is replaced only if its name is the
    dataset's own (``DATASET_ENTRIES``): the caller has checked those before. Raises ``UserError`` if a file
    stands where a folder must go, or the other way round.
    """
    for entry in sorted(extracted.iterdir()):
        _move(entry, data_dir / entry.name, replace=entry.name in DATASET_ENTRIES)


def _move(source: Path, target: Path, replace: bool) -> None:
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name, replace)
    elif source.is_dir() != target.is_dir():
        raise UserError(
            f"{target} stands where the dataset's {source.name} must go; move it elsewhere and run the same "
            "command again"
        )
    elif replace:
        source.replace(target)


# --- Kaggle ----------------------------------------------------------------------------------------
def download(dataset: str, archive: Path) -> None:
    """Fetch ``dataset`` ("owner/name" or "owner/name/version") as the zip file ``archive``.

    An unfinished download is resumed if the file on Kaggle is still the same. ``BrokenArchiveError`` if the
    size is not the announced one; every other failure is a ``UserError``.
    """
    partial = archive.with_name(dataset.split("/")[1] + ".zip")  # the client's choice of a name
    with kaggle_errors(dataset, partial):
        client = sign_in()
        check_space_before_download(client)
        client.dataset_download_files(dataset, path=str(archive.parent), quiet=False)
    partial.rename(archive)


# --- credentials -----------------------------------------------------------------------------------
def sign_in() -> Any:
    """Return an authenticated ``KaggleApi``; raises ``UserError`` if credentials are missing or unusable."""
    import requests

    use_project_credentials(Path(paths.KAGGLE_DIR))
    use_marked_key_file()
    said = io.StringIO()
    try:
        # Without credentials the package prints a page of help when it is imported, and exits when asked.
        with contextlib.redirect_stdout(said):
            from kaggle.api.kaggle_api_extended import KaggleApi

            client = KaggleApi()
            client.authenticate()
    except ImportError as error:
        raise UserError(
            f"the kaggle package cannot be imported ({error}); pip install -r requirements.txt installs it"
        ) from None
    except requests.RequestException:
        raise
    except (SystemExit, TypeError, ValueError):  # none, no JSON object in kaggle.json, no plain-text token
        raise UserError(credentials_problem()) from None
    for line in sorted(set(said.getvalue().splitlines())):
        if line.startswith("Warning:"):  # a kaggle.json that other users can read
            log.info(line)
    return client


def use_project_credentials(folder: Path) -> None:
    """Make the client look in the environment, then for a token or kaggle.json in ``folder``, then ~/.kaggle.

    The client itself reads token files from ~/.kaggle only, and prefers any token to any key.
    """
    environment = os.environ
    token = next((folder / name for name in TOKEN_FILES if (folder / name).is_file()), None)
    key = (folder / KEY_FILE).is_file()
    if token or key:
        environment.setdefault("KAGGLE_CONFIG_DIR", str(folder.resolve()))
    if environment.get("KAGGLE_API_TOKEN"):
        return
    if all(environment.get(name) for name in KEY_VARIABLES):
        environment["KAGGLE_API_TOKEN"] = NO_TOKEN
    elif token:
        environment["KAGGLE_API_TOKEN"] = str(token.resolve())
    elif key and environment["KAGGLE_CONFIG_DIR"] == str(folder.resolve()):
        environment["KAGGLE_API_TOKEN"] = NO_TOKEN


def use_marked_key_file() -> None:
    """Hand the key of a kaggle.json with a byte-order mark to the client, which cannot read one.

    Editors and shells of Windows write the mark, as UTF-8 or UTF-16.
    """
    home = Path.home()
    usual = [home / ".kaggle", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"]
    if not os.environ.get("KAGGLE_CONFIG_DIR") and not os.access(home, os.W_OK) and not any(map(Path.is_dir, usual)):
        os.environ["KAGGLE_CONFIG_DIR"] = str(Path(paths.KAGGLE_DIR).resolve())  # the client makes one of them
    config = os.environ.get("KAGGLE_CONFIG_DIR")
    file = next((place / KEY_FILE for place in ([Path(config)] if config else usual) if place.is_dir()), None)
    if file is None or not file.is_file() or all(os.environ.get(name) for name in KEY_VARIABLES):
        return
    content = file.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if encoding is None:
        return
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # the client then says it is not valid
        key = json.loads(content.decode(encoding))
        os.environ["KAGGLE_USERNAME"], os.environ["KAGGLE_KEY"] = key["username"].strip(), key["key"].strip()


def credentials_in_use() -> str:
    """Say where the client takes its credentials from, in its own order; "" if there are none."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    token = os.environ.get("KAGGLE_API_TOKEN", "")
    if token and token != NO_TOKEN:
        return token if Path(token).is_file() else "KAGGLE_API_TOKEN"
    home = Path.home() / ".kaggle"
    token_files = [home / name for name in TOKEN_FILES] if token != NO_TOKEN else []
    other_files = [Path(KaggleApi.config), home / LOGIN_FILE]
    if not any(file.is_file() for file in token_files) and "KAGGLE_KEY" in os.environ:
        return " and ".join(KEY_VARIABLES)
    return next((str(file) for file in token_files + other_files if file.is_file()), "")


def credentials_problem() -> str:
    """Say what is wrong with the credentials, and how to get some."""
    where = credentials_in_use()
    problem = f"Kaggle credentials in {where} are not valid" if where else "there are no Kaggle credentials"
    return f"{problem}; {CREDENTIALS_HELP}"


# --- disk and network ------------------------------------------------------------------------------
def check_space_before_download(client: Any) -> None:
    """Make ``client`` compare the announced size with the free disk before it writes anything.

    Left to itself it fills the disk, takes that for a bad connection and retries for more than a minute.
    """
    download_file = client.download_file

    def checked(response: requests.Response, outfile: str, *args: Any, **options: Any) -> None:
        size = int(response.headers.get("Content-Length") or 0)
        partial = Path(outfile)
        partial.parent.mkdir(parents=True, exist_ok=True)
        kept = partial.stat().st_size if partial.is_file() else 0
        # X-rays hardly compress: unpacked, they take at least as much again.
        require_space(partial.parent, 2 * size - kept, "the download with the unpacked dataset beside it")
        download_file(response, outfile, *args, **options)

    client.download_file = checked


@contextlib.contextmanager
def kaggle_errors(dataset: str, partial: Path) -> Iterator[None]:
    """Turn what the client raises into one line that says what to do."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        if error.response is None:
            raise
        raise UserError(http_problem(error.response, str(error), dataset)) from None
    except requests.RequestException as error:
        raise UserError(connection_problem(error, partial)) from None
    except ValueError as error:  # the size is not the announced one
        partial.unlink(missing_ok=True)
        raise BrokenArchiveError(str(error)) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"disk full while downloading to {partial.parent}; {DISK_REMEDY}") from None
        raise


def http_problem(response: requests.Response, said: str, dataset: str) -> str:
    """Explain an HTTP error status in one line; ``said`` is Kaggle's own text."""
    status = response.status_code
    said = f"{status}: {said[:200]}"
    if status == 401:
        return f"{credentials_problem()} (Kaggle answered {said})"
    if status == 403:
        return (
            f"Kaggle refuses the download ({said}); sign in, open https://www.kaggle.com/datasets/{dataset}, "
            "accept the rules or terms shown there, verify your account if asked to, and run this again"
        )
    if status == 404:
        return f"Kaggle has no dataset {dataset}, or hides it from you ({said}); check --dataset"
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        wait = f"{wait} seconds" if wait.isdigit() else "a few minutes"
        return f"Kaggle got too many requests from you ({said}); run the same command again in {wait}"
    return f"Kaggle answered with an error ({said}); run the same command again later"


def connection_problem(error: Exception, partial: Path) -> str:
    """Explain in one line a connection that failed or broke off."""
    kept = partial.stat().st_size if partial.is_file() else 0
    if kept:
        return (
            f"the connection to Kaggle broke several times ({type(error).__name__}); run the same command "
            f"again, it goes on after the {readable_size(kept)} that are here"
        )
    return (
        f"Kaggle could not be reached ({type(error).__name__}); check the internet connection and the proxy "
        "settings (HTTPS_PROXY), then run the same command again"
    )
