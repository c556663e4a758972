"""Download the RSNA pneumonia dataset from Kaggle, and RSNA's mapping from its images to patients.

Every step leaves one thing in ``<data-dir>/.download`` and is skipped if that thing is there, so the next run
finishes one that was interrupted anywhere: a partial zip (which the Kaggle client resumes), then
``archive.zip``, then ``extracted/``, then the entries in the data folder itself and the marker.

    python src/download_dataset.py
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import re
import shlex
import shutil
import urllib.request
from pathlib import Path

from common import paths
from common.command_line import argument_parser, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from dataset.download import (
    CREDENTIALS_HELP,
    BrokenArchiveError,
    UnsuitableArchiveError,
    download,
    entries_present,
    extract,
    install,
    is_complete,
)
from dataset.file_formats import DownloadMarker, MappingEntry
from utils import UserError, atomic_path, load_json, save_json, sha256_file

log = logging.getLogger(__name__)


DATASET = "iamtapendu/rsna-pneumonia-processed-dataset"
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{paths.PATIENT_MAP}"
MAPPING_TIMEOUT = 30  # seconds without a byte
ARCHIVE, EXTRACTED = "archive.zip", "extracted"  # in the folder of an unfinished download


def dataset_name(text: str) -> str:
    """Check the type of --dataset."""
    if not re.fullmatch(r"[\w-]+/[\w-]+(/\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be OWNER/NAME or OWNER/NAME/VERSION, got {text!r}")
    return text


OPTIONS = (
    Option("--data-dir", "folder for the dataset", default=paths.DATA_DIR, metavar="PATH"),
    Option(
        "--dataset",
        "dataset on Kaggle, as OWNER/NAME or OWNER/NAME/VERSION, laid out like the default one",
        type=dataset_name, default=DATASET, metavar="NAME",
    ),
    Option(
        "--force",
        "download although a dataset is there, and replace its files; other files in the folder stay",
        switch=True,
    ),
    Option("--mapping-url", "where to get the image-to-patient mapping", default=MAPPING_URL, metavar="URL"),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser(
        "Download the RSNA pneumonia dataset from Kaggle (some gigabytes) and RSNA's patient mapping. "
        f"For Kaggle's credentials, {CREDENTIALS_HELP}. If it is interrupted, the same command goes on from "
        "there; if the dataset is there already, nothing is downloaded.",
        OPTIONS,
    )


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    data_dir = Path(args.data_dir)
    check_folders({"--data-dir": data_dir})
    keep_run_log(paths.METRICS_DIR)
    try:
        with claim([data_dir], "dataset", "download_dataset.py or make_phantom_dataset.py"):
            obtain_dataset(args.dataset, data_dir, args.force)
            obtain_patient_map(args.mapping_url, data_dir / paths.PATIENT_MAP)
    except KeyboardInterrupt as stop:
        stop.add_note("the same command goes on with what was downloaded so far")
        raise
    print_summary(data_dir)


# --- the dataset -----------------------------------------------------------------------------------
def downloads_dir(data_dir: str | Path) -> Path:
    """Return the folder of unfinished downloads, inside the data folder: moving into place is then always a rename."""
    return Path(data_dir) / ".download"


def download_dir(data_dir: str | Path, dataset: str) -> Path:
    """Return the folder of the unfinished download of ``dataset``."""
    return downloads_dir(data_dir) / dataset.replace("/", "_")


def obtain_dataset(dataset: str, data_dir: Path, force: bool) -> None:
    """Download, unpack and put into place what is missing: the steps at the top of this file."""
    work = download_dir(data_dir, dataset)
    extracted = work / EXTRACTED
    if not extracted.is_dir():
        if not force and is_there(dataset, data_dir):
            return
        download_and_extract(dataset, work / ARCHIVE, extracted)
    install(extracted, data_dir)
    marker: DownloadMarker = {
        "dataset": dataset,
        "train_metadata_sha256": sha256_file(data_dir / paths.TRAIN_METADATA),
    }
    save_json(paths.download_marker(data_dir), marker)
    paths.provenance(data_dir).unlink(missing_ok=True)  # of an import that --force has replaced
    # The archive goes before the folder that says "unpacked", so that no interruption leaves it lying there.
    (work / ARCHIVE).unlink(missing_ok=True)
    shutil.rmtree(downloads_dir(data_dir))


def is_there(dataset: str, data_dir: Path) -> bool:
    """Return whether the dataset is in place; raises ``UserError`` if another one is, or a part of one."""
    present = entries_present(data_dir)
    if not present:
        return False
    if not is_complete(data_dir):
        raise UserError(
            f"{data_dir} holds {', '.join(present)} but not a whole dataset; move these elsewhere, "
            "or replace them with --force"
        )
    found = downloaded_before(data_dir)
    if found is None:
        log.info(f"{data_dir} holds a dataset that this script did not download: it stays (--force replaces it)")
    elif found == dataset:
        log.info(f"{data_dir} holds {dataset} already: nothing to download (--force downloads it again)")
    else:
        raise UserError(
            f"{data_dir} holds {found}, not {dataset}; choose another --data-dir, or replace it with --force"
        )
    return True


def downloaded_before(data_dir: Path) -> str | None:
    """Return the name of the dataset that an earlier run put into ``data_dir``; None if another is there."""
    marker = paths.download_marker(data_dir)
    content = load_json(marker) if marker.is_file() else {}
    same = content.get("train_metadata_sha256") == sha256_file(data_dir / paths.TRAIN_METADATA)
    return content["dataset"] if same else None


def download_and_extract(dataset: str, archive: Path, extracted: Path) -> None:
    """Leave the unpacked dataset at ``extracted``; a broken archive is deleted and downloaded once more."""
    for last_attempt in (False, True):
        try:
            if not archive.is_file():
                download(dataset, archive)
            extract(archive, extracted)
            return
        except UnsuitableArchiveError as error:
            archive.unlink()
            raise UserError(
                f"{error}; nothing was unpacked and the archive was deleted: check --dataset {dataset}"
            ) from None
        except BrokenArchiveError as error:
            archive.unlink(missing_ok=True)
            if last_attempt:
                raise UserError(
                    f"the archive of {dataset} was broken twice ({error}) and was deleted; get past any "
                    "proxy or login page between you and Kaggle, then run the same command again"
                ) from None
            log.info(f"the downloaded archive is broken ({error}): it is deleted and downloaded once more")


# --- the patient mapping ---------------------------------------------------------------------------
def obtain_patient_map(url: str, target: Path) -> None:
    """Download RSNA's mapping unless it is there. Failing is not fatal: images are then their own groups."""
    if target.is_file():
        return
    log.info(f"downloading {target.name}")
    try:
        with urllib.request.build_opener().open(url, timeout=MAPPING_TIMEOUT) as response:
            content = response.read()
        check_patient_map(content)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        log.info(
            f"the patient mapping could not be downloaded ({' '.join(str(error).split())}); without it, "
            f"images of one person may lie in both training and test: download {MAPPING_URL} by hand and "
            f"save it as {target}"
        )


