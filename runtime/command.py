"""The command: transcribe some files and print them. Shared by `python -m runtime` and `whisperfit transcribe`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.audio import SAMPLE_RATE, read_sound
from runtime.bundle import Limits, open_within
from runtime.errors import AudioError, OptionError
from runtime.formats import FORMATS, Failed, Recording, json_values, subtitles
from runtime.live.command import LiveRequest, run_live
from runtime.transcribe import Transcriber

MOST = 256
"""Beams or threads."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for. `language` None: detected; `threads` None: one per core."""

    artifact: Path
    audio: tuple[Path, ...]
    format: str
    language: str | None
    task: str
    beams: int
    threads: int | None
    live: bool = False
    follow: bool = False
    max_lag_s: float | None = None
    word_timestamps: bool = False
    max_rtf: float | None = None
    max_occupancy: float | None = None
    prompt: str = ""
    hotwords: str = ""

    @property
    def limits(self) -> Limits:
        """Of the model that a bundle offers."""
        return Limits(real_time_factor=self.max_rtf, occupancy=self.max_occupancy)


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _say(text: str) -> None:
    print(f"runtime: {text}", file=sys.stderr, flush=True)


def run(request: Request) -> None:
    """Transcribe the files in order and write them: a line of text each as they come, one JSON object, or one SRT.

    A file that cannot be read is reported on stderr, and the others go on: its line is empty, JSON has its `error`.
    Raises TranscribeError, before anything is transcribed where it can, and AudioError at the end where files failed.
    """
    _check(request)
    if request.live:
        run_live(_live(request))
        return
    transcriber = open_within(request.artifact, request.limits, threads=request.threads)
    failed: list[Failed] = []
    heard = _heard(transcriber, request, failed)
    if request.format == "json":
        artifact = transcriber.artifact
        values = {
            "model": artifact.model,
            "recipe_id": artifact.recipe_id,
            "files": [json_values(file) for file in heard],
        }
        _print(json.dumps(values, ensure_ascii=False) + "\n")
    else:
        for file in heard:
            _print(_text(file, request))
    if failed:
        only = len(request.audio) == 1
        raise AudioError(failed[0].error if only else f"{len(failed)} of {len(request.audio)} files cannot be read")


def _text(file: Recording | Failed, request: Request) -> str:
    """For stdout; of several files each has its line."""
    if isinstance(file, Failed):
        return "\n" if len(request.audio) > 1 else ""
    return file.transcript.text + "\n" if request.format == "text" else subtitles(file.transcript, request.format)


def _live(request: Request) -> LiveRequest:
    return LiveRequest(
        artifact=request.artifact,
        audio=request.audio[0] if request.audio else None,
        follow=request.follow,
        format=request.format,
        language=request.language,
        task=request.task,
        threads=request.threads,
        max_lag_s=request.max_lag_s,
        limits=request.limits,
        hotwords=request.hotwords,
    )


def _check(request: Request) -> None:
    if request.format not in FORMATS:
        raise OptionError(f"unknown format {request.format!r}. Known: {', '.join(FORMATS)}")
    if request.format in ("srt", "vtt") and len(request.audio) > 1:
        raise OptionError(f"an {request.format.upper()} holds one recording: give one audio file at a time")
    for name, number in (("beams", request.beams), ("threads", request.threads)):
        if number is not None and not 1 <= number <= MOST:
            raise OptionError(f"--{name} must be from 1 to {MOST}, but got {number}")
    _check_live(request)


def _check_live(request: Request) -> None:
    if request.live and len(request.audio) > 1:
        raise OptionError(f"--live listens to one stream, but got {len(request.audio)} audio files")
    if request.word_timestamps and request.format == "text":
        raise OptionError("--word-timestamps has no place in text: add --format json")
    if request.live and request.prompt:
        raise OptionError("--prompt is for the beginning of files: with --live give --hotwords")
    if request.live and request.beams != 1:
        raise OptionError(f"--live decodes greedily: leave out --beams {request.beams}")
    if not request.live and not request.audio:
        raise OptionError("give audio files, or --live to listen to standard input")
    if not request.live and (request.follow or request.max_lag_s is not None):
        raise OptionError("--follow and --max-lag-s are for --live")


def _heard(transcriber: Transcriber, request: Request, failed: list[Failed]) -> Iterator[Recording | Failed]:
    """What becomes of each file; those that fail are also added to `failed`."""
    for audio in request.audio:
        try:
            sound = read_sound(audio)
        except AudioError as error:
            failed.append(Failed(audio=audio, error=str(error)))
            if len(request.audio) > 1:
                _say(str(error))
            yield failed[-1]
            continue
        for note in sound.notes:
            _say(f"note: {note}")
        transcript = transcriber.transcribe(
            sound.samples,
            language=request.language,
            task=request.task,
            beams=request.beams,
            prompt=request.prompt,
            hotwords=request.hotwords,
            word_times=request.word_timestamps or request.format in ("srt", "vtt"),
        )
        yield Recording(audio=audio, duration_s=len(sound.samples) / SAMPLE_RATE, transcript=transcript)
