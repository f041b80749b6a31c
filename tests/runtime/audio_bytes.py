"""Audio files as bytes, made by libsndfile, and what becomes of them on the way."""

import io
import struct

import numpy as np
import soundfile

from runtime.audio import Floats

RATE = 16_000


def speechlike(seconds: float, *, rate: int = RATE, channels: int = 1, seed: int = 0) -> Floats:
    """A gliding tone in noise that swells and fades, (frames, channels)."""
    times = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * times + 40 * seed) * times) * (1.2 + np.sin(7 * times)) / 2.2
    hiss = np.random.default_rng(seed).normal(0, 0.02, (len(times), channels))
    return (tone[:, None] + hiss).astype(np.float32)


def encoded(file_format: str, subtype: str, samples: Floats, *, rate: int = RATE, **options: object) -> bytes:
    """The samples in a format of libsndfile."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=file_format, subtype=subtype, **options)
    return stream.getvalue()


def mp3(seconds: float = 2.0, *, seed: int = 0, rate: int = RATE, channels: int = 1, variable: bool = False) -> bytes:
    """With the frame of LAME that states its length."""
    samples = speechlike(seconds, seed=seed, rate=rate, channels=channels)
    if variable:
        samples[len(samples) // 2 :] *= 1e-3
    mode = "VARIABLE" if variable else "CONSTANT"
    return encoded("MP3", "MPEG_LAYER_III", samples, rate=rate, bitrate_mode=mode, compression_level=0.5)


def without_first_frame(content: bytes) -> bytes:
    """An MP3 that no longer states its length."""
    return content[content.find(content[:2], 4) :]


def stating_frames(content: bytes, change: int) -> bytes:
    """An MP3 whose first frame states `change` frames more than there are."""
    place = max(content.find(b"Xing"), content.find(b"Info")) + 8
    frames = int.from_bytes(content[place : place + 4], "big") + change
    return content[:place] + frames.to_bytes(4, "big") + content[place + 4 :]


def id3v2(size: int = 2000) -> bytes:
    """A tag of that many bytes, which hold what could be a frame."""
    return b"ID3\3\0\0" + bytes([0, 0, size >> 7, size & 127]) + (b"\xff\xf3\x88\xc4" * size)[:size]


def id3v1() -> bytes:
    return b"TAG" + b"A title".ljust(125, b"\0")


def ape_tag() -> bytes:
    """With header and footer."""
    items = b"\5\0\0\0\0\0\0\0Title\0Sound"
    head = struct.pack("<8sIIII8x", b"APETAGEX", 2000, len(items) + 32, 1, 0xA000_0000)
    return head + items + head[:20] + struct.pack("<I8x", 0x8000_0000)


def without_end_flag(content: bytes) -> bytes:
    """An Ogg whose last page is not marked as the last, its checksum mended bit by bit (RFC 3533)."""
    start = content.rfind(b"OggS")
    page = bytearray(content[start:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    remainder = 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", remainder)
    return content[:start] + bytes(page)


def stating_samples(content: bytes, samples: int) -> bytes:
    """A FLAC whose header states that many; 0: not known."""
    stored = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + stored.to_bytes(8, "big") + content[26:]


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def stating_bytes(content: bytes, size: int) -> bytes:
    """A WAV whose chunk of samples states that size."""
    place = content.find(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]
