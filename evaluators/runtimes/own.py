"""An artifact for ONNX Runtime, run by the package `runtime`."""

import json
import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from common.errors import EvaluationError, InputError
from evaluators.accuracy.decoding import Hypothesis, joined
from evaluators.accuracy.hearing import Hearing
from evaluators.speech.audio import SAMPLE_RATE
from evaluators.speech.language import language_of
from evaluators.speech.speech_set import Utterance
from runtime.decoding import DecodingOptions, decode, listening, open_window
from runtime.errors import TranscribeError
from runtime.measure import Measurement, Plan
from runtime.mel import WINDOW_SAMPLES, log_mel
from runtime.pieces import energies
from runtime.transcribe import Transcriber
from runtime.window import encoder_frames


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
