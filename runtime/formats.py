"""Transcripts as text, JSON and SRT."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.transcribe import Transcript


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


def srt(transcript: Transcript) -> str:
    """Subtitles, one for each segment that has text, numbered from 1."""
    spoken = [segment for segment in transcript.segments if segment.text]
    blocks = (
        f"{number}\n{_srt_time(segment.start_s)} --> {_srt_time(segment.end_s)}\n{segment.text}\n"
        for number, segment in enumerate(spoken, start=1)
    )
    return "\n".join(blocks)


def _srt_time(seconds: float) -> str:
    """HH:MM:SS,mmm."""
    whole_s, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_s, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02},{milliseconds:03}"
