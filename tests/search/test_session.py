"""What a session decides before any trial: the vocabulary's gene, and the guard of short windows in the scorer."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from common.errors import EvaluationError, InputError
from evaluators.accuracy.divergence import Divergence
from evaluators.accuracy.error_rate import ErrorRate
from search import scorer as module
from search.configuration.config import SearchConfig
from search.limits.budget import CostLimits, WerLimit
from search.loaded import Loaded, _check_unseen, _languages
from search.loading import load_speech
from search.scorer import Baseline, Scorer
from search.session import _refuse, _with_known_words, changed_digests
from search.trial import TrialCosts
from tests.search.conftest import DIMENSIONS, ORIGINAL

CHOICES = {"window_s": (30.0, 15.0), "vocabulary": (0, 8192)}


def spoken(*languages: str) -> Any:
    return SimpleNamespace(utterances=[SimpleNamespace(id="u", language=language) for language in languages])


def test_how_odd_audio_was_read_is_said(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 16_000)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:40] + bytes(4) + content[44:])  # as an interrupted recorder leaves it
    (tmp_path / "set.jsonl").write_text('{"audio": "a.wav", "text": "word"}\n')
    model: Any = SimpleNamespace(dimensions=DIMENSIONS, language=None)
    speech = load_speech(tmp_path / "set.jsonl", model, language="en", skip_broken=False)
    assert speech.utterances[0].duration_s == 0.5
    printed = capsys.readouterr()
    assert printed.err.startswith(f"note: audio file {tmp_path / 'a.wav'}: its header states no length")
    assert printed.out == ""


def heard(*recordings: str) -> Any:
    return SimpleNamespace(
        name="set", utterances=tuple(SimpleNamespace(id=f"u-{name}", recording=name) for name in recordings)
    )


def test_recordings_without_transcripts_join_the_searchs_speech_once():
    assert judged_on(heard("a", "b"), calibration=heard("z")) == ["a", "b"]
    unlabelled = heard("c", "b", "d")
    assert judged_on(heard("a", "b"), calibration=heard("z"), unlabelled=unlabelled) == ["a", "b", "c", "d"]


def judged_on(searched: Any, *, calibration: Any, fitted: int = 1, unlabelled: Any = None) -> list[str]:
    """The recordings of which divergence is measured, where recipes are fitted to the first ones of `calibration`."""
    loaded = SimpleNamespace(
        evaluator=SimpleNamespace(speech=searched),
        calibration_speech=calibration,
        calibration_utterances=fitted,
        unlabelled=unlabelled,
    )
    return [u.recording for u in Loaded.speech_for_divergence.fget(loaded)]  # type: ignore[attr-defined]


def test_recipes_are_not_judged_on_what_they_are_fitted_to():
    searched = heard("a", "b", "c", "d")
    assert judged_on(searched, calibration=searched, fitted=2) == ["c", "d"]
    assert judged_on(searched, calibration=heard("z", "d", "a"), fitted=2) == ["a", "b", "c"]
    assert judged_on(searched, calibration=searched, fitted=2, unlabelled=heard("b", "e")) == ["c", "d", "e"]
    assert judged_on(heard("a"), calibration=heard("a")) == ["a"]  # there is nothing else


def test_of_a_search_set_that_recipes_are_fitted_to_half_is_left_to_judge_them_on():
    def fitted(searched: int, **options: object) -> int:
        flags = {"model": "tiny.en", "device": "host", "data": "s.jsonl", "wer_budget": "+10%", "hours": 1, **options}
        return SearchConfig.build(None, flags).fitted_utterances(searched)

    assert [fitted(count) for count in (1, 2, 31, 64, 80)] == [1, 1, 16, 32, 40]
    assert fitted(31, calibration_utterances=8) == 8
    assert fitted(31, calibration="c.jsonl") == 128


def test_a_recording_of_the_confirm_set_is_refused():
    unlabelled = heard("c", "b")
    with pytest.raises(InputError, match=r"holds 1 recordings that the search hears in set \(u-b\)"):
        _check_unseen(heard("a", "b"), unlabelled, unlabelled.utterances, _refuse)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({"model": "1"}, {"model": "1"}, []),
        ({"model": "1"}, {"model": "2"}, ["model"]),
        ({"model": "1"}, {"model": "1", "confirm": "3"}, []),  # not kept by an older version
        ({"model": "1"}, {"model": "1", "unlabelled_sha256": "4"}, ["unlabelled_sha256"]),
        ({"model": "1", "unlabelled_sha256": "4"}, {"model": "1"}, ["unlabelled_sha256"]),
        ({"unlabelled_sha256": "4"}, {"unlabelled_sha256": "5"}, ["unlabelled_sha256"]),
        ({"unlabelled_sha256": "4"}, {"unlabelled_sha256": "4"}, []),
    ],
)
def test_which_digests_forbid_to_go_on(before, now, changed):
    assert changed_digests(before, now) == changed


def test_all_languages_of_the_speech_count():
    assert _languages(spoken("en", "de", "en"), spoken("fr")) == "de+en+fr"


@pytest.mark.parametrize(("language", "kept"), [("en", True), ("de+en", True), ("yo", False), ("en+yo", False)])
def test_a_preset_loses_the_gene_where_no_words_are_known(language, kept):
    told: list[str] = []
    choices = _with_known_words(CHOICES, language, space="coarse", say=told.append)
    assert ("vocabulary" in choices) == kept
    assert "window_s" in choices
    assert len(told) == 1 - kept
    assert all(line.startswith(f"The vocabulary stays whole, for {language}: there is no list of its") for line in told)


def test_a_preset_loses_the_gene_where_the_lists_are_not_installed(monkeypatch):
    monkeypatch.setattr("compression.techniques.vocabulary.find_spec", lambda package: None)
    told: list[str] = []
    assert "vocabulary" not in _with_known_words(CHOICES, "en", space="coarse", say=told.append)
    assert told[0].startswith("The vocabulary stays whole, for en: lists of words are not installed: pip install ")
    with pytest.raises(InputError, match=r"space mine.toml: .* not installed: pip install 'whisperfit\[vocabulary\]'"):
        _with_known_words(CHOICES, "en", space="mine.toml", say=print)


def test_a_space_that_asks_for_it_is_refused():
    with pytest.raises(
        InputError,
        match="space mine.toml: vocabulary for yo: there is no list of its words, .* leave this gene out",
    ):
        _with_known_words(CHOICES, "yo", space="mine.toml", say=print)
    assert _with_known_words({"window_s": (30.0,)}, "yo", space="mine.toml", say=print) == {"window_s": (30.0,)}


def evaluation(*endings: str, insertions: int = 0) -> Any:
    """Two words each; an utterance that runs on has 30 insertions more."""
    counts = [
        SimpleNamespace(
            utterance_id=f"u{n}",
            insertions=insertions + 30 * (ending != "complete"),
            deletions=0,
            substitutions=1,
            words=20,
            speaker="",
        )
        for n, ending in enumerate(endings)
    ]
    hypotheses = [SimpleNamespace(ending=ending, text="said", tokens=(1,)) for ending in endings]
    pairs = zip(counts, hypotheses, strict=True)
    scored = [SimpleNamespace(counts=c, hypothesis=h, right_language=None) for c, h in pairs]
    return SimpleNamespace(scored=scored, encoder_s=0.0, decoder_s=0.0)


def accuracies(counts: Sequence[Any]) -> tuple[Any, tuple[()]]:
    errors = sum(utterance_counts.insertions + utterance_counts.substitutions for utterance_counts in counts)
    return SimpleNamespace(rate=ErrorRate(errors=errors, words=20 * len(counts), low=0.0, high=9.0)), ()


@pytest.mark.parametrize(("window_s", "feasible"), [(15.0, False), (30.0, True)])
def test_a_short_window_that_loops_is_infeasible_at_any_wer(window_s, feasible, monkeypatch, outcome):
    said = iter([evaluation(*["complete"] * 40), evaluation(*["loop"] * 2, "limit", *["complete"] * 37)])
    scorer = scorer_of(lambda *_, **__: next(said), outcome.trials[0].costs, monkeypatch)
    first = scorer.score(0, ORIGINAL, None)
    assert first.feasible
    assert first.accuracy
    baseline = Baseline(accuracy=first.accuracy, wer_limit=WerLimit(rate=Fraction(9), words=800))
    trial = scorer.score(1, replace(ORIGINAL, window_s=window_s, embedding_bits=8), baseline)
    assert trial.state == "complete"
    assert trial.violations["wer"] < 0
    assert trial.feasible == feasible
    assert ("run_on" in trial.violations) == (not feasible)
    assert trial.note.startswith("" if feasible else "3 transcripts run on (the original: 0, allowed: 0)")


def scorer_of(
    evaluate: Callable[..., Any],
    costs: TrialCosts,
    monkeypatch: pytest.MonkeyPatch,
    pairs: Sequence[tuple[str, str]] = (),
) -> Scorer:
    """A scorer of made-up costs; its evaluator does as told in its one block. `pairs`: references, transcripts."""
    monkeypatch.setattr(module, "trial_costs", lambda *_: costs)
    monkeypatch.setattr(module, "rejection", lambda *_, **__: None)
    session = SimpleNamespace(
        config=SearchConfig(model="tiny.en", device="host", data=Path("sample"), wer_budget="900%", trials=1),
        original=ORIGINAL,
        model=SimpleNamespace(dimensions=DIMENSIONS),
        profile=SimpleNamespace(runtime=None),
        calibration=None,
        limits=CostLimits(max_memory_mb=1e6),
        evaluator=SimpleNamespace(
            score_block=evaluate,
            blocks=1,
            speech=SimpleNamespace(utterances=[SimpleNamespace(id=f"u{n}") for n in range(40)]),
            accuracies=accuracies,
            groups=(),
            pairs=lambda _: pairs,
        ),
        confirm=SimpleNamespace(evaluate=evaluate),
        network=lambda _: None,
        meter=None,
    )
    return Scorer(session)  # type: ignore[arg-type]


def test_references_in_another_script_are_noted_once_with_the_original(monkeypatch, outcome):
    """And what was heard is kept with the trial."""
    pairs = [("добро јутро", "dobro jutro"), ("да", "da")]
    scorer = scorer_of(lambda *_, **__: evaluation(*["complete"] * 2), outcome.trials[0].costs, monkeypatch, pairs)
    first = scorer.score(0, ORIGINAL, None)
    assert first.note.startswith("in 2 of 2 utterances reference and transcript are in different scripts")
    assert first.heard == {"u0": "said", "u1": "said"}
    other = scorer.score(1, replace(ORIGINAL, embedding_bits=8), scorer.baseline(first))
    assert other.note == ""


def test_what_has_a_wer_has_its_divergence_on_all_clips(monkeypatch, outcome):
    scorer = scorer_of(lambda *_, **__: evaluation(*["complete"] * 2), outcome.trials[0].costs, monkeypatch)
    part, whole = Divergence(nats=(1.0,), tokens=(2,)), Divergence(nats=(1.0, 2.0), tokens=(2, 2))
    measured = iter([whole])
    scorer._session.meter = SimpleNamespace(clips=2)  # type: ignore[misc, assignment]
    monkeypatch.setattr(scorer, "divergence", lambda recipe, enough, known: next(measured))
    assert scorer.score(1, ORIGINAL, None, part).divergence == whole
    assert scorer.score(2, ORIGINAL, None, whole).divergence == whole  # nothing is measured again


def _too_much(*_: object, **__: object) -> None:
    torch.empty(2**62, dtype=torch.uint8)


SHORTAGES = {
    "torch": _too_much,
    "python": lambda *_, **__: bytearray(2**62),
    "system": lambda *_, **__: _raise(OSError(errno.ENOMEM, "Cannot allocate memory")),
    "CUDA": lambda *_, **__: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_a_trial_that_gets_no_memory_is_failed_with_a_clear_note(shortage, monkeypatch, outcome):
    scorer = scorer_of(SHORTAGES[shortage], outcome.trials[0].costs, monkeypatch)
    accuracy = outcome.trials[0].accuracy
    trial = scorer.score(
        3,
        replace(ORIGINAL, embedding_bits=8),
        Baseline(accuracy=accuracy, wer_limit=WerLimit(rate=Fraction(9), words=800)),
    )
    assert (trial.state, trial.accuracy, trial.violations["failed"]) == ("failed", None, 1.0)
    assert trial.note.startswith("not enough memory")
    assert "\n" not in trial.note
    with pytest.raises(EvaluationError, match="not enough memory"):
        scorer.confirm(ORIGINAL)


def test_other_errors_end_the_run_loudly(monkeypatch, outcome):
    scorer = scorer_of(lambda *_, **__: torch.zeros(2) @ torch.zeros(3), outcome.trials[0].costs, monkeypatch)
    with pytest.raises(RuntimeError, match="size"):
        scorer.score(0, ORIGINAL, None)


def test_a_recipe_that_is_not_to_be_tried_has_its_costs_and_no_wer(monkeypatch, outcome):
    scorer = scorer_of(_too_much, outcome.trials[0].costs, monkeypatch)
    trial = scorer.failed(7, ORIGINAL, "it ended the process 2 times")
    assert (trial.number, trial.state, trial.accuracy, trial.feasible) == (7, "failed", None, False)
    assert (trial.costs, trial.objective, trial.note) == (outcome.trials[0].costs, 1.0, "it ended the process 2 times")
