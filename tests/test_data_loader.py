import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data_loader
from common import paths
from conftest import COLUMNS, metadata_row, write_csv
from data_loader import load_images
from dataset.images import read_image
from dataset.records import load_dataset, load_official_test
from utils import UserError

OPACITY, NORMAL, NOT_NORMAL = "Lung Opacity", "Normal", "No Lung Opacity / Not Normal"


def dataset_of(folder: Path, rows: list[dict]) -> Path:
    write_csv(folder / paths.TRAIN_METADATA, rows, COLUMNS)
    return folder


class TestMetadata:
    def test_rows_are_boxes_and_become_one_record_per_image(self, tmp_path):
        rows = [metadata_row("a", OPACITY), metadata_row("a", OPACITY, x=1), metadata_row("b", NORMAL)]
        dataset = load_dataset(dataset_of(tmp_path, rows))
        assert dataset.rows == 3
        assert list(dataset.images["image_id"]) == ["a", "b"]
        assert list(dataset.images["label"]) == [1, 0]
        assert list(dataset.images["n_boxes"]) == [2, 0]

    def test_only_lung_opacity_is_positive(self, tmp_path):
        rows = [metadata_row("a", OPACITY), metadata_row("b", NORMAL), metadata_row("c", NOT_NORMAL)]
        assert list(load_dataset(dataset_of(tmp_path, rows)).images["label"]) == [1, 0, 0]

    def test_class_may_be_spelt_without_spaces(self, tmp_path):
        rows = [metadata_row("a", OPACITY), metadata_row("b", "No Lung Opacity/Not Normal")]
        assert list(load_dataset(dataset_of(tmp_path, rows)).images["class"]) == [OPACITY, NOT_NORMAL]

    @pytest.mark.parametrize("column", ["Target", "class"])
    def test_one_of_target_and_class_is_enough(self, tmp_path, column):
        rows = [metadata_row("a", OPACITY), metadata_row("b", NORMAL)]
        rows = [{"patientId": row["patientId"], column: row[column]} for row in rows]
        write_csv(tmp_path / paths.TRAIN_METADATA, rows)
        assert list(load_dataset(tmp_path).images["label"]) == [1, 0]

    def test_implausible_ages_are_unknown(self, tmp_path):
        rows = [metadata_row("a", OPACITY, age=155), metadata_row("b", NORMAL, age=60)]
        ages = load_dataset(dataset_of(tmp_path, rows)).images["age"]
        assert np.isnan(ages[0]) and ages[1] == 60

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([metadata_row("a", OPACITY, Target=0)], "image a has Target 0 but class 'Lung Opacity'"),
            ([metadata_row("a", OPACITY), metadata_row("a", NORMAL)], "a has rows of different label"),
            ([metadata_row("a", NORMAL), metadata_row("a", NOT_NORMAL)], "a has rows of different class"),
            ([metadata_row("a", "Pneumonia")], "image a has class 'Pneumonia'; allowed are"),
            ([metadata_row("a", OPACITY, Target=3)], "image a has Target '3'"),
            ([metadata_row("../a", OPACITY)], "'../a' is not a plain file name"),
            ([metadata_row("/etc/a", OPACITY)], "'/etc/a' is not a plain file name"),
            ([metadata_row("a", NORMAL)], "images of one class only"),
        ],
    )
    def test_contradictions_are_refused_by_name(self, tmp_path, rows, message):
        with pytest.raises(UserError, match=message.replace("(", r"\(")):
            load_dataset(dataset_of(tmp_path, rows))

    def test_missing_files_and_columns(self, tmp_path):
        with pytest.raises(UserError, match="not a folder"):
            load_dataset(tmp_path / "nowhere")
        with pytest.raises(UserError, match="stage2_train_metadata.csv is missing.*download_dataset"):
            load_dataset(tmp_path)
        write_csv(tmp_path / paths.TRAIN_METADATA, [{"id": "a"}])
        with pytest.raises(UserError, match="no column patientId; its columns are id"):
            load_dataset(tmp_path)
        write_csv(tmp_path / paths.TRAIN_METADATA, [{"patientId": "a"}])
        with pytest.raises(UserError, match="has no labels"):
            load_dataset(tmp_path)
        (tmp_path / paths.TRAIN_METADATA).write_bytes(b"\xff\xfe\x00garbage!")
        with pytest.raises(UserError, match="not a readable CSV"):
            load_dataset(tmp_path)


