"""Early warnings about a GAN's training: rules over its recorded statistics, each with the flag that helps.

Pure functions of the lines of ``gan_stats.jsonl`` so far: what a line says about ``steps`` steps, and on the
lines that end an evaluated epoch its ``metrics``. A resumed run, which has the lines, warns exactly as one
that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Literal

from gan.file_formats import Evaluation, SetScores, SpaceMetrics, StatsLine
from gan.settings import NEEDED_KID, NEEDED_KIMG, GANOptions

SATURATED_STEPS = 100
SURE_REAL, SURE_FAKE = 0.95, 0.02  # mean sigmoid(D(x)) as a share of its target, mean sigmoid(D(G(z)))
SURE_HINGE = 0.05  # D's loss, which is 2 where D tells nothing apart and 0 where all margins are met
GAP = 0.5  # of D's distance between training and generated images that may lie between training and unseen
ERRORS = 3.0  # standard errors that this difference must have, as D often tells nothing apart
SURE_SIGN = 0.8  # mean sign of D(training images); ADA's measure of over-fitting, which it holds at 0.6
LOW_DIVERSITY, LOW_RECALL, LOW_PRECISION = 0.5, 0.05, 0.05
WARM_UP = 10_000  # images seen before which all generators look collapsed
IN_A_ROW = 2  # evaluations
COPY_RATIO = 0.5
EXPLOSION, USUAL_LINES = 100.0, 50  # times the running median of so many lines; at least a fifth of them
PATIENCE = 5  # evaluations without a better KID
# KID in HOG. After 64,000 images the presets have 0.00 to 0.07 on real positives, where 11,200 leave 0.20
# (docs/gan.md). Its standard deviation between two samples of n real images was 1.0 / n for n from 4 to 112.
HOG = "HOG"
FAR, FALL, NOISE = 0.1, 0.04, 2.0  # above its floor; in the second half of the training; in units of 1 / n
LARGEST: tuple[tuple[str, Literal["g_grad_norm_max", "d_grad_norm_max"]], ...] = (
    ("G", "g_grad_norm_max"), ("D", "d_grad_norm_max"),
)  # fmt: skip
QUIET_STEPS = 2000  # that a warning must have been gone for, to be given again

# Mean sigmoid(D(G(z))) below which G fools D no more, for losses whose D has a meaningful zero; others know
# differences only. Hinge asks D for no less than -1, whose sigmoid is 0.27.
LOST = {"bce": 0.05, "hinge": 0.25}


def active_warnings(lines: Sequence[StatsLine], options: GANOptions, primary: str, precision: str) -> dict[str, str]:
    """Return the rules that hold at the last of ``lines`` (name -> what it says).

    ``primary``: the space of features in which generators are chosen; ``precision``: fp32 or bf16.
    """
    found = {
        "d_saturated": d_saturated(lines, options),
        "over_fit": over_fit(lines, options),
        "collapse": collapse(lines, options, primary),
        "copying": copying(lines, options),
        "exploding": exploding(lines, options, precision),
        "no_progress": no_progress(lines, primary),
    }
    return {name: message for name, message in found.items() if message is not None}


def new_warnings(lines: Sequence[StatsLine], number: int | None = None) -> dict[str, str]:
    """Return those "warnings" of the last line, or of line ``number`` (from 1), that are new.

    No line of the ``QUIET_STEPS`` before may have it: a warning that comes and goes is given once.
    """
    last = len(lines) if number is None else number
    line = lines[last - 1]
    fresh = dict(line["warnings"])
    for earlier in reversed(range(last - 1)):
        if not fresh or line["step"] - lines[earlier]["step"] > QUIET_STEPS:
            break
        for name in lines[earlier]["warnings"]:
            fresh.pop(name, None)
    return fresh


# --- what helps ------------------------------------------------------------------------------------
def advise_r1(options: GANOptions) -> list[str]:
    """Advise R1, or more of it, as far as the other ``options`` allow it."""
    if options.adversarial_loss == "wgan-gp":  # which has a penalty of its own
        return []
    if options.r1 > 0:
        return ["a larger --r1"]
    return ["--r1 1 --d-norm none" if options.d_norm == "batch" else "--r1 1"]


def advise_diffaug(options: GANOptions) -> list[str]:
    """Advise --diffaug, unless it is on."""
    return [] if options.diffaug else ["--diffaug"]


def advise_preset(options: GANOptions) -> list[str]:
    """Advise presets that fail less often than the one in use."""
    return ["--preset cpu or best"] if options.preset == "default" else []


def join_remedies(*remedies: str) -> str:
    """Join: "a", "a or b", "a, b or c"."""
    return " or ".join(part for part in (", ".join(remedies[:-1]), remedies[-1]) if part)


# --- rules -----------------------------------------------------------------------------------------
def d_saturated(lines: Sequence[StatsLine], options: GANOptions) -> str | None:
    """Warn if D tells all images apart for ``SATURATED_STEPS`` steps: hardly any gradient is left for G."""
    spectral = ["--d-norm spectral"] if options.arch == "dcgan" and options.d_norm == "batch" else []
    remedies = [*advise_r1(options), *spectral, *advise_diffaug(options), "a lower --lr-d"]
    steps = 0
    for line in reversed(lines):
        if not _saturated(line, options):
            return None
        steps += line["steps"]
        if steps >= SATURATED_STEPS:
            return (
                f"D has won (D(x) {lines[-1]['d_real']:.2f}, D(G(z)) {lines[-1]['d_fake']:.3f} for {steps:,} "
                f"steps), G hardly learns: try {join_remedies(*remedies)}"
            )
    return None


def _saturated(line: StatsLine, options: GANOptions) -> bool:
    """Return whether D has nothing left to learn, which its outputs show.

    Cross-entropy wants 1 - label_smoothing for reals, hinge no more than its margins. A critic (wgan-gp) has
    no such limit.
    """
    if options.adversarial_loss == "wgan-gp":
        return False
    if options.adversarial_loss == "hinge":
        return line["d_loss"] < SURE_HINGE
    target = 1 - options.label_smoothing
    return line["d_real"] > SURE_REAL * target and line["d_fake"] < SURE_FAKE


def over_fit(lines: Sequence[StatsLine], options: GANOptions) -> str | None:
    """Warn if D knows the training images by heart.

    It then tells them from unseen real ones, if there are some; without them, it is sure of nearly every
    training image and of nearly every generated one.
    """
    looks = (metrics["discriminator"] for metrics in _evaluations(lines) if "discriminator" in metrics)
    recent = list(islice(looks, IN_A_ROW))
    if len(recent) < IN_A_ROW:
        return None
    remedies = [*advise_diffaug(options), *advise_r1(options)] or ["more images"]
    remedy = f"try {join_remedies(*remedies)}, and use generator_best rather than the last"
    if "holdout" in recent[0]:
        gaps = [(d["training"] - d["holdout"], d["training"] - d["generated"]) for d in recent]
        clear = all(d["training"] - d["holdout"] > ERRORS * d["holdout_error"] for d in recent)
        if clear and all(whole > 0 and gap > GAP * whole for gap, whole in gaps):
            share = gaps[0][0] / gaps[0][1]
            return f"D memorises: held-out X-rays are {share:.0%} of the way to generated ones; {remedy}"
        return None
    sure = all(d["training_sign"] > SURE_SIGN and d["generated"] < 0 < d["training"] for d in recent)
    lost = lines[-1]["d_fake"] < LOST.get(options.adversarial_loss, 0.0)
    if sure and lost:
        return (
            f"D may memorise: it is right about {(1 + recent[0]['training_sign']) / 2:.0%} of the training "
            f"images (--metrics-holdout 0.1 would tell for sure); {remedy}"
        )
    return None


def collapse(lines: Sequence[StatsLine], options: GANOptions, primary: str) -> str | None:
    """Warn if generated images are alike, or show little or nothing of what the reals show, as noise does.

    The first ``WARM_UP`` images do not count.
    """
    recent = list(islice(_in_space(lines, primary, after=WARM_UP), IN_A_ROW))
    if len(recent) < IN_A_ROW:
        return None
    if all(_collapsed(metrics) for metrics in recent):
        scores = {"precision": recent[0]["precision"], "recall": recent[0]["recall"]}
        shown = "".join(f", {name} {value:.2f}" for name, value in scores.items() if value is not None)
        remedies = [*advise_preset(options), *advise_r1(options), *advise_diffaug(options), "another --seed"]
        return (
            f"mode collapse, or no images yet: diversity {recent[0]['diversity']:.2f} of the reals'{shown}; "
            f"try {join_remedies(*remedies)}"
        )
    return None


def _collapsed(metrics: SpaceMetrics) -> bool:
    limits = (
        (metrics["diversity"], LOW_DIVERSITY), (metrics["recall"], LOW_RECALL),
        (metrics["precision"], LOW_PRECISION),
    )  # fmt: skip
    return any(value is not None and value < limit for value, limit in limits)


def copying(lines: Sequence[StatsLine], options: GANOptions) -> str | None:
    """Warn if generated images are nearer to training images than two patients' images are to one another."""
    for metrics in _evaluations(lines):
        if (ratio := metrics["copying"]["ratio"]) >= COPY_RATIO:
            return None
        remedies = [*advise_diffaug(options), "fewer --epochs", "more images"]
        return (
            f"G may copy training images, a matter of privacy: half of its images differ from one by less "
            f"than {ratio:.2f} of what X-rays of two patients do; try {join_remedies(*remedies)}"
        )
    return None


