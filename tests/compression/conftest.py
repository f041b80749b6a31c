"""A Whisper small enough for unit tests."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from compression.calibration.calibration import Calibration, CalibrationSample, measure
from compression.recipe.dimensions import Dimensions
from compression.whisper.load import LoadedModel, load_model
from tests.networks import save_checkpoint

SMALL = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=64,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=300,
    n_text_ctx=32,
    n_text_state=64,
    n_text_head=2,
    n_text_layer=2,
)


@pytest.fixture(scope="session")
def small_network() -> Whisper:
    """Random weights, every one exactly a float16 value, all biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    network = Whisper(ModelDimensions(**asdict(SMALL))).eval()
    state = {
        name: (torch.randn(value.shape, generator=generator) / 8).half().float()
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network


@pytest.fixture(scope="session")
def small_checkpoint(small_network: Whisper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_network` as a float16 checkpoint in openai-whisper's format."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    save_checkpoint(small_network, path)
    return path


@pytest.fixture(scope="session")
def model(small_checkpoint: Path) -> LoadedModel:
    return load_model(str(small_checkpoint))


@pytest.fixture(scope="session")
def samples() -> list[CalibrationSample]:
    generator = torch.Generator().manual_seed(3)
    return [
        CalibrationSample(
            mel=torch.randn(80, 200, generator=generator),
            tokens=torch.randint(0, 300, (12,), generator=generator),
            prompt_length=2,
        )
        for _ in range(6)
    ]


@pytest.fixture(scope="session")
def calibration(model: LoadedModel, samples: list[CalibrationSample]) -> Calibration:
    return measure(model, samples)
