"""Words invented in noise without speech: by live captions, by the artifact on whole files and by the original.

    python benchmarks/live/noise.py --artifact DIR --noise FOLDER [--seconds S] [--levels DB...] [--openai] [--out FILE]

For each level (of full scale, mean power) the folder's recordings without babble, each scaled to it and looped for its
share of the seconds, one after another; and all of them mixed. Heard by a simulated clock: an hour takes minutes.
"""

import argparse
import json
from pathlib import Path
from threading import Event as Flag

import numpy as np
from joined import recordings
from live import openai

from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.clock import SimulatedClock
from runtime.live.command import listen
from runtime.live.listener import Listener, ListenerOptions
from runtime.live.outputs import TextOutput
from runtime.live.sources import PacedAudio
from runtime.transcribe import Transcriber


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of all levels together")
    parser.add_argument("--levels", type=float, nargs="+", default=[-50.0, -35.0, -20.0])
    parser.add_argument("--openai", action="store_true")
    parser.add_argument("--model", default="tiny.en", help="of --openai")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    noises = {name: noise for name, noise in recordings(options.noise).items() if "babble" not in name}
    transcriber = Transcriber.open(options.artifact, threads=1)
    rows = []
    for level_db in options.levels:
        each_s = options.seconds / len(options.levels) / (len(noises) + 1)
        parts = {name: scaled(looped(noise, each_s), level_db) for name, noise in noises.items()}
        parts["all mixed"] = scaled(np.sum(list(parts.values()), axis=0), level_db)
        for name, samples in parts.items():
            row = {"noise": name, "level_db": level_db, "seconds": round(each_s, 1), **live(transcriber, samples)}
            row["offline"] = transcriber.transcribe(samples, language="en").text
            if options.openai:
                row["openai-whisper"] = openai(options.model, samples)
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    totals = {
        key: sum(len(row[key].split()) for row in rows)
        for key in ("live", "offline", "openai-whisper")
        if key in rows[0]
    }
    print("words:", totals)
    if options.out:
        values = {"artifact": options.artifact.name, "words": totals, "rows": rows}
        options.out.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def live(transcriber: Transcriber, samples: Floats) -> dict[str, object]:
    written: list[str] = []
    clock = SimulatedClock()
    output = TextOutput(written.append)
    report = listen(Listener(transcriber, ListenerOptions()), PacedAudio(samples, clock), output, clock, Flag())
    return {"live": "".join(written).strip(), "cpu_occupancy": round(report.cpu_occupancy, 4)}


def looped(noise: Floats, seconds: float) -> Floats:
    return np.resize(noise, round(seconds * SAMPLE_RATE))


def scaled(noise: Floats, level_db: float) -> Floats:
    gain = 10 ** (level_db / 20) / np.sqrt(np.mean(noise**2))
    limited: Floats = np.clip(noise * gain, -1, 1).astype(np.float32)
    return limited


if __name__ == "__main__":
    main()
