"""Groups against filtering by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.accuracy.groups import MIN_SPEAKER_UTTERANCES, group_accuracies, groups_of, length_name
from evaluators.accuracy.word_errors import ErrorCounts, pooled_accuracy
from evaluators.speech.speech_set import Utterance


def utterance(name: str, **changes: object) -> Utterance:
    fields: dict[str, object] = {
        "id": name, "audio": Path(name), "text": "a b", "language": "en", "duration_s": 7.0, "speaker": name,
        "recording": name,
    }  # fmt: skip
    return Utterance(**fields | changes)  # type: ignore[arg-type]


def counts(name: str, *, speaker: str = "s", errors: int = 0, words: int = 10) -> ErrorCounts:
    return ErrorCounts(utterance_id=name, speaker=speaker, insertions=0, deletions=0, substitutions=errors, words=words)


def labels(utterances: list[Utterance]) -> dict[str, set[str]]:
    return {group.key.label: set(group.utterances) for group in groups_of(utterances)}


def test_a_set_of_one_kind_has_no_groups() -> None:
    """Everything that could be a group is the whole set, or a speaker of one utterance."""
    assert labels([utterance(f"u{n}", noise_level="clean") for n in range(20)]) == {}


def test_groups_are_languages_speakers_lengths_and_noise_levels() -> None:
    spoken = [utterance(f"anna{n}", speaker="anna", noise_level="clean") for n in range(MIN_SPEAKER_UTTERANCES)]
    spoken += [
        utterance(f"bert{n}", speaker="bert", language="de", duration_s=3.0, noise_level="5 dB")
        for n in range(MIN_SPEAKER_UTTERANCES - 1)
    ]
    spoken += [utterance("carl", duration_s=20.0, noise_level="20 dB"), utterance("dora")]
    anna, bert = (
        {spoken_utterance.id for spoken_utterance in spoken if spoken_utterance.speaker == name}
        for name in ("anna", "bert")
    )
    found = labels(spoken)
    assert found == {
        "language de": bert,
        "language en": anna | {"carl", "dora"},
        "speaker anna": anna,  # bert has too few
        "length below 5 s": bert,
        "length 5 to 15 s": anna | {"dora"},
        "length from 15 s": {"carl"},
        "noise clean": anna,
        "noise 20 dB": {"carl"},
        "noise 5 dB": bert,
    }
    assert list(found)[-6:] == [
        *("length below 5 s", "length 5 to 15 s", "length from 15 s"),
        *("noise clean", "noise 20 dB", "noise 5 dB"),
    ], "in order, from easy to hard"


@pytest.mark.parametrize(
    ("seconds", "name"), [(4.99, "below 5 s"), (5.0, "5 to 15 s"), (14.99, "5 to 15 s"), (15.0, "from 15 s")]
)
def test_bounds_of_length(seconds: float, name: str) -> None:
    assert length_name(seconds) == name


def test_a_group_names_its_own_normaliser() -> None:
    spoken = [utterance("one"), utterance("two", language="ja"), utterance("three", language="de")]
    names = {group.key.name: group.normaliser.rpartition("-")[0] for group in groups_of(spoken)}
    assert names == {"de": "whisper-basic", "en": "whisper-english", "ja": "whisper-characters"}


@given(errors=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_a_group_pools_its_own_counts(errors: list[tuple[int, bool]]) -> None:
    spoken = [utterance(f"u{n}", duration_s=3.0 if short else 7.0) for n, (_, short) in enumerate(errors)]
    counted = [counts(one.id, errors=found) for one, (found, _) in zip(spoken, errors, strict=True)]
    found = {group.key.name: group.accuracy for group in group_accuracies(groups_of(spoken), counted, seed=3)}
    for short, name in ((True, "below 5 s"), (False, "5 to 15 s")):
        own = [one for one, (_, is_short) in zip(counted, errors, strict=True) if is_short == short]
        if not own or len(own) == len(spoken):
            assert name not in found
            continue
        pooled = pooled_accuracy(own, normaliser="n", seed=3)
        assert found[name].rate == pooled.rate
        assert (found[name].utterances, found[name].rate.errors) == (len(own), sum(own_row.errors for own_row in own))


def test_groups_without_words_so_far_are_left_out() -> None:
    spoken = [utterance("short", duration_s=2.0), utterance("long")]
    found = group_accuracies(groups_of(spoken), [counts("long"), counts("short", words=0)], seed=0)
    assert [group.key.name for group in found] == ["5 to 15 s"]
