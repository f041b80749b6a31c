"""`python -m runtime.measure DIR AUDIO...`: how fast an artifact is here, and how much memory it takes.

Run it in a process of its own: the peak memory is that of the whole process, Python included.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from runtime.audio import SAMPLE_RATE, Floats, read_audio
from runtime.decoding import DecodingOptions, decode, open_window
from runtime.errors import TranscribeError
from runtime.mel import log_mel
from runtime.memory import peak_rss_bytes
from runtime.transcribe import Transcriber
from runtime.window import WINDOW_LIMIT_S, encoder_frames

WARM_UPS = 1


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Medians over the clips, each at the median of its repeats, on `threads` threads (None: one per usable core).

    `load_s`: from the folder to a model that can transcribe. `encoder_ms`: one window, cross-attention's keys and
    values included. `token_ms`: one step of the decoder with the choice of its token. `utterance_ms`: the whole, from
    samples to text. `audio_s`, `tokens`: of a clip. `reference_ms`: an utterance of `reference_s` seconds and
    `reference_tokens` tokens, whatever they are. `peak_rss_bytes`: most memory that the process ever held. None: what
    another runtime does not tell.
    """

    threads: int | None
    clips: int
    repeats: int
    load_s: float
    encoder_ms: float | None
    token_ms: float | None
    utterance_ms: float
    audio_s: float
    tokens: float | None
    reference_s: float
    reference_tokens: int
    reference_ms: float | None
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to time: the fields of `Measurement` of these names."""

    threads: int | None
    repeats: int
    reference_s: float
    reference_tokens: int


def measure(artifact: Path, audio: list[Path], plan: Plan) -> Measurement:
    """Load the artifact, transcribe the first 30 s of each clip greedily, again and again. Raises TranscribeError."""
    clips = [read_audio(path)[: round(WINDOW_LIMIT_S * SAMPLE_RATE)] for path in audio]
    started = perf_counter()
    transcriber = Transcriber.open(artifact, threads=plan.threads)
    load_s = perf_counter() - started
    timed = [_clip(transcriber, clip, plan.repeats) for clip in clips]
    return Measurement(
        **asdict(plan),
        clips=len(clips),
        load_s=load_s,
        encoder_ms=median(clip_times.encoder_s for clip_times in timed) * 1000,
        token_ms=median(clip_times.decoder_s / clip_times.steps for clip_times in timed) * 1000,
        utterance_ms=median(clip_times.whole_s for clip_times in timed) * 1000,
        audio_s=median(len(clip) / SAMPLE_RATE for clip in clips),
        tokens=median(clip_times.steps - 1 for clip_times in timed),
        reference_ms=_reference_s(transcriber, clips[0], plan) * 1000,
        peak_rss_bytes=peak_rss_bytes(),
    )


@dataclass(frozen=True, kw_only=True)
class _Times:
    """`steps`: choices of a token, the end included."""

    encoder_s: float
    decoder_s: float
    whole_s: float
    steps: int


def _clip(transcriber: Transcriber, samples: Floats, repeats: int) -> _Times:
    runs = [_once(transcriber, samples) for _ in range(WARM_UPS + repeats)][WARM_UPS:]
    return _Times(
        encoder_s=median(run.encoder_s for run in runs),
        decoder_s=median(run.decoder_s for run in runs),
        whole_s=median(run.whole_s for run in runs),
        steps=runs[0].steps,
    )


def _once(transcriber: Transcriber, samples: Floats) -> _Times:
    artifact, vocabulary = transcriber.artifact, transcriber.artifact.vocabulary
    started = perf_counter()
    mel = _mel(transcriber, samples)
    prepared = perf_counter()
    window = transcriber.model.encode(mel)
    encoded = perf_counter()
    opening = open_window(window, vocabulary, language=None, task="transcribe")
    opened = perf_counter()
    said = decode(opening, vocabulary, DecodingOptions(max_tokens=artifact.n_text_ctx // 2))
    finished = perf_counter()
    return _Times(
        encoder_s=encoded - prepared,
        decoder_s=finished - opened,
        whole_s=finished - started,
        steps=len(said.tokens) + 1,
    )


def _mel(transcriber: Transcriber, samples: Floats) -> Floats:
    artifact = transcriber.artifact
    frames = encoder_frames(artifact.window_s, len(samples) / SAMPLE_RATE)
    return log_mel(samples, artifact.n_mels)[:, :frames]


def _reference_s(transcriber: Transcriber, clip: Floats, plan: Plan) -> float:
    """Seconds for the reference utterance: the clip repeated to its length, and as many steps as it takes."""
    samples = np.resize(clip, round(plan.reference_s * SAMPLE_RATE))
    runs = [_reference_once(transcriber, samples, plan.reference_tokens) for _ in range(WARM_UPS + plan.repeats)]
    return median(runs[WARM_UPS:])


def _reference_once(transcriber: Transcriber, samples: Floats, tokens: int) -> float:
    token = np.array([[transcriber.artifact.vocabulary.special.no_timestamps]])
    started = perf_counter()
    window = transcriber.model.encode(_mel(transcriber, samples))
    text = open_window(window, transcriber.artifact.vocabulary, language=None, task="transcribe").text
    for _ in range(tokens):
        logits, text = text.step(token)
        logits.argmax()
    return perf_counter() - started


def main() -> int:
    """Measure and print one JSON object; return the exit code: 2 for bad input, with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m runtime.measure", description="Time a Whisper artifact.")
    parser.add_argument("artifact", type=Path, metavar="DIR")
    parser.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    parser.add_argument("--threads", type=int, help="default: one per core that this process may use")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reference-s", type=float, default=10.0)
    parser.add_argument("--reference-tokens", type=int, default=30)
    options = vars(parser.parse_args())
    artifact, audio = options.pop("artifact"), options.pop("audio")
    try:
        measured = measure(artifact, audio, Plan(**options))
    except TranscribeError as error:
        print(f"runtime: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
