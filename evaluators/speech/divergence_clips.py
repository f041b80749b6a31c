"""Short clips by which divergence is measured: of many speakers, half of them under other conditions."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.files import sha256_of_text
from evaluators.speech.audio import SAMPLE_RATE
from evaluators.speech.augmentation import at_level, at_speed, generator_of, reverberated, with_noise
from evaluators.speech.language import language_of
from evaluators.speech.noise import Samples
from evaluators.speech.speech_set import Utterance

CLIP_S = 11.0
"""Of longer clips only the beginning is heard: with its margin it fits a window of 15 s."""
WIDENING_VERSION = 1
"""To be raised whenever the same speech would give other clips."""

Rng = np.random.Generator
Condition = Callable[[Samples, Rng], Samples]
CONDITIONS: dict[str, Condition] = {
    "noise": lambda samples, rng: with_noise(
        samples, rng.standard_normal(len(samples), dtype=np.float32), snr_db=rng.uniform(8, 20)
    ),
    "room": lambda samples, rng: reverberated(
        samples, rng, decay_s=rng.uniform(0.3, 0.7), reverberant_db=rng.uniform(-6, 0)
    ),
    "fast": lambda samples, rng: at_speed(samples, rng.uniform(1.1, 1.2)),
    "faint": lambda samples, rng: at_level(samples, rng.uniform(-30, -15)),
    "slow": lambda samples, rng: at_speed(samples, rng.uniform(0.85, 0.92)),
}
"""By name, in the order in which clips get them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DivergenceClip:
    """16 kHz samples (samples,), at most CLIP_S seconds. `name`: the utterance, and the condition if there is one."""

    name: str
    samples: Samples
    language: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def draw_clips(utterances: Sequence[Utterance], count: int, *, seed: int, widen: bool) -> tuple[DivergenceClip, ...]:
    """So many clips, or one of each utterance if there are fewer; the first ones are those of a smaller count.

    Speakers take turns. With `widen` every second clip is heard in noise, in a room, faster, fainter or slower.
    """
    chosen = drawn(utterances, count, seed=seed)
    conditions = list(CONDITIONS)
    clips = []
    for index, utterance in enumerate(chosen):
        condition = conditions[index // 2 % len(conditions)] if widen and index % 2 else None
        clips.append(_clip(utterance, condition, seed))
    return tuple(clips)


def drawn(utterances: Sequence[Utterance], count: int, *, seed: int) -> list[Utterance]:
    """The utterances of which `draw_clips` makes its clips."""
    return _by_turns(utterances, random.Random(seed))[:count]


def clips_digest(utterances: Sequence[Utterance], count: int, *, seed: int, widen: bool) -> str:
    """Identifies the clips that would be drawn, without reading any audio."""
    chosen = drawn(utterances, count, seed=seed)
    heard = [f"{u.recording}/{u.noise.identity if u.noise else ''}/{language_of(u)}" for u in chosen]
    return sha256_of_text(f"{WIDENING_VERSION}/{seed}/{widen}/{heard}")


def _by_turns(utterances: Sequence[Utterance], rng: random.Random) -> list[Utterance]:
    """All of them in an order in which the speakers take turns."""
    by_speaker: dict[str, deque[Utterance]] = {}
    for utterance in rng.sample(utterances, len(utterances)):
        by_speaker.setdefault(utterance.speaker, deque()).append(utterance)
    ordered = []
    while by_speaker:
        for speaker in list(by_speaker):
            ordered.append(by_speaker[speaker].popleft())
            if not by_speaker[speaker]:
                del by_speaker[speaker]
    return ordered


def _clip(utterance: Utterance, condition: str | None, seed: int) -> DivergenceClip:
    most = round(CLIP_S * SAMPLE_RATE)
    samples = utterance.samples()[:most]
    if condition is not None:
        samples = CONDITIONS[condition](samples, generator_of(seed, 0, utterance.id))[:most]
    name = utterance.id if condition is None else f"{utterance.id} ({condition})"
    return DivergenceClip(name=name, samples=samples, language=language_of(utterance))
