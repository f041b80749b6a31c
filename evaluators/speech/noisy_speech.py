"""Speech sets with noise mixed in: which noise an utterance gets follows from its id alone."""

import json
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from random import Random
from typing import Self

from common.errors import InputError
from common.files import sha256_of_file, sha256_of_text
from evaluators.speech.noise import AddedNoise, read_noise
from evaluators.speech.speech_formats import AUDIO_ENDINGS, BrokenLine, has_manifest, read_lines
from evaluators.speech.speech_set import CLEAN, SpeechSet, Utterance, decibels

_SEED = 0
"""Not the search's: runs with other seeds hear the same speech."""

MOST_DB = 120
"""More than 16 bits can tell apart (96 dB)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """Noise for a speech set: its files, and the levels that utterances get in turn; None is no noise at all."""

    noise: Path
    levels_db: tuple[float | None, ...]

    @classmethod
    def parse(cls, noise: Path | None, snr_db: str | None) -> Self | None:
        """`--noise` and `--snr-db`, such as `10` or `20,10,clean`; None without both. Raises InputError."""
        if noise is None and snr_db is None:
            return None
        if noise is None or snr_db is None:
            missing = "--noise (a manifest, a folder or a file)" if noise is None else "--snr-db, such as 10"
            raise InputError(f"noise needs both --noise and --snr-db: give {missing}, too")
        return cls(noise=noise, levels_db=tuple(_level_db(text, snr_db) for text in snr_db.split(",")))

    @property
    def summary(self) -> str:
        """Such as `noise at 20 dB, clean`."""
        return f"{self.noise.stem} at {', '.join(_label(level) for level in self.levels_db)}"


def with_noise(speech: SpeechSet, mixing: Mixing | None) -> SpeechSet:
    """The set with noise in its utterances: file, start in it and level are drawn by the utterance's id.

    So an utterance has the same noise in every set and every run, and at every level the same stretch of it. Its
    `noise_level` becomes the level; an utterance without added noise keeps its own. The digest is another one.
    Raises InputError when there is no noise, or noise or an utterance is silent.
    """
    if mixing is None:
        return speech
    names = noise_files(mixing.noise, option="--noise")
    for name in names:
        read_noise(name)  # all of them, before any is drawn
    files = tuple((file, sha256_of_file(file)) for file in names)
    utterances = tuple(_noisy(utterance, files, mixing) for utterance in speech.utterances)
    added = [[utterance.id, utterance.noise and utterance.noise.identity] for utterance in utterances]
    return replace(
        speech,
        name=f"{speech.name} with {mixing.summary}",
        utterances=utterances,
        digest=sha256_of_text(json.dumps([speech.digest, added])),
    )


def noise_files(path: Path, *, option: str) -> list[Path]:
    """The audio that a manifest names, that a folder holds, or the file itself; `option`: where a user said so.

    Raises InputError if there is none.
    """
    if not path.exists():
        raise InputError(f"{option} {path} does not exist: give a manifest, a folder with audio, or an audio file")
    if path.is_file() and path.suffix.lower() in AUDIO_ENDINGS:
        files = [path]
    elif path.is_dir() and not has_manifest(path):
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in AUDIO_ENDINGS)
    else:
        files = _listed(path, option)
    if not files:
        raise InputError(f"{option} {path} has no audio ({', '.join(AUDIO_ENDINGS)})")
    return files


def _listed(manifest: Path, option: str) -> list[Path]:
    files = []
    for line in read_lines(manifest):
        if isinstance(line, BrokenLine) or not isinstance(line.audio, str):
            reason = line.reason if isinstance(line, BrokenLine) else "states no audio file"
            raise InputError(f"{option} {manifest}, line {line.line}: {reason}")
        files.append(line.folder / line.audio)
    return files


def _noisy(utterance: Utterance, files: tuple[tuple[Path, str], ...], mixing: Mixing) -> Utterance:
    draw = Random(f"{_SEED}/{utterance.id}")
    file, sha256 = draw.choice(files)
    start = draw.randrange(len(read_noise(file)))
    level_db = draw.choice(mixing.levels_db)
    if level_db is None:
        return replace(utterance, noise_level=utterance.noise_level or CLEAN)
    noise = AddedNoise(file=file, sha256=sha256, start=start, snr_db=level_db)
    noisy = replace(utterance, noise=noise, noise_level=decibels(level_db))
    try:
        noisy.samples()
    except InputError as error:
        raise InputError(f"utterance {utterance.id} with {file.name} from {start / 16_000:.1f} s: {error}") from error
    return noisy


def _label(level_db: float | None) -> str:
    return CLEAN if level_db is None else decibels(level_db)


def _level_db(text: str, asked: str) -> float | None:
    if text.strip().lower() == CLEAN:
        return None
    try:
        level = float(text)
    except ValueError:
        level = float("nan")
    if not isfinite(level):
        raise InputError(f"--snr-db {asked!r}: write decibels, or several with `clean` among them, such as 20,10,clean")
    if abs(level) > MOST_DB:
        raise InputError(f"--snr-db {asked!r}: decibels lie between -{MOST_DB} and {MOST_DB}; nothing is heard beyond")
    return level
