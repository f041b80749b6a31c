"""Speech to text for audio of any length, with Whisper's fallback."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from runtime.artifact import Artifact
from runtime.audio import SAMPLE_RATE, Floats
from runtime.decoding import Decoded, DecodingOptions, PromptedWindow, Text, decode, listening, open_window
from runtime.mel import log_mel
from runtime.model import Model
from runtime.pieces import energies, next_piece
from runtime.unheard import Unheard, unheard
from runtime.window import encoder_frames

# openai-whisper's defaults
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MAX_COMPRESSION_RATIO = 2.4
MIN_AVG_LOGPROB = -1.0
MAX_NO_SPEECH_PROB = 0.6

CERTAIN_AVG_LOGPROB = -0.5
"""Below it a text counts as invented where the model says that nobody speaks. openai-whisper says -1, of texts with
timestamps, which noise makes improbable: hum is "." at -1.18 for it, and "you" at -0.69 without them."""
INVENTED_AVG_LOGPROB = -2.0
"""Below it no text is kept: what all temperatures make of noise at last. openai-whisper keeps it."""

SILENCE_PEAK = 1e-4
"""A piece in which no sample exceeds this (-80 dB of full scale, 3 steps of 16-bit audio) is silence and not decoded:
of digital silence, whose no-speech probability is 0.95, tiny.en still makes a probable "you"."""


class Encoder(Protocol):
    """`runtime.model.Model`."""

    def encode(self, mel: Floats) -> Text:
        """Hear a window (n_mels, frames)."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What was said in a piece of the audio. `text` is empty where there was no speech.

    The numbers are those of `runtime.decoding`, of all that was decoded where only its beginning is kept;
    None where a piece was silent and not decoded.
    """

    start_s: float
    end_s: float
    text: str
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A recording's text. `language`: given, or detected in the first piece with speech, if there is one."""

    text: str
    language: str | None
    segments: tuple[Segment, ...]


class Transcriber:
    """Transcribes recordings with one model."""

    def __init__(self, model: Encoder, artifact: Artifact) -> None:
        self.model = model
        self.artifact = artifact
        self._vocabulary = artifact.vocabulary

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> "Transcriber":
        """Load an artifact; `threads`: default one per core. Raises ArtifactError when it cannot be used."""
        artifact = Artifact.open(folder)
        return cls(Model(artifact, threads=threads), artifact)

    def transcribe(
        self, samples: Floats, *, language: str | None = None, task: str = "transcribe", beams: int = 1, seed: int = 0
    ) -> Transcript:
        """The text of 16 kHz audio (samples,), of any length.

        `language`: Whisper's code; None: the artifact's own, where it has none the detected one. `task`: "transcribe",
        or "translate" to English. `beams`: the width of the beam search, 1 for greedy. `seed`: of the samples drawn
        when the fallback raises the temperature. Raises OptionError when the model does not know the language or the
        task, ArtifactError when its logits are not finite.
        """
        language = language or self.artifact.language
        self._vocabulary.check(language=language, task=task)
        if self._vocabulary.special.languages is None:
            language = "en"
        rng = np.random.default_rng(seed)
        segments, heard, start = list[Segment](), None, 0
        while start < len(samples) or not segments:
            piece = next_piece(samples, start)
            opening = self._hear(samples[piece], language=language, task=task)
            said = self._decode(opening, beams=beams, rng=rng) if opening else None
            rest = self._rest(samples[piece], opening, said, task=task) if opening and said else None
            start = piece.stop if rest is None else piece.start + round(rest.start_s * SAMPLE_RATE)
            said = replace(said, tokens=said.tokens[: rest.tokens], text=rest.text) if said and rest else said
            segments.append(_segment(slice(piece.start, start), opening, said))
            if opening and said and segments[-1].text:
                heard = heard or opening.language
                language = language if _failed(said) else opening.language
        text = " ".join(segment.text for segment in segments if segment.text)
        return Transcript(text=text, language=language or heard, segments=tuple(segments))

    def _hear(self, samples: Floats, *, language: str | None, task: str) -> PromptedWindow | None:
        """The window of a piece; None when it is silent."""
        if not len(samples) or np.abs(samples).max() <= SILENCE_PEAK:
            return None
        frames = encoder_frames(self.artifact.window_s, len(samples) / SAMPLE_RATE)
        window = self.model.encode(log_mel(samples, self.artifact.n_mels)[:, :frames])
        return open_window(window, self._vocabulary, language=language, task=task)

    def _decode(self, opening: PromptedWindow, *, beams: int, rng: np.random.Generator) -> Decoded:
        """Decode at rising temperatures until the text is neither repetitive nor improbable."""
        max_tokens = self.artifact.n_text_ctx // 2
        for temperature in TEMPERATURES:
            options = DecodingOptions(max_tokens=max_tokens, beams=beams, temperature=temperature, rng=rng)
            said = decode(opening, self._vocabulary, options)
            if not _failed(said) or _is_silent(opening, said):
                break
        return said

    def _rest(self, samples: Floats, opening: PromptedWindow, said: Decoded, *, task: str) -> Unheard | None:
        """Where the piece must be decoded again; None where its text covers it, or is no good itself."""
        if _failed(said) or _is_silent(opening, said):
            return None
        audio_s = len(samples) / SAMPLE_RATE
        listened = listening(opening, self._vocabulary, said, task=task, audio_s=audio_s)
        return None if listened is None else unheard(energies(samples), listened)


def _failed(said: Decoded) -> bool:
    """Whether the text is repetitive or improbable."""
    repetitive = said.ending == "loop" or said.compression_ratio > MAX_COMPRESSION_RATIO
    return repetitive or said.avg_logprob < MIN_AVG_LOGPROB


def _is_silent(opening: PromptedWindow, said: Decoded) -> bool:
    """Whether there is no speech: the model says so, and is not certain of what it heard none the less."""
    no_speech_prob = opening.no_speech_prob or 0.0
    return no_speech_prob > MAX_NO_SPEECH_PROB and said.avg_logprob < CERTAIN_AVG_LOGPROB


def is_invented(opening: PromptedWindow, said: Decoded) -> bool:
    """Whether nobody said the text: it has no word, or there is no speech, or it is far too improbable."""
    has_words = any(character.isalnum() for character in said.text)
    return not has_words or _is_silent(opening, said) or said.avg_logprob < INVENTED_AVG_LOGPROB


def _segment(piece: slice, opening: PromptedWindow | None, said: Decoded | None) -> Segment:
    start_s, end_s = piece.start / SAMPLE_RATE, piece.stop / SAMPLE_RATE
    if opening is None or said is None:
        return Segment(start_s=start_s, end_s=end_s, text="")
    return Segment(
        start_s=start_s,
        end_s=end_s,
        text="" if is_invented(opening, said) else said.text,
        avg_logprob=said.avg_logprob,
        no_speech_prob=opening.no_speech_prob,
        compression_ratio=said.compression_ratio,
        temperature=said.temperature,
    )
