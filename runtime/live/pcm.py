"""Raw samples as recorders write them to a pipe: 16 kHz, mono, 16 bits, with or without a WAV header."""

import struct

import numpy as np

from runtime.audio import SAMPLE_RATE, Floats
from runtime.errors import AudioError

HOW = "live audio is 16 kHz, mono, 16 bits: arecord -t raw -f S16_LE -r 16000 -c 1"
_WANTED = (1, 1, SAMPLE_RATE, 16)
"""Codec (whole numbers), channels, Hz, bits."""
_LONGEST_HEADER = 1 << 16


class PcmDecoder:
    """Turns bytes (s16le), in portions of any length, into samples. A WAV header before them is read and checked."""

    def __init__(self, name: str) -> None:
        """`name`: of the stream, for messages."""
        self._name = name
        self._held = b""
        self._in_header = True

    def feed(self, portion: bytes) -> Floats:
        """The samples (samples,) that are whole by this portion. Raises AudioError for a WAV of another kind."""
        self._held += portion
        if self._in_header and not self._passes_header():
            return np.empty(0, np.float32)
        whole = len(self._held) // 2 * 2
        samples = np.frombuffer(self._held[:whole], "<i2").astype(np.float32) / np.float32(2**15)
        self._held = self._held[whole:]
        return samples

    def _passes_header(self) -> bool:
        """Whether the header, if there is one, is over: then it is gone from what is held."""
        held = self._held
        if held[:4] != b"RIFF"[: len(held)]:
            self._in_header = False
            return True
        place = 12
        while len(held) >= place + 8:
            name, size = struct.unpack_from("<4sI", held, place)
            if name == b"data":
                self._held, self._in_header = held[place + 8 :], False
                return True
            if name == b"fmt " and len(held) >= place + 24:
                self._check(held[place + 8 : place + 24])
            place += 8 + size + size % 2
        if len(held) > _LONGEST_HEADER:
            raise AudioError(f"{self._name} begins as a WAV but holds no samples")
        return False

    def _check(self, layout: bytes) -> None:
        codec, channels, rate, _, _, bits = struct.unpack("<HHIIHH", layout)
        if (codec, channels, rate, bits) not in (_WANTED, (0xFFFE, *_WANTED[1:])):
            raise AudioError(
                f"{self._name} is a WAV of codec {codec}, {rate} Hz, {channels} channels, {bits} bits; {HOW}"
            )
