"""DICOM files as the reader of images takes them: damage, missing packages, privacy, and whole data folders."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import config, dcmread

import data_loader
import register_synthetic
from common import paths
from data_loader import load_images
from dataset import dicom_decoding, dicom_files, pixel_cache
from dataset.dicom_files import is_dicom, read_dicom, read_header
from dataset.images import decoder_version, open_picture, read_gray, read_side
from dataset.picture_checks import check_pictures
from dataset.picture_facts import facts_table, measure
from dataset.records import load_dataset
from dicom_data import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    as_stored,
    write_dicom,
)
from fake_pictures import pictures
from phantom.dataset import make_phantom_dataset
from utils import UserError

SRC = Path(data_loader.__file__).parent
GRAY = np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8)


# --- which files are DICOM -------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["x.dcm", "x.DCM", "x.dicom", "IM000001", "1.2.840.113619.2.5", "I10"])
def test_names_of_dicom_files(tmp_path, name):
    file = write_dicom(tmp_path / name, GRAY)
    assert is_dicom(file) and np.array_equal(read_gray(file), GRAY)
    assert read_side(file) == 50


def test_other_files_are_none(tmp_path):
    for name in ("notes", "x.17", "._x.bak"):
        (tmp_path / name).write_bytes(bytes(300))
        assert not is_dicom(tmp_path / name)
    write_dicom(tmp_path / "x.png", GRAY)
    assert not is_dicom(tmp_path / "x.png") and not is_dicom(tmp_path / "gone") and not is_dicom(tmp_path)
    with pytest.raises(OSError, match=r"a DICOM file; give it the ending \.dcm"):
        read_gray(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"not DICOM", "not a DICOM file (no DICM after 128 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer instead"),
        (bytes(128) + b"DICM", "holds no image; it is cut short"),
        (None, "missing"),
        ("folder", "a folder"),
        ("link", "a link to a file that is not there"),
    ],
)
def test_what_is_no_dicom_file_has_its_reason(tmp_path, content, reason):
    file = tmp_path / "x.dcm"
    if content == "folder":
        file.mkdir()
    elif content == "link":
        file.symlink_to(tmp_path / "gone")
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(OSError) as refused:
        read_gray(file)
    assert reason in str(refused.value)
    with pytest.raises(UserError, match=r"x\.dcm: "):
        read_dicom(file)
    assert read_side(file) is None


# --- damage ----------------------------------------------------------------------------------------
def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, flip bits of the header or of the pixels, overwrite, delete, change a length."""
    changed, size = bytearray(content), len(content)
    pixels = max(content.find(b"\xe0\x7f\x10\x00"), 400)
    place = int(rng.integers(132, size - 8))
    kind = rng.integers(6)
    if kind == 0:
        return content[: rng.integers(size)]
    if kind == 1:
        for spot in rng.integers(132, pixels, rng.integers(1, 4)):
            changed[spot] ^= 1 << rng.integers(8)
    elif kind == 2:
        for spot in rng.integers(pixels, size, rng.integers(1, 8)):
            changed[spot] = rng.integers(256)
    elif kind == 3:
        changed[place : place + rng.integers(1, 8)] = b"\xff" * rng.integers(8)
    elif kind == 4:
        del changed[place : place + rng.integers(1, 200)]
    else:
        changed[place : place + 4] = rng.bytes(4)
    return bytes(changed)


@pytest.mark.parametrize(
    "syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, JPEG_BASELINE]
)
def test_damage_is_one_line_whatever_is_damaged(tmp_path, syntax, capfd):
    """GDCM by itself ends the process for some of these, and writes to the console."""
    rng = np.random.default_rng(int(syntax.replace(".", "")))
    bits = 8 if syntax == JPEG_BASELINE else 12
    file = write_dicom(tmp_path / "x.dcm", as_stored(GRAY, bits), bits=bits, syntax=syntax, window=(2048, 4096))
    whole, refused = file.read_bytes(), 0
    for _ in range(60):
        file.write_bytes(mutate(whole, rng))
        try:
            pixels = read_dicom(file).pixels
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        else:
            assert pixels.dtype == np.uint16 and pixels.ndim == 2
    assert refused > 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, JPEG_BASELINE])
