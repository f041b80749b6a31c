"""Audio as Whisper wants it: mono, 16 kHz, float32.

WAV is read here, since the standard library's `wave` knows neither float samples nor, before Python 3.12, the
extensible headers that most tools write for 24 bits. Other formats need the package soundfile.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.errors import AudioError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SAMPLE_RATE = 16_000
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz; a header that states anything else is damaged."""
BLOCK_S, BLOCK_MARGIN_S = 10, 1
PASSBAND = 0.92
"""The share of the lower of the two bands that resampling leaves alone; above, the gain falls to 0."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TYPES = {(_PCM, 1): "u1", (_PCM, 2): "<i2", (_PCM, 3): "i3", (_PCM, 4): "<i4", (_FLOAT, 4): "<f4", (_FLOAT, 8): "<f8"}
_UNKNOWN_LENGTH = 0x7FFF_F000
"""A WAV written to a pipe states a placeholder for its length: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 and up (sox)."""


@dataclass(frozen=True, kw_only=True)
class _Wave:
    """A WAV file's samples as they are stored: `data` holds `channels` values of type `kind` per frame."""

    rate: int
    channels: int
    kind: str
    data: Bytes


def read_audio(path: Path) -> Floats:
    """The file's samples, shape (samples,): channels averaged, resampled to 16 kHz.

    Raises AudioError when the file is missing, empty, truncated, no audio that can be read here, or has samples that
    are not finite.
    """
    try:
        content = np.memmap(path, np.uint8, "r")
    except FileNotFoundError as error:
        raise AudioError(f"audio file {path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: an empty file, or a zero byte in the name
        raise AudioError(f"audio file {path} cannot be read: {error}") from error
    wave = _parse_wave(path, content)
    samples, rate = _read_other(path) if wave is None else (_mono(wave), wave.rate)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"audio file {path} is damaged: it states {rate} samples a second")
    if not len(samples):
        raise AudioError(f"audio file {path} holds no audio")
    if not np.isfinite(samples).all():
        raise AudioError(f"audio file {path} has samples that are not finite (NaN or infinity)")
    return resample(samples, rate)


def _parse_wave(path: Path, content: Bytes) -> _Wave | None:
    """The samples of a WAV file of whole or float numbers; None for any other format."""
    if bytes(content[:4]) != b"RIFF" or bytes(content[8:12]) != b"WAVE":
        return None
    start, layout = 12, None
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content.data, start)
        start += 8
        left = len(content) - start
        if name == b"fmt " and 16 <= size <= left:
            tag, channels, rate, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", content.data, start)
            if tag == _EXTENSIBLE and size >= 26:
                (tag,) = struct.unpack_from("<H", content.data, start + 24)
            layout = (tag, channels, rate, frame_bytes)
        elif name == b"data" and layout:
            if left < size < _UNKNOWN_LENGTH:
                raise AudioError(f"audio file {path} is truncated: it ends before the length that its header states")
            return _wave(*layout, content[start : start + size])
        start += size + size % 2
    raise AudioError(f"audio file {path} is truncated: a WAV without samples")


def _wave(tag: int, channels: int, rate: int, frame_bytes: int, data: Bytes) -> _Wave | None:
    kind = _TYPES.get((tag, frame_bytes // channels)) if channels else None
    if kind is None or frame_bytes % channels:
        return None
    whole = len(data) // frame_bytes * frame_bytes
    return _Wave(rate=rate, channels=channels, kind=kind, data=data[:whole])


def _mono(wave: _Wave) -> Floats:
    """The mean of the channels in -1 to 1, shape (frames,); block by block, so that the file need not fit in memory."""
    width = 3 if wave.kind == "i3" else np.dtype(wave.kind).itemsize
    frames = wave.data.reshape(-1, width * wave.channels)
    mono = np.empty(len(frames), np.float32)
    for start in range(0, len(frames), 1 << 16):
        block = _numbers(frames[start : start + (1 << 16)], wave.kind)
        mono[start : start + (1 << 16)] = block.reshape(-1, wave.channels).mean(axis=1)
    return mono


def _numbers(stored: Bytes, kind: str) -> Floats:
    if kind == "i3":  # to the upper three bytes of four
        wide = np.zeros((stored.size // 3, 4), np.uint8)
        wide[:, 1:] = stored.reshape(-1, 3)
        stored, kind = wide, "<i4"
    values = np.ascontiguousarray(stored).view(kind)
    numbers = values.astype(np.float32)
    if kind == "u1":
        numbers -= 128
    if "f" not in kind:
        numbers /= 2 ** (8 * values.itemsize - 1)
    return numbers


def _read_other(path: Path) -> tuple[Floats, int]:
    """What libsndfile makes of a file that is no plain WAV: its samples and their rate."""
    try:
        import soundfile  # noqa: PLC0415 - an optional dependency, which WAV does not need
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise AudioError(
            f"audio file {path} is no WAV of whole or float numbers: convert it to one, or pip install soundfile"
        ) from error
    try:
        with soundfile.SoundFile(path) as audio:
            frames = audio.read(dtype="float32", always_2d=True)
            # the length of an MP3 is a guess
            if len(frames) < audio.frames and audio.format != "MP3":
                raise AudioError(f"audio file {path} is truncated: {audio.frames} frames stated, {len(frames)} decode")
            return frames.mean(axis=1), audio.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError(f"audio file {path} does not decode: {error.error_string}") from error


def resample(samples: Floats, rate: int) -> Floats:
    """Band-limited resampling of (samples,) from `rate` to 16 kHz; the result has the same duration.

    Blocks of 10 s are cut or filled up in the frequency domain, where a block of whole seconds has whole numbers of
    samples at any rate. The gain falls from 1 to 0 as a squared cosine over the last 8 % of the lower band: the
    response to an edge of the block is then below 1e-6 after the second of margin that is thrown away on each side.
    """
    if rate == SAMPLE_RATE:
        return samples
    whole_s = BLOCK_S + 2 * BLOCK_MARGIN_S
    gain = _gain(whole_s, min(rate, SAMPLE_RATE) / 2)
    result = np.empty(round(len(samples) * SAMPLE_RATE / rate), np.float32)
    for second in range(0, -(-len(samples) // rate), BLOCK_S):
        block = np.zeros(whole_s * rate, np.float32)
        first = (second - BLOCK_MARGIN_S) * rate
        heard = samples[max(0, first) : first + len(block)]
        block[max(0, -first) :][: len(heard)] = heard
        spectrum = np.zeros(whole_s * SAMPLE_RATE // 2 + 1, np.complex64)
        spectrum[: len(gain)] = np.fft.rfft(block)[: len(gain)] * gain
        resampled = np.fft.irfft(spectrum, whole_s * SAMPLE_RATE) * np.float32(SAMPLE_RATE / rate)
        target = result[second * SAMPLE_RATE : (second + BLOCK_S) * SAMPLE_RATE]
        target[:] = resampled[BLOCK_MARGIN_S * SAMPLE_RATE :][: len(target)]
    return result


def _gain(block_s: int, band_hz: float) -> Floats:
    """Of the frequencies k / block_s Hz up to `band_hz`, which gets 0."""
    share = np.arange(int(band_hz * block_s) + 1) / (band_hz * block_s)
    falling = np.clip((share - PASSBAND) / (1 - PASSBAND), 0, 1)
    return (np.cos(np.pi / 2 * falling) ** 2).astype(np.float32)
