"""What calibration speech gives is worked out once."""

from dataclasses import replace
from pathlib import Path

import pytest

from compression.calibration.calibration import Calibration
from compression.recipe.recipe import Recipe
from compression.sensitivity import sensitivity
from compression.whisper.load import LoadedModel
from evaluators.learning import calibration as calibration_speech
from evaluators.learning.calibration import calibrate, sensitivity_profile
from evaluators.speech.features import CachedFeatures
from tests.evaluators.conftest import talkative
from tests.networks import random_network
from tests.strategies import small_dimensions

DIMENSIONS = small_dimensions(layers=1, state=64, heads=1, vocabulary=51864)


@pytest.fixture
def model() -> LoadedModel:
    network = talkative(random_network(DIMENSIONS), seed=0)
    return LoadedModel(name="small", digest="0", dimensions=DIMENSIONS, stored_bits=32, network=network)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_damaged_calibration_is_measured_again(model, sample, tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
    speech = {"limit": 2, "features": CachedFeatures(n_mels=80)}
    first = calibrate(model, sample, **speech)
    files = {file.suffix: file for file in (tmp_path / "calibration").iterdir()}
    file = files[suffix]
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", b"no archive", whole[:100], whole[:-1], flipped, whole[:middle] + whole[middle + 7 :]):
        file.write_bytes(damaged)
        again = calibrate(model, sample, **speech)
        assert again.layer_importance == first.layer_importance
        assert Calibration.load(files[".npz"]).token_counts.tolist() == first.token_counts.tolist()


def test_a_profile_is_worked_out_once_for_each_grid(model, sample, tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPERFIT_CACHE", str(tmp_path))
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
    for number, damaged in enumerate(["{", "", "null", "[]", "{}", '{"a": 1}', '{"a": {"b": 1}}'], start=1):
        for file in Path(tmp_path / "sensitivity").iterdir():
            file.write_text(damaged, encoding="utf-8")
        assert sensitivity_profile(model, sample, grid=grid, bits=(8, 4), **speech) == first
        assert worked_out == [grid, finer, *[grid] * number]