class TestPatients:
    rows = [metadata_row("a", OPACITY), metadata_row("b", NORMAL), metadata_row("c", NORMAL)]
    mapping = [
        {"subset_img_id": "a", "img_id": "00000007_001.png"},
        {"subset_img_id": "b", "img_id": "00000007_002.png"},
    ]

    def test_without_a_mapping_images_are_their_own_group(self, tmp_path):
        dataset = load_dataset(dataset_of(tmp_path, self.rows))
        assert dataset.grouped_by == "image_id"
        assert list(dataset.images["patient"]) == ["a", "b", "c"]

    def test_mapping_in_the_folder_or_given(self, tmp_path):
        dataset_of(tmp_path, self.rows)
        for file, given in ((tmp_path / paths.PATIENT_MAP, None), (tmp_path / "mine.json",) * 2):
            file.write_text(json.dumps(self.mapping))
            dataset = load_dataset(tmp_path, given)
            assert dataset.grouped_by == "nih_patient" and dataset.unmapped == 1
            assert list(dataset.images["patient"]) == ["00000007", "00000007", "c"]
            file.unlink()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[]", "is empty"),
            ('[{"subset_img_id": "x", "img_id": "1_0.png"}]', "names none of the images"),
            ('{"a": 1}', "not the official mapping"),
            ('[{"id": 1}]', "not the official mapping"),
            ("no json", "not valid JSON"),
            (json.dumps([{"subset_img_id": "a", "img_id": f"{n}_0.png"} for n in (1, 2)]), "two patients"),
        ],
    )
    def test_broken_mappings_are_refused(self, tmp_path, text, message):
        dataset_of(tmp_path, self.rows)
        (tmp_path / paths.PATIENT_MAP).write_text(text)
        with pytest.raises(UserError, match=message):
            load_dataset(tmp_path)
        with pytest.raises(UserError, match="is missing"):
            load_dataset(tmp_path, tmp_path / "absent.json")


BOX, PREDICTED, PLACEHOLDER = "1 2 3 4", "0.9 1 2 3 4", "0.5 0 0 100 100"


def predictions(first: str, second: str) -> list[dict]:
    return [{"patientId": "a", "PredictionString": first}, {"patientId": "b", "PredictionString": second}]


class TestOfficialTest:
    @pytest.mark.parametrize(
        "rows",
        [
            predictions(PLACEHOLDER, PLACEHOLDER),
            predictions("", ""),
            predictions(PLACEHOLDER, ""),
            predictions(BOX, BOX),
            predictions(PREDICTED, ""),
            [{"patientId": "a", "Target": 0}, {"patientId": "b", "Target": 0}],
            [{"patientId": "a"}, {"patientId": "b"}],
            [{**row, "class": ""} for row in predictions(PLACEHOLDER, PLACEHOLDER)],
            [{"patientId": "a", "class": OPACITY}, {"patientId": "b", "class": NORMAL}],
        ],
    )
    def test_placeholders_constants_and_nothing_are_no_labels(self, tmp_path, rows):
        write_csv(tmp_path / paths.TEST_METADATA, rows)
        official = load_official_test(tmp_path)
        assert not official.labelled
        assert "label" not in official.images

    @pytest.mark.parametrize(
        "rows",
        [
            predictions(BOX, ""),
            [{"patientId": "a", "Target": 1}, {"patientId": "b", "Target": 0}],
        ],
    )
    def test_true_labels_are_read(self, tmp_path, rows):
        write_csv(tmp_path / paths.TEST_METADATA, rows)
        official = load_official_test(tmp_path)
        assert official.labelled
        assert list(official.images["label"]) == [1, 0]

    def test_no_csv_is_no_test_set_and_images_may_lie_one_folder_deeper(self, tmp_path):
        assert load_official_test(tmp_path) is None
        (tmp_path / paths.TEST_METADATA).write_text("patientId,PredictionString\n")
        assert load_official_test(tmp_path) is None
        write_csv(tmp_path / paths.TEST_METADATA, [{"patientId": "a", "PredictionString": ""}])
        assert load_official_test(tmp_path).images["path"][0] == tmp_path / "Test" / "a.png"
        (tmp_path / "Test" / "Images").mkdir(parents=True)
        assert load_official_test(tmp_path).images["path"][0] == tmp_path / "Test" / "Images" / "a.png"


