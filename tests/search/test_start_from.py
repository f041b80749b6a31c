"""What a new run takes over of another one: against pricing and judging each recipe, with made-up trials."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.speed.reprice import TINY_EN, made_up_space, synthetic_run
from common.errors import InputError
from devices.profile import load_profile
from evaluators.accuracy.divergence import Divergence
from search.commands.start_from import Source, take_over
from search.configuration.config import SearchConfig
from search.outcome import Confirmation
from search.pricing import trial_costs
from search.records.ledger import Ledger
from search.records.run_records import load_confirmations, load_taken_over, save_confirmation, save_facts
from search.records.study_store import StudyStore
from search.space.space import runtime_violation
from search.trial import Trial
from tests.search.conftest import make_rate

SOURCE = {
    "model_sha256": "m",
    "speech_sha256": "s",
    "confirm_sha256": "c",
    "calibration_sha256": "k",
    "clips_sha256": "d",
}


@pytest.fixture(scope="module")
def original_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic_run(tmp_path_factory.mktemp("runs") / "old", trials=14, max_size_mb=45)
    folder.write_environment(SOURCE)
    store = StudyStore(folder.study_file)
    for trial in store.trials():
        if trial.state == "complete":
            confirmed = Confirmation(rate=make_rate(60 + 7 * trial.number, 1000), within_budget=trial.number == 0)
            save_confirmation(store, trial.recipe, confirmed)
    return folder.path


@pytest.fixture
def source(original_run: Path) -> Source:
    return Source.open(original_run)


class Known:
    """A cache of divergences."""

    def __init__(self) -> None:
        self.kept: dict[str, Divergence] = {}

    def find(self, recipe_id: str) -> Divergence | None:
        return self.kept.get(recipe_id)

    def keep(self, recipe_id: str, found: Divergence) -> None:
        self.kept[recipe_id] = found


def session_of(source: Source, tmp_path: Path, *, device: str = "rpi4", digests: Any = None, **flags: object) -> Any:
    config = SearchConfig.build(None, {"model": "tiny.en", "device": device, "trials": 9, "engine": "optuna"} | flags)
    profile = load_profile(device)
    facts = replace(source.facts, device=device, wer_budget=config.wer_budget)
    merged = SOURCE | (digests or {})
    return SimpleNamespace(
        config=config,
        profile=profile,
        model=SimpleNamespace(dimensions=TINY_EN),
        original=source.trials[0].recipe,
        space=made_up_space(profile, np.random.default_rng(1)),
        calibration_digest=merged["calibration_sha256"],
        calibration_utterances=config.fitted_utterances(facts.utterances),
        digests=merged,
        facts=facts,
        meter=None,
        divergences=None,
        recovered=tmp_path / "recovered",
    )


def taken(source: Source, session: Any, tmp_path: Path) -> tuple[Sequence[Trial], StudyStore, list[str]]:
    store, told = StudyStore(tmp_path / "study.db"), []
    save_facts(store, session.facts)
    take_over(source, session, store, told.append)
    return Ledger(store).trials, store, told


def test_what_was_measured_is_priced_and_judged_for_the_new_run(source, tmp_path):
    session = session_of(source, tmp_path, wer_budget="+30%", max_latency_ms=1500.0, objective="1,0")
    found, store, told = taken(source, session, tmp_path)
    before = {trial.recipe.id: trial for trial in source.trials}
    original = source.trials[0]
    allowed = original.accuracy.rate.errors * 130 // 100
    assert found[0].recipe == original.recipe
    assert [trial.number for trial in found] == list(range(len(found)))
    for trial in found:
        old, costs = before[trial.recipe.id], trial_costs(trial.recipe, TINY_EN, session.profile, session.config)
        assert (trial.accuracy, trial.state, trial.seconds) == (old.accuracy, old.state, old.seconds)
        assert trial.costs == costs
        assert trial.objective == pytest.approx(costs.size_mb / found[0].costs.size_mb)
        within = costs.latency_ms <= 1500 and costs.peak_memory_mb <= session.profile.ram_available_mb
        assert trial.feasible == (trial.accuracy.rate.errors <= allowed and within)
        assert trial.number == 0 or trial.note.endswith(f"taken over from trial {old.number} of old")
    runs = {
        t.recipe.id
        for t in source.trials
        if not runtime_violation(t.recipe, session.profile.runtime, original=original.recipe)
    }
    scored = {t.recipe.id for t in source.trials if t.state == "complete"}
    assert {trial.recipe.id for trial in found} == runs & scored
    assert load_taken_over(store) == len(found)
    stopped = sum(t.state == "stopped" and t.recipe.id in runs for t in source.trials)
    assert f"Note: left out {stopped} of its trials: they were stopped early by the budget of +10%" in told
    assert any("rpi4 does not execute them" in line for line in told)


def test_under_a_budget_as_strict_what_was_stopped_stays_so(source, tmp_path):
    found, *_ = taken(source, session_of(source, tmp_path, device="imx8mplus", wer_budget="+5%"), tmp_path)
    assert len(found) == sum(trial.accuracy is not None for trial in source.trials)
    assert {trial.state for trial in found} == {"complete", "stopped"}


def test_confirmations_come_along_judged_by_the_new_budget(source, tmp_path):
    old = load_confirmations(source.store)
    baseline = old[source.trials[0].recipe.id]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, store, _ = taken(source, session_of(source, tmp_path, device="imx8mplus", wer_budget="+40%"), tmp_path / "a")
    new = load_confirmations(store)
    assert len(new) > 1
    assert all(record.rate == old[name].rate for name, record in new.items())
    allowed = baseline.rate.errors * 140 // 100
    assert all(record.within_budget == (record.rate.errors <= allowed) for record in new.values())
    assert {record.within_budget for record in new.values()} == {True, False}
    other = session_of(source, tmp_path, device="imx8mplus", digests={"confirm_sha256": "z"})
    _, store, _ = taken(source, other, tmp_path / "b")
    assert not load_confirmations(store)


def test_with_another_calibration_only_what_needs_none_holds(source, tmp_path):
    session = session_of(source, tmp_path, device="imx8mplus", digests={"calibration_sha256": "z"})
    found, _, told = taken(source, session, tmp_path)
    kept = {t.recipe for t in source.trials if t.accuracy and not t.recipe.needs_calibration(TINY_EN)}
    assert {trial.recipe for trial in found} == kept
    assert source.trials[0].recipe in kept
    assert any("they were calibrated on other speech" in line for line in told)


def test_divergences_come_along_on_the_same_clips_and_are_measured_on_others(source, tmp_path, monkeypatch):
    old, new = (Divergence(nats=(float(nats),), tokens=(10,)) for nats in (1, 2))
    source = replace(source, trials=tuple(replace(trial, divergence=old) for trial in source.trials))
    monkeypatch.setattr(
        "search.commands.start_from.Scorer", lambda _: SimpleNamespace(divergence=lambda recipe, enough: new)
    )
    for name, digests, expected in (("a", {}, old), ("b", {"clips_sha256": "z"}, new)):
        (tmp_path / name).mkdir()
        session = session_of(source, tmp_path, device="imx8mplus", digests=digests)
        session.meter, session.divergences = object(), Known()
        found, *_ = taken(source, session, tmp_path / name)
        assert {trial.divergence for trial in found} == {expected}
        unscored = {trial.recipe.id for trial in source.trials if trial.accuracy is None}
        assert set(session.divergences.kept) == (unscored if expected == old else set())


def loaded_of(*, least: float | None = None, **changes: str) -> Any:
    values = {"model": "m", "speech": "s", "normaliser": "none", "language": None} | changes
    return SimpleNamespace(
        config=SimpleNamespace(language=values["language"], min_language_accuracy=least),
        model=SimpleNamespace(name="tiny.en", digest=values["model"]),
        evaluator=SimpleNamespace(
            speech=SimpleNamespace(name="made up", digest=values["speech"]), normaliser=values["normaliser"]
        ),
    )


def test_the_same_model_speech_and_normaliser_are_asked_for(source):
    source.check(loaded_of())
    source.check(loaded_of(language="en"))
    source = replace(source, config=source.config.model_copy(update={"language": "en"}))
    for changes, complaint in (
        ({"model": "other"}, "its model was tiny.en, with another content then"),
        ({"speech": "other"}, "its speech was made up, with another content then"),
        ({"normaliser": "English"}, "its normaliser was none, and here English"),
        ({"language": "de"}, "its language was en, and here de"),
    ):
        with pytest.raises(InputError, match=complaint) as refused:
            source.check(loaded_of(**changes))
        assert "\n" not in str(refused.value)
        assert str(source.folder.path) in str(refused.value)


def test_a_run_without_detected_languages_is_no_start_for_one_that_asks_for_them(source):
    with pytest.raises(InputError, match=r"it is older than --min-language-accuracy .* leave one of the two out"):
        source.check(loaded_of(least=0.98))
    original = source.trials[0]
    told = tuple(replace(utterance, right_language=True) for utterance in original.accuracy.utterances)
    measured = replace(original, accuracy=replace(original.accuracy, utterances=told))
    replace(source, trials=(measured, *source.trials[1:])).check(loaded_of(least=0.98))


def test_a_folder_without_a_run_or_without_a_baseline(original_run, tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        Source.open(tmp_path)
    empty = shutil.copytree(original_run, tmp_path / "empty", ignore=shutil.ignore_patterns("study.db"))
    StudyStore(empty / "study.db")
    with pytest.raises(InputError, match="--start-from .*: the original has no WER there"):
        Source.open(empty)
