"""Speech sets: the same utterances through every format, and every broken line with its number and reason."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import InputError
from evaluators.sample_speech import sample_speech
from evaluators.speech.audio import SAMPLE_RATE, read_audio
from evaluators.speech.speech_set import SpeechSet, load_speech_set

TEXTS = {"one": "The first, small step.", "two": "Zweiter Satz: schön."}
SPEAKERS = {"one": "anna", "two": "bert"}
DURATIONS_S = {"one": 0.5, "two": 1.25}


def write_clip(path: Path, seconds: float = 0.5, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(2).standard_normal(round(seconds * rate)), rate)
    return path


def write_clips(folder: Path, ending: str) -> None:
    for name, seconds in DURATIONS_S.items():
        write_clip(folder / f"{name}.{ending}", seconds)


def write_json_lines(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def own_manifest(folder: Path) -> Path:
    write_clips(folder / "audio", "flac")
    rows: list[object] = [
        {"id": name, "audio": f"audio/{name}.flac", "text": text, "language": "de", "speaker": SPEAKERS[name]}
        for name, text in TEXTS.items()
    ]
    return write_json_lines(folder / "set.jsonl", rows)


def nemo_manifest(folder: Path) -> Path:
    write_clips(folder, "wav")
    rows: list[object] = [
        {
            "audio_filepath": f"{name}.wav",
            "text": text,
            "duration": DURATIONS_S[name],
            "speaker": SPEAKERS[name],
            "lang": "de",
        }
        for name, text in TEXTS.items()
    ]
    return write_json_lines(folder / "nemo.json", rows)


def common_voice(folder: Path) -> Path:
    write_clips(folder / "clips", "mp3")
    rows = [
        {"client_id": SPEAKERS[name], "path": f"{name}.mp3", "sentence": text, "up_votes": "2", "locale": "de"}
        for name, text in TEXTS.items()
    ]
    return write_table(folder / "test.tsv", rows, "\t")


def audio_folder_csv(folder: Path) -> Path:
    write_clips(folder, "ogg")
    rows = [
        {"file_name": f"{name}.ogg", "transcription": text, "speaker_id": SPEAKERS[name], "language": "de-DE"}
        for name, text in TEXTS.items()
    ]
    write_table(folder / "metadata.csv", rows, ",")
    return folder


def audio_folder_json(folder: Path) -> Path:
    write_clips(folder, "wav")
    rows: list[object] = [
        {"file_name": f"{name}.wav", "sentence": text, "speaker_id": SPEAKERS[name], "language": "DE"}
        for name, text in TEXTS.items()
    ]
    write_json_lines(folder / "metadata.jsonl", rows)
    return folder


@pytest.mark.parametrize("write", [own_manifest, nemo_manifest, common_voice, audio_folder_csv, audio_folder_json])
def test_every_format_gives_the_same_utterances(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    speech = load_speech_set(write(tmp_path))

    assert {utterance.id: utterance.text for utterance in speech.utterances} == TEXTS
    assert {utterance.id: utterance.speaker for utterance in speech.utterances} == SPEAKERS
    assert {utterance.language for utterance in speech.utterances} == {"de"}
    for utterance in speech.utterances:
        assert utterance.duration_s == pytest.approx(DURATIONS_S[utterance.id], abs=1e-3)
        assert utterance.duration_s == len(read_audio(utterance.audio)) / SAMPLE_RATE
    assert speech.broken == ()


def test_librispeech_tree(tmp_path: Path) -> None:
    for speaker, chapter in (("84", "121123"), ("174", "50561")):
        folder = tmp_path / "LibriSpeech" / "dev-clean" / speaker / chapter
        for number in range(2):
            write_clip(folder / f"{speaker}-{chapter}-{number:04d}.flac")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text(
            f"{speaker}-{chapter}-0000 GO DO YOU HEAR\n{speaker}-{chapter}-0001 BUT IN LESS THAN FIVE MINUTES\n"
        )

    speech = load_speech_set(tmp_path / "LibriSpeech")

    assert {utterance.id: (utterance.speaker, utterance.text) for utterance in speech.utterances} == {
        "84-121123-0000": ("84", "GO DO YOU HEAR"),
        "84-121123-0001": ("84", "BUT IN LESS THAN FIVE MINUTES"),
        "174-50561-0000": ("174", "GO DO YOU HEAR"),
        "174-50561-0001": ("174", "BUT IN LESS THAN FIVE MINUTES"),
    }
    assert {utterance.language for utterance in speech.utterances} == {"en"}
    assert load_speech_set(tmp_path / "LibriSpeech" / "dev-clean").digest == speech.digest


def test_what_a_line_does_not_say(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "a.wav")
    manifest = write_json_lines(tmp_path / "m.jsonl", [{"audio": "clips/a.wav", "text": "word"}])

    (unstated,) = load_speech_set(manifest).utterances
    (spanish,) = load_speech_set(manifest, language="es").utterances

    assert (unstated.id, unstated.speaker, unstated.language) == ("clips/a", "clips/a", None)
    assert spanish.language == "es"


@pytest.mark.parametrize(
    ("known", "asked", "complaint"),
    [
        ({"en"}, "pt-BR", r"^--language pt-BR: the model knows only 'en'; use a multilingual one, or leave"),
        ({"en", "de"}, "dee", "^unknown language 'dee'. Did you mean 'de'\\? Known: de, en$"),
    ],
)
def test_a_language_that_the_model_does_not_know_is_refused(
    tmp_path: Path, known: set[str], asked: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        load_speech_set(own_manifest(tmp_path), language=asked, known_languages=known)


@pytest.mark.parametrize(
    ("known", "reason"), [({"en"}, "the model knows only 'en'"), ({"en", "de"}, "the model does not know it")]
)
def test_a_line_in_a_language_that_the_model_does_not_know_is_broken(
    tmp_path: Path, known: set[str], reason: str
) -> None:
    write_clip(tmp_path / "a.wav")
    stated = [{"id": one or "none", "audio": "a.wav", "text": "word", "language": one} for one in ("en-GB", "fr", None)]
    manifest = write_json_lines(tmp_path / "m.jsonl", stated)
    speech = load_speech_set(manifest, known_languages=known, skip_broken=True)
    assert speech.languages == ["en", "en" if known == {"en"} else None]
    ((line, said),) = [(one.line, one.reason) for one in speech.broken]
    assert (line, said) == (2, f"its language is 'fr', but {reason}: use another model, or mend the line")


BROKEN = [
    ("{not json", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ({"id": "b", "text": "word"}, "states no audio file"),
    ({"id": "b", "audio": 7, "text": "word"}, "states no audio file"),
    ({"id": "b", "audio": "good.wav"}, "'b' has no text"),
    ({"id": "b", "audio": "good.wav", "text": "  "}, "'b' has no text"),
    ({"id": "b", "audio": "good.wav", "text": "...!"}, "'b' has no text"),
    ({"id": "b", "audio": "good.wav", "text": None}, "'b' has no text"),
    ({"id": ["b"], "audio": "good.wav", "text": "word"}, "its id is neither text nor a whole number"),
    ({"id": "b", "audio": "absent.wav", "text": "word"}, "absent.wav does not exist"),
    ({"id": "b", "audio": "cut.wav", "text": "word"}, "cut.wav is truncated"),
    ({"id": "b", "audio": "cut.flac", "text": "word"}, "cut.flac does not decode"),
    ({"id": "b", "audio": "nan.wav", "text": "word"}, "nan.wav has samples that are not finite"),
    ({"id": "b", "audio": "text.wav", "text": "word"}, "text.wav does not decode"),
    ({"id": "b", "audio": "short.wav", "text": "word"}, "short.wav lasts only 0.099 s, at least 0.1 s are needed"),
    ({"id": "b", "audio": "long.wav", "text": "word"}, "long.wav lasts 30.1 s, Whisper hears 30 s: split it"),
    ({"id": "good", "audio": "good.wav", "text": "word"}, "the id 'good' stands on line 1 already"),
    ({"id": "b", "audio": "good.wav", "text": "word", "duration": 7.0}, "given as 7 s, but the audio lasts 0.50 s"),
    ({"id": "b", "audio": "good.wav", "text": "word", "duration": "?"}, "its duration is not a number: '?'"),
    ({"id": "b", "audio": "good.wav", "text": "word", "offset": 1.5}, "a segment (`offset`) of a longer file"),
    ({"id": "b", "audio": "good.wav", "text": "word", "language": "fr"}, "'fr', but 'en' was asked for"),
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "good.wav")
    write_clip(folder / "short.wav", 0.099)
    write_clip(folder / "long.wav", 30.1, rate=8000)
    write_clip(folder / "limit.wav", 30.0, rate=8000)
    soundfile.write(folder / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    (folder / "text.wav").write_text("no audio here " * 20)
    for name in ("cut.wav", "cut.flac"):
        content = write_clip(folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    return folder


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_a_broken_line_is_named_by_number_and_reason(clips: Path, row: object, reason: str) -> None:
    good = {"id": "good", "audio": "good.wav", "text": "word"}
    manifest = write_json_lines(clips / "m.jsonl", [good, "", row])

    with pytest.raises(InputError, match=re.escape(reason)) as raised:
        load_speech_set(manifest, language="en")
    message = str(raised.value)
    assert "has 1 broken among 2 lines" in message
    assert "line 3: " in message
    assert "\n" not in message

    speech = load_speech_set(manifest, language="en", skip_broken=True)
    assert [utterance.id for utterance in speech.utterances] == ["good"]
    assert [line.line for line in speech.broken] == [3]
    assert reason in speech.broken[0].reason


UNREADABLE = {
    "a.raw": lambda good: bytes(4000),
    "empty.wav": lambda good: b"",
    "cut.mp3": lambda good: good("MP3", "MPEG_LAYER_III")[:1500],
    "cut gsm.wav": lambda good: good("WAV", "GSM610")[:-500],
    "cut, of unknown length.flac": lambda good: (
        good("FLAC", "PCM_16")[:18] + bytes(8) + good("FLAC", "PCM_16")[26:-500]
    ),
    "absurd.flac": lambda good: good("FLAC", "PCM_16")[:18] + b"\xff" * 8 + good("FLAC", "PCM_16")[26:],
    "cut.aiff": lambda good: good("AIFF", "PCM_16")[:-500],
    "codec.wav": lambda good: good("WAV", "PCM_16").replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\x61\1"),
}


def clip_in(kind: str, subtype: str, seconds: float = 0.5) -> bytes:
    stream = io.BytesIO()
    noise = 0.1 * np.random.default_rng(2).standard_normal(round(seconds * 16_000))
    soundfile.write(stream, noise, 16_000, format=kind, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize("name", UNREADABLE)
def test_audio_that_cannot_be_read_is_a_broken_line(clips: Path, name: str) -> None:
    (clips / name).write_bytes(UNREADABLE[name](clip_in))
    rows: list[object] = [{"audio": audio, "text": "word"} for audio in ("good.wav", name)]

    speech = load_speech_set(write_json_lines(clips / "m.jsonl", rows), skip_broken=True)

    assert [line.line for line in speech.broken] == [2]
    assert speech.broken[0].reason.startswith(f"audio file {clips / name} ")
    assert "\n" not in speech.broken[0].reason


def test_a_length_that_is_not_stated_is_found_by_decoding(clips: Path) -> None:
    flac = clip_in("FLAC", "PCM_16", 31.0)
    (clips / "pipe.flac").write_bytes(flac[:21] + b"\xf0" + bytes(4) + flac[26:])

    with pytest.raises(InputError, match=r"pipe\.flac lasts 31\.0 s, Whisper hears 30 s: split it"):
        load_speech_set(write_json_lines(clips / "m.jsonl", [{"audio": "pipe.flac", "text": "word"}]))


def test_how_odd_files_were_read_is_noted(clips: Path) -> None:
    content = clip_in("WAV", "PCM_16")
    (clips / "interrupted 50% #1?.wav").write_bytes(content[:40] + bytes(4) + content[44:])
    names = ("good.wav", "interrupted 50% #1?.wav")

    speech = load_speech_set(write_json_lines(clips / "m.jsonl", [{"audio": name, "text": "word"} for name in names]))

    assert [utterance.duration_s for utterance in speech.utterances] == [0.5, 0.5]
    (note,) = speech.notes
    assert note.startswith(f"audio file {clips / names[1]}: its header states no length")


def test_thirty_seconds_are_not_too_long(clips: Path) -> None:
    manifest = write_json_lines(clips / "m.jsonl", [{"audio": "limit.wav", "text": "word"}])

    assert load_speech_set(manifest).utterances[0].duration_s == 30.0


def test_all_broken_lines_are_listed_up_to_twenty(clips: Path) -> None:
    rows: list[object] = [{"id": "good", "audio": "good.wav", "text": "word"}]
    rows += [{"id": str(number), "audio": "good.wav"} for number in range(25)]
    manifest = write_json_lines(clips / "m.jsonl", rows)

    with pytest.raises(InputError) as raised:
        load_speech_set(manifest)
    assert re.findall(r"line (\d+): ", str(raised.value)) == [str(number) for number in range(2, 22)]
    assert str(raised.value).endswith("; and 5 more")


def test_a_broken_row_of_a_table(clips: Path) -> None:
    table = write_table(
        clips / "metadata.csv",
        [
            {"file_name": "good.wav", "text": "a quoted, word"},
            {"file_name": "good.wav", "text": ""},
            {"file_name": "gone.wav", "text": "word"},
        ],
        ",",
    )

    speech = load_speech_set(table, skip_broken=True)

    assert speech.utterances[0].text == "a quoted, word"
    assert [line.line for line in speech.broken] == [3, 4]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.jsonl", None, "does not exist"),
        ("m.jsonl", b"", "is empty"),
        ("m.jsonl", b"\n \n", "is empty"),
        (
            "m.jsonl",
            b'{"id": 1}\n{"id": 2}\n',
            "no line of speech set .* line 1: states no audio.* line 2: states no audio",
        ),
        ("m.jsonl", b'{"id": 1}\n{"id": "\xff"}\n', "line 2: not UTF-8"),
        ("m.docx", b"word", "unknown ending '.docx'. Known: .jsonl"),
        (
            "m.csv",
            b"file_name,words\na.wav,b\n",
            "needs a column named text or transcription or sentence; .* file_name, words",
        ),
        ("m.tsv", b"", "needs a column named audio"),
    ],
)
@pytest.mark.parametrize("skip_broken", [False, True])
def test_an_unusable_set_is_refused(
    tmp_path: Path, name: str, content: bytes | None, reason: str, skip_broken: bool
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=reason):
        load_speech_set(tmp_path / name, skip_broken=skip_broken)


def test_a_folder_that_is_no_speech_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no speech set"):
        load_speech_set(tmp_path)


def test_the_digest_follows_ids_texts_and_audio_but_not_the_place(tmp_path: Path) -> None:
    digest = load_speech_set(own_manifest(tmp_path / "a")).digest
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert load_speech_set(tmp_path / "moved" / "set.jsonl").digest == digest

    manifest = tmp_path / "moved" / "set.jsonl"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("small", "smaller"), encoding="utf-8")
    retold = load_speech_set(manifest).digest
    write_clip(tmp_path / "moved" / "audio" / "one.flac", 0.51)
    assert len({digest, retold, load_speech_set(manifest).digest}) == 3


@pytest.fixture(scope="module")
def sample() -> dict[str, SpeechSet]:
    return {part: load_speech_set(Path(f"sample-{part}")) for part in ("search", "confirm")}


def test_the_sample_is_what_its_page_says(sample: dict[str, SpeechSet]) -> None:
    search, confirm = sample["search"].utterances, sample["confirm"].utterances
    assert (len(search), len(confirm)) == (32, 16)
    assert not {utterance.id for utterance in search} & {utterance.id for utterance in confirm}
    assert not {utterance.text for utterance in search} & {utterance.text for utterance in confirm}
    assert 4 * 60 < sum(utterance.duration_s for utterance in search + confirm) < 6 * 60
    assert load_speech_set(Path("sample")).utterances == search


def test_the_sample_is_small_16_khz_and_whole(sample: dict[str, SpeechSet]) -> None:
    folder = sample_speech("search").parent / "audio"
    used = {utterance.audio for speech in sample.values() for utterance in speech.utterances}
    assert used == set(folder.iterdir())
    assert sum(path.stat().st_size for path in used) < 4_000_000
    for path in used:
        information = soundfile.info(path)
        assert (information.samplerate, information.channels, information.subtype) == (16_000, 1, "PCM_16")


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"snr_db": 10}, "10 dB"),
        ({"snr_db": 7.5}, "7.5 dB"),
        ({"snr_db": "-5"}, "-5 dB"),
        ({"noise": "street"}, "street"),
        ({"condition": "clean"}, "clean"),
        ({"snr_db": 0, "noise": "street"}, "0 dB"),
        ({"noise": ""}, None),
        ({}, None),
    ],
)
def test_a_line_may_state_its_noise(tmp_path: Path, fields: dict[str, object], level: str | None) -> None:
    write_clip(tmp_path / "one.wav")
    row = {"audio": "one.wav", "text": "one", "language": "en", **fields}
    (utterance,) = load_speech_set(write_json_lines(tmp_path / "set.jsonl", [row])).utterances
    assert (utterance.noise_level, utterance.noise) == (level, None)


def test_a_noise_level_is_text_or_a_number(tmp_path: Path) -> None:
    write_clip(tmp_path / "one.wav")
    row = {"audio": "one.wav", "text": "one", "language": "en", "noise": ["street"]}
    with pytest.raises(InputError, match="line 1: its noise level is neither text nor a whole number"):
        load_speech_set(write_json_lines(tmp_path / "set.jsonl", [row]))


@pytest.mark.shared
def test_real_manifests_load(shared_speech: Path) -> None:
    speech = load_speech_set(shared_speech / "splits" / "read_confirm.jsonl")

    assert len(speech.utterances) == 51
    stated = [json.loads(line) for line in (shared_speech / "splits" / "read_confirm.jsonl").read_text().splitlines()]
    for one, row in zip(speech.utterances, stated, strict=True):
        assert (one.id, one.text, one.speaker) == (row["id"], row["text"], row["speaker"])
        assert one.duration_s == pytest.approx(row["duration_s"], abs=0.01)
