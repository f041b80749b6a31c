"""Speech sets: utterances with their transcripts, every one checked before anything is scored."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
import numpy.typing as npt

from common.errors import InputError, UnknownNameError
from common.files import sha256_of_file, sha256_of_text
from evaluators.sample_speech import sample_speech
from evaluators.speech.audio import SAMPLE_RATE, read_audio, read_sound, stated_duration_s
from evaluators.speech.noise import AddedNoise
from evaluators.speech.speech_formats import BrokenLine, Entry, Line, read_lines
from runtime.audio import Sound

MIN_DURATION_S = 0.1
MAX_DURATION_S = 30.0

DURATION_TOLERANCE_S = 0.5
SHOWN_LINES = 20
CLEAN = "clean"
"""The noise level of speech without noise."""
SAMPLES = {
    "sample": sample_speech("search"),
    "sample-search": sample_speech("search"),
    "sample-confirm": sample_speech("confirm"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A clip and what is said in it. `language` is None where nothing states it; `text` empty where nobody knows it.

    `speaker` groups the utterances that an interval resamples together; the utterance's own id when unknown.
    `noise` is added to the clip when it is heard; `noise_level`, such as `10 dB`, is what it says or the manifest does.
    `recording`: digest of the clip's 16 bit samples at 16 kHz, the same in every lossless file format.
    """

    id: str
    audio: Path
    text: str
    language: str | None
    duration_s: float
    speaker: str
    recording: str
    noise_level: str | None = None
    noise: AddedNoise | None = None

    def samples(self) -> npt.NDArray[np.float32]:
        """What is heard: 16 kHz, (samples,), with the added noise. Raises InputError when the audio cannot be read."""
        speech = read_audio(self.audio)
        return self.noise.added_to(speech) if self.noise else speech


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechSet:
    """Utterances in the manifest's order, at least one; `broken` holds the lines that were left out.

    `digest` is the SHA-256 over each utterance's id, text and audio file, and over the noise that is added.
    `notes`: sentences on audio files that are not as they should be, and how they were read.
    """

    name: str
    utterances: tuple[Utterance, ...]
    broken: tuple[BrokenLine, ...]
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def languages(self) -> list[str | None]:
        """Of each utterance, as the set states it; not in `digest`, though what is heard depends on it."""
        return [utterance.language for utterance in self.utterances]


def shared_recordings(some: Sequence[Utterance], others: Sequence[Utterance]) -> list[str]:
    """The ids of the first utterances whose recordings are among the others."""
    known = {utterance.recording for utterance in others}
    return [utterance.id for utterance in some if utterance.recording in known]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Languages:
    """`asked`: a code for the lines that state none, if any; `default`: what they get where none is asked for.
    `known`: those of the model; None: any.
    """

    asked: str | None
    known: Collection[str] | None
    default: str | None = None

    @classmethod
    def checked(cls, language: str | None, known: Collection[str] | None, default: str | None = None) -> Self:
        """Raises InputError when another language is asked for than is known. One that is known alone need not be."""
        asked = _language_code(language) if language else None
        if known is None:
            return cls(asked=asked, known=known, default=default)
        only = next(iter(known)) if len(known) == 1 else None
        if asked and only and asked != only:
            raise InputError(
                f"--language {language}: the model knows only {only!r}; use a multilingual one, or leave the option out"
            )
        if asked and asked not in known:
            raise UnknownNameError("language", asked, known)
        return cls(asked=asked or only, known=known, default=default)

    def agreed(self, stated: object) -> str | None:
        """The code of what a line states. Raises InputError when it is no text, not known or not what was asked for."""
        if stated is None:
            return self.asked or self.default
        if not isinstance(stated, str):
            raise InputError(f"its language is not text: {stated!r}")
        code = _language_code(stated)
        if self.known is not None and code not in self.known:
            only = f"knows only {next(iter(self.known))!r}" if len(self.known) == 1 else "does not know it"
            raise InputError(f"its language is {stated!r}, but the model {only}: use another model, or mend the line")
        if self.asked and code != self.asked:
            raise InputError(f"its language is {stated!r}, but {self.asked!r} was asked for")
        return code


def load_speech_set(  # noqa: PLR0913 - what a set may be told
    path: Path,
    *,
    language: str | None = None,
    known_languages: Collection[str] | None = None,
    default_language: str | None = None,
    skip_broken: bool = False,
    is_transcribed: bool = True,
) -> SpeechSet:
    """Read and check a manifest or a corpus folder (see `speech_formats`), or one of the built-in SAMPLES by its name.

    `language` (a code such as `en`) holds for the lines that state none; a line that states another one is broken.
    So is one that states none of `known_languages`, those of a model; where that is one alone, it is what holds.
    `default_language`: of lines that state none where no `language` is given.
    Unless it `is_transcribed`, texts are ignored, recordings may have any length, and a folder without a manifest is
    read as all audio in it, where a file's folder is its speaker.
    Raises InputError when the language is not known, when the set is missing or empty, when no line can be used, or,
    without `skip_broken`, when any line cannot: the message then lists the broken lines.
    """
    languages = _Languages.checked(language, known_languages, default_language)
    lines = read_lines(SAMPLES.get(str(path), path), is_transcribed=is_transcribed)
    if not lines:
        raise InputError(f"speech set {path} is empty: it has no utterance")
    utterances, broken, notes = _check(lines, languages, is_transcribed=is_transcribed)
    if not utterances:
        raise InputError(f"no line of speech set {path} can be used: {_listed(broken)}")
    if broken and not skip_broken:
        raise InputError(
            f"speech set {path} has {len(broken)} broken among {len(lines)} lines (mend them, or leave them out with "
            f"--skip-broken): {_listed(broken)}"
        )
    return SpeechSet(
        name=path.resolve().name if path.is_dir() else path.stem,
        utterances=tuple(utterances),
        broken=tuple(broken),
        digest=_digest(utterances),
        notes=tuple(notes),
    )


