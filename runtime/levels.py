"""What the channels of a recording have to do with each other, and how loud its numbers are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.errors import AudioError

Floats = npt.NDArray[np.float32]

OPPOSED = -0.8
"""Correlation of two channels below which they are one recording with the sign changed, as a wrongly wired balanced
microphone gives. Their mean would be what the two do not share: silence or noise. Two sides of ordinary stereo stay
above -0.5."""
USUAL_PEAK = 3.0
"""Floating-point audio is often a little over full scale, full-scale noise out of Vorbis 7.5 dB: it is left alone."""
LOUDEST = 10.0
"""Up to here, numbers are those of audio that is too loud; beyond, those of whole numbers."""
_LOUD_SHARE = 1e-3
"""Of the samples; fewer beyond full scale are damage, not loudness."""
_WHOLE_SCALES = (2.0**15, 2.0**23, 2.0**31)
"""Full scale of whole numbers of 16, 24 and 32 bits."""
_FAINTEST_POWER = 1e-12


class ChannelLevels:
    """Gathers, block by block, the covariance of a stream's channels."""

    def __init__(self, channels: int) -> None:
        self._frames = 0
        self._sums = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def see(self, block: Floats) -> Floats:
        """Take in a block (frames, channels), and give it back."""
        if len(self._sums) > 1:
            self._frames += len(block)
            self._sums += block.sum(axis=0, dtype=np.float64)
            self._products += block.T @ block
        return block

    def opposites(self) -> dict[int, int]:
        """Channels to leave out, each with a louder one whose opposite it is."""
        if not self._frames:
            return {}
        mean = self._sums / self._frames
        covariance = self._products / self._frames - np.outer(mean, mean)
        power = np.diag(covariance)
        found: dict[int, int] = {}
        kept: list[int] = []
        for channel in np.argsort(-power, kind="stable").tolist():
            limit = OPPOSED * np.sqrt(np.maximum(power[channel] * power[kept], _FAINTEST_POWER**2))
            opposed = [other for other, low in zip(kept, limit, strict=True) if covariance[channel, other] < low]
            if opposed:
                found[channel] = opposed[0]
            else:
                kept.append(channel)
        return found


@dataclass(kw_only=True)
class Loudness:
    """Gathers how far samples reach beyond full scale."""

    peak: float = 0.0
    samples: int = 0
    loud: int = 0

    def see(self, block: Floats) -> Floats:
        """Take in a block, and give it back. Raises AudioError when a number in it can be no sample."""
        peak = float(np.abs(block).max(initial=0.0))
        if not np.isfinite(peak):
            raise AudioError("has samples that are not finite (NaN or infinity)")
        if peak > 2 * _WHOLE_SCALES[-1]:
            raise _damaged(peak)
        self.peak = max(self.peak, peak)
        self.samples += block.size
        if peak > 1:
            self.loud += int(np.count_nonzero(np.abs(block) > 1))
        return block

    def full_scale(self) -> float:
        """What counts as 1: the peak of audio that is too loud, full scale of whole numbers that are stored as floats.

        Raises AudioError when the numbers fit neither.
        """
        if self.peak <= USUAL_PEAK:
            return 1.0
        if self.peak <= LOUDEST:
            return self.peak
        if self.loud < _LOUD_SHARE * self.samples:
            raise _damaged(self.peak)
        return next(scale for scale in _WHOLE_SCALES if self.peak <= 2 * scale)


def _damaged(peak: float) -> AudioError:
    return AudioError(f"has samples up to {peak:.3g}, where 1 is full scale: it is damaged or no audio")
