"""The content of comparison.json, made up but consistent in shape: for tests of what shows it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

NONE, SAME = "no evidence of a difference", "equivalent within 1 point"
SUBGROUPS = (
    ("view", "AP"), ("view", "PA"), ("sex", "F"), ("sex", "M"), ("age", "under 40"), ("age", "40 to 59"),
    ("age", "60 and over"), ("class", "Lung Opacity"), ("class", "Normal"),
    ("class", "No Lung Opacity / Not Normal"),
)  # fmt: skip


def fake_comparison(
    names: Sequence[str] = ("baseline", "augmented"), verdicts: Sequence[str] = (NONE, SAME), **overrides: Any
) -> dict[str, Any]:
    """``verdicts``: of accuracy and of AUROC, for every pair; ``overrides`` replace top-level keys."""
    rng = np.random.default_rng(0)
    arms = {name: _arm(name, rng) for name in names}
    return {
        "format": "comparison-1",
        "settings": {
            "margin": 0.01, "n_resamples": 2000, "seed": 42, "confidence": 0.95, "alpha": 0.05,
            "prevalence": None,
        },
        "test_set": {
            "n_images": 301, "n_patients": 258, "n_positive": 75, "prevalence": 75 / 301,
            "grouped_by": "nih_patient", "split_sha256": "5" * 64,
        },
        "goal": {
            "accuracy": 0.85,
            "arms": {
                name: {"met": arm["accuracy"] >= 0.85, "difference": arm["accuracy"] - 0.85}
                for name, arm in arms.items()
            },
        },
        "arms": arms,
        "pairs": [_pair(a, b, arms, verdicts, rng) for a, b in combinations(names, 2)],
        "not_compared": [],
        "left_out": [],
        "references": {
            "always_negative_accuracy": 226 / 301, "metadata_auroc": 0.712, "thumbnail_auroc": 0.794
        },
        "flags": [],
        **overrides,
    }  # fmt: skip


def _around(value: float, half: float) -> list[float]:
    return [value - half, value + half]


def _arm(name: str, rng: np.random.Generator) -> dict[str, Any]:
    tp, fn, fp = int(rng.integers(32, 50)), 0, int(rng.integers(20, 40))
    fn, tn = 75 - tp, 226 - fp
    accuracy, auroc = (tp + tn) / 301, float(0.79 + rng.normal(0, 0.012))
    synthetic = 450 if name in ("augmented", "curriculum", "pretrain") else 0
    duplicated = 450 if name == "control_duplicate" else 0
    rates = {
        "sensitivity": tp / 75, "specificity": tn / 226, "ppv": tp / (tp + fp), "npv": tn / (tn + fn)
    }  # fmt: skip
    return {
        "prefix": f"{name}_", "n_images": 301, "n_patients": 258, "n_positive": 75, "repeats": 1,
        "seeds": [42], "per_repeat": [{"repeat": 1, "seed": 42, "accuracy": accuracy, "auroc": auroc}],
        "n_train_images": 899, "n_train_patients": 771, "n_synthetic": synthetic,
        "n_duplicated": duplicated, "n_extra_positive": synthetic + duplicated,
        "class_weights": None, "optimizer_steps": 406,
        "contaminated": None if synthetic else False,
        "command": f"python src/train_classifier.py --data-dir rsna_1500 --prefix {name}_",
        "accuracy": accuracy, "accuracy_ci95_image_level": _around(accuracy, 0.047),
        "accuracy_ci95": _around(accuracy, 0.05), "auroc": auroc,
        "auroc_ci95_image_level": _around(auroc, 0.058), "auroc_ci95": _around(auroc, 0.06), "auprc": 0.59,
        "weighted_precision": 0.76, "weighted_recall": accuracy, "weighted_f1": 0.766, **rates,
        "at_prevalence": None, "brier": 0.15, "ece": 0.04, "confusion_matrix": [[tn, fp], [fn, tp]],
        "thresholds": {
            "source": "baseline", "note": f"chosen on the out-of-fold predictions of {'baseline'}",
            "rules": {
                rule: {
                    "threshold": threshold, "accuracy": accuracy,
                    "accuracy_ci95_image_level": _around(accuracy, 0.047),
                    "sensitivity_ci95_image_level": _around(rates["sensitivity"], 0.11),
                    "specificity_ci95_image_level": _around(rates["specificity"], 0.04), **rates,
                }
                for rule, threshold in (("fixed", 0.5), ("youden", 0.27), ("sensitivity_90", 0.14))
            },
        },
        "calibration": {
            "source": "baseline", "note": "fitted on the out-of-fold predictions of baseline",
            "temperature": 1.31, "before": {"brier": 0.15, "ece": 0.04, "log_loss": 0.46},
            "after": {"brier": 0.148, "ece": 0.031, "log_loss": 0.45},
            "bins_before": _bins(rng, 1.0), "bins_after": _bins(rng, 0.8),
        },
        "subgroups": [_subgroup(group, value, rng) for group, value in SUBGROUPS],
    }  # fmt: skip


def _bins(rng: np.random.Generator, stretch: float) -> list[dict[str, Any]]:
    middle = 0.5 + stretch * (np.arange(0.05, 1, 0.1) - 0.5)
    share = (middle + rng.normal(0, 0.05, 10)).clip(0, 1)
    counts = rng.multinomial(301, np.linspace(4, 1, 10) / 25)
    return [
        {"mean_probability": float(p), "share_positive": float(s), "n": int(n)}
        for p, s, n in zip(middle, share, counts, strict=True)
    ]


def _subgroup(group: str, value: str, rng: np.random.Generator) -> dict[str, Any]:
    positives_only, mixed = value == "Lung Opacity", group != "class"
    n = int(rng.integers(60, 170))
    score = {key: float(rng.uniform(0.6, 0.9)) for key in ("accuracy", "auroc", "sensitivity", "specificity")}
    wanted = {
        "accuracy": True, "auroc": mixed, "sensitivity": mixed or positives_only,
        "specificity": mixed or not positives_only,
    }  # fmt: skip
    row: dict[str, Any] = {
        "group": group, "value": value, "n_images": n, "n_patients": n - 9,
        "n_positive": (n if positives_only else 0) if not mixed else n // 4,
    }  # fmt: skip
    for key, applies in wanted.items():
        row[key] = score[key] if applies else None
        row[f"{key}_ci95_image_level"] = _around(score[key], 0.09) if applies else None
    return row


def _pair(a: str, b: str, arms: dict[str, Any], verdicts: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    accuracy = arms[b]["accuracy"] - arms[a]["accuracy"]
    auroc = arms[b]["auroc"] - arms[a]["auroc"]
    return {
        "a": a, "b": b, "n_images": 301, "n_patients": 258,
        "accuracy_difference": accuracy, "accuracy_ci95": _around(accuracy, 0.04), "accuracy_p": 0.41,
        "accuracy_p_holm": 0.82, "accuracy_verdict": verdicts[0], "accuracy_role": "exploratory",
        "auroc_difference": auroc, "auroc_ci95": _around(auroc, 0.03), "auroc_p": 0.5,
        "auroc_p_holm": 0.9, "auroc_verdict": verdicts[1], "auroc_role": "exploratory",
        "mcnemar_p": 0.47, "mcnemar_b": int(rng.integers(10, 30)), "mcnemar_c": int(rng.integers(10, 30)),
        "delong_p": 0.52, "image_level": ["mcnemar_p", "delong_p"],
        "nadeau_bengio": None, "nadeau_bengio_why_not": f"{b} has no folds",
        "accuracy_minimum_detectable_difference": 0.061, "auroc_minimum_detectable_difference": 0.042,
        "seed_variance_included": False,
    }  # fmt: skip
