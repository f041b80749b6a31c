"""The command: captions of a stream while it is spoken. Shared by `python -m runtime` and `whisperfit transcribe`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event as Flag
from threading import current_thread, main_thread

from runtime.audio import SAMPLE_RATE, read_sound
from runtime.bundle import BUNDLE, Limits, open_within, timed_points
from runtime.errors import OptionError
from runtime.live.clock import Clock, WallClock
from runtime.live.events import Event, FinalWords, SegmentEnd
from runtime.live.listener import Listener, ListenerOptions
from runtime.live.meter import LiveReport, Meter
from runtime.live.outputs import JsonOutput, Output, output_for
from runtime.live.power import PowerControl
from runtime.live.sources import GrowingFile, PacedAudio, PipedAudio, Source

SHORTEST_LAG_S = 0.5


@dataclass(frozen=True, kw_only=True)
class LiveRequest:
    """What is asked for. `audio` None: standard input. `follow`: the file grows. Others: see `ListenerOptions`."""

    artifact: Path
    audio: Path | None
    follow: bool
    format: str
    language: str | None
    task: str
    threads: int | None
    max_lag_s: float | None
    limits: Limits
    hotwords: str


def run_live(request: LiveRequest) -> None:
    """Listen until the stream ends or SIGINT comes, and write what is said, the report to stderr or in the JSON.

    Raises TranscribeError, before the stream is opened where it can.
    """
    if request.max_lag_s is not None and not request.max_lag_s >= SHORTEST_LAG_S:
        raise OptionError(f"--max-lag-s must be at least {SHORTEST_LAG_S:g}, but got {request.max_lag_s:g}")
    output = output_for(request.format, _print)
    power = None
    if (request.artifact / BUNDLE).is_file():
        request.limits.check()
        power = PowerControl(timed_points(request.artifact, threads=request.threads), request.limits)
    transcriber = (
        power.point.transcriber if power else open_within(request.artifact, request.limits, threads=request.threads)
    )
    options = ListenerOptions(
        language=request.language, task=request.task, max_lag_s=request.max_lag_s, hotwords=request.hotwords
    )
    listener, clock = Listener(transcriber, options), WallClock()
    with _source(request, clock) as source, _stopped_by_signal() as stop:
        report = listen(listener, source, output, clock, stop, power)
    output.end(report.audio_s, asdict(report))
    if request.format != "json":
        _say(report)


def listen(  # noqa: PLR0913, PLR0917 - all that takes part
    listener: Listener, source: Source, output: Output, clock: Clock, stop: Flag, power: PowerControl | None = None
) -> LiveReport:
    """Show the output all that the listener makes of the source, to the last word. `power`: may change its model."""
    meter = Meter(clock)

    def show(events: Iterator[Event]) -> None:
        for event in events:
            if isinstance(event, FinalWords):
                meter.final(event.words)
            output.show(event)
            if isinstance(event, SegmentEnd) and power:
                _follow_power(listener, power, meter, output, event)

    for block in source.blocks(stop):
        began_s = clock.now_s()
        meter.arrived(listener.heard_s + len(block.samples) / SAMPLE_RATE, block.arrived_s)
        show(listener.hear(block.samples, is_behind=block.is_behind))
        meter.heard(clock.now_s() - began_s)
    began_s = clock.now_s()
    show(listener.finish())
    meter.heard(clock.now_s() - began_s)
    return meter.report()


def _follow_power(listener: Listener, power: PowerControl, meter: Meter, output: Output, ended: SegmentEnd) -> None:
    """At a pause, another model where that is called for."""
    switch = power.after_segment(
        at_s=ended.end_s,
        audio_s=ended.end_s - ended.start_s,
        hearing_s=meter.hearing_since_segment_s(),
        waiting_s=meter.behind_s(ended.end_s),
    )
    if switch:
        listener.transcriber = power.point.transcriber
        output.show(switch)
        if not isinstance(output, JsonOutput):
            told = f"at {switch.at_s:.1f} s from {switch.before} to {switch.after}: {switch.reason}"
            print(f"runtime: {told}", file=sys.stderr, flush=True)


@contextmanager
def _source(request: LiveRequest, clock: Clock) -> Iterator[Source]:
    path = request.audio
    if path is None:
        if request.follow:
            raise OptionError("--follow needs an audio file that grows; standard input is read as it comes anyway")
        if sys.stdin.isatty():
            raise OptionError("--live reads audio from standard input, which is a terminal: pipe it in, or name a file")
        yield PipedAudio(sys.stdin.buffer, clock, name="standard input")
    elif path.is_fifo():
        with path.open("rb", buffering=0) as pipe:
            yield PipedAudio(pipe, clock, name=f"pipe {path}")
    elif request.follow:
        yield GrowingFile(path, clock)
    else:
        sound = read_sound(path)
        for note in sound.notes:
            print(f"runtime: note: {note}", file=sys.stderr, flush=True)
        yield PacedAudio(sound.samples, clock)


@contextmanager
def _stopped_by_signal() -> Iterator[Flag]:
    """A flag that the first SIGINT sets; the second interrupts as ever."""
    stop = Flag()
    if current_thread() is not main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def stopped(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stopped)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _say(report: LiveReport) -> None:
    lag = "no words"
    if report.lag_median_s is not None and report.lag_95_s is not None:
        lag = f"{report.words} words, lag {report.lag_median_s:.2f} s (95 %: {report.lag_95_s:.2f} s)"
    print(
        f"runtime: {report.audio_s:.1f} s of audio, {lag}, real-time factor {report.real_time_factor:.3f}, "
        f"{100 * report.cpu_occupancy:.0f} % of one core, peak memory {report.peak_memory_mb:.0f} MB",
        file=sys.stderr,
        flush=True,
    )