def test_a_file_that_is_cut_short_never_shows_a_picture(tmp_path, syntax):
    file = write_dicom(tmp_path / "x.dcm", GRAY, syntax=syntax)
    whole = file.read_bytes()
    for size in (*range(0, len(whole) - 20, 97), len(whole) - 30, len(whole) - 20, len(whole) - 10):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError):
            read_dicom(file)


def test_a_decoder_that_ends_is_replaced(tmp_path, monkeypatch):
    file = write_dicom(tmp_path / "x.dcm", GRAY, syntax=JPEG_LOSSLESS)
    read_dicom(file)
    child = dicom_decoding._idle.get_nowait()
    dicom_decoding._idle.put(child)
    child.process.kill()
    with pytest.raises(UserError, match="its pixels are damaged or cut short"):
        read_dicom(file)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(read_gray("x.dcm"), GRAY), "of a folder that is not the one it was started in"


# --- packages --------------------------------------------------------------------------------------
def without(monkeypatch, *modules: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        dicom_files.importlib.util, "find_spec", lambda name, *rest: None if name in modules else found(name, *rest)
    )


def test_without_the_packages_one_line_says_what_to_install(tmp_path, monkeypatch):
    file = write_dicom(tmp_path / "x.dcm", GRAY)
    without(monkeypatch, "pydicom", "gdcm")
    says = r"DICOM files need pydicom and python-gdcm, not installed here: pip install -r requirements-dicom\.txt"
    for use in (read_dicom, read_header, read_gray, lambda path: decoder_version(files=[path])):
        with pytest.raises(UserError, match=says):
            use(file)
    assert decoder_version(files=[tmp_path / "x.png"]) == decoder_version(), "PNG needs none"
    monkeypatch.undo()
    without(monkeypatch, "gdcm")
    with pytest.raises(UserError, match="DICOM files need python-gdcm, not installed"):
        read_gray(file)


