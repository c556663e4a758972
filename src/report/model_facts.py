"""What the files of a study say about its models and results: one fact each, with file and key; None if they don't."""

from __future__ import annotations

from arms.registry import ARMS
from comparison.file_formats import metric_entry
from networks.backbones import BACKBONES, DEFAULT
from report.blocks import column_of, count, decimal, interval, percent, scale_of, score, with_interval
from report.data_facts import COMPARISON, test_set
from report.study import Fact, Study, by_arm
from report.verdict import headline_pairs, smallest_differences, verdict_sentence
from stats.metric_registry import METRICS, compared_metrics
from stats.paired_tests import points
from utils import public_path


# --- model -----------------------------------------------------------------------------------------
def architecture(study: Study) -> Fact:
    """Describe the network, its input and its output."""
    options = study.options("image_size", "backbone")
    size, network = options.get("image_size"), BACKBONES.get(options.get("backbone", DEFAULT))
    pixels = f"{size} x {size} pixels" if size else "a size that no file names"
    name = network.title if network else options["backbone"]
    text = f"{name} whose last layer is one logit; input: one gray X-ray, {pixels}; output: probability of a positive"
    return Fact(text, "src/classifier.py" + (f"; {study.recorded('config')[1]}" if options else ""))


def preprocessing(study: Study) -> Fact | None:
    """Say what is done to an image before the network sees it."""
    options = study.options("image_size", "match_resolution", "bits", "augment")
    if not options:
        return None
    size, bits, reduced = options.get("image_size"), options.get("bits"), options.get("match_resolution")
    text = f"gray, whole image, antialiased bilinear resize to {size} x {size}, ImageNet mean and SD"
    text += f"; first reduced to {reduced} pixels" if reduced else ""
    text += f"; {bits} of 16 bits in use" if bits else ""
    return Fact(f"{text}; augmentation while training: {options.get('augment')}; the same for every image",
                f"src/data_loader.py; {study.recorded('config')[1]}")  # fmt: skip


def initial_weights(study: Study) -> Fact | None:
    """Say what the network started from."""
    if not (options := study.options("weights", "weights_trained_on", "unfreeze")):
        return None
    start = {"imagenet": "ImageNet weights", "none": "random weights"}
    weights = str(options["weights"])
    text = start.get(weights, f"file {public_path(weights)}")
    if options.get("weights_trained_on"):
        text += f", trained on {options['weights_trained_on']}"
    text += "; all layers learn" if options.get("unfreeze") else "; only the last layer learns"
    return Fact(text, study.recorded("config")[1])


def training_options(study: Study) -> Fact | None:
    """List the options that training took."""
    names = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "augment", "unfreeze", "seed")
    options = study.options(*names)
    if not options:
        return None
    arms = study.comparison["arms"].items()
    steps = by_arm([(name, f"{row['optimizer_steps']:,} steps") for name, row in arms if row["optimizer_steps"]])
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in options.items())
    text = "; ".join(filter(None, ["AdamW, binary cross-entropy", said, steps, "all commands in report.html"]))
    return Fact(text, study.recorded("config")[1])


def selection(study: Study) -> Fact | None:
    """Say how the number of epochs was chosen."""
    epochs, source = study.recorded("epochs_final")
    if epochs is None:
        return None
    chosen = study.recorded("epochs_final_from")[0]
    return Fact(f"final models of {epochs} epochs ({chosen}); no test image chose an epoch or a setting", source)


def ensemble(study: Study) -> Fact | None:
    """Say how several training runs are put together."""
    arms = study.comparison["arms"].items()
    runs = [(name, f"mean probability over {n} training runs") for name, row in arms if (n := row["repeats"]) > 1]
    return Fact(f"{by_arm(runs)}, of different seeds", f"{COMPARISON}: arms.repeats") if runs else None


def software(study: Study) -> Fact | None:
    """List versions and the device."""
    environment, source = study.recorded("environment")
    if not environment:
        return None
    return Fact(", ".join(f"{name} {value}" for name, value in environment.items()), source)


def imbalance(study: Study) -> Fact | None:
    """Say what was done about unequal classes."""
    words = []
    for name, row in study.comparison["arms"].items():
        if weights := row["class_weights"]:
            words.append((name, f"loss weighted {weights[0]:.2f} (negatives) to {weights[1]:.2f}"))
        elif extra := row["n_extra_positive"]:
            words.append((name, f"{extra:,} synthetic or repeated positives joined training"))
    if not words:
        return None
    after = f". Afterwards: {fitted.text}" if (fitted := calibration(study)) else ""
    return Fact(by_arm(words) + after, f"{COMPARISON}: arms.class_weights, arms.n_extra_positive")


