"""The guard of short windows against closed forms and made-up transcripts."""

import json
from dataclasses import replace
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from search.limits.budget import WerLimit
from search.limits.window_guard import CONFIDENCE, RUN_ON_RATE, WindowFinding, check_window
from search.trial import Trial, UtteranceErrors


def transcripts(insertions: list[int], *, ran_on: int = 0) -> list[UtteranceErrors]:
    """20 words and one substitution each; the first ones run on."""
    return [
        UtteranceErrors(id=f"u{n}", insertions=i, deletions=0, substitutions=1, words=20, ran_on=n < ran_on)
        for n, i in enumerate(insertions)
    ]


def found(trial: list[UtteranceErrors], original: list[UtteranceErrors], *, growth: float = 1.1) -> WindowFinding:
    errors = sum(original_utterance.insertions + original_utterance.substitutions for original_utterance in original)
    words = 20 * len(original)
    limit = WerLimit(rate=Fraction(str(growth)) * errors / words, words=words)
    return check_window(
        trial,
        {original_utterance.id: original_utterance for original_utterance in original},
        wer_limit=limit,
        rng=np.random.default_rng(0),
    )


@pytest.mark.parametrize("utterances", [10, 102, 103, 300, 1000])
def test_as_many_may_run_on_as_chance_makes(utterances):
    """The least k with P(at most k of n) >= 95 %, summed by hand."""
    chance, allowed = 0.0, -1
    while chance < CONFIDENCE:
        allowed += 1
        chance += comb(utterances, allowed) * RUN_ON_RATE**allowed * (1 - RUN_ON_RATE) ** (utterances - allowed)
    original = transcripts([0] * utterances)
    kept, broken = (found(transcripts([0] * utterances, ran_on=n), original) for n in (allowed, allowed + 1))
    assert kept.violations["run_on"] == 0
    assert kept.note == ""
    assert broken.violations["run_on"] == pytest.approx(1 / utterances)
    assert broken.note == f"{allowed + 1} transcripts run on (the original: 0, allowed: {allowed})"


def test_what_the_original_does_is_no_fault_of_the_window():
    original = transcripts([1] * 80, ran_on=5)
    assert max(found(original, original).violations.values()) <= 0
    assert found(transcripts([1] * 80, ran_on=6), original).violations["run_on"] == pytest.approx(1 / 80)


def test_loops_count_although_the_wer_is_lower():
    """Three transcripts run on for 20 words, while 70 substitutions less make up for them."""
    original = transcripts([0] * 80)
    trial = [replace(one, substitutions=0, insertions=20 * (n < 3), ran_on=n < 3) for n, one in enumerate(original)]
    assert sum(utterance.insertions + utterance.substitutions for utterance in trial) < 80
    assert found(trial, original).violations["run_on"] > 0


@pytest.mark.parametrize(("inserted", "broken"), [(1, False), (2, True)])
def test_insertions_may_grow_by_the_budget_only(inserted, broken):
    original = transcripts([1] * 80)
    finding = found(transcripts([inserted] * 80), original)
    assert (finding.violations["insertions"] > 0) == broken
    if broken:
        assert finding.violations["insertions"] == pytest.approx(2 / 1.1 - 1)
        assert "160 insertions (the original: 80)" in finding.note


def test_one_transcript_alone_proves_no_insertions():
    original = transcripts([0] * 80)
    assert found(transcripts([30] + [0] * 79), original).violations["insertions"] == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_trial_like_the_original_is_rarely_guarded(seed):
    rng = np.random.default_rng(seed)
    original, trial = (transcripts(rng.poisson(0.2, 80).tolist()) for _ in range(2))
    assert found(trial, original, growth=1.5).note == ""


def test_an_original_without_errors_leaves_only_what_runs_on():
    perfect = [replace(transcript, substitutions=0) for transcript in transcripts([0] * 30)]
    finding = check_window(
        transcripts([3] * 30, ran_on=3),
        {utterance.id: utterance for utterance in perfect},
        wer_limit=WerLimit(rate=Fraction(1, 10), words=600),
        rng=np.random.default_rng(0),
    )
    assert finding.violations["insertions"] == 0
    assert finding.violations["run_on"] > 0


def test_records_from_before_the_guard_are_read(make_trial):
    trial = make_trial(1, objective=0.5, wer=0.05)
    text = json.loads(trial.to_json())
    for utterance in text["accuracy"]["utterances"]:
        del utterance["ran_on"]
    assert Trial.from_json(json.dumps(text)) == trial
