"""Architecture of the DCGAN: shapes and ranges at every size, where BatchNorm stands, starting weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import dcgan
import gan_layers
import gan_networks
from gan_data import save_generator
from utils import UserError, load_checkpoint


@pytest.mark.parametrize("image_size", gan_layers.IMAGE_SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_logits_have_the_promised_shapes(image_size, channels):
    G = dcgan.Generator(image_size, channels, latent_dim=6, feature_maps=2)
    D = dcgan.Discriminator(image_size, channels, feature_maps=2)
    images = G(torch.randn(2, 6))
    assert images.shape == (2, channels, image_size, image_size)
    assert images.abs().max() <= 1
    logits, features = D.logits_and_features(images)
    assert logits.shape == (2,)
    assert features[-1].shape[-1] == dcgan.root_size(image_size) == (7 if image_size in (112, 224) else 4)


def test_layers_double_towards_the_root_up_to_sixteen_fold():
    assert dcgan.layer_widths(64, 64) == [512, 256, 128, 64]
    assert dcgan.layer_widths(224, 32) == [512, 256, 128, 64, 32]
    assert dcgan.layer_widths(256, 32) == [512, 512, 256, 128, 64, 32]


def test_other_sizes_are_refused_with_the_allowed_ones():
    with pytest.raises(UserError, match=r"100 .*32, 64, 112, 128, 224, 256"):
        dcgan.Generator(100, 1, 10, 8)


def test_parameter_counts_match_the_closed_form():
    # 64 px, 8 base maps: root 4x4 x 64, then 64-32-16-8-1 with 4x4 kernels; BatchNorm has 2 per channel.
    G, D = dcgan.Generator(64, 1, 10, 8), dcgan.Discriminator(64, 1, 8)
    inner = 16 * (64 * 32 + 32 * 16 + 16 * 8 + 8)
    assert dcgan.count_parameters(G) == 16 * 10 * 64 + inner + 1 + 2 * (64 + 32 + 16 + 8)
    assert dcgan.count_parameters(D) == inner + 8 + 2 * (16 + 32 + 64) + 16 * 64 + 1


def test_discriminator_has_no_batchnorm_on_its_first_layer_and_no_sigmoid():
    D = dcgan.Discriminator(32, 1, 4)
    assert isinstance(D.norms[0], nn.Identity)
    assert all(isinstance(norm, nn.BatchNorm2d) for norm in D.norms[1:])
    nn.init.constant_(D.head.bias, 50.0)
    assert D(torch.zeros(2, 1, 32, 32)).min() > 1  # a probability could not be


def test_features_are_the_convolutions_before_batchnorm():
    torch.manual_seed(0)
    D = dcgan.Discriminator(32, 1, 4)
    x = torch.randn(3, 1, 32, 32)
    _, features = D.logits_and_features(x)
    first = functional.conv2d(x, D.convolutions[0].weight, D.convolutions[0].bias, stride=2, padding=1)
    active = functional.leaky_relu(first, 0.2)
    second = functional.conv2d(active, D.convolutions[1].weight, stride=2, padding=1)
    torch.testing.assert_close(features[0], first)
    torch.testing.assert_close(features[1], second)
    assert len(features) == 3


def test_contrast_survives_in_the_features_although_batchnorm_would_hide_it():
    torch.manual_seed(0)
    D = dcgan.Discriminator(32, 1, 4)
    nn.init.zeros_(D.convolutions[0].bias)
    faint = torch.randn(8, 1, 32, 32)
    before, after = (D.logits_and_features(images)[1][1] for images in (faint, faint * 3))
    assert (after.std() / before.std()).item() == pytest.approx(3, rel=0.01)
    assert (D.norms[1](after).std() / D.norms[1](before).std()).item() == pytest.approx(1, rel=0.01)


def test_weights_start_as_in_dcgan():
    torch.manual_seed(0)
    for network in (dcgan.Generator(64, 1, 100, 16), dcgan.Discriminator(64, 1, 16)):
        dcgan.initialise(network)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 5000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
                assert module.weight.mean().abs() < 0.002
            if isinstance(module, nn.BatchNorm2d):
                assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)
            if getattr(module, "bias", None) is not None:
                assert module.bias.abs().max() == 0


def test_generator_comes_back_from_its_checkpoint(tmp_path):
    checkpoint = load_checkpoint(save_generator(tmp_path / "g.pth"))
    generator = gan_networks.generator_from_checkpoint(checkpoint, "g.pth")
    assert not generator.training
    assert generator.architecture == {"image_size": 32, "num_channels": 3, "latent_dim": 5, "feature_maps": 4}
    for name, weights in generator.state_dict().items():
        assert torch.equal(weights, checkpoint["state_dict"][name])


def test_what_is_no_generator_is_refused_by_name(tmp_path):
    checkpoint = load_checkpoint(save_generator(tmp_path / "g.pth"))
    with pytest.raises(UserError, match=r"d\.pth is not a generator.*dcgan-discriminator-1"):
        other = {"format": gan_networks.DISCRIMINATOR_FORMAT}
        gan_networks.generator_from_checkpoint(checkpoint | other, "d.pth")
    wider = checkpoint["architecture"] | {"feature_maps": 8}
    with pytest.raises(UserError, match=r"g\.pth is damaged"):
        gan_networks.generator_from_checkpoint(checkpoint | {"architecture": wider}, "g.pth")
