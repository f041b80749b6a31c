"""Voice activity by energy beside Silero's network, on speech with noise.

    python benchmarks/live/voice_activity.py --data MANIFEST --noise FOLDER [--seconds S] [--out FILE]

Speech is what Silero finds in the clips before noise is mixed in. Both detectors then hear the noisy recording.
*missed*: the share of speech that lies in no segment; *listened*: the share of the rest of the recording that lies in
one, where a model would run for nothing. Ours: segments as `runtime.live.listener` opens and closes them. Silero: as
faster-whisper calls it, with the same silence of 0.8 s to end a segment and the same lead of 0.4 s.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import VadOptions, get_speech_timestamps
from joined import joined, mixed, recordings

from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.listener import BLOCK_S, LEAD_S, ListenerOptions
from runtime.live.voice_activity import VoiceActivity

HOP = 160
SNRS_DB = (20.0, 10.0, 5.0, 0.0)
Frames = npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recording = joined(options.data, seconds=options.seconds)
    speech = silero(recording.samples, pause_s=0.1, lead_s=0.0)
    noises = {name: noise for name, noise in recordings(options.noise).items() if "babble" not in name}
    rows = {"clean": compared(recording.samples, speech)}
    for snr_db in SNRS_DB:
        found = [compared(mixed(recording.samples, noise, snr_db), speech) for noise in noises.values()]
        rows[f"{snr_db:g} dB"] = {
            name: {key: float(np.mean([row[name][key] for row in found])) for key in ("missed", "listened")}
            for name in ("energy", "silero")
        }
    for condition, row in rows.items():
        print(condition, {name: {key: round(100 * value, 1) for key, value in of.items()} for name, of in row.items()})
    if options.out:
        options.out.write_text(json.dumps({"seconds": options.seconds, "rows": rows}, indent=1) + "\n")


def compared(samples: Floats, speech: Frames) -> dict[str, dict[str, float]]:
    pause_s = ListenerOptions().pause_s
    found = {"energy": energy(samples, pause_s=pause_s), "silero": silero(samples, pause_s=pause_s, lead_s=LEAD_S)}
    return {
        name: {"missed": float((~heard & speech).sum() / speech.sum()), "listened": float(heard[~speech].mean())}
        for name, heard in found.items()
    }


def energy(samples: Floats, *, pause_s: float) -> Frames:
    """The frames of segments as a listener has them."""
    activity, heard = VoiceActivity(), np.zeros(len(samples) // HOP, bool)
    size, lead, is_open = round(BLOCK_S * SAMPLE_RATE), round(LEAD_S * 100), False
    for start in range(0, len(samples) - size, size):
        activity.hear(samples[start : start + size])
        first, stop = start // HOP, (start + size) // HOP
        if not is_open and activity.is_speech:
            is_open, first = True, max(0, first - lead)
        if is_open:
            heard[first:stop] = True
            is_open = activity.quiet_s < pause_s
    return heard


def silero(samples: Floats, *, pause_s: float, lead_s: float) -> Frames:
    """The frames of speech by Silero."""
    options = VadOptions(min_silence_duration_ms=round(pause_s * 1000), speech_pad_ms=round(lead_s * 1000))
    heard = np.zeros(len(samples) // HOP, bool)
    for found in get_speech_timestamps(samples, options):
        heard[found["start"] // HOP : found["end"] // HOP] = True
    return heard


if __name__ == "__main__":
    main()
