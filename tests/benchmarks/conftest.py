"""The benchmarks of a folder import each other as the scripts that they are: by their own names."""

import sys
from pathlib import Path

import pytest

from compression.calibration.calibration import Calibration
from compression.recipe.dimensions import published_dimensions
from tests.benchmarks.calibrations import random_calibration

for folder in ("latency", "peers", "speed", "wer"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / folder))


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Of tiny.en, random."""
    return random_calibration(published_dimensions("tiny.en"))