def _check(
    lines: Sequence[Line], languages: _Languages, *, is_transcribed: bool
) -> tuple[list[Utterance], list[BrokenLine], list[str]]:
    utterances: list[Utterance] = []
    broken: list[BrokenLine] = []
    notes: list[str] = []
    first_lines: dict[str, int] = {}
    for line in lines:
        if isinstance(line, BrokenLine):
            broken.append(line)
            continue
        try:
            utterance, sound = _utterance(line, first_lines, languages, is_transcribed=is_transcribed)
        except InputError as error:
            broken.append(BrokenLine(line=line.line, reason=str(error)))
            continue
        utterances.append(utterance)
        notes += sound.notes
    return utterances, broken, notes


def _utterance(
    entry: Entry, first_lines: dict[str, int], languages: _Languages, *, is_transcribed: bool
) -> tuple[Utterance, Sound]:
    """The entry, checked, and what it sounds like; its id is added to `first_lines`.

    Raises InputError with the reason why it is unusable.
    """
    if not isinstance(entry.audio, str) or not PurePosixPath(entry.audio).name:
        raise InputError("states no audio file")
    identity = _name(entry.id, "id") or str(PurePosixPath(entry.audio).with_suffix(""))
    if identity in first_lines:
        raise InputError(f"the id {identity!r} stands on line {first_lines[identity]} already")
    first_lines[identity] = entry.line
    text = entry.text if is_transcribed else ""
    if not isinstance(text, str) or (is_transcribed and not any(character.isalnum() for character in text)):
        raise InputError(f"{identity!r} has no text")
    agreed = languages.agreed(entry.language)  # before the audio, which takes longer
    audio = entry.folder / entry.audio
    sound = _checked_sound(audio, entry, most_s=MAX_DURATION_S if is_transcribed else inf)
    utterance = Utterance(
        id=identity,
        audio=audio,
        text=text.strip(),
        language=agreed,
        duration_s=len(sound.samples) / SAMPLE_RATE,
        speaker=_name(entry.speaker, "speaker") or identity,
        recording=_recording(sound.samples),
        noise_level=_noise_level(entry.noise),
    )
    return utterance, sound


def _name(value: object, what: str) -> str | None:
    """A label given as text or as a whole number; None when it is absent or blank."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"its {what} is neither text nor a whole number: {value!r}")
    return str(value).strip() or None


def _noise_level(value: object) -> str | None:
    """A number counts as a signal-to-noise ratio in decibels, a text is a level's name."""
    if isinstance(value, float):
        return decibels(value)
    name = _name(value, "noise level")
    try:
        return decibels(float(name)) if name else None
    except ValueError:
        return name


def decibels(value: float) -> str:
    """The name of a noise level: `10 dB`."""
    return f"{value:g} dB"


def _language_code(locale: str) -> str:
    """Whisper's code of a locale: `pt` of `pt-BR`."""
    return locale.strip().lower().replace("_", "-").partition("-")[0]


def _checked_sound(audio: Path, entry: Entry, *, most_s: float) -> Sound:
    """What the clip holds. Raises InputError when the audio is broken, too short, too long or not as stated."""
    if entry.offset_s not in (None, 0):
        raise InputError("it is a segment (`offset`) of a longer file: cut the file into one per utterance")
    _check_length(audio, stated_duration_s(audio) or 0.0, most_s)  # before it is decoded, which takes longer
    sound = read_sound(audio)
    duration_s = len(sound.samples) / SAMPLE_RATE
    _check_length(audio, duration_s, most_s)
    if duration_s < MIN_DURATION_S:
        raise InputError(f"audio file {audio} lasts only {duration_s:.3f} s, at least {MIN_DURATION_S:g} s are needed")
    _check_stated_duration(entry.duration_s, duration_s)
    return sound


def _check_length(audio: Path, duration_s: float, most_s: float) -> None:
    if duration_s > most_s:
        raise InputError(f"audio file {audio} lasts {duration_s:.1f} s, Whisper hears {MAX_DURATION_S:g} s: split it")


def _recording(samples: npt.NDArray[np.float32]) -> str:
    return hashlib.sha256(np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()).hexdigest()


def _check_stated_duration(stated: object, duration_s: float) -> None:
    if stated is None:
        return
    try:
        stated_s = float(str(stated))
    except ValueError as error:
        raise InputError(f"its duration is not a number: {stated!r}") from error
    if not abs(stated_s - duration_s) <= DURATION_TOLERANCE_S:
        raise InputError(f"its duration is given as {stated_s:g} s, but the audio lasts {duration_s:.2f} s")


def _listed(broken: Sequence[BrokenLine]) -> str:
    """The lines with their reasons, in one line of text."""
    shown = "; ".join(f"line {line.line}: {line.reason}" for line in broken[:SHOWN_LINES])
    more = len(broken) - SHOWN_LINES
    return f"{shown}; and {more} more" if more > 0 else shown


def _digest(utterances: Sequence[Utterance]) -> str:
    rows = [[utterance.id, utterance.text, sha256_of_file(utterance.audio)] for utterance in utterances]
    return sha256_of_text(json.dumps(rows))
