"""Voice activity by energy: louder than the noise floor, with hysteresis. No model runs where nobody speaks."""

from collections import deque

import numpy as np
import numpy.typing as npt

from runtime.audio import Floats
from runtime.pieces import HOP_S, energies
from runtime.resampling import SAMPLE_RATE

BEGINS_DB, ENDS_DB = 5.0, 2.5
"""Above the noise floor: a louder frame begins speech, a quieter one than the second ends it. At 10 and 6 dB a third of
speech is missed where noise is as loud as speech, at these 4 to 12 % (docs/live.md)."""
FAINTEST_DB = -55.0
"""Of full scale: what is fainter is never speech, however quiet the room."""
FLOOR_S, FLOOR_PERCENTILE = 10.0, 20
"""The noise floor is the level that a fifth of the last 10 s stays below: in speech, the gaps between words."""
FIRST_FLOOR_DB, FIRST_FLOOR_S = -60.0, 0.3
"""What is taken to have been heard before the stream began, so that its first word counts."""
SMOOTHED_FRAMES = 5
ONSET_S = 0.08
"""Shorter sounds, such as clicks, begin no speech."""
_LEAST_POWER = 1e-10


class VoiceActivity:
    """Follows a stream of 16 kHz audio, in blocks of whole hundredths of a second.

    `speaking_s`: how long the last frames have been loud without a break, 0 if the last one is not.
    `quiet_s`: since the last frame of speech; infinite before the first. `floor_db`: the noise floor, of full scale.
    """

    def __init__(self) -> None:
        self.speaking_s = 0.0
        self.quiet_s = float("inf")
        self.floor_db = FIRST_FLOOR_DB
        frames = round(FLOOR_S / HOP_S)
        self._levels_db = deque([FIRST_FLOOR_DB] * round(FIRST_FLOOR_S / HOP_S), maxlen=frames)
        self._tail = np.zeros(SMOOTHED_FRAMES - 1)

    @property
    def is_speech(self) -> bool:
        """Whether speech is going on now."""
        return self.speaking_s >= ONSET_S

    def hear(self, samples: Floats) -> npt.NDArray[np.bool_]:
        """Take in a block (samples,): which of its frames are loud, (frames,)."""
        levels_db = self._smoothed_db(energies(samples))
        loud = np.zeros(len(levels_db), bool)
        begins_db, ends_db = max(FAINTEST_DB, self.floor_db + BEGINS_DB), max(FAINTEST_DB, self.floor_db + ENDS_DB)
        for frame, level_db in enumerate(levels_db.tolist()):
            loud[frame] = level_db > (ends_db if self.speaking_s else begins_db)
            self.speaking_s = self.speaking_s + HOP_S if loud[frame] else 0.0
            self.quiet_s = 0.0 if self.is_speech else self.quiet_s + HOP_S
        self._levels_db.extend(levels_db)
        self.floor_db = float(np.percentile(self._levels_db, FLOOR_PERCENTILE))
        return loud

    def _smoothed_db(self, energy: Floats) -> npt.NDArray[np.float64]:
        """Mean power over the last 50 ms at every frame, in dB of full scale."""
        power = np.concatenate([self._tail, energy / round(HOP_S * SAMPLE_RATE)])
        self._tail = power[-(SMOOTHED_FRAMES - 1) :]
        mean = np.convolve(power, np.ones(SMOOTHED_FRAMES) / SMOOTHED_FRAMES, mode="valid")
        return 10 * np.log10(np.maximum(mean, _LEAST_POWER))
