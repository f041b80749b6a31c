"""The command: transcribe some files and print them. Shared by `python -m runtime` and `whisperfit transcribe`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.audio import SAMPLE_RATE, read_audio
from runtime.errors import AudioError, OptionError
from runtime.formats import Recording, json_values, srt
from runtime.transcribe import Transcriber

FORMATS = ("text", "json", "srt")
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


def _print(text: str) -> None:
    print(text, end="", flush=True)


def run(request: Request) -> None:
    """Transcribe the files in order and write them: a line of text each as they come, one JSON object, or one SRT.

    Raises TranscribeError, before anything is transcribed where it can.
    """
    _check(request)
    transcriber = Transcriber.open(request.artifact, threads=request.threads)
    recordings = _recordings(transcriber, request)
    if request.format == "json":
        artifact = transcriber.artifact
        values = {
            "model": artifact.model,
            "recipe_id": artifact.recipe_id,
            "files": [json_values(recording) for recording in recordings],
        }
        _print(json.dumps(values, ensure_ascii=False) + "\n")
        return
    for recording in recordings:
        _print(srt(recording.transcript) if request.format == "srt" else recording.transcript.text + "\n")


def _check(request: Request) -> None:
    if request.format not in FORMATS:
        raise OptionError(f"unknown format {request.format!r}. Known: {', '.join(FORMATS)}")
    if request.format == "srt" and len(request.audio) > 1:
        raise OptionError("an SRT holds one recording: give one audio file at a time")
    for name, number in (("beams", request.beams), ("threads", request.threads)):
        if number is not None and not 1 <= number <= MOST:
            raise OptionError(f"--{name} must be from 1 to {MOST}, but got {number}")
    for audio in request.audio:
        if not audio.exists():
            raise AudioError(f"audio file {audio} does not exist")


def _recordings(transcriber: Transcriber, request: Request) -> Iterator[Recording]:
    for audio in request.audio:
        samples = read_audio(audio)
        transcript = transcriber.transcribe(samples, language=request.language, task=request.task, beams=request.beams)
        yield Recording(audio=audio, duration_s=len(samples) / SAMPLE_RATE, transcript=transcript)
