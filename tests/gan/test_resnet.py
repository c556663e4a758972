"""The residual networks: shapes and ranges at every size, scales at the start, what they are made of."""

import pytest
import torch
from torch import nn

from gan import networks as gan_networks
from gan import resnet as gan_resnet
from gan_data import generator_content
from networks import gan_layers
from utils import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("image_size", gan_layers.IMAGE_SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_logits_have_the_promised_shapes(image_size, channels):
    G = gan_resnet.Generator(image_size, channels, latent_dim=6, feature_maps=2)
    D = gan_resnet.Discriminator(image_size, channels, feature_maps=2)
    images = G(torch.randn(2, 6))
    assert images.shape == (2, channels, image_size, image_size)
    assert images.abs().max() <= 1
    logits, features = D.logits_and_features(images)
    assert logits.shape == (2,)
    assert features[0].shape == (2, 2, image_size // 2, image_size // 2)
    assert features[-1].shape[-1] == gan_layers.root_size(image_size)


def test_widths_double_towards_the_root_up_to_twelve_fold():
    assert gan_resnet.stage_widths(64, 32) == [256, 128, 64, 32]
    assert gan_resnet.stage_widths(256, 32) == [384, 384, 256, 128, 64, 32]


def test_scales_stay_from_end_to_end_at_the_start():
    torch.manual_seed(0)
    G, D = gan_resnet.Generator(64, 1, 64, 32), gan_resnet.Discriminator(64, 1, 32)
    shown = []
    G.to_image.register_forward_hook(lambda module, inputs, output: shown.append(output.std().item()))
    images = G(torch.randn(64, 64))
    assert 0.3 < shown[0] < 1.5
    logits, features = D.logits_and_features(images)
    assert all(0.2 < maps.std() < 2 for maps in features)
    assert 0.05 < logits.std() < 5


def test_blocks_start_as_the_identity_and_nothing_normalises():
    torch.manual_seed(0)
    block, x = gan_resnet.ResidualBlock(8, depth=4), torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), x)
    network = gan_resnet.Discriminator(32, 1, 16)
    assert not any("Norm" in type(module).__name__ for module in network.modules())
    inner = network.blocks[-1].spatial.weight
    expected = (2 / 1.04 / inner[0].numel()) ** 0.5 * len(network.blocks) ** -0.25
    assert inner.std().item() == pytest.approx(expected, rel=0.05)


def test_all_pixels_are_made_alike():
    """Of a root without structure inner pixels are all the same, whatever has been learned."""
    torch.manual_seed(0)
    G = gan_resnet.Generator(64, 3, 8, 8)
    for block in G.blocks:
        nn.init.normal_(block.expand.weight, 0.0, 0.5)
    nn.init.ones_(G.basis)
    for block in G.blocks:  # zeros beyond the border would be structure
        block.spatial.padding_mode = "replicate"
        block.spatial._reversed_padding_repeated_twice = [1, 1, 1, 1]
    images = G(torch.randn(4, 8))
    assert images.std(dim=(2, 3)).max() < 1e-5
    assert images.std(dim=0).max() > 1e-2


def test_root_is_a_learned_map_scaled_by_a_linear_function_of_the_latent():
    torch.manual_seed(0)
    G = gan_resnet.Generator(32, 1, 8, 4)
    seen = []
    G.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    z = torch.randn(3, 8)
    G(z)
    torch.testing.assert_close(seen[0], (z @ G.linear.weight.T)[:, :, None, None] * G.basis)


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    torch.manual_seed(0)
    G = gan_resnet.Generator(32, 1, 8, 4, noise_injection=True, n_classes=3)
    for module in G.modules():
        if isinstance(module, gan_layers.NoiseInjection):
            nn.init.ones_(module.strength)
    assert G.noise_sides == [4, 8, 16, 32]
    z, label = torch.randn(5, G.input_dim), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(G(z, label)[2:3], G(z[2:3], label[2:3]))
    assert (G(z, label) - G(z, label.flip(0))).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{}, {"noise_injection": True, "n_classes": 3}])
def test_generator_comes_back_from_its_checkpoint(tmp_path, options):
    torch.manual_seed(0)
    G = gan_resnet.Generator(112, 1, 8, 2, **options).eval()
    save_checkpoint(tmp_path / "g.pth", generator_content(G))
    again = gan_networks.generator_from_checkpoint(load_checkpoint(tmp_path / "g.pth"), "g.pth")
    assert isinstance(again, gan_resnet.Generator)
    assert not again.training
    assert again.architecture == G.architecture
    z, label = torch.randn(2, G.input_dim), torch.tensor([0, 2]) if options else None
    torch.testing.assert_close(again(z, label), G(z, label), rtol=0, atol=0)
