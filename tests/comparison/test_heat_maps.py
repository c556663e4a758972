"""Heat maps of planted classifiers, the choice of images, and the figure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from arms.result_files import Arm
from classifier import CHECKPOINT_FORMAT, PneumoniaClassifier, gradcam_maps
from comparison import heat_maps
from report import image_figures, image_steps
from report.steps import Outcome
from utils import UserError, save_checkpoint

SIZE = 64
CPU = torch.device("cpu")


class BrightnessBlock(nn.Module):
    """In the place of layer4: mean brightness of 8 x 8 pixels in channel 0, its negative in channel 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        gray = nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 8)  # [N, 1, S / 8, S / 8]
        return torch.cat([gray, -gray], dim=1).relu()


class Brightness(nn.Module):
    """A classifier of the same parts whose logit rises with brightness above the mean."""

    name = "resnet50"

    def __init__(self, sign: float = 1.0, frozen: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layer4 = BrightnessBlock()
        self.head = nn.Linear(2, 1, bias=False)
        self.head.weight.data = torch.tensor([[sign, 0.0]])
        self.requires_grad_(not frozen)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone.layer4(images).mean(dim=(2, 3))).squeeze(1)


def squares() -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Dark images uint8 [4, 64, 64] with one bright square each, and where it is."""
    places = [(0, 0), (0, 40), (40, 16), (24, 24)]
    images = np.full((4, SIZE, SIZE), 20, dtype=np.uint8)
    windows = [(slice(y, y + 16), slice(x, x + 16)) for y, x in places]
    for image, window in zip(images, windows, strict=True):
        image[window] = 250
    return images, windows


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_bright_square_that_drives_the_logit_gets_the_heat(frozen, precision):
    images, windows = squares()
    maps = gradcam_maps(Brightness(frozen=frozen), images, precision=precision, batch_size=3)
    assert maps.shape == images.shape and maps.dtype == np.float32
    for heat, window in zip(maps, windows, strict=True):
        assert heat.min() >= 0 and heat.max() == pytest.approx(1.0)
        inside = heat[window].sum() / heat.sum()
        assert inside > 0.75  # the rest is the smooth edge; the square is 6 % of the image
        assert heat[window].mean() > 10 * np.delete(heat.ravel(), _flat(window)).mean()


def _flat(window: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[window] = True
    return np.flatnonzero(mask)


def test_what_lowers_the_score_gets_no_heat():
    images, _ = squares()
    assert (gradcam_maps(Brightness(sign=-1.0), images) == 0).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_our_classifier_is_explained_whole_and_left_as_it_was(frozen):
    torch.manual_seed(0)
    model = PneumoniaClassifier(frozen).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE), dtype=np.uint8)
    maps = gradcam_maps(model, images, device=CPU)
    assert maps.shape == (2, SIZE, SIZE) and np.isfinite(maps).all()
    assert maps.min() >= 0 and maps.max() <= 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad != frozen for p in model.backbone.parameters())


def test_maps_are_grad_cam_by_its_equations():
    """Selvaraju et al., equations 1 and 2, with hooks of our own: the coarse map before it is enlarged."""
    torch.manual_seed(1)
    model = PneumoniaClassifier(frozen=False).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 96, 96), dtype=np.uint8)
    from data_loader import to_classifier_range

    kept = {}
    model.backbone.layer4.register_forward_hook(lambda _m, _i, output: kept.update(a=output))
    logit = model(to_classifier_range(torch.from_numpy(pixels)))
    (gradient,) = torch.autograd.grad(logit.sum(), kept["a"])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    coarse = (weights * kept["a"]).sum(dim=1, keepdim=True).relu()  # [1, 1, 3, 3]
    expected = nn.functional.interpolate(coarse, (96, 96), mode="bilinear")[0, 0].detach().numpy()
    assert expected.max() > 0
    assert gradcam_maps(model, pixels)[0] == pytest.approx(expected / expected.max(), abs=1e-5)


# --- which images ----------------------------------------------------------------------------------
def predictions(n: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    probability = np.clip(rng.normal(0.35 + 0.3 * labels, 0.25), 0.001, 0.999)
    ids = [f"img-{i:03d}" for i in range(n)]
    return pd.DataFrame({"image_id": ids, "label": labels, "probability": probability, "view": "AP"})


def test_right_and_wrong_images_are_chosen_by_the_stated_rule():
    table = predictions()
    chosen = heat_maps.choose_images(table, n_each=3, seed=5)
    assert list(chosen["outcome"]) == [word for word in heat_maps.OUTCOMES.values() for _ in range(3)]
    for (label, call), outcome in heat_maps.OUTCOMES.items():
        rows = chosen[chosen["outcome"] == outcome]
        assert (rows["label"] == label).all() and ((rows["probability"] >= 0.5) == bool(call)).all()
        group = table[(table["label"] == label) & ((table["probability"] >= 0.5) == bool(call))]
        drawn = group.sample(min(heat_maps.POOL, len(group)), random_state=5)
        best = drawn["probability"].nlargest(3) if call else drawn["probability"].nsmallest(3)
        assert list(rows["probability"]) == list(best)
    shuffled = table.sample(frac=1, random_state=1)
    assert heat_maps.choose_images(shuffled, n_each=3, seed=5).equals(chosen)
    assert not heat_maps.choose_images(table, n_each=3, seed=6).equals(chosen)


def test_outcomes_that_do_not_occur_are_left_out():
    table = predictions(30).assign(probability=0.9)
    chosen = heat_maps.choose_images(table)
    assert set(chosen["outcome"]) == {"true positive", "false positive"}
    assert heat_maps.row_titles(chosen, "augmented")[0] == "True positive\nof augmented\n(label: pneumonia)"


# --- arms and figure -------------------------------------------------------------------------------
@pytest.fixture
def two_arms(tmp_path: Path) -> tuple[dict[str, Path], pd.DataFrame]:
    files = {}
    for seed, (arm, size) in enumerate({"baseline": 64, "augmented": 96}.items()):
        torch.manual_seed(seed)
        files[arm] = tmp_path / f"{arm}.pth"
        state = PneumoniaClassifier(True, "resnet18").state_dict()
        content = {"format": CHECKPOINT_FORMAT, "backbone": "resnet18", "state_dict": state, "frozen": True,
                   "image_size": size}  # fmt: skip
        save_checkpoint(files[arm], content)
    paths = []
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (80, 80), dtype=np.uint8)
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return files, pd.DataFrame({"image_id": ["c", "a", "b"], "path": paths})


def test_every_arm_explains_the_same_images_at_its_own_size(two_arms):
    files, records = two_arms
    shown = heat_maps.explain_arms(files, records, device=CPU, workers=1)
    assert shown.xrays.shape == (3, 96, 96)
    assert {arm: heat.shape for arm, heat in shown.heats.items()} == {
        "baseline": (3, 64, 64), "augmented": (3, 96, 96)
    }  # fmt: skip
    assert all(p.shape == (3,) and (p > 0).all() and (p < 1).all() for p in shown.probabilities.values())
    with pytest.raises(UserError, match="is missing"):
        heat_maps.explain_arms({"gone": files["baseline"].with_name("no.pth")}, records, device=CPU)


def test_images_of_an_official_test_set_are_found(tmp_path, monkeypatch):
    tested = predictions(60).assign(path="x.png")
    data = SimpleNamespace(
        dataset=SimpleNamespace(images=tested.assign(image_id="training" + tested["image_id"])),
        official=SimpleNamespace(images=tested),
    )
    options = SimpleNamespace(no_real_images=False, model_dir=tmp_path, seed=42, cpu=True, workers=1, bits=None)
    arm = Arm("baseline", "baseline_", metrics={"test_set": "official", "config": {}}, predictions=tested)
    (tmp_path / "baseline_resnet50.pth").touch()
    shown, outcome = [], Outcome(tmp_path)

    def explain(files, records, **_):
        shown.extend(records["image_id"])
        raise UserError("that is enough")

    monkeypatch.setattr(heat_maps, "explain_arms", explain)
    image_steps.draw_heat_maps(options, {"baseline": arm}, data, outcome)
    assert len(shown) == 8 and outcome.missing == [("gradcam.png: that is enough", "")]


def test_figure_shows_each_image_under_each_arm_with_its_probability():
    rng = np.random.default_rng(0)
    xrays = rng.integers(0, 256, (2, 32, 32), dtype=np.uint8)
    heats = {arm: rng.random((2, 32, 32)).astype(np.float32) for arm in ("baseline", "augmented")}
    heats["augmented"][1] = 0
    chances = {"baseline": np.array([0.91, 0.08]), "augmented": np.array([0.77, 0.42])}
    figure = image_figures.gradcam(xrays, heats, chances, ["True positive", "False negative"], "8 of 301",
                                  heat_maps.CAPTION)  # fmt: skip
    words = " ".join(text.get_text() for text in figure.findobj(match=lambda x: hasattr(x, "get_text")))
    for word in ("X-ray", "baseline", "augmented", "True positive", "p = 0.91", "p = 0.42", "8 of 301"):
        assert word in words, word
    assert "does not show why, nor whether the score is right" in " ".join(words.split())
    *tiles, key = figure.axes
    assert [len(ax.images) for ax in tiles] == [1, 2, 2] * 2 and key.get_title("left").startswith("heat")
    assert (tiles[1].images[0].get_array() == xrays[0]).all()
    assert tiles[5].images[1].get_alpha().max() == 0  # no heat, no colour
    assert tiles[1].images[1].get_alpha().max() <= image_figures.HEAT_OPACITY < 1