def check_patient_map(content: bytes) -> None:
    """Raise ``ValueError`` unless ``content`` is a JSON list of ``MappingEntry``, with at least one."""
    entries = json.loads(content)
    keys = MappingEntry.__required_keys__
    listed = isinstance(entries, list) and len(entries) > 0
    if not listed or not all(isinstance(entry, dict) and keys <= entry.keys() for entry in entries):
        raise ValueError("the server sent no list of objects with subset_img_id and img_id")


# --- report ----------------------------------------------------------------------------------------
def print_summary(data_dir: Path) -> None:
    """Print which parts of the dataset are there, and the next command."""
    training, test = paths.training_images(""), paths.test_images("")
    log.info(f"{data_dir} holds:")
    for name in (paths.TRAIN_METADATA, paths.TEST_METADATA, paths.PATIENT_MAP):
        log.info(f"  {name}{'' if (data_dir / name).is_file() else ' (missing)'}")
    log.info(f"  {training.as_posix()}: {sum(1 for _ in (data_dir / training).glob('*.png')):,} PNG files")
    log.info(f"  {test.as_posix()}: {sum(1 for _ in (data_dir / test).rglob('*.png')):,} PNG files")
    log.info(f"next: python src/data_loader.py --data-dir {shlex.quote(str(data_dir))}")


if __name__ == "__main__":
    run_script(main)
