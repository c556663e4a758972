"""Names of patients: HMAC as the standard has it, a key that only its owner sees, ids that name nobody."""

import hashlib
import hmac
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from common import paths
from dataset.patient_keys import Identity, key_fingerprint, load_key, pseudonym, unknown_ids
from utils import UserError

RANDOM = bytes(range(7, 39))


# --- names -----------------------------------------------------------------------------------------
def test_a_name_is_the_beginning_of_the_hmac():
    expected = hmac.new(RANDOM, b"J\xc3\xb6 7", hashlib.sha256).hexdigest()
    assert pseudonym(RANDOM, " Jö 7 ") == f"p{expected[:32]}"
    assert len({pseudonym(RANDOM, "1"), pseudonym(RANDOM, "01"), pseudonym(RANDOM[::-1], "1")}) == 3


def test_a_fingerprint_tells_keys_apart_and_is_no_patient():
    assert key_fingerprint(RANDOM) == key_fingerprint(bytes(RANDOM)) != key_fingerprint(RANDOM[::-1])
    assert key_fingerprint(RANDOM) not in pseudonym(RANDOM, "fingerprint")
    assert RANDOM.hex() not in key_fingerprint(RANDOM)


# --- the file --------------------------------------------------------------------------------------
def test_a_key_is_drawn_once_and_is_its_owners(in_tmp):
    file = in_tmp / "private" / "patient.key"
    key = load_key(file)
    assert len(key) == 32 and load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["patient.key"]
    assert len({load_key(None), load_key(None), key, load_key(in_tmp / "other.key")}) == 4


def test_imports_at_the_same_time_draw_one_key(in_tmp):
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(load_key, [in_tmp / "patient.key"] * 16))
    assert set(keys) == {load_key(in_tmp / "patient.key")}


@pytest.mark.parametrize("content", [RANDOM, RANDOM.hex().encode(), RANDOM.hex().upper().encode() + b"\r\n"])
def test_a_key_may_be_bytes_or_digits(in_tmp, content):
    (in_tmp / "x.key").write_bytes(content)
    (in_tmp / "x.key").chmod(0o600)
    assert load_key(in_tmp / "x.key") == RANDOM


@pytest.mark.parametrize("content", [b"", b"secret", RANDOM[:31], bytes(32), b"a" * 64, RANDOM.hex().encode()[:-2]])
def test_what_is_no_key_is_refused_and_stays(in_tmp, content):
    file = in_tmp / "x.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UserError, match="holds no key of 32 random bytes; name a file that does not exist yet"):
        load_key(file)
    assert file.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_can_read_is_refused(in_tmp, mode):
    load_key(in_tmp / "x.key")
    (in_tmp / "x.key").chmod(mode)
    with pytest.raises(UserError, match=r"can be read by others; change that with: chmod 600 .*x\.key"):
        load_key(in_tmp / "x.key")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("data/x.key", "lies in ./data"),
        ("results/metrics/x.key", "lies in ./results"),
        ("models/x.key", "lies in ./models"),
        ("mine/x.key", "lies in .*mine"),
        ("mine/deep/x.key", "lies in .*mine"),
        ("set/Training/x.key", "lies in the data folder .*set"),
        ("code/src/x.key", "lies in the git repository .*code"),
        ("link/x.key", "lies in ./data"),
    ],
)
def test_a_key_must_not_lie_where_it_would_be_passed_on(in_tmp, place, why):
    (in_tmp / "data").mkdir()
    (in_tmp / "set").mkdir()
    (in_tmp / "set" / paths.TRAIN_METADATA).touch()
    (in_tmp / "code" / ".git").mkdir(parents=True)
    (in_tmp / "link").symlink_to(in_tmp / "data")
    with pytest.raises(UserError, match=why):
        load_key(in_tmp / place, folders=["mine"])
    assert not (in_tmp / place).exists()


@pytest.mark.parametrize(("name", "why"), [("folder", "cannot be read"), ("file/x.key", "cannot be written")])
def test_an_impossible_place_is_one_line(in_tmp, name, why):
    (in_tmp / "folder").mkdir()
    (in_tmp / "file").touch()
    with pytest.raises(UserError, match=f"--patient-key .*{re.escape(name)} {why}"):
        load_key(in_tmp / name)


# --- ids that name nobody --------------------------------------------------------------------------
def identity(patient_id, sex="F", age=50) -> Identity:
    return Identity(patient_id, age, sex)


OTHERS = [identity(f"id{number}") for number in range(400)]


@pytest.mark.parametrize(
    "name",
    ["0", "0000", "ANONYMOUS", "Anonymized", "anonymous^patient", "Anon", "UNKNOWN", "n/a", "none", "X", "xxx", "***",
     "-", "REMOVED", "de-identified", "no id", "Test", "???"],
)  # fmt: skip
def test_words_in_place_of_an_id(name):
    assert unknown_ids([*OTHERS, identity(name)]) == {name}


@pytest.mark.parametrize("name", ["1", "10", "ANON0001", "Unknown-17", "TEST7", "PAT-3", "1.2.840.7", "mx-2"])
def test_ids_that_only_look_like_such_words(name):
    assert unknown_ids([*OTHERS, identity(name), identity(None)]) == set()


@pytest.mark.parametrize(
    ("images", "shared"),
    [
        ([identity("7", "F")] * 5 + [identity("7", "M")], True),
        ([identity("7", "F")] * 4 + [identity("7", "M")], False),  # a slip of the pen: one group is the safer guess
        ([identity("7", "F")] * 5 + [identity("7", "")], False),
        ([identity("7", age=20)] * 5 + [identity("7", age=51)], True),
        ([identity("7", age=20)] * 5 + [identity("7", age=50)], False),
        ([identity("7", age=20)] * 5 + [identity("7", age=None)], False),
        ([identity("7")] * 22, True),  # more than 5 % of 422
        ([identity("7")] * 20, False),
    ],
)
def test_an_id_that_several_people_share(images, shared):
    assert unknown_ids([*OTHERS, *images]) == ({"7"} if shared else set())


def test_few_images_of_one_patient_are_no_reason():
    assert unknown_ids([identity("7")] * 19) == set()
