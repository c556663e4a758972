"""FID's network: its weights, its blocks and its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from networks import inception
from utils import UserError, WeightsUnavailableError


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty weight cache and no network, whatever the machine has."""
    import urllib.error

    def no_network(*_args, **_kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_missing_inception_weights_are_one_clear_error(torch_home):
    with pytest.raises(WeightsUnavailableError, match=r"pt_inception-2015-12-05-6726825d\.pth.*, or use --flag"):
        inception.load_inception("use --flag")
    assert not list(torch_home.iterdir())


def test_inception_weights_load_from_the_cache_and_give_features(torch_home):
    torch.manual_seed(0)
    state = inception.build_network().state_dict()
    file = torch_home / inception.WEIGHTS_URL.rsplit("/", 1)[1]
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, file)
    network = inception.load_inception("")
    assert not network.training
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    features = inception.inception_cache(network, None, device=torch.device("cpu")).compute(images, [""] * 3)
    assert features.shape == (3, inception.FEATURES) and np.isfinite(features).all()
    first = "Conv2d_1a_3x3.conv.weight"
    assert torch.equal(network.state_dict()[first], state[first])
    assert not np.allclose(features[0], features[1], rtol=1e-3, atol=0.0)

    torch.save({**state, "fc.bias": torch.zeros(1000)}, file)  # torchvision's ImageNet network, say
    with pytest.raises(UserError, match=r"fc.bias does not fit\); delete it, or use --flag"):
        inception.load_inception("use --flag")


def test_inception_blocks_pool_as_fid_wants():
    """Where the port differs from torchvision: padding left out of means, a maximum in the last block."""
    network = inception.build_network()
    x = torch.rand(1, 192, 6, 6)
    # A mean that counts padding shrinks at the border; one that leaves it out keeps a constant constant.
    assert torch.allclose(network.Mixed_5b.pool(torch.ones_like(x)), torch.ones_like(x))
    assert torch.equal(network.Mixed_7c.pool(x), F.max_pool2d(x, 3, 1, 1))
    block = network.Mixed_5b.eval()
    expected = block.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    assert torch.allclose(block(x)[:, -32:], expected, atol=1e-6)
    assert torch.allclose(block(x)[:, :64], block.branch1x1(x), atol=1e-6)


def test_inception_input_range_and_size():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1).expand(2, 64, 64)
    x = inception.to_inception_range(pixels)
    assert x.shape == (2, 3, 299, 299)
    assert x[0].unique().tolist() == [-1.0] and torch.allclose(x[1], torch.ones_like(x[1]))
