"""Options of train_gan.py that cannot work together, each with the reason and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from dataset.options import fold_problem
from gan.settings import PERCEPTUAL_NETWORKS, POSITIVE, GANOptions, LossWeights, Settings
from networks.backbones import LITE0
from utils import UserError


def check_settings(settings: Settings, changed: Collection[str]) -> None:
    """Raise ``UserError`` for the first rule that is broken.

    ``changed``: options that were given with a value other than their usual one. One that is given as it is
    anyway does no harm: a report tells commands in full.
    """
    if problem := fold_problem(settings.images.fold, settings.images.k_folds):
        raise UserError(problem)
    check_gan_options(settings.gan)
    problems = chain(
        _idle_options(settings.losses, settings.gan, changed), _contradictions(settings), _idle_metrics(settings)
    )
    if problem := next(problems, None):
        raise UserError(problem)


def check_gan_options(options: GANOptions) -> None:
    """Raise ``UserError`` if networks, loss and penalties cannot work together."""
    if problem := next(_misfits(options), None):
        raise UserError(problem)


def _misfits(options: GANOptions) -> Iterator[str]:
    if options.arch == "resnet" and options.d_norm != "none":
        yield (
            f"--d-norm {options.d_norm} is not for --arch resnet, whose networks have no normalisation: "
            "leave --d-norm out, or use --arch dcgan"
        )
    if options.arch == "resnet" and options.upsample != "resize":
        yield (
            f"--upsample {options.upsample} is not for --arch resnet, which interpolates: leave --upsample "
            "out, or use --arch dcgan"
        )
    if options.penalised and options.d_norm == "batch":
        yield (
            f"{_penalty_flag(options)} penalises D's gradient at each image, and BatchNorm in D makes the "
            "output for an image depend on the others of its batch: add --d-norm none or --d-norm spectral"
        )
    if options.adversarial_loss == "wgan-gp" and (options.r1 > 0 or options.r2 > 0):
        yield (
            "--adversarial-loss wgan-gp has a gradient penalty of its own, which wants a norm of 1 where "
            "--r1 and --r2 want 0: leave them out, or use another loss"
        )
    if options.adversarial_loss != "bce" and options.label_smoothing > 0:
        yield (
            "--label-smoothing is about the target of bce, and --adversarial-loss "
            f"{options.adversarial_loss} has no targets: leave it out"
        )


def _penalty_flag(options: GANOptions) -> str:
    if options.adversarial_loss == "wgan-gp":
        return "--adversarial-loss wgan-gp"
    return "--r1" if options.r1 > 0 else "--r2"


def _idle_options(losses: LossWeights, options: GANOptions, changed: Collection[str]) -> Iterator[str]:
    if "lambda_perceptual" in changed and losses.lambda_perceptual > 0 and losses.perceptual == "off":
        yield (
            f"--lambda-perceptual {losses.lambda_perceptual:g} weighs the perceptual loss, which is off: add "
            "--perceptual auto, or leave it out"
        )
    if losses.perceptual_network != PERCEPTUAL_NETWORKS[0] and not losses.want_perceptual:
        missing = "--perceptual on" if losses.perceptual == "off" else "a --lambda-perceptual above 0"
        yield (
            f"--perceptual-network {losses.perceptual_network} is for the perceptual loss, which is off: add "
            f"{missing}, or leave it out"
        )
    if losses.perceptual == "on" and not losses.want_perceptual:
        yield "--perceptual on needs a weight, and --lambda-perceptual is 0: leave one of them out"
    if not (losses.lambda_adv or losses.lambda_fm or losses.want_perceptual):
        yield (
            "G has nothing to learn from: --lambda-adv and --lambda-fm are 0 and the perceptual loss is off: "
            "leave --lambda-adv out"
        )
    if "reg_every" in changed and not options.penalised:
        yield (
            f"--reg-every {options.reg_every} is about a gradient penalty, and there is none: add --r1 1 "
            "--d-norm none, or leave it out"
        )


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.gan.conditional and settings.images.classes == POSITIVE:
        yield "--conditional learns from the images of all classes: leave --classes positive out"
    if settings.compile and settings.gan.penalised:
        yield (
            "--compile cannot be combined with a gradient penalty (--r1, --r2, wgan-gp), whose second "
            "derivative torch.compile lacks: leave --compile out"
        )
    preview = settings.values["preview_augmentations"]
    if preview and not settings.gan.diffaug:
        yield "--preview-augmentations shows what --diffaug does: add --diffaug"
    if preview and settings.watching.no_real_images:
        yield "--preview-augmentations shows real images, and --no-real-images leaves them out"


def _idle_metrics(settings: Settings) -> Iterator[str]:
    watching, features = settings.watching, settings.images.metrics_features
    if watching.metrics_interval == 0:
        if watching.stop_on_collapse:
            yield "--stop-on-collapse needs metrics: leave --metrics-interval 0 out"
        given = {"--metrics-features": features, "--metrics-holdout": settings.images.metrics_holdout}
        for flag, value in given.items():
            if value:
                yield f"{flag} is for metrics, and --metrics-interval 0 takes none: leave one of them out"
    if features == LITE0 and settings.losses.perceptual_network == LITE0:
        yield (
            f"--metrics-features {LITE0} are the features that --perceptual-network {LITE0} trains on, so they cannot "
            "judge it: leave one of them out"
        )
    if features not in (None, LITE0) and not Path(features).is_file():
        yield (
            f"--metrics-features {features} is not there: give the file of a classifier that "
            f"python src/train_classifier.py wrote, or {LITE0}, or leave it out"
        )


def list_doubts(options: GANOptions) -> list[str]:
    """List what can be trained but often fails, a line each."""
    if options.adversarial_loss == "rpgan" and not (options.r1 > 0 and options.r2 > 0):
        return ["--adversarial-loss rpgan without both --r1 and --r2 often diverges (R3GAN, section 2)"]
    if options.r2 > 0 and options.r1 == 0:
        return ["--r2 without --r1 leaves D free to be steep at real images: --r1 is the usual choice"]
    return []
