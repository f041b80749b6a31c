"""What a search needs, by the networks and statistics that it really makes."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from common.errors import InputError
from compression.calibration.calibration import CalibrationSample, measure
from compression.recipe.dimensions import Dimensions, published_dimensions, published_models
from compression.whisper.load import LoadedModel
from search.needs import memory
from search.needs.estimate import CLIPS_JUDGED, TRANSCRIBED, Work, estimate
from search.needs.memory import check_fits, memory_needs
from search.needs.speeds import Speeds, measure_speeds
from tests.strategies import small_dimensions

SMALL = small_dimensions(layers=2, state=64, heads=2)
SECOND = Speeds(encode=1.0, predict=0.0, token=0.0, gather=0.0, rounding=0.0, departures=0.0, compress=0.0)


def loaded(dimensions: Dimensions) -> LoadedModel:
    torch.manual_seed(0)
    network = Whisper(ModelDimensions(**asdict(dimensions))).eval()
    torch.nn.init.normal_(network.decoder.positional_embedding)
    return LoadedModel(name="random", digest="0", dimensions=dimensions, stored_bits=16, network=network)


@pytest.mark.parametrize(
    "dimensions", [SMALL, replace(SMALL, n_audio_layer=3, n_mels=128), published_dimensions("tiny")]
)
def test_parameters_are_the_networks(dimensions: Dimensions) -> None:
    network = Whisper(ModelDimensions(**asdict(dimensions)))
    assert dimensions.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_covariances_are_those_of_a_calibration() -> None:
    dimensions = replace(SMALL, n_audio_layer=3)
    sample = CalibrationSample(mel=torch.randn(80, 100), tokens=torch.arange(9), prompt_length=2)
    found = measure(loaded(dimensions), [sample])
    values = sum(statistics.covariance.size for statistics in found.inputs.values())
    assert memory_needs(dimensions).disk_calibration == pytest.approx(4 * values / 1e6)


def test_a_large_model_fits_24_gib() -> None:
    needs = {name: memory_needs(published_dimensions(name)).peak for name in published_models()}
    assert max(needs.values()) < 24 * 1.0737e3
    assert needs["tiny"] < needs["base"] < needs["small"] < needs["medium"] < needs["large-v3"]


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    large = published_dimensions("large-v3")
    monkeypatch.setattr(memory, "available_mb", lambda: 8000.0)
    with pytest.raises(InputError, match=r"large-v3 has 1542 million parameters: a search needs about 21\.\d GB"):
        check_fits("large-v3", large)
    check_fits("small", published_dimensions("small"))
    monkeypatch.setattr(memory, "available_mb", lambda: None)
    monkeypatch.setattr(memory, "free_disk_mb", lambda _: 1e6)
    check_fits("large-v3", large)


def test_too_little_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(memory, "free_disk_mb", lambda _: 100.0)
    with pytest.raises(InputError, match=r"keeps at least 1\.4 GB in .*, where 0\.1 GB are free"):
        check_fits("small", published_dimensions("small"))


def test_stages_add_up() -> None:
    """Where only the encoder takes time: clips are encoded, and layers skipped."""
    found = estimate(replace(SMALL, n_audio_layer=4), SECOND, Work(calibration=10, scored=5, clips=3))
    forward, backward, layers = 10 * 2, 10 * 1.6, 8 * (4 / 2 + 1)
    assert found.stages["calibration"] == pytest.approx(forward + backward + layers)
    assert found.stages["the original's transcripts"] == pytest.approx(3 + 2 * 5)
    assert found.recipe_s == CLIPS_JUDGED
    assert found.transcripts_s == CLIPS_JUDGED + 5
    assert found.recipes_per_hour == pytest.approx(3600 / (CLIPS_JUDGED + TRANSCRIBED * 5))
    assert found.judged_in(0.001) == 0
    assert found.judged_in(1) == pytest.approx((1 - found.setup_s / 3600) * found.recipes_per_hour)


def test_speeds_are_measured() -> None:
    found = asdict(measure_speeds(loaded(small_dimensions(layers=1, state=64, heads=1, vocabulary=51864))))
    assert all(seconds > 0 for seconds in found.values())