def test_nothing_is_imported_before_a_dicom_file_is_read(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "x.png")
    code = (
        "import sys; from dataset.images import decoder_version, read_gray; from pathlib import Path\n"
        f"file = Path({str(tmp_path / 'x.png')!r}); read_gray(file); decoder_version(files=[file])\n"
        "print({'pydicom', 'gdcm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- one reader ------------------------------------------------------------------------------------
def test_dicom_and_its_16_bit_png_give_the_same(tmp_path):
    dicom = write_dicom(tmp_path / "x.dcm", as_stored(GRAY, 12), bits=12)
    Image.fromarray(read_dicom(dicom).pixels).save(tmp_path / "x.png")
    one, other = (open_picture(tmp_path / name) for name in ("x.dcm", "x.png"))
    assert np.array_equal(one.resized(32), other.resized(32)) and np.array_equal(one.pixels(), other.pixels())
    assert measure(one, 9) == measure(other, 9)._replace(mode="DICOM", largest=None)
    assert np.array_equal(read_gray(dicom, 12), GRAY), "--bits is of PNG: DICOM says itself what white is"


def test_odd_headers_are_flagged_like_odd_pictures(tmp_path):
    facts = []
    for index, pixels in enumerate(pictures(np.random.default_rng(0), 20, 32)):
        odd = {"BurnedInAnnotation": "YES", "ViewPosition": "LL"} if index < 3 else {}
        facts.append(measure(open_picture(write_dicom(tmp_path / f"{index}.dcm", pixels, **odd)), 9))
    table = facts_table(facts)
    table.insert(0, "image_id", [f"i{index}" for index in range(20)])
    flags = check_pictures(table, "images", 32, None).red_flags
    some = "images: 3 images (i0, i1, i2) of 20 have this in their DICOM headers"
    assert flags == [f"{some}: lateral view", f"{some}: text burned into the pixels, which may name the patient"]


# --- whole folders ---------------------------------------------------------------------------------
EXPORTS = [
    {"photometric": "MONOCHROME1", "bits": 8},
    {"photometric": "MONOCHROME2", "bits": 8, "syntax": JPEG_LS},
    {"photometric": "MONOCHROME2", "bits": 10, "syntax": RLE},
    {"photometric": "MONOCHROME1", "bits": 12, "syntax": JPEG_2000},
    {"photometric": "MONOCHROME1", "bits": 12, "window": (2047.5, 4095), "VOILUTFunction": "LINEAR_EXACT"},
    {"photometric": "MONOCHROME2", "bits": 12, "signed": True, "window": (0, 4096)},
    {"photometric": "MONOCHROME2", "bits": 12, "RescaleSlope": 2, "RescaleIntercept": -50, "window": (4045, 8191)},
    {"photometric": "MONOCHROME2", "bits": 14, "syntax": JPEG_LOSSLESS},
    {"photometric": "MONOCHROME1", "bits": 16, "signed": True},
    {"photometric": "MONOCHROME2", "bits": 16, "syntax": JPEG_2000},
]


def as_dicom(data_dir: Path, target: Path, **header) -> Path:
    """Copy a data folder, each PNG turned into DICOM of another kind; returns ``target``."""
    shutil.copytree(data_dir, target, ignore=shutil.ignore_patterns("*.png", paths.SPLITS))
    for index, file in enumerate(sorted(data_dir.rglob("*.png"))):
        kind = dict(EXPORTS[index % len(EXPORTS)])
        pixels = as_stored(np.asarray(Image.open(file)), kind["bits"], kind["photometric"], kind.get("signed", False))
        write_dicom((target / file.relative_to(data_dir)).with_suffix(".dcm"), pixels, **kind, **header)
    return target


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of phantoms as PNG, and the same as DICOM of ten kinds."""
    folder = tmp_path_factory.mktemp("phantoms")
    make_phantom_dataset(folder / "png", num_images=40, image_size=64)
    return folder / "png", as_dicom(folder / "png", folder / "dicom")


def test_phantoms_as_dicom_show_the_pixels_of_their_png(folders, tmp_path):
    png, dicom = (load_dataset(folder).images for folder in folders)
    assert {file.suffix for file in dicom["path"]} == {".dcm"}
    one, other = load_images(png, 64), load_images(dicom, 64, cache_dir=tmp_path)
    difference = np.abs(one.pixels.astype(int) - other.pixels)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05
    again = load_images(dicom, 64, cache_dir=tmp_path)
    assert np.array_equal(again.pixels, other.pixels) and again.key == other.key


def test_a_cache_is_made_anew_by_another_decoder(folders, tmp_path, monkeypatch):
    records = load_dataset(folders[1]).images[:4]
    load_images(records, 32, cache_dir=tmp_path)
    decoded = []
    monkeypatch.setattr(pixel_cache, "decode_or_reason", lambda *call: decoded.append(call))
    load_images(records, 32, cache_dir=tmp_path)
    assert not decoded
    versions = dicom_files.importlib.metadata.version
    monkeypatch.setattr(dicom_files.importlib.metadata, "version", lambda name: versions(name) + ".1")
    with pytest.raises(TypeError):  # what stands in for the decoder returns nothing
        load_images(records, 32, cache_dir=tmp_path)
    assert decoded


def test_checker_and_registration_take_dicom(folders, in_tmp, capsys):
    data_dir = shutil.copytree(folders[1], in_tmp / "data")
    data_loader.main(["--data-dir", str(data_dir), "--image-size", "64"])
    assert "ready for training" in capsys.readouterr().out
    png = shutil.copytree(folders[0], in_tmp / "png")
    data_loader.main(["--data-dir", str(png), "--image-size", "64"])
    assert (data_dir / paths.SPLITS).read_bytes() == (png / paths.SPLITS).read_bytes(), "the same split"
    capsys.readouterr()
    elsewhere = in_tmp / "elsewhere"
    for index, pixels in enumerate(pictures(np.random.default_rng(1), 3, 64)):
        write_dicom(elsewhere / f"{index}.dcm", pixels)
    options = ["--images", str(elsewhere), "--trained-elsewhere", "a hospital", "--data-dir", str(data_dir)]
    register_synthetic.main(options)
    assert "3 images, label" in capsys.readouterr().out
    assert np.array_equal(np.asarray(Image.open("data/synthetic/synthetic_00003.png")), read_gray(elsewhere / "2.dcm"))


# --- privacy ---------------------------------------------------------------------------------------
# Identifiers in text of every kind (value representation), as far as a file can hold them and be read.
TEXTS = {
    "PatientName": "PLANTED^JOHN", "PatientID": "PLANTED7", "OtherPatientIDs": "PLANTED8", "PatientAge": "PLANTED",
    "PatientBirthDate": "PLANTED9", "PatientSex": "PLANTED", "PatientComments": "PLANTED\nST", "StudyTime": "PLANTED",
    "PatientAddress": "PLANTED", "InstitutionName": "PLANTED hospital", "ReferringPhysicianName": "PLANTED^DOC",
    "AccessionNumber": "PLANTED10", "StudyDescription": "PLANTED study", "SeriesDescription": "PLANTED series",
    "ProtocolName": "PLANTED protocol", "StudyInstanceUID": "1.2.PLANTED.3", "FrameOfReferenceUID": "PLANTED",
    "SOPClassUID": "PLANTED", "StudyDate": "PLANTED", "AcquisitionDateTime": "PLANTED", "BodyPartExamined": "PLANTED",
    "ViewPosition": "PLANTED", "BurnedInAnnotation": "PLANTED", "WindowCenterWidthExplanation": "PLANTED",
    "DeviceSerialNumber": "PLANTED", "TimezoneOffsetFromUTC": "PLANTED", "RetrieveURI": "PLANTED",
    "InstitutionalDepartmentName": "PLANTED", "SpecificCharacterSet": "PLANTED", "PresentationIntentType": "PLANTED",
}  # fmt: skip
# Where a wrong value ends the reading; numbers are written first, and replaced.
FATAL = [
    {"Modality": "PLANTED"}, {"PhotometricInterpretation": "PLANTED"},
    {"VOILUTFunction": "PLANTED", "window": (1, 2)}, {"NumberOfFrames": "7777777"}, {"RescaleSlope": "7777777"},
    {"RescaleIntercept": "7777777"}, {"window": ("7777777", 1)}, {"window": (1, "7777777")},
]  # fmt: skip


def write_planted(file: Path, pixels: np.ndarray, **header) -> Path:
    """Write a file with identifiers in every text, in private elements, in an overlay and before its beginning."""
    write_dicom(file, pixels, **TEXTS | header)
    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        dataset = dcmread(file)
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.PLANTED.4"
        dataset.file_meta.SourceApplicationEntityTitle = "PLANTED"
        block = dataset.private_block(0x0011, "PLANTED INC", create=True)
        block.add_new(1, "LO", "PLANTED private")
        block.add_new(2, "UN", b"PLANTED bytes")
        dataset.add_new(0x60000022, "LO", "PLANTED overlay")
        dataset.add_new(0x60001500, "LO", "PLANTED label")
        dataset.preamble = b"PLANTED preamble".ljust(128)
        dataset.save_as(file)
    finally:
        config.settings.writing_validation_mode = mode
    file.write_bytes(file.read_bytes().replace(b"7777777", b"PLANTED"))
    return file


def test_no_identifier_of_a_header_is_told(tmp_path, caplog, recwarn, capfd):
    with caplog.at_level(logging.DEBUG):
        for number, fatal in enumerate([{}, *FATAL]):
            file = write_planted(tmp_path / f"{number}.dcm", GRAY, **fatal)
            assert file.read_bytes().count(b"PLANTED") > len(TEXTS)
            recwarn.clear()  # of the writer
            caplog.clear()
            told = []
            for read in (read_header, read_dicom, read_gray):
                try:
                    told.append(repr(read(file)))
                except (UserError, OSError) as error:
                    told.append("".join(traceback.format_exception(error)))
            assert not any("PLANTED" in text for text in told), fatal
            assert fatal == {} or any("Error" in text for text in told), fatal
            assert "PLANTED" not in caplog.text and not any("PLANTED" in str(warning) for warning in recwarn)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the writer
def test_no_identifier_of_a_header_is_in_outputs_logs_and_caches(folders, tmp_path):
    data_dir = shutil.copytree(folders[1], tmp_path / "data")
    files = sorted(paths.training_images(data_dir).glob("*.dcm"))
    for file, fatal in zip(files, [*FATAL, *[{}] * len(files)], strict=False):
        write_planted(file, read_gray(file), **fatal)
    done = subprocess.run(
        [sys.executable, SRC / "data_loader.py", "--data-dir", "data", "--image-size", "64", "--verbose",
         "--skip-bad-images"],
        cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "always"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and f"without {len(FATAL)} bad images" in done.stdout, done.stderr
    assert "PLANTED" not in done.stdout + done.stderr
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".dcm"]
    assert {".npy", ".log", ".json"} <= {file.suffix for file in written}
    assert not [file for file in written if b"PLANTED" in file.read_bytes()]