# --- results ---------------------------------------------------------------------------------------
def metrics(study: Study) -> Fact:
    """List the metrics, and where positive begins."""
    names = ", ".join(metric.title for metric in METRICS.values())
    prevalence = study.comparison["settings"]["prevalence"]
    text = f"{names}; positive from a probability of 0.5, and at thresholds chosen out of fold"
    text += f"; PPV and NPV also at a prevalence of {percent(prevalence)}" if prevalence else ""
    return Fact(text, f"{COMPARISON}: arms")


def uncertainty(study: Study) -> Fact:
    """Say how intervals and tests were computed."""
    s = study.comparison["settings"]
    return Fact(
        f"95 % intervals and p by a paired bootstrap over patients ({s['n_resamples']:,} resamples, seed {s['seed']}), "
        f"p adjusted by Holm, equivalence margin {points(s['margin'])}; beside them Wilson's, DeLong's and McNemar's, "
        "which take every image for independent",
        f"{COMPARISON}: settings",
    )


def arm_scores(study: Study, name: str) -> list[tuple[str, str]]:
    """List (metric, value with its interval by patient, where it has one) of an arm."""
    row, found = study.comparison["arms"][name], []
    for metric in METRICS.values():
        value, (scale, digits) = metric_entry(row, metric), scale_of(metric)
        text = decimal(None if value is None else scale * value, digits)
        if metric.weighted and value is not None:
            text = with_interval(value, metric_entry(row, metric, "ci95"), scale, digits)
        found.append((column_of(metric), text))
    return found


def performance(study: Study) -> Fact:
    """Give the compared metrics of every arm, with intervals by patient."""
    rows = []
    for name, row in study.comparison["arms"].items():
        said = []
        for metric in compared_metrics():
            value, (scale, digits) = metric_entry(row, metric), scale_of(metric)
            bounds = interval(metric_entry(row, metric, "ci95"), scale, digits).replace(" to ", "–")
            said.append(f"{metric.title} {score(metric, value)}" + ("" if value is None else f" ({bounds})"))
        rows.append((name, ", ".join(said)))
    return Fact(by_arm(rows), f"{COMPARISON}: arms")


def fold_scores(study: Study) -> Fact | None:
    """Give the cross-validated scores, which say how performance on training patients and test patients compare."""
    words = []
    for name, arm in study.arms.items():
        if arm.cv:
            means = ", ".join(f"{m.title} {decimal(arm.cv['mean'].get(m.name))}" for m in compared_metrics())
            doubt = "; CONTAMINATED" if arm.cv["contaminated"] else ""
            words.append(f"{name}: {arm.cv['k']} folds, mean {means}{doubt}")
    return Fact("; ".join(words), "each arm's cv_summary.json: mean") if words else None


def differences(study: Study) -> Fact | None:
    """Give the verdicts of the pairs that answer the question."""
    shown, pairs = headline_pairs(study.comparison), study.comparison["pairs"]
    if not pairs:
        return None
    more = f" All {len(pairs)} pairs are in report.html." if len(pairs) > len(shown) else ""
    return Fact(" ".join(verdict_sentence(pair) for pair in shown) + more, f"{COMPARISON}: pairs")


def confusion(study: Study) -> Fact:
    """Count the right and wrong calls at 0.5."""
    rows = []
    for name, row in study.comparison["arms"].items():
        (tn, fp), (fn, tp) = row["confusion_matrix"]
        rows.append((name, f"{fn:,} of {fn + tp:,} positives missed, {fp:,} of {tn + fp:,} negatives called positive"))
    return Fact(by_arm(rows), f"{COMPARISON}: arms.confusion_matrix; confusion.png")


def sample_size(study: Study) -> Fact | None:
    """Say which differences the test set can show."""
    found = [(pair, smallest_differences(pair)) for pair in headline_pairs(study.comparison)]
    words = [f"{pair['b']} minus {pair['a']}: {smallest}" for pair, smallest in found if smallest]
    if not words:
        return None
    return Fact(f"{test_set(study).text}; found with 80 % power: {'; '.join(words)}",
                f"{COMPARISON}: pairs.*_minimum_detectable_difference")  # fmt: skip


def subgroups(study: Study) -> Fact | None:
    """Name the subgroups that were scored."""
    found = {(row["group"], row["value"]) for arm in study.comparison["arms"].values() for row in arm["subgroups"]}
    if not found:
        return None
    groups: dict[str, list[str]] = {}
    for group, value in sorted(found):
        groups.setdefault(group, []).append(value)
    words = "; ".join(f"{group}: {', '.join(values)}" for group, values in groups.items())
    return Fact(f"scored by {words}; numbers in subgroups.png and report.html", f"{COMPARISON}: arms.subgroups")


