"""What calibration speech gives is worked out once."""

from dataclasses import replace
from pathlib import Path

from compression.models import LoadedModel
from compression.recipe import Recipe
from compression.sensitivity import sensitivity
from evaluators import calibration_speech
from evaluators.calibration_speech import calibrate, sensitivity_profile
from evaluators.features import CachedFeatures
from tests.evaluators.conftest import talkative
from tests.networks import random_network
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions(layers=1, state=64, heads=1, vocabulary=51864)


def test_a_profile_is_worked_out_once_for_each_grid(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    network = talkative(random_network(DIMENSIONS), seed=0)
    model = LoadedModel(name="small", digest="0", dimensions=DIMENSIONS, stored_bits=32, network=network)
    worked_out: list[Recipe] = []

    def counted(model, calibration, grid, *, bits):
        worked_out.append(grid)
        return sensitivity(model, calibration, grid, bits=bits)

    monkeypatch.setattr(calibration_speech, "sensitivity", counted)
    speech = {"limit": 2, "features": CachedFeatures(n_mels=80)}
    grid = replace(Recipe.original(DIMENSIONS, stored_bits=32), group_size=32)
    first = sensitivity_profile(model, sample, grid=grid, bits=(8, 4), **speech)
    assert first == sensitivity(model, calibrate(model, sample, **speech), grid, bits=(8, 4))
    assert sensitivity_profile(model, sample, grid=grid, bits=(8, 4), **speech) == first
    assert worked_out == [grid]
    finer = replace(grid, group_size=16)
    assert sensitivity_profile(model, sample, grid=finer, bits=(8, 4), **speech) != first
    assert worked_out == [grid, finer]
    for file in Path(tmp_path / "sensitivity").iterdir():
        file.write_text("{", encoding="utf-8")
    assert sensitivity_profile(model, sample, grid=grid, bits=(8, 4), **speech) == first
    assert worked_out == [grid, finer, grid]
