"""Reads the manifests that speech corpora come with; what a line says is not judged here.

A manifest becomes a list of `Entry`, in the manifest's order, or of `BrokenLine` where a line cannot be read at all.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.errors import InputError
from common.parsing import parse_json

AUDIO_KEYS = ("audio", "audio_filepath", "file_name", "path")
TEXT_KEYS = ("text", "transcription", "sentence")
LANGUAGE_KEYS = ("language", "lang", "locale")
SPEAKER_KEYS = ("speaker", "speaker_id", "client_id")
DURATION_KEYS = ("duration_s", "duration")
NOISE_KEYS = ("snr_db", "noise", "condition")
AUDIO_ENDINGS = (".flac", ".mp3", ".ogg", ".wav")

_LIBRISPEECH = "*.trans.txt"
_METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "manifest.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of a manifest. None, or whatever JSON value stands there, where the line does not say."""

    line: int
    id: object
    audio: object
    text: object
    language: object
    speaker: object
    duration_s: object
    offset_s: object
    folder: Path
    noise: object = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenLine:
    """A line that cannot be used, by its number in the manifest (from 1), and why."""

    line: int
    reason: str


Line = Entry | BrokenLine


def read_lines(path: Path, *, is_transcribed: bool = True) -> list[Line]:
    """The lines of a manifest file or corpus folder, blank ones left out. Raises InputError when it is neither.

    Unless it `is_transcribed`, a table needs no column of texts, and any folder with audio will do.

    Known: JSON lines (whisperfit's, NeMo's and Hugging Face's keys), CSV (Hugging Face's metadata.csv), TSV (Common
    Voice), a folder with metadata.jsonl, metadata.csv or manifest.jsonl, a folder with LibriSpeech's *.trans.txt.
    """
    if path.is_dir() and not is_transcribed and not _is_corpus(path):
        return _read_recordings(path)
    if path.is_dir():
        return _read_folder(path, is_transcribed=is_transcribed)
    if not path.exists():
        raise InputError(
            f"speech set {path} does not exist: give a manifest (.jsonl, .csv, .tsv), a corpus folder, "
            "or the built-in sample, sample-search, sample-confirm"
        )
    columns = (AUDIO_KEYS, TEXT_KEYS) if is_transcribed else (AUDIO_KEYS,)
    readers: dict[str, Callable[[Path], list[Line]]] = {
        ".jsonl": _read_json_lines,
        ".json": _read_json_lines,
        ".csv": partial(_read_csv, needed=columns),
        ".tsv": partial(_read_tsv, needed=columns),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"speech set {path} has an unknown ending {path.suffix!r}. Known: {', '.join(readers)}")
    return reader(path)


def has_manifest(folder: Path) -> bool:
    """Whether a folder holds a manifest under one of the names that are looked for."""
    return any((folder / name).is_file() for name in _METADATA_NAMES)


def _is_corpus(folder: Path) -> bool:
    return has_manifest(folder) or any(folder.rglob(_LIBRISPEECH))


def _read_recordings(folder: Path) -> list[Line]:
    """A line for each audio file at any depth, in the order of their paths; its folder is the speaker."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_ENDINGS)
    if not files:
        raise InputError(f"folder {folder} has no audio ({', '.join(AUDIO_ENDINGS)}) and no manifest")
    lines: list[Line] = []
    for number, file in enumerate(files, start=1):
        name = file.relative_to(folder)
        speaker = name.parent.as_posix() if name.parent.name else folder.resolve().name
        lines.append(_entry(number, {"id": name.as_posix(), "audio": name.as_posix(), "speaker": speaker}, folder))
    return lines


def _read_folder(folder: Path, *, is_transcribed: bool) -> list[Line]:
    for name in _METADATA_NAMES:
        if (folder / name).is_file():
            return read_lines(folder / name, is_transcribed=is_transcribed)
    transcripts = sorted(folder.rglob(_LIBRISPEECH))
    if not transcripts:
        raise InputError(
            f"folder {folder} is no speech set: it has none of {', '.join(_METADATA_NAMES)} and no LibriSpeech "
            "*.trans.txt; for Common Voice give the .tsv file"
        )
    return [line for transcript in transcripts for line in _read_librispeech(transcript)]


def _read_json_lines(path: Path) -> list[Line]:
    return [_parse_json(number, text, path.parent) for number, text in _numbered_lines(path)]


def _parse_json(number: int, text: str, folder: Path) -> Line:
    try:
        fields = parse_json(text)
    except ValueError as error:
        return BrokenLine(line=number, reason=f"not JSON ({error})")
    if not isinstance(fields, dict):
        return BrokenLine(line=number, reason="not a JSON object")
    return _entry(number, fields, folder)


def _read_csv(path: Path, *, needed: Sequence[Sequence[str]]) -> list[Line]:
    return _read_table(path, csv.DictReader(io.StringIO(_text(path), newline="")), path.parent, needed)


def _read_tsv(path: Path, *, needed: Sequence[Sequence[str]]) -> list[Line]:
    """Common Voice: audio in `clips` beside the TSV, no quoting."""
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    clips = path.parent / "clips"
    return _read_table(path, rows, clips if clips.is_dir() else path.parent, needed)


def _read_table(path: Path, rows: "csv.DictReader[str]", folder: Path, needed: Sequence[Sequence[str]]) -> list[Line]:
    """`needed`: the names of columns, one of each of these kinds must be there."""
    try:
        columns = rows.fieldnames or ()
        entries: list[Line] = [_entry(rows.line_num, row, folder) for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: {error}") from error
    for keys in needed:
        if not set(keys) & set(columns):
            found = ", ".join(columns) or "nothing"
            raise InputError(f"{path} needs a column named {' or '.join(keys)}; its first line has: {found}")
    return entries


def _read_librispeech(transcript: Path) -> Iterable[Line]:
    """`ID TEXT` per line, audio beside the transcript, in SPEAKER/CHAPTER. The corpus is English."""
    for number, text in _numbered_lines(transcript):
        name, _, words = text.partition(" ")
        yield Entry(
            line=number,
            id=name,
            audio=f"{name}.flac",
            text=words,
            language="en",
            speaker=transcript.parent.parent.name,
            duration_s=None,
            offset_s=None,
            folder=transcript.parent,
        )


def _entry(number: int, fields: Mapping[str, object], folder: Path) -> Entry:
    return Entry(
        line=number,
        id=fields.get("id"),
        audio=_first(fields, AUDIO_KEYS),
        text=_first(fields, TEXT_KEYS),
        language=_first(fields, LANGUAGE_KEYS),
        speaker=_first(fields, SPEAKER_KEYS),
        duration_s=_first(fields, DURATION_KEYS),
        offset_s=fields.get("offset"),
        folder=folder,
        noise=_first(fields, NOISE_KEYS),
    )


def _first(fields: Mapping[str, object], keys: Sequence[str]) -> object:
    """The value of the first key that the line has; an empty cell of a table counts as nothing said."""
    return next((fields[key] for key in keys if fields.get(key) not in (None, "")), None)


def _numbered_lines(path: Path) -> Iterable[tuple[int, str]]:
    """The lines that are not blank, numbered from 1."""
    for number, text in enumerate(_text(path).split("\n"), start=1):
        if text.strip():
            yield number, text.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the manifest as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
