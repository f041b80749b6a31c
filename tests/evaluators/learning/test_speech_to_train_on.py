"""What a run may learn from, of made-up speech."""

from pathlib import Path

from evaluators.learning.speech_to_train_on import speech_to_train_on
from evaluators.speech.speech_set import SpeechSet, Utterance


def spoken(identity: str, recording: str, duration_s: float = 5.0) -> Utterance:
    return Utterance(
        id=identity,
        audio=Path(f"{recording}.wav"),
        text="",
        language="en",
        duration_s=duration_s,
        speaker=identity,
        recording=recording,
    )


def speech(name: str, *utterances: Utterance) -> SpeechSet:
    return SpeechSet(name=name, utterances=utterances, broken=(), digest=name)


def recordings(found: SpeechSet | None) -> list[str]:
    return [utterance.recording for utterance in found.utterances] if found else []


def test_each_recording_once_and_none_that_something_is_measured_on() -> None:
    calibration = speech("calibration", spoken("1", "a"), spoken("2", "b"), spoken("3", "c"), spoken("4", "a"))
    unlabelled = speech("unlabelled", spoken("1", "b"), spoken("2", "d"), spoken("3", "e"))
    found = speech_to_train_on([calibration, unlabelled], [spoken("x", "c"), spoken("y", "e")])
    assert found
    assert recordings(found) == ["a", "b", "d"]
    assert [utterance.id for utterance in found.utterances] == ["0/1", "0/2", "1/2"]
    assert found.name == "calibration and unlabelled"


def test_ids_of_a_single_set_stay_and_what_is_longer_than_a_window_leaves() -> None:
    alone = speech("calibration", spoken("1", "a"), spoken("2", "b", 31.0), spoken("3", "c", 30.0))
    found = speech_to_train_on([alone], [])
    assert found
    assert [utterance.id for utterance in found.utterances] == ["1", "3"]


def test_fewer_than_two_are_none() -> None:
    pair = speech("calibration", spoken("1", "a"), spoken("2", "b"))
    assert speech_to_train_on([pair], [spoken("x", "b")]) is None
    assert speech_to_train_on([], []) is None
    assert speech_to_train_on([pair], []) is not None


def test_the_digest_tells_which_recordings_under_which_ids() -> None:
    sets = [
        speech("s", spoken("1", first), spoken(second, "b")) for first, second in (("a", "2"), ("c", "2"), ("a", "3"))
    ]
    digests = [found.digest for one in sets if (found := speech_to_train_on([one], []))]
    assert len(set(digests)) == 3
