"""Live captions of a long recording at its own pace: lag, WER, CPU time and memory.

    python benchmarks/live/live.py --artifact DIR --data MANIFEST [--seconds S] [--cores N] [--simulated] [--openai]
                                   [--out FILE]

The recording is the manifest's first clips, joined with pauses of 0.5 to 6 s. The command `python -m runtime DIR
--live` hears it in a process of its own on so many cores, at the pace of real time; --simulated: in this process, by a
clock that only its CPU time moves on, which other work on the machine disturbs little. Beside its final words: the same
artifact on the whole recording at once, and with --openai `whisper.transcribe` of the original.

*revised*: final words that a later line changed or that lie before the end of the word before them; must be 0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from threading import Event as Flag
from typing import Any

import jiwer
import soundfile
import torch
import whisper
from joined import joined

from compression.whisper.load import load_model
from evaluators.accuracy.word_errors import normaliser_for
from runtime.audio import SAMPLE_RATE, Floats
from runtime.live.clock import SimulatedClock
from runtime.live.command import listen
from runtime.live.listener import Listener, ListenerOptions
from runtime.live.outputs import JsonOutput
from runtime.live.sources import PacedAudio
from runtime.memory import of_status
from runtime.transcribe import Transcriber

MEMORY_EVERY_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the recording at least")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--openai", action="store_true")
    parser.add_argument("--model", default="tiny.en", help="of --openai")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recording = joined(options.data, seconds=options.seconds)
    hear = simulated if options.simulated else at_real_pace
    lines, memory_mb = hear(options.artifact, recording.samples, options.cores)
    said = [word for line in lines if line["event"] == "words" for word in line["words"]]
    text = "".join(word["text"] for word in said)
    values: dict[str, Any] = {
        "artifact": options.artifact.name,
        "cores": options.cores,
        "clock": "simulated" if options.simulated else "real",
        "load": os.getloadavg()[0],
        "report": lines[-1],
        "memory_mb": memory_mb,
        "revised": sum(later["start_s"] < earlier["end_s"] for earlier, later in pairwise(said)),
        "live": errors(recording.text, text),
        "offline": errors(recording.text, offline(options.artifact, recording.samples)),
    }
    if options.openai:
        values["openai-whisper"] = errors(recording.text, openai(options.model, recording.samples))
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def at_real_pace(artifact: Path, samples: Floats, cores: int) -> tuple[list[dict[str, Any]], list[float]]:
    """The command's lines, and its memory every 10 s in MB."""
    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "recording.wav"
        soundfile.write(audio, samples, SAMPLE_RATE, subtype="PCM_16")
        command = [sys.executable, "-m", "runtime", artifact, "--live", audio, "--format", "json", "--threads", cores]
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),  # noqa: PLW1509
        )
        lines, memory_mb, seen_s = [], [], 0.0
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))
            if time.monotonic() - seen_s >= MEMORY_EVERY_S:
                seen_s = time.monotonic()
                held = of_status(Path(f"/proc/{process.pid}/status"), "VmRSS")
                memory_mb += [round(held / 1e6, 1)] if held else []
        if process.wait():
            raise SystemExit(f"the command ended with {process.returncode}")
    return lines, memory_mb


def simulated(artifact: Path, samples: Floats, cores: int) -> tuple[list[dict[str, Any]], list[float]]:
    """The same in this process, whose memory tells nothing."""
    written: list[str] = []
    clock, output = SimulatedClock(), JsonOutput(written.append)
    listener = Listener(Transcriber.open(artifact, threads=cores), ListenerOptions())
    report = listen(listener, PacedAudio(samples, clock), output, clock, Flag())
    output.end(report.audio_s, asdict(report) | {"peak_memory_mb": None})
    return list(map(json.loads, written)), []


def offline(artifact: Path, samples: Floats) -> str:
    return Transcriber.open(artifact, threads=1).transcribe(samples, language="en").text


def openai(model: str, samples: Floats) -> str:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return str(whisper.transcribe(load_model(model).network, samples, language="en", fp16=False)["text"])


def errors(reference: str, text: str) -> dict[str, float]:
    normalise = normaliser_for("en").normalise
    found = jiwer.process_words(normalise(reference), normalise(text))
    return {
        "wer": found.wer,
        "words": len(found.references[0]),
        "substitutions": found.substitutions,
        "deletions": found.deletions,
        "insertions": found.insertions,
    }


if __name__ == "__main__":
    main()
