"""Written files hold what their formats say, and nothing else."""

from common import paths
from common.file_formats import format_problems
from dataset.file_formats import MappingEntry, PhantomMarker, SplitsFile
from dataset.records import load_dataset
from dataset.splits import load_or_create_splits
from phantom.dataset import make_phantom_dataset
from utils import load_json


def test_files_of_a_data_folder(tmp_path):
    folder = make_phantom_dataset(tmp_path / "data", num_images=60, image_size=32, num_test_images=2)
    splits = load_or_create_splits(load_dataset(folder))
    assert not format_problems(load_json(splits.path), SplitsFile)
    assert not format_problems(load_json(paths.phantom_marker(folder)), PhantomMarker)
    entries = load_json(folder / paths.PATIENT_MAP)
    assert len(entries) == 62
    assert not [problem for entry in entries for problem in format_problems(entry, MappingEntry)]
