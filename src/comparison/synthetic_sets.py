"""Do arms rest on the same synthetic images, as many of them, and were those the ones that were looked at?

An arm rests on a folder of synthetic images if it trains on them or, as a control, stands for as many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from arms.registry import ARMS, AUGMENTED
from arms.result_files import Arm

MAIN = "0"  # of metrics["manifest_sha256"]: the folder of the final model; the others are of single folds


def synthetic_flags(arms: Sequence[Arm]) -> list[str]:
    """Where arms rest on unlike synthetic images. Arms that a user named may do so on purpose: for them the
    difference is stated, for ours it is an error of whoever trained them."""
    users = [arm for arm in arms if arm.metrics and _manifests(arm)]
    if not users:
        return []
    reference = next((arm for arm in users if arm.name == AUGMENTED), users[0])
    unlike = {arm.name: folds[0] for arm in users if (folds := _unlike_folds(arm, reference))}
    flags = []
    if ours := [arm for arm in users if arm.name in unlike and arm.name in ARMS]:
        shown = "; ".join(_shown(arm, reference, unlike[arm.name]) for arm in ours)
        flags.append(f"the arms were trained with, or made to match, DIFFERENT SYNTHETIC IMAGES: {shown}")
    flags += [
        f"{arm.name} was trained with, or made to match, other synthetic images than {reference.name}: "
        f"{_shown(arm, reference, unlike[arm.name])}"
        for arm in users
        if arm.name in unlike and arm.name not in ARMS
    ]
    return flags + _numbers(users)


def _manifests(arm: Arm) -> dict[str, str | None]:
    """Fold -> sha256 of a manifest, None for a folder without one; none for arms without a folder."""
    return (arm.metrics or {}).get("manifest_sha256") or {}


def _unlike_folds(arm: Arm, reference: Arm) -> list[str]:
    """The folds of both, the main folder first, whose manifests differ."""
    own, other = _manifests(arm), _manifests(reference)
    return sorted((fold for fold in own.keys() & other.keys() if own[fold] != other[fold]), key=int)


def _shown(arm: Arm, reference: Arm, fold: str) -> str:
    return f"{_words(arm, fold)}, {_words(reference, fold)}"


def _words(arm: Arm, fold: str) -> str:
    """ "augmented manifest 38bca24d4ab0 of generator 83e24fb11735", or that of a fold."""
    manifest = _manifest_words(_manifests(arm)[fold])
    return f"{arm.name} {manifest}" + (_generator(arm) if fold == MAIN else f" in fold {fold}")


def _manifest_words(sha256: str | None) -> str:
    return f"manifest {sha256[:12]}" if sha256 else "no manifest"


def _generator(arm: Arm) -> str:
    sha256 = (arm.metrics.get("synthetic") or {}).get("generator_sha256")
    return f" of generator {sha256[:12]}" if sha256 else ""


def _numbers(users: Sequence[Arm]) -> list[str]:
    """A flag if the arms added, or stood for, unlike numbers of images."""
    numbers = {arm.name: n for arm in users if (n := _n_extra(arm.metrics)) is not None}
    if len(set(numbers.values())) < 2:
        return []
    known = [arm for arm in users if arm.name in numbers]
    shown = ", ".join(f"{arm.name} {numbers[arm.name]:,}{_ratio(arm.metrics)}" for arm in known)
    ours = {numbers[arm.name] for arm in known if arm.name in ARMS}
    if len(ours) > 1:
        return [f"the arms added, or stood for, DIFFERENT NUMBERS of synthetic images: {shown}"]
    return [f"synthetic images added, or stood for: {shown}"]


def _n_extra(metrics: dict[str, Any]) -> int | None:
    used = (metrics.get("synthetic") or {}).get("n_used")
    return used if used is not None else metrics.get("n_synthetic") or metrics.get("n_duplicated")


def _ratio(metrics: dict[str, Any]) -> str:
    ratio = (metrics.get("config") or {}).get("synthetic_ratio")
    return "" if ratio is None else f" (--synthetic-ratio {ratio:g})"


def analysed_others(arms: Iterable[Arm], manifest_sha256: str | None) -> str | None:
    """A sentence if the synthetic images that are looked at, those of ``manifest_sha256``, are not those, or
    not all of those, that the augmented arm, or without it any arm, was trained on; None if they are, or
    nobody can tell."""
    trained = [arm for arm in arms if MAIN in _manifests(arm) and arm.metrics.get("n_synthetic")]
    wanted = [arm for arm in trained if arm.name == AUGMENTED] or trained
    if not wanted or manifest_sha256 in [_manifests(arm)[MAIN] for arm in wanted]:
        return None
    if parts := [part for arm in wanted if (part := _one_of_several(arm, manifest_sha256))]:
        return parts[0]
    shown = ", ".join(f"{arm.name} {_manifest_words(_manifests(arm)[MAIN])}" for arm in wanted)
    return (
        f"the synthetic images looked at ({_manifest_words(manifest_sha256)}) are NOT THOSE THAT THE ARMS "
        f"WERE TRAINED ON ({shown}); --synthetic-dir says which to look at"
    )


def _one_of_several(arm: Arm, manifest_sha256: str | None) -> str | None:
    """A sentence if ``manifest_sha256`` is that of one of the arm's folders of synthetic images."""
    folders = (arm.metrics.get("synthetic") or {}).get("folders") or []
    others = [folder["dir"] for folder in folders if folder["manifest_sha256"] != manifest_sha256]
    if manifest_sha256 is None or len(others) == len(folders):
        return None
    return (
        f"the synthetic images looked at are those of one of the {len(folders)} folders that {arm.name} was "
        f"trained on; another analysis can look at {', '.join(others)} (--synthetic-dir, --analysis-dir)"
    )