def thresholds(study: Study) -> Fact:
    """Say which thresholds there are and what they were chosen on."""
    rows = []
    for name, row in study.comparison["arms"].items():
        found = [f"{rule} {decimal(at['threshold'])}" for rule, at in row["thresholds"]["rules"].items() if at]
        rows.append((name, f"{', '.join(found)} ({row['thresholds']['note']})"))
    return Fact(f"probability; calls at these thresholds: {by_arm(rows)}", f"{COMPARISON}: arms.thresholds")


def calibration(study: Study) -> Fact | None:
    """Give the temperature of each arm and what it was fitted on."""
    found = [(name, row["calibration"]["temperature"]) for name, row in study.comparison["arms"].items()]
    rows = [(name, f"temperature {decimal(value, 2)} from out-of-fold predictions") for name, value in found if value]
    return Fact(by_arm(rows), f"{COMPARISON}: arms.calibration") if rows else None


def references(study: Study) -> Fact:
    """Give the predictors that ignore the lungs."""
    found = study.comparison["references"]
    text = f"always negative: accuracy {percent(found['always_negative_accuracy'])}"
    for key, what in (("metadata_auroc", "view, sex and age"), ("thumbnail_auroc", "16 x 16 thumbnails")):
        text += "" if found[key] is None else f"; {what}: AUROC {decimal(found[key])}"  # type: ignore[literal-required]
    return Fact(text, f"{COMPARISON}: references")


def heat_maps(study: Study) -> Fact | None:
    """Say that heat maps were drawn."""
    if "gradcam.png" not in study.pictures:
        return None
    return Fact("Grad-CAM of right and wrong test images under each arm's model", "gradcam.png")


def limits(study: Study) -> Fact | None:
    """Give the warnings of this analysis."""
    return Fact("; ".join(study.flags), f"{COMPARISON}: flags; report.html") if study.flags else None


def recorded_commands(study: Study) -> Fact | None:
    """Point to the commands."""
    if not study.commands:
        return None
    return Fact(f"{count(len(study.commands), 'command')} that made the results, in model_card.md and report.html",
                "each arm's final_metrics.json: config")  # fmt: skip


def model_kind(study: Study) -> Fact:
    """Say what kind of model it is."""
    arms = count(len(study.comparison["arms"]), "arm")
    return Fact(f"deep learning: a convolutional network that classifies chest X-rays ({arms})", "src/classifier.py")


def arms_compared(study: Study) -> Fact:
    """List the arms and what each trains on."""
    words = [f"{name}: {ARMS[name].words}" if name in ARMS else name for name in study.comparison["arms"]]
    return Fact("; ".join(words), f"{COMPARISON}: arms")


# --- what reviewers ask for ------------------------------------------------------------------------
def net_benefit(study: Study) -> Fact | None:
    """Say that decision curves were computed."""
    if (curves := study.comparison.get("decision_curves")) is None:
        return None
    low, high = curves["thresholds"][0], curves["thresholds"][-1]
    text = f"decision curves at thresholds of {low:g} to {high:g}, with paired pointwise 95 % intervals, in report.html"
    return Fact(text, f"{COMPARISON}: decision_curves")


def interactions(study: Study) -> Fact | None:
    """Count the differences between arms within subgroups."""
    rows = study.comparison.get("subgroup_differences") or []
    n, tested = sum(len(row["differences"]) for row in rows), sum(len(row["interactions"]) for row in rows)
    if not n:
        return None
    text = f"differences between arms in {count(n, 'subgroup')} of pairs, {count(tested, 'interaction')} tested"
    return Fact(f"{text} (exploratory); in report.html", f"{COMPARISON}: subgroup_differences")


def errors(study: Study) -> Fact | None:
    """Say where the worst errors are listed."""
    rows = study.comparison.get("worst_errors") or {}
    said = [(name, f"{row['n_wrong']:,} wrong, the worst {len(row['worst'])} listed") for name, row in rows.items()]
    words = by_arm(said)
    return Fact(words, f"{COMPARISON}: worst_errors; report.html") if words else None


def robustness(study: Study) -> Fact | None:
    """Say how the models were perturbed."""
    if not (found := study.comparison.get("robustness")):
        return None
    names = ", ".join(row["name"] for row in found["perturbations"])
    text = f"{count(found['n_images'], 'test image')} of {count(found['n_patients'], 'patient')} under {names}"
    return Fact(f"{text}; changes with intervals in report.html", f"{COMPARISON}: robustness")
