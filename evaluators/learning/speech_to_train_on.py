"""Which of a run's speech may be learned from: what nothing is measured on."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from common.files import sha256_of_text
from evaluators.speech.speech_set import MAX_DURATION_S, SpeechSet, Utterance

FEWEST = 2
"""Utterances: one to train on, one that is held out."""


def speech_to_train_on(sets: Sequence[SpeechSet], measured_on: Collection[Utterance]) -> SpeechSet | None:
    """Each recording of the sets once, but none that something is measured on; None where fewer than two are left.

    What is longer than Whisper hears is left out: a slower copy would end before its transcript does. Ids are those of
    the sets, with the set's number before them where there are several.
    """
    seen = {utterance.recording for utterance in measured_on}
    chosen = []
    for number, speech in enumerate(sets):
        for utterance in speech.utterances:
            if utterance.recording in seen or utterance.duration_s > MAX_DURATION_S:
                continue
            seen.add(utterance.recording)
            identity = utterance.id if len(sets) == 1 else f"{number}/{utterance.id}"
            chosen.append(replace(utterance, id=identity))
    if len(chosen) < FEWEST:
        return None
    return SpeechSet(
        name=" and ".join(speech.name for speech in sets), utterances=tuple(chosen), broken=(), digest=_digest(chosen)
    )


def _digest(utterances: Sequence[Utterance]) -> str:
    return sha256_of_text(json.dumps([[utterance.id, utterance.recording] for utterance in utterances]))
