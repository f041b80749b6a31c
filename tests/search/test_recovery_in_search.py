"""`whisperfit search --recover`, from beginning to end, on a network of random weights."""

# ruff: noqa: F811 - the fixtures of the command line's tests

import json
import os
import signal
from pathlib import Path

import pytest

import search.run.recovery as recovery
from common.errors import InputError
from compression.recipe.recipe import Recipe
from compression.training.settings import TrainingSettings
from search.records.study_store import StudyStore
from search.run.halving import Halving
from tests.search.commands import (  # noqa: F401
    Ended,
    Whisperfit,
    files,
    refused,
    rows,
    search_arguments,
    whisperfit,
)

STEPS = 4


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of some steps instead of minutes."""

    def settings(recipe: Recipe, seed: int) -> TrainingSettings:
        return TrainingSettings(
            window_s=recipe.window_s, seed=seed, steps=STEPS, evaluate_every=2, copies=1, batch_size=2, held_out=0.25
        )

    monkeypatch.setattr(recovery, "settings_for", settings)
    monkeypatch.setattr(recovery, "LEAST_S", 0.01)


def arguments(files: Path, out: Path, **changes: object) -> list[str]:
    options: dict[str, object] = {"engine": "evolution", "trials": 20, "hours": 1, "divergence_clips": 4}
    options |= {"recover": "auto", "calibration": files / "confirm.jsonl"} | changes
    return search_arguments(files, out, **{name: value for name, value in options.items() if value is not None})


def state_of(run: Path) -> Halving:
    text = StudyStore(run / "study.db").recall("recovery")
    assert text
    return recovery._FORMAT.read(text)


def test_a_search_trains_what_promises_most_and_scores_the_best(
    files: Path, tmp_path: Path, whisperfit: Whisperfit
) -> None:
    out = tmp_path / "run"
    ended = whisperfit(*arguments(files, out))
    print(ended.err)
    assert ended.code == 0, ended.err
    assert 'recover = "auto"' in (out / "config.toml").read_text(encoding="utf-8")
