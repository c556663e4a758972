"""The step of the GAN: the default against a plain re-implementation, every option, penalties, resuming."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from gan import augmentation as gan_augment
from gan import generation, networks
from gan import losses as gan_losses
from gan import step as gan_step
from gan.losses import Objective
from gan.meters import LossMeter
from gan.networks import GAN, build_gan
from gan.settings import GANOptions
from gan.step import TERMS, step_noise, train_step
from utils import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
PLAIN = GANOptions(d_norm="none", label_smoothing=0.0, beta2=0.99)
RESIDUAL = replace(
    PLAIN, arch="resnet", upsample="resize", adversarial_loss="rpgan", r1=1.0, r2=0.5, reg_every=1
)  # fmt: skip
OPTIONS = {
    "default": GANOptions(),
    "spectral and hinge": GANOptions(d_norm="spectral", adversarial_loss="hinge", label_smoothing=0.0),
    "lazy r1": replace(PLAIN, r1=1.0, reg_every=2),
    "r2 through spectral norm": replace(PLAIN, d_norm="spectral", r2=1.0, reg_every=1),
    "wgan-gp": replace(PLAIN, adversarial_loss="wgan-gp", reg_every=1),
    "resize, noise, groups": replace(PLAIN, upsample="resize", noise_injection=True, mbstd=True),
    "augmented": GANOptions(diffaug=True, lr_d=4e-4, ema_kimg=0.5),
    "conditional": replace(PLAIN, conditional=True, d_norm="spectral", r1=1.0),
    "residual": RESIDUAL,
    "residual with all": replace(RESIDUAL, noise_injection=True, mbstd=True, diffaug=True, conditional=True),
}


def build(options: GANOptions, seed: int = 0, lr: float = 1e-3) -> GAN:
    return build_gan(32, 1, 6, (4, 4), lr, 0.5, seed, CPU, options)


def objective(feature_matching: float = 1.0) -> Objective:
    return Objective(1.0, 0.0, feature_matching, None, 1)


def train(gan: GAN, steps: int, precision: str = "fp32", n: int = 4) -> list[dict[str, float]]:
    """``steps`` steps on images and noise that follow from the number of the step."""
    lines = []
    for _ in range(steps):
        real = torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(gan.step)) * 2 - 1
        z = step_noise(0, gan.step, n, gan.G.input_dim)
        labels = torch.arange(n) % 3 if gan.options.conditional else None
        terms = train_step(gan, real, z, objective(), precision, labels)
        lines.append(dict(zip(TERMS, terms.tolist(), strict=True)))
    return lines


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- the default -----------------------------------------------------------------------------------
def plain_networks() -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """G, D's convolutions and its head as DCGAN's authors describe them, 32 px."""
    G = nn.Sequential(
        nn.ConvTranspose2d(6, 16, 4, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    D = nn.ModuleList([
        nn.Conv2d(1, 4, 4, 2, 1), nn.Conv2d(4, 8, 4, 2, 1, bias=False), nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8), nn.BatchNorm2d(16), nn.Conv2d(16, 1, 4),
    ])  # fmt: skip
    return G, D


def look(D: nn.ModuleList, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    first = D[0](x)
    second = D[1](functional.leaky_relu(first, 0.2))
    third = D[2](functional.leaky_relu(D[3](second), 0.2))
    return D[5](functional.leaky_relu(D[4](third), 0.2)).flatten(), [first, second, third]


def plain_step(G, D, adam_g, adam_d, real, z) -> None:
    """The step of the trainer before it had options."""
    fake, bce = G(z[:, :, None, None]), functional.binary_cross_entropy_with_logits
    (on_real, features), (on_fake, _) = look(D, real), look(D, fake.detach())
    adam_d.zero_grad()
    (bce(on_real, torch.full((4,), 0.9)) + bce(on_fake, torch.zeros(4))).backward()
    adam_d.step()
    wanted = [gan_losses.batch_moments(maps.detach()) for maps in features]
    for weight in D.parameters():
        weight.requires_grad_(False)
    logits, features = look(D, fake)
    matching = []
    for (real_mean, real_sd), maps in zip(wanted, features, strict=True):
        mean, sd = gan_losses.batch_moments(maps)
        difference = (mean - real_mean).square().mean() + (sd - real_sd).square().mean()
        scale = (real_mean.square() + real_sd.square()).mean().clamp_min(1e-12)
        matching.append(difference / scale)
    adam_g.zero_grad()
    (bce(logits, torch.ones(4)) + torch.stack(matching).mean()).backward()
    adam_g.step()
    for weight in D.parameters():
        weight.requires_grad_(True)


def test_default_steps_leave_the_very_weights_that_the_trainer_without_options_left():
    gan = build(GANOptions())
    G, D = plain_networks()
    G.load_state_dict(dict(zip(G.state_dict(), gan.G.state_dict().values(), strict=True)))
    names = ["convolutions.0", "convolutions.1", "convolutions.2", "norms.1", "norms.2", "head"]
    for module, name in zip(D, names, strict=True):
        module.load_state_dict(gan.D.get_submodule(name).state_dict())
    G, D = (network.to(memory_format=torch.channels_last) for network in (G, D))
    average = copy.deepcopy(G)
    adams = [torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999), fused=True) for net in (G, D)]
    for step in range(3):
        real = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1
        plain_step(G, D, *adams, real, step_noise(0, step, 4, 6))
        decay = 0.5 ** (1 / min(10_000 / 32, 0.05 * (step + 1)))
        with torch.no_grad():
            for kept, weight in zip(average.parameters(), G.parameters(), strict=True):
                kept.lerp_(weight, 1 - decay)
    train(gan, 3)
    for ours, plain in zip(gan.G.parameters(), G.parameters(), strict=True):
        assert torch.equal(ours, plain)
    for ours, plain in zip(gan.G_ema.parameters(), average.parameters(), strict=True):
        assert torch.equal(ours, plain)
    for module, name in zip(D, names, strict=True):
        for ours, plain in zip(gan.D.get_submodule(name).parameters(), module.parameters(), strict=True):
            assert torch.equal(ours, plain)


# --- every option ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_changes_all_weights_and_all_terms_are_finite(name):
    gan = build(OPTIONS[name])
    before = [copy.deepcopy(network) for network in (gan.G, gan.D)]
    lines = train(gan, 3)
    for network, old in zip((gan.G, gan.D), before, strict=True):
        for (where, weight), start in zip(network.named_parameters(), old.parameters(), strict=True):
            if not where.endswith("bias"):  # some losses do not change with an offset of all logits
                assert not torch.equal(weight, start), where
    assert gan.is_finite()
    for line in lines:
        assert all(torch.tensor(value).isfinite() for value in line.values())
        assert line["d_grad_norm"] > 0
        assert line["g_grad_norm"] > 0


@pytest.mark.parametrize("name", OPTIONS)
def test_a_restored_gan_goes_on_as_if_it_had_never_stopped(name, tmp_path):
    through = build(OPTIONS[name])
    train(through, 2)
    save_checkpoint(tmp_path / "state.pth", through.state_dict())
    restored = build(OPTIONS[name])
    restored.load_state_dict(load_checkpoint(tmp_path / "state.pth"))
    assert train(restored, 2) == train(through, 2)
    assert all(same(getattr(restored, net), getattr(through, net)) for net in ("G", "D", "G_ema"))


@pytest.mark.parametrize("name", ["spectral and hinge", "wgan-gp", "residual with all"])
def test_bfloat16_steps_stay_near_those_of_float32(name):
    wide, narrow = (train(build(OPTIONS[name]), 1, precision)[0] for precision in ("fp32", "bf16"))
    for term in ("r1", "r2", "gradient_penalty", "d_loss_fake", "d_grad_norm", "g_grad_norm"):
        assert narrow[term] == pytest.approx(wide[term], rel=0.1, abs=0.02), term


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_are_not_rounded_to_bfloat16(name):
    """Two to three digits would make small differences of images none, and hide them from the losses."""
    gan = build(OPTIONS[name])
    labels = torch.arange(8) % 3 if gan.options.conditional else None
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = gan.D.logits_and_features(images, labels)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    assert any(maps.dtype == torch.bfloat16 for maps in features)  # all the rest of D is in bfloat16


@pytest.mark.parametrize("name", OPTIONS)
def test_images_for_use_are_those_of_the_average(name):
    gan = build(OPTIONS[name])
    train(gan, 2)
    label = 1 if gan.options.conditional else None
    make = generation.ImageMaker(gan.G_ema, 7, CPU, label)
    z = gan_step.image_noise(7, generation.NOISE_STREAM, 3, 2, gan.G.input_dim)
    classes = [] if label is None else [torch.tensor([1, 1])]
    expected = (gan.G_ema.double()(z.double(), *classes)[:, 0] + 1) * 127.5
    for images in (make([3, 4]), make([9, 4, 3])[[2, 1]]):
        assert abs(torch.tensor(images).double() - expected).max() <= 0.501


# --- optimizers and average ------------------------------------------------------------------------
def test_optimizers_have_the_rates_and_decays_asked_for():
    gan = build(GANOptions(beta2=0.99, lr_d=4e-4))
    assert [group["lr"] for adam in (gan.optimizer_G, gan.optimizer_D) for group in adam.param_groups] == [
        1e-3,
        4e-4,
    ]
    assert gan.optimizer_G.param_groups[0]["betas"] == gan.optimizer_D.param_groups[0]["betas"] == (0.5, 0.99)
    assert build(GANOptions()).optimizer_D.param_groups[0]["betas"] == (0.5, 0.999)


def test_half_life_of_the_average_is_in_images():
    assert networks.ema_half_life(None, 8) == 312.5
    assert networks.ema_half_life(2.0, 32) == 62.5
    decay = networks.ema_decay(10_000, networks.ema_half_life(2.0, 32))
    assert decay**62.5 == pytest.approx(0.5)
    assert networks.ema_decay(100, 62.5) ** 5 == pytest.approx(0.5)  # 5 % of what has been seen


# --- penalties -------------------------------------------------------------------------------------
def test_lazy_penalties_come_every_so_many_steps_with_that_weight(monkeypatch):
    """With reg_every the penalty's part of D's gradient is so many times the one of every step."""

    def gradient(options):
        gan = build(options, lr=1e-9)
        with monkeypatch.context() as patch:
            patch.setattr(gan.optimizer_D, "step", lambda: None)
            line = train(gan, 1)[0]
        return torch.cat([weight.grad.flatten() for weight in gan.D.parameters()]), line

    none, _ = gradient(PLAIN)
    once, line = gradient(replace(PLAIN, r1=2.0, reg_every=1))
    lazy, _ = gradient(replace(PLAIN, r1=2.0, reg_every=16))
    torch.testing.assert_close(lazy - none, 16 * (once - none), rtol=1e-3, atol=1e-5)
    assert (once - none).norm() > 0.01 * none.norm()

    gan = build(PLAIN)  # gamma / 2 * R1, taken by hand
    real = (torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    total = sum(torch.autograd.grad(gan.D(real)[i], real)[0][i].square().sum() for i in range(4)) / 4
    assert line["r1"] == pytest.approx(total.item(), rel=1e-4)
    penalty = gan_losses.zero_gradient_penalty(real, gan.D(real))
    by_hand = torch.autograd.grad(penalty, list(gan.D.parameters()), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(once - none, torch.cat([g.flatten() for g in by_hand]), rtol=1e-3, atol=1e-5)


def test_penalties_are_taken_on_their_steps_only_and_averaged_over_those():
    gan, meter = build(OPTIONS["lazy r1"]), LossMeter(objective(), CPU)
    values = []
    for step, line in enumerate(train(gan, 4)):
        meter.add(torch.tensor(list(line.values())), step)
        values.append(line["r1"])
    assert [value > 0 for value in values] == [True, False, True, False]
    means = meter.means()
    assert means["r1"] == pytest.approx((values[0] + values[2]) / 2)
    assert means["r2"] is means["gradient_penalty"] is None
    assert means["d_loss"] == pytest.approx(means["d_loss_real"] + means["d_loss_fake"])


def test_norms_are_those_of_all_gradients():
    gan = build(GANOptions())
    line = train(gan, 1)[0]
    for network, name in ((gan.G, "g_grad_norm"), (gan.D, "d_grad_norm")):
        gradients = [weight.grad.flatten() for weight in network.parameters()]
        assert line[name] == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-5)


def test_fakes_are_paired_with_reals_as_d_is_after_its_update():
    gan = build(RESIDUAL)
    real = torch.rand(4, 1, 32, 32) * 2 - 1
    fake = gan.G(torch.randn(4, 6))
    d_before = copy.deepcopy(gan.D)
    gan_step.discriminator_step(gan, real, fake.detach(), "fp32")
    assert not same(d_before, gan.D)
    expected = functional.softplus(gan.D(real) - gan.D(fake)).mean().item()
    terms = gan_step.generator_step(gan, fake, real, [], objective(0.0), "fp32")
    assert terms[0].item() == pytest.approx(expected, rel=1e-5)


# --- augmentation ----------------------------------------------------------------------------------
def test_everything_that_d_sees_is_augmented_with_numbers_of_the_step(monkeypatch):
    gan, seen = build(replace(RESIDUAL, diffaug=True)), []
    original = gan_augment.augment

    def record(images, numbers):
        seen.append(numbers)
        return original(images, numbers)

    monkeypatch.setattr(gan_augment, "augment", record)
    train(gan, 2)
    streams = ("D, reals", "D, fakes", "G, fakes", "G, reals")
    expected = [gan_augment.draw_numbers(0, step, stream, 4) for step in range(2) for stream in streams]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


# --- several processes -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["lazy r1", "wgan-gp", "residual with all"])
def test_two_processes_take_the_step_of_one_with_the_whole_batch(name, monkeypatch):
    """Two processes in turn in this one: each computes its gradients, then the means are exchanged.

    A D without BatchNorm and groups that differ by process leave nothing that would have to differ, except
    feature matching, which is off here.
    """
    options = replace(OPTIONS[name], mbstd=False)
    if options.arch == "dcgan":
        options = replace(options, arch="resnet", upsample="resize")  # a G without BatchNorm
    one, several = build(options), [build(options) for _ in range(2)]
    real, z = torch.rand(8, 1, 32, 32) * 2 - 1, step_noise(0, 0, 8, one.G.input_dim)
    labels = torch.arange(8) % 3 if options.conditional else None
    train_step(one, real, z, objective(0.0), "fp32", labels)

    both, turns = threading.Barrier(2), threading.local()
    gradients: dict[int, list[torch.Tensor]] = {}

    def exchange(network, *others):
        mine = [weight.grad for weight in network.parameters()]
        gradients[turns.rank] = mine
        both.wait()
        means = [sum(parts) / 2 for parts in zip(gradients[0], gradients[1], strict=True)]
        both.wait()
        for gradient, mean in zip(mine, means, strict=True):
            gradient.copy_(mean)

    def process(rank):
        turns.rank = rank
        share = slice(rank, None, 2)
        own_labels = None if labels is None else labels[share]
        train_step(several[rank], real[share], z[share], objective(0.0), "fp32", own_labels)

    monkeypatch.setattr(gan_step, "average_training", exchange)
    monkeypatch.setattr(gan_step, "process_count", lambda: 2)
    monkeypatch.setattr(gan_step, "my_share", lambda: slice(turns.rank, None, 2))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(process, range(2)))
    for network in ("G", "D"):
        pairs = [getattr(gan, network).parameters() for gan in (one, *several)]
        for whole, first, second in zip(*pairs, strict=True):
            assert torch.equal(first, second)
            torch.testing.assert_close(first, whole, rtol=1e-3, atol=2e-5)
