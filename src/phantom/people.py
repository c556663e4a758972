"""Made-up people for the phantoms: their number of images, and class, view and age of each image.

Proportions are those of the training part of the RSNA set: 26,684 images of about 11,439 people.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from utils import derive_seed

NORMAL, NOT_NORMAL, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"

# People come in blocks of images, so that every block has the right share of each class.
BLOCK = 80
BLOCK_OPACITY, BLOCK_NOT_NORMAL = 18, 35  # RSNA: 6,012 and 11,821 of 26,684; the rest is normal
REPEATED = 4342 / 11439  # share of people with more than one image
MEAN_REPEATS = 19518 / 4342  # mean number of images of those people
AP_SHARE = {NORMAL: 1637 / 8851, NOT_NORMAL: 5872 / 11821, OPACITY: 4664 / 6012}
FIRST_TEST_PATIENT = 50_000_000  # the test images are of other people


@dataclass(frozen=True)
class Person:
    """One made-up person."""

    number: int
    age: float  # years, at the first image
    sex: str  # "F" or "M"
    frailty: float  # standard normal


@dataclass(frozen=True)
class Record:
    """Metadata of one image of one person."""

    part: str  # "train" or "test"
    index: int  # of the image within its part
    patient: int
    visit: int  # counts the person's images from 0
    label_class: str
    age: int  # years
    sex: str  # "F" or "M"
    view: str  # "AP" or "PA"
    image_id: str  # UUID

    @property
    def target(self) -> int:
        """1 for an opacity, else 0."""
        return int(self.label_class == OPACITY)

    @property
    def nih_name(self) -> str:
        """File name as in NIH ChestX-ray14: the patient's number, then the visit's."""
        return f"{self.patient:08d}_{self.visit:03d}.png"


def generator(*key: int | str) -> np.random.Generator:
    """Make a source of random numbers that is a pure function of ``key``."""
    return np.random.default_rng(derive_seed("phantom", *key))


def phantom_records(num_images: int, seed: int = 42, part: str = "train") -> list[Record]:
    """Make the first ``num_images`` records of a part; a larger number changes none of the first ones."""
    return list(islice(_all_records(seed, part), num_images))


def _all_records(seed: int, part: str) -> Iterator[Record]:
    number = FIRST_TEST_PATIENT if part == "test" else 0
    for block in count():
        records = _block_records(seed, part, block, number + 1)
        yield from records
        number = records[-1].patient


def _block_records(seed: int, part: str, block: int, first_number: int) -> list[Record]:
    """Make a block of records: draw people, rank their images by illness, and cut at the class quotas."""
    rng = generator(seed, part, "block", block)
    visits = _draw_visits(rng, first_number)
    # Some people are ill more often than others, and "Not Normal" comes with age.
    illness = [0.6 * person.frailty + 0.006 * (person.age - 47) + rng.normal() for person, _ in visits]
    classes = [""] * BLOCK
    for rank, k in enumerate(np.argsort(illness)[::-1]):
        cut = BLOCK_OPACITY, BLOCK_OPACITY + BLOCK_NOT_NORMAL
        classes[k] = OPACITY if rank < cut[0] else NOT_NORMAL if rank < cut[1] else NORMAL
    records = []
    for index, ((person, visit), label) in enumerate(zip(visits, classes, strict=True), start=block * BLOCK):
        age, view = int(person.age + 0.3 * visit), "AP" if rng.random() < AP_SHARE[label] else "PA"
        image_id = str(uuid.UUID(bytes=generator(seed, part, "id", index).bytes(16), version=4))
        records.append(Record(part, index, person.number, visit, label, age, person.sex, view, image_id))
    return records


def _draw_visits(rng: np.random.Generator, first_number: int) -> list[tuple[Person, int]]:
    """Draw people until the block is full: (person, number of the visit) for each image."""
    visits: list[tuple[Person, int]] = []
    number = first_number
    while len(visits) < BLOCK:
        age = float(np.clip(rng.normal(47, 16.5), 4, 92))
        person = Person(number, age, "M" if rng.random() < 0.565 else "F", rng.normal())
        images = 1 + rng.geometric(1 / (MEAN_REPEATS - 1)) if rng.random() < REPEATED else 1
        visits += [(person, visit) for visit in range(min(images, BLOCK - len(visits)))]
        number += 1
    return visits
