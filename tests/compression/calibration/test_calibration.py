"""What calibration clips that do not run backward add, and what they leave alone."""

import numpy as np
import pytest
import torch

from compression.calibration import calibration as module
from compression.calibration.calibration import CalibrationSample, measure
from tests.compression.export.models import compact_model


@pytest.fixture(scope="module")
def samples() -> list[CalibrationSample]:
    generator = torch.Generator().manual_seed(1)
    mels = [torch.randn(80, 200, generator=generator) for _ in range(3)]
    return [
        CalibrationSample(mel=mel, tokens=torch.arange(7 + number), prompt_length=2) for number, mel in enumerate(mels)
    ]


def test_all_clips_tell_about_inputs_and_the_first_ones_about_gradients(samples, monkeypatch):
    model = compact_model()
    whole = measure(model, samples)
    monkeypatch.setattr(module, "GRADIENT_SAMPLES", 2)
    found, first = measure(model, samples), measure(model, samples[:2])
    assert np.array_equal(found.token_counts, whole.token_counts)
    for name, statistics in whole.inputs.items():
        assert np.allclose(found.inputs[name].covariance, statistics.covariance, atol=1e-6), name
        assert len(found.inputs[name].rows) == len(statistics.rows) > len(first.inputs[name].rows)
    for name, squares in first.gradient_squares.items():
        assert np.array_equal(found.gradient_squares[name], squares), name
    heads = [key for key in first.importances if key.endswith("heads")]
    assert heads
    for key in heads:
        assert np.array_equal(found.importances[key]["combined"], first.importances[key]["combined"]), key
        assert not np.array_equal(found.importances[key]["combined"], whole.importances[key]["combined"]), key
