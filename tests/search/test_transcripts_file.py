"""What `baseline --transcripts` writes, from a made-up evaluation."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import InputError
from evaluators.accuracy.word_errors import count_errors
from search.commands.transcripts import COLUMNS, check_transcripts_file, write_transcripts

SPOKEN = {"u1": ("en", "I don\u2019t know", "I do not\tknow it."), "u2": ("es", 'qué "hora" es', "que hora")}


def made_up() -> tuple[Any, Any]:
    speech = SimpleNamespace(
        utterances=[SimpleNamespace(id=name, language=lang, text=text) for name, (lang, text, _) in SPOKEN.items()]
    )
    scored = [
        SimpleNamespace(
            counts=count_errors(utterance_id=name, speaker="s", reference=text, hypothesis=heard, language=lang),
            hypothesis=SimpleNamespace(text=heard),
        )
        for name, (lang, text, heard) in SPOKEN.items()
    ]
    return speech, SimpleNamespace(utterances=scored)


EXPECTED = [
    ("u1", "en", "I don\u2019t know", "I do not\tknow it.", "i do not know", "i do not know it", 1, 0, 0, 4),
    ("u2", "es", 'qué "hora" es', "que hora", "qué hora es", "que hora", 0, 1, 1, 3),
]


def test_a_line_for_each_utterance(tmp_path: Path) -> None:
    speech, evaluation = made_up()
    for name in ("t.jsonl", "t.tsv"):
        (tmp_path / name).write_text("of before", encoding="utf-8")
        write_transcripts(tmp_path / name, speech, evaluation, "whisper")
    lines = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == EXPECTED
    assert all(tuple(json.loads(line)) == COLUMNS for line in lines)
    with (tmp_path / "t.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, dialect="excel-tab"))
    assert rows == [list(COLUMNS), *(list(map(str, row)) for row in EXPECTED)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.jsonl", "t.tsv"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t.txt", "give a file that ends in .jsonl or .tsv"),
        ("t", "ends in .jsonl or .tsv"),
        ("none/t.tsv", "there is no folder"),
        ("folder.tsv", "it is a folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_scored(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(InputError, match=message):
        check_transcripts_file(tmp_path / name)
    check_transcripts_file(tmp_path / "T.JSONL")
