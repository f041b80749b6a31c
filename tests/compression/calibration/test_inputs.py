"""Statistics of inputs against those of all values in float64."""

import numpy as np
import pytest
import torch

from common.errors import CompressionError
from compression.calibration.inputs import ROWS_PER_CLIP, InputRecorder


def test_the_covariance_of_columns_far_from_zero() -> None:
    """Whose squares in float32 are a million times the variance."""
    generator = torch.Generator().manual_seed(0)
    means = 1000 * torch.randn(20, generator=generator)
    clips = [torch.randn(2, 150, 20, generator=generator) + means + number / 10 for number in range(8)]
    recorder = InputRecorder()
    for clip in clips:
        recorder.add(clip)
    found, every = recorder.statistics(), torch.cat(clips).flatten(0, 1).double().numpy()
    np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(every.T, bias=True), atol=1e-4)
    np.testing.assert_array_equal(found.low, every.min(0).astype(np.float32))
    np.testing.assert_array_equal(found.high, every.max(0).astype(np.float32))
    assert len(found.rows) == 8 * ROWS_PER_CLIP


def test_what_took_no_part_is_said() -> None:
    with pytest.raises(CompressionError, match="took no part"):
        InputRecorder().statistics()
