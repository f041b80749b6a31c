"""The small network as a model."""

from pathlib import Path

import pytest

from compression.whisper.load import LoadedModel, load_model


@pytest.fixture(scope="session")
def small_model(small_checkpoint: Path) -> LoadedModel:
    return load_model(str(small_checkpoint))
