"""Format of judgement.json, which judge_images.py writes: two folders of images compared."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY

JUDGEMENT_FORMAT: Final = "folder-judgement-1"

Better = Literal["lower", "higher", "near the floor"]


class Axis(TypedDict):
    """One number about the synthetic images, beside what real images of other patients give."""

    id: Annotated[str, "short name; distances, scores and the like end in the name of their features"]
    name: Annotated[str, "name in words"]
    value: Annotated[float, "of the synthetic images against the real ones"]
    better: Annotated[Better, "in which direction the images are better"]
    floor: Annotated[float, "the same number for disjoint halves of the real patients, or of the real images"]
    ci95: Annotated[list[float] | None, "95 % interval of value by patient (group); null if there is none"]
    outside: Annotated[bool, "the floor lies outside of the interval: the images are worse than other patients'"]
    n: Annotated[str, "how many images the number rests on"]
    what: Annotated[str, "how to read it"]


class Verdict(TypedDict):
    """The answer."""

    verdict: Annotated[
        str,
        "'as near as other patients', 'farther than other patients', 'copies real images' or 'too few images: at "
        "least N'",
    ]
    needed: Annotated[int, "N: images of each folder for a verdict 'as near' at the resolution of the margin"]
    sentence: Annotated[str, "the reason, with numbers"]
    also: Annotated[list[str], "names of other axes whose floor lies outside of their interval"]


class CopyPair(TypedDict):
    """A synthetic image and the real one that is most like it."""

    synthetic: Annotated[str, "file name"]
    real: Annotated[str, "file name"]
    distance: Annotated[float, "1 - r of the details, 0 for the same picture"]
    score: Annotated[float | None, "of the registration, 1 for the same picture; null if it was not tried"]
    copy: Annotated[bool, "the score reaches the threshold"]


class CopySearch(TypedDict):
    """The search for synthetic images that show the picture of a real one."""

    threshold: Annotated[float, "score from which two images count as the same picture"]
    found_of_planted: Annotated[float, "share of planted copies that the threshold finds, 0 to 1"]
    reliable: Annotated[bool, "the threshold finds 99 % of planted copies and calls no real patients copies"]
    copies: Annotated[int, "synthetic images that count as copies"]
    real_twins: Annotated[int, "real images that show the picture of another group's image"]
    closest: Annotated[list[CopyPair], "copies first, then the closest pairs"]


class Unreadable(TypedDict):
    """An image file that was left out."""

    file: Annotated[str, "file name"]
    reason: Annotated[str, "why it could not be read"]


class FolderFacts(TypedDict):
    """What one side consists of."""

    source: Annotated[str, "folder, or checkpoint of the generator; without folders outside of the working one"]
    found: Annotated[int, "image files found, or images made"]
    used: Annotated[int, "images compared"]
    unreadable: Annotated[list[Unreadable], "files left out (--skip-bad-images)"]
    side: Annotated[int | None, "typical smaller side of the files, pixels"]
    groups: Annotated[int, "patients, or groups, of the images used"]
    ungrouped: Annotated[int, "images without a named patient, each its own group"]


class Judgement(TypedDict):
    """``judgement.json``: two folders of images compared by judge_images.py."""

    format: Annotated[Literal["folder-judgement-1"], "name of this format"]
    verdict: Verdict
    axes: Annotated[list[Axis], "the table"]
    copies: CopySearch
    real: FolderFacts
    synthetic: FolderFacts
    notes: Annotated[list[str], "what limits the numbers"]
    image_size: Annotated[int, "pixels a side at which the images were compared"]
    features: Annotated[list[dict[str, Any]], "name and origin of each kind of features"]
    confidence: Annotated[float, "of the intervals of the distances; one-sided 0.95 for all of them together"]
    config: Annotated[dict[str, Any], "options of the run, name -> value"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
