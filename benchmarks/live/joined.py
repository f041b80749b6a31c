"""Long recordings made of a manifest's clips with pauses between them, and noise to mix in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.speech.speech_set import load_speech_set
from runtime.audio import SAMPLE_RATE, Floats, read_audio


@dataclass(frozen=True, kw_only=True)
class Joined:
    """16 kHz audio, what is said in it, and where in it each clip lies, in samples."""

    samples: Floats
    text: str
    clips: tuple[slice, ...]


def joined(
    manifest: Path, *, seconds: float, pauses_s: tuple[float, float] = (0.5, 6.0), below_db: float = 60.0, seed: int = 0
) -> Joined:
    """The first clips, until so many seconds are full, with pauses of faint white noise of a length drawn evenly."""
    rng = np.random.default_rng(seed)
    parts, texts, places, position = list[Floats](), list[str](), list[slice](), 0
    for clip in load_speech_set(manifest).utterances:
        samples = clip.samples()
        length = round(rng.uniform(*pauses_s) * SAMPLE_RATE)
        pause = rng.normal(0, 10 ** (-below_db / 20), length).astype(np.float32)
        places.append(slice(position, position + len(samples)))
        parts += [samples, pause]
        texts.append(clip.text)
        position += len(samples) + length
        if position >= seconds * SAMPLE_RATE:
            break
    return Joined(samples=np.concatenate(parts), text=" ".join(texts), clips=tuple(places))


def mixed(speech: Floats, noise: Floats, snr_db: float) -> Floats:
    """Noise, repeated to the length of the speech, at so many dB below its mean power."""
    looped = np.resize(noise, len(speech))
    gain = np.sqrt(np.mean(speech**2) / np.mean(looped**2) / 10 ** (snr_db / 10))
    both: Floats = (speech + gain * looped).astype(np.float32)
    return both


def recordings(folder: Path) -> dict[str, Floats]:
    """The audio files of a folder by name."""
    return {file.stem: read_audio(file) for file in sorted(folder.glob("*.flac"))}
