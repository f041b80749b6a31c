"""`whisperfit search --recover`, from beginning to end, on a network of random weights."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from common.errors import INTERRUPTED_EXIT, CompressionError
from compression.recipe.recipe import Recipe
from compression.training.settings import TrainingSettings
from compression.training.subject import Subject
from search.records.study_store import StudyStore
from search.recover_trial import Recovered
from search.run import halving, recovery
from search.run.halving import Halving
from tests.search.commands import Whisperfit, files, refused, rows, search_arguments, whisperfit

__all__ = ["files", "whisperfit"]

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


def test_a_search_trains_what_promises_most_and_a_resume_repeats_no_rung(
    files: Path, tmp_path: Path, whisperfit: Whisperfit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes in the second training, which goes on after a resume; the one after it fails."""
    out, trained, improve = tmp_path / "run", list[str](), recovery.improve

    def counted(subject: Subject, *given: Any) -> Recovered | None:
        trained.append(subject.recipe.id)
        if len(trained) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if len(trained) == 4:
            raise CompressionError("it was made up")
        return improve(subject, *given)

    monkeypatch.setattr(recovery, "improve", counted)
    monkeypatch.setattr(halving, "WITHIN_REACH", 1e6)  # a random network's divergences are not those of a real one

    ended = whisperfit(*arguments(files, out))
    assert ended.code == INTERRUPTED_EXIT, ended.err
    assert 'recover = "auto"\nrecover_share = 0.4\npatience = 600\n' in (out / "config.toml").read_text(
        encoding="utf-8"
    )
    state = state_of(out)
    first, second, third, *_ = state.sources
    assert trained == [first.recipe_id, second.recipe_id]
    assert ([result.source_id for result in state.results], state.begun) == ([first.recipe_id], 0)
    assert (out / "recovered" / f"{second.recipe_id}-{second.method}-search.checkpoint").is_file()

    ended = whisperfit("resume", out)
    assert ended.code == 0, ended.err
    assert "  Going on from step 1, " in ended.err
    assert trained[2:4] == [second.recipe_id, third.recipe_id]
    assert first.recipe_id not in trained[2:]
    assert f"Trial {third.trial} is trained no further: it was made up" in ended.err
    state = state_of(out)
    assert state.is_over
    assert len({(result.source_id, result.rung) for result in state.results}) == len(state.results) == len(trained) - 1
    check_trials(out, state)


def check_trials(out: Path, state: Halving) -> None:
    """Each recipe that training made better is a trial with its divergence and weights, the best ones with a WER."""
    expected = {s.best.recipe_id: s for s in state.standings if s.best and s.best.recipe_id}
    recovered = {row["recipe_id"]: row for row in rows(out / "trials.csv") if " recovered by " in row["note"]}
    assert recovered.keys() == expected.keys() == {folder.name for folder in (out / "recovered").iterdir()}
    assert recovered
    best = {standing.best.recipe_id for standing in halving.finalists(state) if standing.best}
    for recipe_id, row in recovered.items():
        source, rungs = expected[recipe_id].source, expected[recipe_id].rungs
        assert f"trial {source.trial} recovered by {source.method}: {STEPS * len(rungs)} steps, " in row["note"]
        assert float(row["divergence"]) == pytest.approx(expected[recipe_id].divergence)
        assert float(row["objective"]) == pytest.approx(source.objective)
        assert (out / "recovered" / recipe_id / "weights.pt").is_file()
        assert bool(row["wer"]) is (recipe_id in best)
        why = recovery.UNSCORED if expected[recipe_id].is_better else recovery.NO_NEARER
        assert (why in row["note"]) is (recipe_id not in best)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"calibration": None}, "calibration hears the search's: give --calibration or --unlabelled"),
        ({"hours": None}, "give --hours too"),
        ({"engine": "optuna"}, "the engine optuna does not judge by divergence"),
        ({"calibration": "speech.jsonl"}, "hold nothing but what the run is measured on; give other speech"),
    ],
)
def test_a_recovery_that_cannot_be_is_refused_in_a_line(
    files: Path, tmp_path: Path, whisperfit: Whisperfit, changes: dict[str, Any], complaint: str
) -> None:
    if changes.get("calibration"):
        changes = changes | {"calibration": files / changes["calibration"]}
    refused(whisperfit(*arguments(files, tmp_path / "run", **changes)), "--recover auto: ", complaint)
    assert not (tmp_path / "run").exists()