class TestPixels:
    def test_bad_images_stop_the_run_or_are_skipped_and_named(self, make_dataset):
        data_dir = make_dataset(n=16)
        folder = paths.training_images(data_dir)
        (folder / "img-0001.png").unlink()
        (folder / "img-0002.png").write_bytes(b"not a png")
        truncated = (folder / "img-0003.png").read_bytes()
        (folder / "img-0003.png").write_bytes(truncated[: len(truncated) // 2])
        records = load_dataset(data_dir).images
        reasons = r"3 images \(img-0001: missing, img-0002: not an image, img-0003: cut short"
        with pytest.raises(UserError, match=reasons):
            load_images(records, 16)
        images = load_images(records, 16, skip_bad=True)
        assert images.skipped == ["img-0001", "img-0002", "img-0003"]
        assert len(images.records) == len(images.pixels) == 13
        first = np.asarray(images.pixels[1])
        assert images.records["image_id"][1] == "img-0004"
        assert np.array_equal(first, read_image(folder / "img-0004.png", 16))

    def test_ranges(self):
        pixels = torch.tensor([[[0, 255], [127, 128]]], dtype=torch.uint8)
        gan = data_loader.to_gan_range(pixels, 3)
        assert gan.shape == (1, 3, 2, 2) and gan.min() == -1 and gan.max() == 1
        assert torch.equal(data_loader.from_gan_range(gan), pixels)
        classifier = data_loader.to_classifier_range(pixels)
        expected = (1.0 - torch.tensor(data_loader.IMAGENET_MEAN)) / torch.tensor(data_loader.IMAGENET_STD)
        assert torch.allclose(classifier[0, :, 0, 1], expected)

    def test_light_augmentation_is_seeded_small_and_never_mirrors(self):
        pixels = torch.zeros(64, 32, 32, dtype=torch.uint8)
        pixels[:, :, :16] = 200  # bright on the left: a mirrored image would be bright on the right
        first = data_loader.augment_light(pixels, torch.Generator().manual_seed(1))
        again = data_loader.augment_light(pixels, torch.Generator().manual_seed(1))
        assert torch.equal(first, again)
        assert not torch.equal(first, pixels)
        left, right = first[:, :, :12].float().mean((1, 2)), first[:, :, 20:].float().mean((1, 2))
        assert (left > right + 50).all()


class TestChecker:
    @pytest.fixture(autouse=True)
    def in_tmp(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # where the log goes

    def test_reports_and_freezes_the_split(self, make_dataset, capsys):
        data_dir = make_dataset(n=96)
        data_loader.main(["--data-dir", str(data_dir)])
        out = capsys.readouterr().out
        expected = [
            "104 rows", "96 images", "48 patients", "grouped by NIH patient", "Lung Opacity 24",
            "prevalence of Lung Opacity: 25.0%", '"negative": 75.0%', "view AP", "sex F", "median",
            "unlabelled", "placeholder", "written", "ready",
        ]  # fmt: skip
        for text in expected:
            assert text in out
        assert (data_dir / paths.SPLITS).is_file()
        data_loader.main(["--data-dir", str(data_dir)])
        assert "(read:" in capsys.readouterr().out

    def test_bad_images_exit_1_and_are_named(self, make_dataset, as_script):
        data_dir = make_dataset(with_map=False)
        (paths.training_images(data_dir) / "img-0005.png").unlink()
        (paths.training_images(data_dir) / "img-0007.png").write_bytes(b"x")
        words = ["--data-dir", data_dir]
        code, out, err = as_script(data_loader.main, *words)
        assert code == 1
        assert "missing: 1 image (img-0005)" in out
        assert "unreadable: img-0007: not an image" in out
        assert "grouped by image id" in out
        assert "Traceback" not in err
        assert as_script(data_loader.main, *words, "--skip-bad-images")[0] == 0
        for file in paths.training_images(data_dir).iterdir():
            file.unlink()
        code, out, err = as_script(data_loader.main, *words, "--skip-bad-images")
        assert code == 1 and "of one class only" in err and "RuntimeWarning" not in out

    def test_12_bits_stop_checker_and_trainer_and_are_scaled_on_request(self, make_dataset, capsys):
        data_dir = make_dataset(n=96)
        for file in paths.training_images(data_dir).iterdir():
            Image.fromarray(np.asarray(Image.open(file)).astype(np.uint16) * 16).save(file)
        flags = ["--data-dir", str(data_dir)]
        with pytest.raises(UserError, match="no 16-bit image of 96 uses more than 12 bits"):
            data_loader.main(flags)
        records = load_dataset(data_dir).images
        with pytest.raises(UserError, match="--bits 12 scales them"):
            data_loader.judge_pictures([load_images(records, 16)], "images", None)
        data_loader.main([*flags, "--bits", "12"])
        assert "12 of 16" in capsys.readouterr().out
        with pytest.raises(UserError, match="--bits 11 ends at 2,047"):
            load_images(records, 16, bits=11)

    def test_missing_images_of_the_unlabelled_test_set_stop_nothing(self, make_dataset, capsys):
        data_dir = make_dataset(n=96)
        (paths.test_images(data_dir) / "test-1.png").unlink()
        data_loader.main(["--data-dir", str(data_dir)])
        out = capsys.readouterr().out
        assert "bad official test images:\nmissing: 1 image (test-1)" in out and "ready for training" in out

    def test_wrong_folder_and_wrong_flag(self, tmp_path, as_script):
        code, _, err = as_script(data_loader.main, "--data-dir", tmp_path)
        assert code == 1
        assert err.count("\n") == 1 and err.startswith("error: ")
        assert as_script(data_loader.main, "--nonsense")[0] == 2
