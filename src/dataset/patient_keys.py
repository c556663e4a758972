"""Names for patients that tell nothing about them: HMAC-SHA256 of PatientID with a key that only the user has.

With the same key the same person gets the same name in every import; without the key no name can be traced back.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common import paths
from dataset.people import is_unknown
from utils import UserError

KEY_BYTES = 32
FEWEST_DIFFERENT = 8  # different bytes, below which a key was not drawn at random
NAME_DIGITS = 32  # hexadecimal: 128 bits
NO_IDS = re.compile(
    r"0+|x+|\*+|anon|anonym(ous|i[sz]ed|e|isiert)?([ ^_-]?patient)?|unknown[ ^_-]?patient|patient|removed|deleted|"
    r"de-?identified|no[ _-]?(id|name)|test|dummy|phantom"
)  # what anonymisers and consoles write in place of an id, in lower case
# An id that several people share: images of both sexes, or ages far apart; fewer images may be a slip of the pen.
CONTRADICTING = 5  # images of one id
YEARS_APART = 30
# Or one on a large part of all images.
WIDELY_SHARED, FEWEST_SHARED = 0.05, 20  # share, images


def load_key(path: str | Path | None, folders: Sequence[str | Path] = ()) -> bytes:
    """Return the key in the file ``path``, which is made if it is not there; None: a key that nobody else has.

    ``folders``: data and result folders of this run, where no key may lie. The default ones are always refused,
    as is every git repository. Raises ``UserError`` for these, for a file that others can read, and for one that
    holds less than 32 random bytes, as they are or as 64 hexadecimal digits.
    """
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    path = Path(path).expanduser()
    _refuse_place(path, folders)
    if not path.exists():
        _create(path)
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except OSError as error:
        raise UserError(f"--patient-key {path} cannot be read ({str(error.strerror).lower()}); name a file") from None
    if os.name == "posix" and mode & 0o077:
        raise UserError(f"--patient-key {path} can be read by others; change that with: chmod 600 {path}")
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> bytes:
    text = content.strip()
    key = bytes.fromhex(text.decode()) if re.fullmatch(rb"([0-9a-fA-F]{2})+", text) else content
    if len(key) < KEY_BYTES or len(set(key)) < FEWEST_DIFFERENT:
        raise UserError(
            f"--patient-key {path} holds no key of {KEY_BYTES} random bytes; name a file that does not exist yet, "
            "and one is drawn"
        )
    return key


def _create(path: Path) -> None:
    """Draw a key and write it, readable by its owner only; whole, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike a rename it replaces no key that another process made meanwhile
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"--patient-key {path} cannot be written ({str(error.strerror).lower()}); name a file in a folder of yours"
        ) from None


def _refuse_place(path: Path, folders: Sequence[str | Path]) -> None:
    """Refuse a key where it would be shared together with what it protects."""
    elsewhere = "keep it where only you look, such as ~/.config/patient.key"
    above = [*path.absolute().parents, *path.resolve().parents]
    for folder in (*folders, "./data", paths.OUTPUT_DIR, paths.MODEL_DIR):
        if Path(folder).resolve() in above:
            raise UserError(f"--patient-key {path} lies in {folder}, which may be passed on; {elsewhere}")
    for folder in above:
        if (folder / paths.TRAIN_METADATA).exists():
            raise UserError(f"--patient-key {path} lies in the data folder {folder}; {elsewhere}")
        if (folder / ".git").exists():
            raise UserError(f"--patient-key {path} lies in the git repository {folder}; {elsewhere}")


# --- names -----------------------------------------------------------------------------------------
def pseudonym(key: bytes, patient_id: str) -> str:
    """Return the name of a patient: p and the first 128 bits of HMAC-SHA256 of ``patient_id`` (RFC 2104)."""
    return "p" + _hash(key, patient_id.strip())


def key_fingerprint(key: bytes) -> str:
    """Return what tells whether two imports had the same key, without telling the key."""
    return _hash(key, "\0fingerprint")  # no id of a patient begins like this


def _hash(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:NAME_DIGITS]


class Identity(NamedTuple):
    """What an image says of its patient; from it follows whether a patient id names one person."""

    patient_id: str | None
    age: float | None
    sex: str


def unknown_ids(identities: Sequence[Identity]) -> set[str]:
    """Return those patient ids of ``identities``, one of each image, that do not name one person.

    These are words like "ANONYMOUS" and "0", ids on more than 5 images of both sexes or with ages more than 30
    years apart, and ids on more than 5 % of all images (and at least 20). A missing id is None and not among them.
    """
    images: dict[str, list[Identity]] = defaultdict(list)
    for identity in identities:
        if identity.patient_id is not None:
            images[identity.patient_id].append(identity)
    return {name for name, theirs in images.items() if _names_nobody(name, theirs, len(identities))}


def _names_nobody(patient_id: str, images: Sequence[Identity], total: int) -> bool:
    word = patient_id.strip().casefold()
    if is_unknown(word) or NO_IDS.fullmatch(word) or not re.search(r"\w", word):
        return True
    ages = [image.age for image in images if image.age is not None]
    apart = max(ages) - min(ages) if ages else 0
    contradicting = len({image.sex for image in images} - {""}) > 1 or apart > YEARS_APART
    if contradicting and len(images) > CONTRADICTING:
        return True
    return len(images) >= FEWEST_SHARED and len(images) > WIDELY_SHARED * total
