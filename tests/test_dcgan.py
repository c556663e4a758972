"""Architecture of the DCGAN: shapes and ranges at every size, where BatchNorm stands, starting weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import dcgan
from gan import networks as gan_networks
from gan.file_formats import DISCRIMINATOR_FORMAT
from gan_data import save_generator
from networks import gan_layers
from utils import UserError, load_checkpoint, save_checkpoint


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
    assert generator.architecture == checkpoint["architecture"] == {
        "arch": "dcgan", "image_size": 32, "num_channels": 3, "latent_dim": 5, "feature_maps": 4,
        "upsample": "deconv", "noise_injection": False, "n_classes": 0,
    }  # fmt: skip
    for name, weights in generator.state_dict().items():
        assert torch.equal(weights, checkpoint["state_dict"][name])


def test_what_is_no_generator_is_refused_by_name(tmp_path):
    checkpoint = load_checkpoint(save_generator(tmp_path / "g.pth"))
    with pytest.raises(UserError, match=r"d\.pth is not a generator.*dcgan-discriminator-1"):
        other = {"format": DISCRIMINATOR_FORMAT}
        gan_networks.generator_from_checkpoint(checkpoint | other, "d.pth")
    wider = checkpoint["architecture"] | {"feature_maps": 8}
    without = {key: value for key, value in checkpoint.items() if key != "train_patients"}
    with pytest.raises(UserError, match=r"g\.pth is damaged: train_patients is missing"):
        gan_networks.generator_from_checkpoint(without, "g.pth")
    with pytest.raises(UserError, match=r"g\.pth is damaged: its weights do not fit"):
        gan_networks.generator_from_checkpoint(checkpoint | {"architecture": wider}, "g.pth")


# --- options ---------------------------------------------------------------------------------------
def test_without_normalisation_activations_keep_their_scale():
    torch.manual_seed(0)
    D = dcgan.Discriminator(64, 1, 32, d_norm="none")
    dcgan.initialise(D)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in D.modules())
    x = torch.randn(8, 1, 64, 64)
    _, features = D.logits_and_features(x)
    for before in features:  # LeakyReLU then leaves (1 + 0.2^2) / 2 of the mean square
        assert before.square().mean().item() == pytest.approx(2 / 1.04, rel=0.35)
    assert D.convolutions[1].bias is not None


def test_spectral_norm_gives_every_layer_a_largest_singular_value_of_1_and_comes_back(tmp_path):
    torch.manual_seed(0)
    D = dcgan.Discriminator(32, 1, 8, d_norm="spectral", n_classes=3)
    dcgan.initialise(D)
    for layer in (*D.convolutions, D.head, D.projection.embedding):
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert largest.item() == pytest.approx(1, abs=0.05)
    x, label = torch.randn(3, 1, 32, 32), torch.tensor([0, 1, 2])
    save_checkpoint(tmp_path / "d.pth", {"state": D.state_dict()})
    arguments = {name: value for name, value in D.architecture.items() if name != "arch"}
    other = dcgan.Discriminator(**arguments)
    other.load_state_dict(load_checkpoint(tmp_path / "d.pth")["state"])
    torch.testing.assert_close(other.eval()(x, label), D.eval()(x, label), rtol=0, atol=0)


def test_resizing_generator_treats_all_pixels_alike():
    torch.manual_seed(0)
    G = dcgan.Generator(64, 1, 6, 4, upsample="resize").eval()
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in list(G.layers)[1:])
    # Of a constant map the inner pixels of a doubling are all the same; transposed kernels make a pattern.
    up, convolution = G.layers[3], G.layers[4]
    inner = convolution(up(torch.ones(1, convolution.in_channels, 8, 8)))[..., 1:-1, 1:-1]
    assert inner.std(dim=(2, 3)).max() < 1e-6
    pattern = dcgan.Generator(64, 1, 6, 4).layers[3](torch.ones(1, convolution.in_channels, 8, 8))
    assert pattern[..., 1:-1, 1:-1].std(dim=(2, 3)).max() > 1e-3


def test_noise_is_part_of_the_input_and_reaches_the_image_once_its_strength_is_learned():
    torch.manual_seed(0)
    G = dcgan.Generator(32, 1, 5, 4, noise_injection=True).eval()
    assert G.noise_sides == [4, 8, 16]
    assert G.input_dim == 5 + 16 + 64 + 256
    z = torch.randn(2, G.input_dim)
    other = torch.cat([z[:, :5], torch.randn(2, G.input_dim - 5)], dim=1)
    torch.testing.assert_close(G(z), G(other))  # strengths start at 0
    for module in G.modules():
        if isinstance(module, gan_layers.NoiseInjection):
            nn.init.ones_(module.strength)
    assert (G(z) - G(other)).abs().max() > 0.01
    torch.testing.assert_close(G(z)[:1], G(z[:1]))


def test_deviation_of_groups_in_closed_form():
    # Two groups, of images 0, 2, 4, 6 and of 1, 3, 5, 7: the values 0, 1, 2, 3, and all alike.
    x = torch.zeros(8, 3, 2, 2)
    x[::2] = torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None, None]
    out = gan_layers.MinibatchDeviation()(x)
    assert out.shape == (8, 4, 2, 2)
    torch.testing.assert_close(out[:, :3], x)
    torch.testing.assert_close(out[::2, 3], torch.full((4, 2, 2), 1.25**0.5))
    assert out[1::2, 3].max() < 1e-3
    assert [gan_layers.group_size(n) for n in (1, 2, 5, 6, 8, 9)] == [1, 2, 5, 3, 4, 3]


def test_a_class_changes_the_image_and_what_d_says():
    torch.manual_seed(0)
    G, D = dcgan.Generator(32, 1, 5, 4, n_classes=3), dcgan.Discriminator(32, 1, 4, n_classes=3)
    z, classes = torch.randn(1, 5).expand(3, 5), torch.tensor([0, 1, 2])
    images = G.eval()(z, classes)
    assert (images[0] - images[1]).abs().max() > 1e-4
    D.eval()
    same = images[:1].expand(3, -1, -1, -1)
    logits, features = D.logits_and_features(same, classes)
    last = functional.leaky_relu(D.norms[-1](features[-1]), 0.2)
    inner = (last.mean(dim=(2, 3)) * D.projection.embedding.weight).sum(dim=1)
    torch.testing.assert_close(logits, D.head(last).flatten() + inner)
    with pytest.raises(ValueError, match="--conditional"):
        G(z)


def test_spectral_norms_are_found_once_per_pass_and_in_float32(monkeypatch):
    torch.manual_seed(0)
    D = dcgan.Discriminator(32, 1, 4, d_norm="spectral")
    kinds, module = [], type(D.head.parametrizations.weight[0])
    original = module.forward

    def record(self, weight):
        kinds.append(torch.is_autocast_enabled("cpu"))
        return original(self, weight)

    monkeypatch.setattr(module, "forward", record)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = D(torch.randn(2, 1, 32, 32))
        assert torch.is_autocast_enabled("cpu")
    assert kinds == [False] * 4  # three convolutions and the head
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(weight.grad is not None for weight in D.parameters())
