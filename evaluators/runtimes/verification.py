"""What an exported artifact really is: its own WER, its parity with torch, its size, speed and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import whisper
from torch.random import fork_rng, manual_seed
from whisper.model import Whisper

from compression.export.manifest import artifact_bytes, read_origin
from compression.recipe.runtimes import OWN_TARGET
from compression.techniques.compressed import Compressed
from evaluators.accuracy.decoding import Hypothesis
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.accuracy.groups import GroupAccuracy
from evaluators.accuracy.sounds import BATTERY
from evaluators.accuracy.word_errors import Accuracy
from evaluators.runtimes.own import ArtifactRecogniser, measure_apart
from evaluators.runtimes.process import RuntimeProcess, measure_runtime
from evaluators.speech.speech_set import SpeechSet, Utterance
from runtime.measure import Measurement, Plan
from runtime.transcribe import SILENCE_PEAK

TIMED_CLIPS = 5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An utterance that the artifact and the torch evaluation hear differently."""

    utterance_id: str
    artifact: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """On how many utterances artifact and torch evaluation say exactly the same."""

    utterances: int
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> int:
        return self.utterances - len(self.differences)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """`accuracy`: WER of the artifact, greedy, with the rules of the search's evaluation. `size_bytes`: all its files.

    Where another runtime runs it, by that one's rules, here and below.
    `on_silence`, `on_noise`, `on_quiet`: what `whisperfit transcribe` hears in 10 s of digital silence, of white noise
    and of noise as faint as a quiet room, which is best nothing. Digital silence never reaches the model (see
    `runtime.transcribe.SILENCE_PEAK`), the faint noise does. `on_sounds`: what it hears in each of the other
    sounds of `evaluators.accuracy.sounds.BATTERY`. `measured`: in a process of its own. `groups`: `accuracy`
    by group. `language_accuracy`: share of the utterances whose language it detects; None where it knows but one.
    """

    accuracy: Accuracy
    parity: Parity
    size_bytes: int
    on_silence: str
    on_noise: str
    on_quiet: str
    on_sounds: dict[str, str]
    measured: Measurement
    groups: tuple[GroupAccuracy, ...] = ()
    language_accuracy: float | None = None


def parity(artifact: Evaluation, heard: Mapping[str, str]) -> Parity:
    """Compare an evaluation with what torch heard in each utterance, word for word and mark for mark."""
    differences = tuple(
        Difference(utterance_id=name, artifact=utterance.hypothesis.text, torch=heard[name])
        for utterance in artifact.utterances
        if utterance.hypothesis.text != heard[name := utterance.counts.utterance_id]
    )
    return Parity(utterances=len(artifact.utterances), differences=differences)


class Recogniser(Protocol):
    """An artifact in its runtime."""

    def __call__(self, utterance: Utterance, max_tokens: int) -> Hypothesis:
        """The transcript of an utterance, by the runtime's rules."""

    def transcribe(self, samples: npt.NDArray[np.float32]) -> str:
        """The text of 16 kHz audio, in English."""


def verify(  # noqa: PLR0913 - the artifact, and what it is compared with
    folder: Path,
    evaluator: Evaluator,
    plan: Plan,
    *,
    compressed: Compressed,
    window_s: float,
    heard: Mapping[str, str] | None = None,
) -> Verification:
    """Run an artifact on the evaluator's speech set, compare it with the network it was made from, and measure it.

    `window_s`: the recipe's. `heard`: the network's transcripts by utterance, where they are known; else it is decoded
    here, with the artifact's transcripts as drafts, which makes it faster.

    Raises InputError when the folder is no artifact that is run here, EvaluationError when its runtime fails.
    """
    target, clips = read_origin(folder).target, timed_clips(evaluator.speech)
    if target == OWN_TARGET:
        recogniser = ArtifactRecogniser(folder, threads=plan.threads, ids=compressed.vocabulary.ids.tolist())
        evaluation, sounds = _transcribed(evaluator, recogniser)
        measured = measure_apart(folder, clips, plan)
    else:
        with RuntimeProcess(target, folder, threads=plan.threads) as process:
            evaluation, sounds = _transcribed(evaluator, process)
        measured = measure_runtime(target, folder, clips, plan)
    if heard is None:
        heard = evaluator.evaluate(compressed, window_s=window_s, drafts=evaluation.drafts).texts
    return Verification(
        accuracy=evaluation.accuracy,
        parity=parity(evaluation, heard),
        size_bytes=artifact_bytes(folder),
        on_silence=sounds.pop("silence"),
        on_noise=sounds.pop("noise"),
        on_quiet=sounds.pop("faint noise"),
        on_sounds=sounds,
        measured=measured,
        groups=evaluation.groups,
        language_accuracy=evaluation.language_accuracy,
    )


def _transcribed(evaluator: Evaluator, recogniser: Recogniser) -> tuple[Evaluation, dict[str, str]]:
    """What it makes of the speech set, and of each sound of `BATTERY`."""
    sounds = {name: recogniser.transcribe(sound()) for name, sound in BATTERY.items()}
    return evaluator.evaluate_transcripts(recogniser), sounds


def original_transcribes(network: Whisper, samples: npt.NDArray[np.float32]) -> str:
    """What openai-whisper's own `transcribe` hears with the original model, in English; nothing in digital silence.

    With openai-whisper's fallback to higher temperatures, which the runtime has too; the draws are always the same.
    """
    if np.abs(samples).max() <= SILENCE_PEAK:
        return ""
    with fork_rng():
        manual_seed(0)
        said = whisper.transcribe(network, samples, language="en", fp16=False)
    return str(said["text"]).strip()


def timed_clips(speech: SpeechSet) -> tuple[Utterance, ...]:
    """Up to TIMED_CLIPS utterances around the median length, of those that fit into one window."""
    by_length = sorted(speech.utterances, key=lambda utterance: utterance.duration_s)
    first = max(0, (len(by_length) - TIMED_CLIPS) // 2)
    return tuple(by_length[first : first + TIMED_CLIPS])
