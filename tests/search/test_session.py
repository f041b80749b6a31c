"""What a session decides before any trial: the vocabulary's gene, and the guard of short windows in the scorer."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import InputError
from search import scorer as module
from search.config import SearchConfig
from search.limits.budget import CostLimits
from search.scorer import Baseline, Scorer
from search.session import _languages, _with_known_words
from search.trial import TrialCosts
from tests.search.conftest import DIMENSIONS, ORIGINAL

CHOICES = {"window_s": (30.0, 15.0), "vocabulary": (0, 8192)}


def spoken(*languages: str) -> Any:
    return SimpleNamespace(utterances=[SimpleNamespace(id="u", language=language) for language in languages])


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
        )
        for n, ending in enumerate(endings)
    ]
    errors = sum(utterance_counts.insertions + utterance_counts.substitutions for utterance_counts in counts)
    pooled = {"wer": errors / (20 * len(counts)), "wer_low": 0.0, "wer_high": 9.0, "words": 20 * len(counts)}
    pooled |= {"insertions": 0, "deletions": 0, "substitutions": errors}
    hypotheses = [SimpleNamespace(ending=ending) for ending in endings]
    scored = [SimpleNamespace(counts=c, hypothesis=h) for c, h in zip(counts, hypotheses, strict=True)]
    return SimpleNamespace(
        accuracy=SimpleNamespace(**pooled), utterances=scored, counts=counts, groups=(), stopped=None
    )


@pytest.mark.parametrize(("window_s", "feasible"), [(15.0, False), (30.0, True)])
def test_a_short_window_that_loops_is_infeasible_at_any_wer(window_s, feasible, monkeypatch, outcome):
    costs: TrialCosts = outcome.trials[0].costs
    said = iter([evaluation(*["complete"] * 40), evaluation(*["loop"] * 2, "limit", *["complete"] * 37)])
    monkeypatch.setattr(module, "trial_costs", lambda *_: costs)
    monkeypatch.setattr(module, "rejection", lambda *_, **__: None)
    session = SimpleNamespace(
        config=SearchConfig(model="tiny.en", device="host", data=Path("sample"), wer_budget="900%", trials=1),
        original=ORIGINAL,
        model=SimpleNamespace(dimensions=DIMENSIONS),
        profile=SimpleNamespace(runtime=None),
        calibration=None,
        limits=CostLimits(max_memory_mb=1e6),
        evaluator=SimpleNamespace(evaluate=lambda *_, **__: next(said), groups=()),
        network=lambda _: None,
    )
    scorer = Scorer(session)  # type: ignore[arg-type]
    first = scorer.score(0, ORIGINAL, None)
    assert first.feasible
    assert first.accuracy
    baseline = Baseline(accuracy=first.accuracy, wer_limit=9.0)
    trial = scorer.score(1, replace(ORIGINAL, window_s=window_s, embedding_bits=8), baseline)
    assert trial.state == "complete"
    assert trial.violations["wer"] < 0
    assert trial.feasible == feasible
    assert ("run_on" in trial.violations) == (not feasible)
    assert trial.note.startswith("" if feasible else "3 transcripts run on (the original: 0, allowed: 0)")
