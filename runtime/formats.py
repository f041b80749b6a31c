"""Transcripts as text, JSON, SRT and VTT."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.captions import VTT_HEAD, captions, srt_entry, vtt_entry
from runtime.transcribe import Transcript

FORMATS = ("text", "json", "srt", "vtt")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A transcribed file."""

    audio: Path
    duration_s: float
    transcript: Transcript


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A file that could not be read, and why."""

    audio: Path
    error: str


def json_values(file: Recording | Failed) -> dict[str, Any]:
    """The file for JSON; times in seconds."""
    if isinstance(file, Failed):
        return {"audio": str(file.audio), "error": file.error}
    return {"audio": str(file.audio), "duration_s": file.duration_s, **asdict(file.transcript)}


def subtitles(transcript: Transcript, kind: str) -> str:
    """An SRT or VTT of a transcript with words: see `runtime.captions`."""
    found = captions(word for segment in transcript.segments for word in segment.words or ())
    if kind == "vtt":
        return VTT_HEAD + "".join(map(vtt_entry, found))
    return "".join(srt_entry(number, caption) for number, caption in enumerate(found, start=1))