def exploding(lines: Sequence[StatsLine], options: GANOptions, precision: str) -> str | None:
    """Warn if a gradient was ``EXPLOSION`` times as large, in one step, as its largest usually is.

    A gradient that is not a number ends the run before there is a line.
    """
    for network, key in LARGEST:
        values = [line[key] for line in lines[-USUAL_LINES - 1 :]]
        usual = [value for value in values[:-1] if value > 0]  # 0: a hinge whose margins are met everywhere
        if len(usual) >= USUAL_LINES // 5 and values[-1] > EXPLOSION * median(usual):
            exact = ["--precision fp32"] if precision != "fp32" else []
            remedies = ["a lower --lr", *advise_r1(options), *exact]
            size = f"{values[-1] / median(usual):,.0f} x its usual size"
            return f"{network}'s gradient explodes ({size}): try {join_remedies(*remedies)}"
    return None


def no_progress(lines: Sequence[StatsLine], primary: str) -> str | None:
    """Warn if KID has not been better than before in ``PATIENCE`` evaluations."""
    kids = [metrics["kid"] for metrics in _in_space(lines, primary)][::-1]
    if len(kids) <= PATIENCE:
        return None
    best = min(range(len(kids)), key=kids.__getitem__)
    if (since := len(kids) - 1 - best) >= PATIENCE:
        return (
            f"KID has not improved in {since} evaluations (best {kids[best]:.4f}, now {kids[-1]:.4f}): use "
            "generator_best, stop, or try a lower --lr"
        )
    return None


