"""Download the RSNA pneumonia dataset from Kaggle, and the mapping from its images to patients from RSNA.

Every step leaves one thing in ``<data-dir>/.download`` and is skipped when that thing is there, so a run
that was interrupted anywhere is finished by the next: a partial zip (which the Kaggle client resumes), then
``archive.zip``, then ``extracted/``, then the entries in the data folder itself and the done-marker.

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
import sys
import urllib.request
from pathlib import Path

from common import paths
from common.command_line import argument_parser, run_script
from dataset.archive import (
    BrokenArchiveError,
    UnsuitableArchiveError,
    entries_present,
    extract,
    install,
    is_complete,
)
from dataset.kaggle_client import CREDENTIALS_HELP, download
from utils import UserError, atomic_path, load_json, save_json, sha256_file

log = logging.getLogger(__name__)


DATASET = "iamtapendu/rsna-pneumonia-processed-dataset"
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{paths.PATIENT_MAP}"
MAPPING_TIMEOUT = 30  # seconds without a byte


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Download the RSNA pneumonia dataset from Kaggle (some gigabytes) and RSNA's patient mapping. "
        f"For Kaggle's credentials, {CREDENTIALS_HELP}. If it is interrupted, the same command goes on from "
        "there; if the dataset is there already, nothing is downloaded."
    )
    parser.add_argument("--data-dir", default=paths.DATA_DIR, metavar="PATH", help="folder for the dataset")
    parser.add_argument(
        "--dataset",
        type=dataset_name,
        default=DATASET,
        metavar="NAME",
        help="dataset on Kaggle, as OWNER/NAME or OWNER/NAME/VERSION, laid out like the default one",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="download although a dataset is there, and replace its files; other files in the folder stay",
    )
    parser.add_argument(
        "--mapping-url", default=MAPPING_URL, metavar="URL", help="where to get the image-to-patient mapping"
    )
    return parser


def dataset_name(text: str) -> str:
    if not re.fullmatch(r"[\w-]+/[\w-]+(/\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: OWNER/NAME or OWNER/NAME/VERSION is")
    return text


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    data_dir = Path(args.data_dir)
    try:
        obtain_dataset(args.dataset, data_dir, args.force)
        obtain_patient_map(args.mapping_url, data_dir / paths.PATIENT_MAP)
    except KeyboardInterrupt:
        log.error("interrupted: the same command goes on with what was downloaded so far")
        sys.exit(130)
    print_summary(data_dir)


# --- the dataset -----------------------------------------------------------------------------------
def obtain_dataset(dataset: str, data_dir: Path, force: bool) -> None:
    """Download, unpack and put in place what is not there yet: the steps at the top of this file."""
    work = paths.download_dir(data_dir, dataset)
    extracted = work / paths.EXTRACTED_DATASET
    if not extracted.is_dir():
        if not force and is_there(dataset, data_dir):
            return
        download_and_extract(dataset, work / paths.DOWNLOADED_ARCHIVE, extracted)
    install(extracted, data_dir)
    marker = {"dataset": dataset, "train_metadata_sha256": sha256_file(data_dir / paths.TRAIN_METADATA)}
    save_json(paths.download_marker(data_dir), marker)
    # The archive goes before the folder that says "unpacked", so that no interruption leaves it lying there.
    (work / paths.DOWNLOADED_ARCHIVE).unlink(missing_ok=True)
    shutil.rmtree(paths.downloads_dir(data_dir))


def is_there(dataset: str, data_dir: Path) -> bool:
    """Is the dataset in place? ``UserError`` if another one is, or a part of one."""
    present = entries_present(data_dir)
    if not present:
        return False
    if not is_complete(data_dir):
        raise UserError(
            f"{data_dir} holds {', '.join(present)} but not a whole dataset; move that elsewhere, "
            "or replace it with --force"
        )
    found = downloaded_before(data_dir)
    if found is None:
        log.info(f"{data_dir} holds a dataset put there by other means: left as it is (--force replaces it)")
    elif found == dataset:
        log.info(f"{data_dir} holds {dataset} already: nothing to download (--force downloads it again)")
    else:
        raise UserError(
            f"{data_dir} holds {found}, not {dataset}; choose another --data-dir, or replace it with --force"
        )
    return True


def downloaded_before(data_dir: Path) -> str | None:
    """Name of the dataset that an earlier run put into ``data_dir``, if that is what lies there."""
    marker = paths.download_marker(data_dir)
    content = load_json(marker) if marker.is_file() else {}
    same = content.get("train_metadata_sha256") == sha256_file(data_dir / paths.TRAIN_METADATA)
    return content["dataset"] if same else None


def download_and_extract(dataset: str, archive: Path, extracted: Path) -> None:
    """Leave the unpacked dataset at ``extracted``; a broken archive is deleted and fetched once more."""
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
                    f"what came for {dataset} was broken twice ({error}) and was deleted; pass any proxy or "
                    "login page that stands between you and Kaggle, then run the same command again"
                ) from None
            log.info(f"the downloaded archive is broken ({error}): it is deleted and fetched once more")


# --- the patient mapping ---------------------------------------------------------------------------
def obtain_patient_map(url: str, target: Path) -> None:
    """Fetch RSNA's mapping unless it is there. Never fatal: without it, images are grouped by image."""
    if target.is_file():
        return
    log.info(f"fetching {target.name}")
    try:
        with urllib.request.build_opener().open(url, timeout=MAPPING_TIMEOUT) as response:
            content = response.read()
        check_patient_map(content)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    except (OSError, ValueError, http.client.HTTPException) as error:
        log.info(
            f"the patient mapping could not be had ({' '.join(str(error).split())}), and without it one "
            f"person's images may lie in both training and test: download {MAPPING_URL} by hand "
            f"and save it as {target}"
        )


def check_patient_map(content: bytes) -> None:
    """``ValueError`` unless ``content`` is a JSON list of objects (at least one) with RSNA's two keys."""
    entries = json.loads(content)
    keys = {"subset_img_id", "img_id"}
    listed = isinstance(entries, list) and len(entries) > 0
    if not listed or not all(isinstance(entry, dict) and keys <= set(entry) for entry in entries):
        raise ValueError("what came is not a list of objects with subset_img_id and img_id")


# --- report ----------------------------------------------------------------------------------------
def print_summary(data_dir: Path) -> None:
    training, test = paths.training_images(""), paths.test_images("")
    log.info(f"{data_dir} holds:")
    for name in (paths.TRAIN_METADATA, paths.TEST_METADATA, paths.PATIENT_MAP):
        log.info(f"  {name}{'' if (data_dir / name).is_file() else ' (missing)'}")
    log.info(f"  {training.as_posix()}: {sum(1 for _ in (data_dir / training).glob('*.png')):,} PNG files")
    log.info(f"  {test.as_posix()}: {sum(1 for _ in (data_dir / test).rglob('*.png')):,} PNG files")
    log.info(f"next: python src/data_loader.py --data-dir {shlex.quote(str(data_dir))}")


if __name__ == "__main__":
    run_script(main)
