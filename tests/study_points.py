"""Made-up arms of a low-data study, for tests of its curve and figure."""

from pathlib import Path

from common import paths
from fake_results import fake_records, write_arm
from studies.learning_curve import Point, find_points


def write_study(folder: Path) -> list[Point]:
    """Write arms of three fractions on 300 images of 150 people; better with more patients."""
    records = fake_records(300)
    for fraction, n in ((0.05, 40), (0.25, 200), (1.0, 800)):
        metrics = paths.study_fraction(folder, fraction) / "metrics"
        for place, arm in enumerate(("baseline", "augmented", "control_duplicate")):
            write_arm(
                metrics, arm, records, skill=0.3 + 0.4 * fraction + 0.1 * place, seed=place, repeats=3,
                train_fraction=fraction, n_train_images=n, n_train_patients=n - n // 10,
                n_train_positive=n // 4, optimizer_steps=500 + n // 40, epochs_final=7,
                config={"epochs": 1000 // n, "lr": 0.001},
            )  # fmt: skip
    return find_points(folder)
