"""The benchmarks import each other as the scripts that they are: by their own names."""

import sys
from pathlib import Path

import pytest

from compression.calibration import Calibration
from compression.dimensions import published_dimensions
from tests.benchmarks.calibrations import random_calibration

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Of tiny.en, random."""
    return random_calibration(published_dimensions("tiny.en"))
