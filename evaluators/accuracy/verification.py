"""What an exported artifact really is: its own WER, its parity with torch, its size, speed and memory."""

import json
import subprocess
import sys
import wave
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import whisper
from torch.random import fork_rng, manual_seed
from whisper.model import Whisper

from common.errors import EvaluationError, InputError
from compression.export.manifest import artifact_bytes
from compression.techniques.compressed import Compressed
from evaluators.accuracy.decoding import Hypothesis, joined
from evaluators.accuracy.evaluator import Evaluation, Evaluator
from evaluators.accuracy.groups import GroupAccuracy
from evaluators.accuracy.hearing import Hearing
from evaluators.accuracy.sounds import BATTERY
from evaluators.accuracy.word_errors import Accuracy
from evaluators.speech.audio import SAMPLE_RATE
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import SpeechSet, Utterance
from runtime.decoding import DecodingOptions, decode, listening, open_window
from runtime.errors import TranscribeError
from runtime.measure import Measurement, Plan
from runtime.mel import WINDOW_SAMPLES, log_mel
from runtime.pieces import energies
from runtime.transcribe import SILENCE_PEAK, Transcriber
from runtime.window import encoder_frames

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


class ArtifactRecogniser:
    """An artifact as the evaluator sees it: greedy, without fallback, one clip at a time.

    `ids`: the original's id of each token of its vocabulary; None where it has the original's.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, ids: Sequence[int] | None = None) -> None:
        """Raises InputError when the folder is no artifact for ONNX Runtime, or is damaged."""
        self._ids = ids
        try:
            self._transcriber = Transcriber.open(folder, threads=threads)
        except TranscribeError as error:
            raise InputError(str(error)) from error

    def __call__(self, utterance: Utterance, max_tokens: int) -> Hypothesis:
        """The transcript of the first 30 s at most. Raises EvaluationError when the logits are not finite."""
        samples = utterance.samples()[:WINDOW_SAMPLES]
        energy, hearing = energies(samples), Hearing(utterance, max_tokens)
        while not hearing.is_whole:
            hearing.take(self._part(utterance, samples, hearing), energy)
        return joined(hearing.parts)

    def _part(self, utterance: Utterance, samples: npt.NDArray[np.float32], hearing: Hearing) -> Hypothesis:
        """What the artifact says from `hearing.start` on."""
        artifact, vocabulary = self._transcriber.artifact, self._transcriber.artifact.vocabulary
        audio_s = utterance.duration_s - hearing.start / SAMPLE_RATE
        mel = log_mel(samples[hearing.start :], artifact.n_mels)[:, : encoder_frames(artifact.window_s, audio_s)]
        options = DecodingOptions(max_tokens=min(hearing.tokens_left, artifact.n_text_ctx // 2))
        try:
            window = self._transcriber.model.encode(mel)
            opening = open_window(window, vocabulary, language=language_of(utterance), task="transcribe")
            said = decode(opening, vocabulary, options)
            listened = listening(opening, vocabulary, said, audio_s=audio_s)
        except TranscribeError as error:
            raise EvaluationError(str(error)) from error
        tokens = said.tokens if self._ids is None else tuple(self._ids[token] for token in said.tokens)
        return Hypothesis(
            text=said.text, tokens=tokens, ending=said.ending, listening=listened, detected=opening.detected
        )

    def transcribe(self, samples: npt.NDArray[np.float32]) -> str:
        """The text of 16 kHz audio, with all that `whisperfit transcribe` does; in English."""
        return self._transcriber.transcribe(samples, language="en").text


def parity(artifact: Evaluation, heard: Mapping[str, str]) -> Parity:
    """Compare an evaluation with what torch heard in each utterance, word for word and mark for mark."""
    differences = tuple(
        Difference(utterance_id=name, artifact=utterance.hypothesis.text, torch=heard[name])
        for utterance in artifact.utterances
        if utterance.hypothesis.text != heard[name := utterance.counts.utterance_id]
    )
    return Parity(utterances=len(artifact.utterances), differences=differences)


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

    Raises InputError when the folder is no artifact that ONNX Runtime runs here.
    """
    recogniser = ArtifactRecogniser(folder, threads=plan.threads, ids=compressed.vocabulary.ids.tolist())
    evaluation = evaluator.evaluate_transcripts(recogniser)
    if heard is None:
        heard = evaluator.evaluate(compressed, window_s=window_s, drafts=evaluation.drafts).texts
    sounds = {name: recogniser.transcribe(sound()) for name, sound in BATTERY.items()}
    return Verification(
        accuracy=evaluation.accuracy,
        parity=parity(evaluation, heard),
        size_bytes=artifact_bytes(folder),
        on_silence=sounds.pop("silence"),
        on_noise=sounds.pop("noise"),
        on_quiet=sounds.pop("faint noise"),
        on_sounds=sounds,
        measured=measure_apart(folder, timed_clips(evaluator.speech), plan),
        groups=evaluation.groups,
        language_accuracy=evaluation.language_accuracy,
    )


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


class MeasurementError(EvaluationError):
    """An artifact's process ended before it was measured; another time it may come to its end."""


def measure_apart(folder: Path, clips: tuple[Utterance, ...], plan: Plan) -> Measurement:
    """Time an artifact in a fresh process that holds nothing but the runtime.

    That process is in a session of its own, so that Ctrl-C reaches only us, who let it finish or end it.
    Raises MeasurementError when it fails.
    """
    options = {f"--{name.replace('_', '-')}": value for name, value in asdict(plan).items() if value is not None}
    with TemporaryDirectory() as scratch:
        files = [_write_wav(Path(scratch) / f"{index}.wav", clip) for index, clip in enumerate(clips)]
        command = [sys.executable, "-m", "runtime.measure", folder, *files, *chain.from_iterable(options.items())]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, start_new_session=True
        )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise MeasurementError(f"{folder} cannot be measured: {reason[0]}")
    return Measurement(**json.loads(done.stdout))


def _write_wav(file: Path, utterance: Utterance) -> Path:
    """The clip as 16-bit WAV, which the runtime reads without further packages."""
    samples = np.clip(np.rint(utterance.samples() * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(file), "wb") as handle:
        handle.setnchannels(1)
        handle.setsampwidth(2)
        handle.setframerate(SAMPLE_RATE)
        handle.writeframes(samples.tobytes())
    return file
