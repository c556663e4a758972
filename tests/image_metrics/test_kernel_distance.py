"""The kernel distance against its definition, and its bias."""

from __future__ import annotations

import numpy as np
import pytest

from image_metrics import kernel_distance as kid


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    same = [kid.kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    standard_error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * standard_error
    assert min(same) < 0 < max(same)
    a, b = rng.normal(size=(6, 3)), rng.normal(1.0, size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within_a = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert kid.kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_kernel_distance_of_whole_subsets_is_the_plain_one_and_of_parts_unbiased(rng):
    a, b = rng.normal(size=(12, 3)), rng.normal(0.5, 1.0, size=(12, 3))
    whole = kid.kernel_distance_of_subsets(a, b, size=12, seed=0, n_subsets=4)
    assert whole["kid_of_subsets"] == pytest.approx(kid.kernel_distance(a, b))
    assert whole["kid_of_subsets_sd"] == pytest.approx(0.0, abs=1e-12)
    parts = kid.kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000)
    error = parts["kid_of_subsets_sd"] / np.sqrt(3000)
    assert abs(parts["kid_of_subsets"] - whole["kid_of_subsets"]) < 4 * error < 0.5 * whole["kid_of_subsets"]
    assert kid.kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000) == parts
