"""Recordings without transcripts: which are found, who speaks, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import InputError
from evaluators.speech.divergence_clips import CLIP_S, draw_clips
from evaluators.speech.speech_set import load_speech_set, shared_recordings

RATE = 16_000


def record(file: Path, seed: int, seconds: float = 0.5) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)), RATE)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five files of three speakers, one of them without a folder of its own."""
    for seed, name in enumerate(("loose.wav", "ann/1.wav", "ann/2.flac", "bob/1.wav", "bob/calls/1.wav")):
        record(tmp_path / "mine" / name, seed)
    (tmp_path / "mine" / "notes.txt").write_text("no audio", encoding="utf-8")
    return tmp_path / "mine"


def test_a_folder_is_all_audio_in_it_and_a_files_folder_is_its_speaker(folder: Path) -> None:
    speech = load_speech_set(folder, language="en", is_transcribed=False)
    assert {u.id: u.speaker for u in speech.utterances} == {
        "ann/1.wav": "ann",
        "ann/2.flac": "ann",
        "bob/1.wav": "bob",
        "bob/calls/1.wav": "bob/calls",
        "loose.wav": "mine",
    }
    assert {(u.text, u.language, u.duration_s) for u in speech.utterances} == {("", "en", 0.5)}
    speaker_of = {u.id: u.speaker for u in speech.utterances}
    drawn = [speaker_of[clip.name] for clip in draw_clips(speech.utterances, 4, seed=0, widen=False)]
    assert sorted(drawn) == ["ann", "bob", "bob/calls", "mine"]


@pytest.mark.parametrize("text", [{}, {"text": ""}, {"text": 7}, {"text": "?!"}, {"text": "said"}], ids=str)
def test_texts_of_a_manifest_are_ignored(text: dict[str, object], folder: Path) -> None:
    manifest = folder.parent / "set.jsonl"
    line = {"audio": "mine/ann/1.wav", "speaker": "ann"} | text
    manifest.write_text(json.dumps(line) + "\n", encoding="utf-8")
    (utterance,) = load_speech_set(manifest, is_transcribed=False).utterances
    assert (utterance.id, utterance.text, utterance.speaker) == ("mine/ann/1", "", "ann")


@pytest.mark.parametrize(("name", "separator"), [("set.csv", ","), ("set.tsv", "\t")])
def test_a_table_needs_no_column_of_texts(name: str, separator: str, folder: Path) -> None:
    table = folder / name
    table.write_text(f"path{separator}client_id\nann/1.wav{separator}x\n", encoding="utf-8")
    (utterance,) = load_speech_set(table, is_transcribed=False).utterances
    assert utterance.speaker == "x"
    with pytest.raises(InputError, match="needs a column named text"):
        load_speech_set(table)


def test_a_folder_with_a_manifest_is_what_that_lists(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name\nann/1.wav\n", encoding="utf-8")
    assert [u.id for u in load_speech_set(folder, is_transcribed=False).utterances] == ["ann/1"]


def test_recordings_may_have_any_length_and_are_heard_from_their_beginning(tmp_path: Path) -> None:
    record(tmp_path / "long.wav", 0, seconds=31)
    (utterance,) = load_speech_set(tmp_path, language="en", is_transcribed=False).utterances
    assert utterance.duration_s == 31
    (clip,) = draw_clips([utterance], 1, seed=0, widen=False)
    assert np.array_equal(clip.samples, utterance.samples()[: round(CLIP_S * RATE)])


def test_broken_audio_is_one_line_or_left_out(folder: Path) -> None:
    (folder / "ann" / "3.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="1 broken among 6 lines .*--skip-broken.*3.wav") as refused:
        load_speech_set(folder, is_transcribed=False)
    assert "\n" not in str(refused.value)
    left = load_speech_set(folder, is_transcribed=False, skip_broken=True)
    assert (len(left.utterances), len(left.broken)) == (5, 1)


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no audio"):
        load_speech_set(tmp_path, is_transcribed=False)


def test_the_same_recording_is_found_in_another_set(folder: Path) -> None:
    speech = load_speech_set(folder, is_transcribed=False)
    samples, _ = soundfile.read(folder / "bob" / "1.wav", dtype="int16")
    soundfile.write(folder.parent / "copy.flac", samples, RATE)
    (folder.parent / "confirm.jsonl").write_text('{"audio": "copy.flac", "text": "word"}\n', encoding="utf-8")
    confirm = load_speech_set(folder.parent / "confirm.jsonl")
    assert shared_recordings(speech.utterances, confirm.utterances) == ["bob/1.wav"]
