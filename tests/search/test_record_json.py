"""Records: what is written comes back, older versions by hand-written texts, younger and damaged ones refused."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from evaluators.accuracy.error_rate import ErrorRate, GroupKey
from search.outcome import ArtifactRecord, Confirmation
from search.record_json import VERSION, RecordFormat
from search.trial import GroupErrors, Transcripts, Trial

COUNT = st.integers(0, 10_000)
RATES = st.builds(
    ErrorRate, errors=COUNT, words=st.integers(1, 10_000), low=st.floats(0, 1), high=st.floats(0, 9),
    insertions=st.none() | COUNT, deletions=st.none() | COUNT, substitutions=st.none() | COUNT,
)  # fmt: skip
GROUPS = st.builds(
    GroupErrors, key=st.builds(GroupKey, kind=st.sampled_from(["noise", "language"]), name=st.text()),
    rate=RATES, utterances=COUNT, language_accuracy=st.none() | st.floats(0, 1),
)  # fmt: skip
CONFIRMATIONS = RecordFormat(Confirmation, "confirmation")


@given(rate=RATES, groups=st.lists(GROUPS, max_size=3).map(tuple), within=st.booleans())
def test_what_is_written_comes_back(rate, groups, within):
    confirmation = Confirmation(rate=rate, within_budget=within, groups=groups)
    text = CONFIRMATIONS.write(confirmation)
    assert json.loads(text)["version"] == VERSION
    assert CONFIRMATIONS.read(text) == confirmation


def test_a_trial_comes_back_with_groups_and_transcripts(make_trial):
    trial = make_trial(3, objective=0.4, wer=0.05, violations={"wer": 0.1 + 0.2, "memory": float("inf")})
    group = GroupErrors(key=GroupKey(kind="noise", name="5 dB"), rate=trial.accuracy.rate, utterances=9)
    said = Transcripts.of(f"utterance {n}, “said” \t\n語" for n in range(100))
    full = replace(trial, accuracy=replace(trial.accuracy, groups=(group,), transcripts=said))
    assert Trial.from_json(full.to_json()) == full
    assert full.heard == {f"u{n}": f"utterance {n}, “said” \t\n語" for n in range(100)}
    assert trial.heard is None
    assert replace(full, state="stopped").heard is None, "of a part of the set"


def test_transcripts_are_compact():
    """80 utterances of 20 words of a small vocabulary, in less than half of their length."""
    texts = [" ".join(f"word{(7 * n * n + 31 * k * k) % 400}" for k in range(20)) for n in range(80)]
    packed = Transcripts.of(texts)
    assert packed.texts == tuple(texts)
    assert len(packed.packed) < len("".join(texts)) / 2
    assert Transcripts.of([]).texts == ()


FLAT = {"wer": 0.06, "wer_low": 0.04, "wer_high": 0.09, "words": 1000}
FLAT_GROUP = {"kind": "length", "name": "below 5 s", "wer": 0.1, "wer_low": 0.05, "wer_high": 0.2}
FLAT_GROUP |= {"errors": 20, "words": 200, "utterances": 9}
GROUP = GroupErrors(
    key=GroupKey(kind="length", name="below 5 s"),
    rate=ErrorRate(errors=20, words=200, low=0.05, high=0.2),
    utterances=9,
)


def test_a_trial_of_version_one(make_trial):
    """As `asdict` wrote it: rates flat, no version, no transcripts."""
    trial = make_trial(1, objective=0.4, wer=0.06)
    kinds = {"insertions": 10, "deletions": 20, "substitutions": 30}
    utterances = [asdict(utterance) for utterance in trial.accuracy.utterances]
    flat = FLAT | kinds | {"utterances": utterances, "groups": [FLAT_GROUP]}
    text = json.dumps(
        {
            "number": 1, "recipe": trial.recipe.to_json(), "state": "complete", "objective": 0.4,
            "costs": asdict(trial.costs), "accuracy": flat, "violations": trial.violations, "seconds": 10, "note": "",
        }
    )  # fmt: skip
    rate = ErrorRate(errors=60, words=1000, low=0.04, high=0.09, **kinds)
    assert Trial.from_json(text) == replace(trial, accuracy=replace(trial.accuracy, rate=rate, groups=(GROUP,)))
    at_the_limit = json.loads(text) | {"violations": {"wer": 2.2e-16, "size": 1e-3, "memory": -0.5}}
    assert Trial.from_json(json.dumps(at_the_limit)).violations == {"wer": 0.0, "size": 1e-3, "memory": -0.5}
    rejected = json.loads(text) | {"accuracy": None, "state": "rejected"}
    assert Trial.from_json(json.dumps(rejected)).accuracy is None


def test_confirmations_and_artifacts_of_version_one(artifact_figures):
    """A confirmation kept no number of errors: it is the only whole number with that rate."""
    text = json.dumps(FLAT | {"within_budget": True, "groups": [FLAT_GROUP]})
    rate = ErrorRate(errors=60, words=1000, low=0.04, high=0.09)
    assert CONFIRMATIONS.read(text) == Confirmation(rate=rate, within_budget=True, groups=(GROUP,))
    assert CONFIRMATIONS.read(json.dumps(FLAT | {"within_budget": False})).groups == ()

    artifacts = RecordFormat(ArtifactRecord, "artifact")
    figures = asdict(artifact_figures) | artifact_figures.rate.columns
    del figures["rate"], figures["on_quiet"]
    record = ArtifactRecord(figures=artifact_figures, note="", groups=(GROUP,))
    assert artifacts.read(json.dumps({"figures": figures, "note": "", "groups": [FLAT_GROUP]})) == record
    assert artifacts.read('{"figures": null, "note": "no artifact: x"}').note == "no artifact: x"


def test_records_from_before_languages_were_detected(make_trial, artifact_figures):
    trial = make_trial(1, objective=0.4, wer=0.05)
    told = [replace(utterance, right_language=n > 0) for n, utterance in enumerate(trial.accuracy.utterances)]
    trial = replace(trial, accuracy=replace(trial.accuracy, utterances=tuple(told), groups=(GROUP,)))
    confirmation = Confirmation(rate=trial.accuracy.rate, within_budget=True, groups=(GROUP,), language_accuracy=0.5)
    artifact = ArtifactRecord(figures=replace(artifact_figures, language_accuracy=0.5), note="", groups=(GROUP,))
    artifacts = RecordFormat(ArtifactRecord, "artifact")
    texts = [trial.to_json(), CONFIRMATIONS.write(confirmation), artifacts.write(artifact)]
    assert Trial.from_json(texts[0]) == trial
    assert trial.accuracy.language_accuracy == 0.99
    old = [json.dumps(without(json.loads(text), "language_accuracy", "right_language")) for text in texts]
    assert "language" not in "".join(old)
    assert Trial.from_json(old[0]).accuracy.language_accuracy is None
    assert CONFIRMATIONS.read(old[1]) == replace(confirmation, language_accuracy=None)
    assert artifacts.read(old[2]) == replace(artifact, figures=artifact_figures)


def without(value: Any, *names: str) -> Any:
    """JSON without these keys, however deep."""
    if isinstance(value, dict):
        return {name: without(item, *names) for name, item in value.items() if name not in names}
    return [without(item, *names) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 3}', "has format version 3, this program reads up to 2: use the whisperfit that wrote it"),
        ("{", "the run's confirmation is damaged"),
        ("[]", "the run's confirmation is damaged"),
        ('{"version": 2, "within_budget": true}', "the run's confirmation is damaged: rate: "),
        ('{"version": 2, "within_budget": 7, "rate": {"errors": 1}}', "the run's confirmation is damaged: rate.words"),
    ],
)
def test_what_cannot_be_read_is_said(text, message):
    with pytest.raises(InputError, match=message):
        CONFIRMATIONS.read(text)
