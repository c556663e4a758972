"""The client of the ``kaggle`` package, made quiet and clear: credentials, download, errors of one line.

``download`` is what others need. The package is imported inside functions: it signs in while it is imported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from dataset.archive import DISK_FULL, DISK_REMEDY, BrokenArchiveError, readable_size, require_space
from utils import UserError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)


TOKEN_FILES = ("access_token", "access_token.txt")
KEY_FILE = "kaggle.json"
LOGIN_FILE = "credentials.json"  # of `kaggle auth login`
CREDENTIALS_HELP = (
    "make a token on https://www.kaggle.com/settings/api and save it as "
    f"{paths.KAGGLE_DIR}/{TOKEN_FILES[0]} (or a kaggle.json as "
    f"{paths.KAGGLE_DIR}/{KEY_FILE}), in ~/.kaggle, or in KAGGLE_API_TOKEN"
)
KEY_VARIABLES = ("KAGGLE_USERNAME", "KAGGLE_KEY")
# As KAGGLE_API_TOKEN: an empty token file. The client then looks for no other token and goes on to a key.
NO_TOKEN = os.devnull


def download(dataset: str, archive: Path) -> None:
    """Fetch ``dataset`` ("owner/name" or "owner/name/version") as the zip file ``archive``.

    The unfinished download of an earlier run is resumed if the file on Kaggle is still the same. Raises
    ``BrokenArchiveError`` if the size is not the announced one; every other failure is a ``UserError``.
    """
    partial = archive.with_name(dataset.split("/")[1] + ".zip")  # the client's choice of a name
    with kaggle_errors(dataset, partial):
        client = sign_in()
        check_space_before_download(client)
        client.dataset_download_files(dataset, path=str(archive.parent), quiet=False)
    partial.rename(archive)


# --- credentials -----------------------------------------------------------------------------------
def sign_in() -> Any:
    """Return an authenticated ``KaggleApi``; ``UserError`` if credentials are missing or unusable."""
    import requests

    use_project_credentials(Path(paths.KAGGLE_DIR))
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

    The client itself reads token files from ~/.kaggle only, whatever KAGGLE_CONFIG_DIR says, and prefers
    any token to any key, wherever they lie.
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
