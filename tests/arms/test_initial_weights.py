"""What initial weights have seen: whose word is taken, what is refused, what is flagged."""

import pytest

from arms import initial_weights
from arms.initial_weights import InitialWeights, check_weights
from classifier import CHECKPOINT_FORMAT
from utils import UserError


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of weights, whose content the tests set; nothing is built."""
    path = tmp_path / "w.pth"
    path.write_bytes(b"anything")
    content: dict = {}
    monkeypatch.setattr(initial_weights, "read_weight_file", lambda _: content)
    monkeypatch.setattr(initial_weights, "load_backbone", lambda *_: "")
    monkeypatch.setattr(initial_weights, "PneumoniaClassifier", lambda *_: None)
    return str(path), content


@pytest.mark.parametrize(
    ("name", "saw_images", "flag"),
    [("ImageNet", False, None), ("imagenet-1k", False, None),
     ("CheXpert", False, "--weights w.pth was trained on CheXpert, says its user: nobody can check here"),
     ("ImageNet, then VinDr-CXR", False, "w.pth was trained on ImageNet, then VinDr-CXR, says its user: nobody"),
     ("our hospital", True, "our hospital, says its user: that is not in the table of known data sets"),
     ("ImageNet and our hospital", True, "not in the table of known data sets, so it may hold the test patients")],
)  # fmt: skip
def test_names_without_our_images_are_taken_and_flagged_unless_they_are_photographs(file, name, saw_images, flag):
    known = check_weights(file[0], name, False, True)
    assert known.saw_images is saw_images and known.split_sha256 is None and known.sha256
    assert known.for_split("any") is known
    assert (flag is None and not known.red_flags) or (len(known.red_flags) == 1 and flag in known.red_flags[0])


@pytest.mark.parametrize("name", ["NIH", "ImageNet, then ChestX-ray14", "NODE21", "torchxrayvision", None])
def test_what_may_hold_the_test_patients_is_refused_or_flagged(file, name):
    with pytest.raises(UserError, match="--weights-trained-on.*or use --allow-unverified-weights"):
        check_weights(file[0], name, False, True)
    known = check_weights(file[0], name, True, True)
    assert known.saw_images and "may have seen the test patients" in known.red_flags[0]


def test_torchvisions_own_file_needs_no_word_and_bears_no_other(file, monkeypatch):
    monkeypatch.setattr(initial_weights, "sha256_file", lambda _: "0676ba61" + "0" * 56)
    assert check_weights(file[0], None, False, True).red_flags == ()
    with pytest.raises(UserError, match="'NIH': .*w.pth says itself that it is torchvision's ImageNet file w.pth"):
        check_weights(file[0], "NIH", True, True)


def test_checkpoints_of_this_program_say_it_themselves(file):
    path, content = file
    content |= {"format": CHECKPOINT_FORMAT, "split_sha256": "s" * 64, "config": {}}
    known = check_weights(path, None, False, True)
    assert known.saw_images and known.split_sha256 == "s" * 64
    assert known.for_split("s" * 64).red_flags == ("--weights w.pth had learned from these training images before",)
    with pytest.raises(UserError, match="was trained on another split"):
        known.for_split("t" * 64)
    allowed = check_weights(path, None, True, True).for_split("t" * 64)
    assert "may have seen the test patients" in allowed.red_flags[0] and allowed.saw_images
    for name in ("NIH", "ImageNet"):
        with pytest.raises(UserError, match="says itself that it is a checkpoint of this program; leave it out"):
            check_weights(path, name, True, True)


def test_flags_of_weights_pass_on_to_what_is_trained_from_them(file):
    path, content = file
    content |= {"format": CHECKPOINT_FORMAT, "split_sha256": "s", "config": {}, "weights_flags": ["from CheXpert"]}
    assert check_weights(path, None, False, True).for_split("s").red_flags[1] == "from CheXpert"
    content |= {"config": {"allow_unverified_weights": True}, "weights_flags": ["from NIH"]}
    with pytest.raises(UserError, match="w.pth is of unverified origin: from NIH; use others, or use --allow"):
        check_weights(path, None, False, True)
    assert "from NIH" in check_weights(path, None, True, True).for_split("s").red_flags
    content |= {"config": {"allow_unverified_synthetic": True}, "weights_flags": []}
    with pytest.raises(UserError, match="learned from synthetic images of unverified origin"):
        check_weights(path, None, False, True)
    assert "synthetic images" in check_weights(path, None, True, True).for_split("s").red_flags[1]


def test_imagenet_and_none_bear_no_flag(monkeypatch):
    monkeypatch.setattr(initial_weights, "build_classifier", lambda *_: None)
    for name in ("imagenet", "none"):
        assert check_weights(name, None, False, True) == InitialWeights(name)