# --- at the end of a run ---------------------------------------------------------------------------
def too_short(lines: Sequence[StatsLine], floors: Mapping[str, SetScores]) -> str | None:
    """Warn at the end of a run that the generator has hardly begun.

    KID in HOG never came near its floor, or fell clearly in the second half of the images shown. The limits
    give way to the noise of few images. What has collapsed is not blamed on a short training.
    """
    seen = _kids_in_hog(lines)
    if not seen or HOG not in floors:
        return None
    images, n, kid = seen[-1]
    noise, floor = NOISE / n, max(0.0, floors[HOG]["kid"])
    earlier = [item for item in seen if item[0] <= 0.75 * images]
    half_way = min(earlier, key=lambda item: abs(item[0] - images / 2), default=seen[-1])
    falls = half_way[2] - kid > max(FALL, noise) and kid - floor > noise
    far = min(item[2] for item in seen) - floor > FAR + noise and "collapse" not in lines[-1]["warnings"]
    if not (falls or far):
        return None
    how = [f"still falling ({half_way[2]:.2f} after {half_way[0]:,} images)"] if falls else []
    how += [f"far above the {floor:.2f} of real images"] if far else []
    longer = max(NEEDED_KIMG, 2 * images / 1000)
    return (
        f"too short: after {images:,} images shown, KID in HOG is {kid:.2f}, {' and '.join(how)}; the presets took "
        f"{NEEDED_KIMG:g},000 images to {NEEDED_KID} on real positives: go on with --resume --kimg {longer:.0f}"
    )


def length_not_judged(lines: Sequence[StatsLine]) -> str | None:
    """Say why ``too_short`` could not judge the training; None if it could."""
    seen = _kids_in_hog(lines)
    if not seen:
        return "nothing tells whether training was long enough: no image was evaluated"
    if NOISE / seen[-1][1] > FAR:
        n = seen[-1][1]
        return f"{n} images on either side are too few to tell by KID whether training was long enough: look at them"
    return None


def _kids_in_hog(lines: Sequence[StatsLine]) -> list[tuple[int, int, float]]:
    """List (images shown, images compared, KID) of the evaluations in HOG, oldest first."""
    return [
        (line["images_seen"], metrics["n"], metrics["spaces"][HOG]["kid"])
        for line in lines
        if (metrics := line["metrics"]) is not None and HOG in metrics["spaces"]
    ]


# --- lines that bear metrics, newest first ---------------------------------------------------------
def _evaluations(lines: Sequence[StatsLine]) -> Iterator[Evaluation]:
    for line in reversed(lines):
        if line["metrics"] is not None:
            yield line["metrics"]


def _in_space(lines: Sequence[StatsLine], space: str, after: int = 0) -> Iterator[SpaceMetrics]:
    """Yield the metrics in ``space`` of lines that more than ``after`` images led to."""
    for line in reversed(lines):
        metrics = line["metrics"]
        if line["images_seen"] > after and metrics is not None and space in metrics["spaces"]:
            yield metrics["spaces"][space]
