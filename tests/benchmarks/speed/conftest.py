import pytest

from fake_speed_rows import tiny_bench


@pytest.fixture
def bench(tmp_path):
    return tiny_bench(tmp_path / "work")
